//! Handle resolution (RFC 5352 section 3.3).

use std::net::IpAddr;
use std::time::Instant;

use super::Registrar;
use super::scope::Scope;
use super::shares::Limit;
use crate::ConnectionId;
use crate::access::AccessRole;
use crate::handlespace::{Element, ElementKey};
use crate::policy::Wanted;
use crate::wire::asap::{HandleResolution, HandleResolutionResponse, Resolved};
use crate::wire::{Bytes, ErrorCause, PoolHandle, Ppid};

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
        let wanted = match request.items {
            Some(items) if items.0 > 0 => items.0,
            _ => self.config.default_items,
        };
        let pool_handle = request.pool_handle;
        let Some(host) = self.connections.get(&from).map(|client| client.host) else { return };
        match self.resolve(&pool_handle, wanted.min(self.config.max_items), host) {
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
        self.out.send(to, HandleResolutionResponse { subscribed: false, pool_handle, result });
    }

    /// Encodes the answer with up to `count` selected elements; those that may be unreachable come
    /// last. Returns `None` if the pool is unknown.
    fn resolve(&mut self, handle: &PoolHandle, count: u32, asker: IpAddr) -> Option<Bytes> {
        let items = usize::try_from(count).unwrap_or(usize::MAX);
        let policy = self.handlespace.policy_type(handle)?;
        let by_letter = || self.config.compatibility.max_increment(policy);
        let wanted = Wanted::items(items)
            .max_increment(self.config.max_increment.or_else(by_letter))
            .for_asker(asker);
        let selection = self.handlespace.select(handle, wanted, &mut self.rng)?;
        let near = &self.near;
        let asker = Scope::of(asker);
        let leads_there = |(key, _): &(ElementKey, _)| {
            near.is_empty() || near.get(key).is_none_or(|scope| *scope >= asker)
        };
        let all = || selection.elements().filter(leads_there).map(|(_, element)| element);
        let sound = all().filter(|element| !element.state.is_doubted());
        let doubted = all().filter(|element| element.state.is_doubted());
        let elements = sound.chain(doubted).map(Element::encoded);
        Some(HandleResolutionResponse::encode_pool(
            false,
            handle,
            selection.policy_type(),
            elements,
        ))
    }
}
