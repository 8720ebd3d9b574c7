//! Handle resolution (RFC 5352 section 3.3).

use std::time::Instant;

use super::Registrar;
use super::shares::Limit;
use crate::ConnectionId;
use crate::access::AccessRole;
use crate::handlespace::{Element, Scope};
use crate::policy::Wanted;
use crate::wire::asap::{HandleResolution, HandleResolutionResponse, Resolved};
use crate::wire::parameter::ItemCount;
use crate::wire::{Bytes, ErrorCause, PolicyType, PoolHandle, Ppid};

impl Registrar {
    pub(super) fn handle_resolution(
        &mut self,
        now: Instant,
        from: ConnectionId,
        request: HandleResolution,
    ) {
        let Some(host) = self.connections.get(&from).map(|client| client.host) else { return };
        self.counters.resolutions += 1;
        if !self.allows(now, host, Limit::Resolutions) {
            let cause = ErrorCause::LackOfResources;
            return self.refuse_resolution(from, request.pool_handle, cause);
        }
        if !self.permits(from, AccessRole::User, &request.pool_handle) {
            return self.refuse_resolution(from, request.pool_handle, ErrorCause::Security);
        }
        let unknown = self.handlespace.is_unknown(&request.pool_handle);
        if unknown && self.defer(from, &request) {
            return;
        }
        self.answer_resolution(now, from, request);
    }

    /// Answers a resolution at once, also if its pool is unknown.
    pub(super) fn answer_resolution(
        &mut self,
        now: Instant,
        from: ConnectionId,
        request: HandleResolution,
    ) {
        if request.subscribe && self.subscribe(now, from, &request) {
            return;
        }
        let asked = request.items.map_or(0, |ItemCount(items)| items);
        let pool_handle = request.pool_handle;
        match self.resolve(from, &pool_handle, asked) {
            Some(answer) => self.out.send_encoded(from, Ppid::ASAP, answer),
            None => self.refuse_resolution(from, pool_handle, ErrorCause::UnknownPoolHandle),
        }
    }

    pub(super) fn refuse_resolution(
        &mut self,
        to: ConnectionId,
        pool_handle: PoolHandle,
        cause: ErrorCause,
    ) {
        self.counters.failed_resolutions += 1;
        let result = Resolved::Error(cause.into());
        self.out.send(
            to,
            HandleResolutionResponse { subscribed: false, partial: false, pool_handle, result },
        );
    }

    /// Returns the number of elements of an answer that count as selected; `None` leaves it to the
    /// policy.
    pub(super) fn max_increment(&self, policy: PolicyType) -> Option<usize> {
        let by_letter = || self.config.compatibility.max_increment(policy);
        self.config.max_increment.or_else(by_letter)
    }

    /// Encodes the answer with selected elements whose addresses `asker` may be told; those that may
    /// be unreachable come last. Returns `None` if there are none. `asked` is the number of elements
    /// that the asker wants, or 0 for the default.
    fn resolve(&mut self, asker: ConnectionId, handle: &PoolHandle, asked: u32) -> Option<Bytes> {
        let count = if asked > 0 { asked } else { self.config.default_items };
        let items = usize::try_from(count.min(self.config.max_items)).unwrap_or(usize::MAX);
        let client = self.connections.get(&asker)?;
        let policy = self.handlespace.policy_type(handle)?;
        let from = Scope::of(client.host);
        let wanted = Wanted::items(items)
            .max_increment(self.max_increment(policy))
            .for_asker(client.host, client.identity.as_ref());
        let selection = self.handlespace.select_for(handle, from, wanted, &mut self.rng)?;
        let offered = selection.offered();
        if offered == 0 {
            return None;
        }
        let marks = self.config.compatibility.marks_partial_answers();
        let due = if marks { offered.min(usize::try_from(asked).unwrap_or(usize::MAX)) } else { 0 };
        let all = || selection.elements().map(|(_, element)| element);
        let sound = all().filter(|element| !element.state.is_doubted());
        let doubted = all().filter(|element| element.state.is_doubted());
        Some(HandleResolutionResponse::encode_pool(
            false,
            handle,
            policy,
            sound.chain(doubted).map(Element::encoded),
            due,
        ))
    }
}
