//! Handle resolution (RFC 5352 section 3.3).

use std::time::Instant;

use super::Registrar;
use super::scope::Scope;
use super::shares::Limit;
use crate::ConnectionId;
use crate::access::AccessRole;
use crate::handlespace::{Element, ElementKey};
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

    /// Encodes the answer with selected elements whose addresses `asker` may be told; those that may
    /// be unreachable come last. Returns `None` if there are none. `asked` is the number of elements
    /// that the asker wants, or 0 for the default.
    fn resolve(&mut self, asker: ConnectionId, handle: &PoolHandle, asked: u32) -> Option<Bytes> {
        let count = if asked > 0 { asked } else { self.config.default_items };
        let items = usize::try_from(count.min(self.config.max_items)).unwrap_or(usize::MAX);
        let client = self.connections.get(&asker)?;
        let policy = self.handlespace.policy_type(handle)?;
        let scope = Scope::of(client.host);
        let hidden = self.near.hidden(handle, scope);
        let due = if self.config.compatibility.marks_partial_answers() {
            let offered = self.handlespace.pool_size(handle).saturating_sub(hidden);
            offered.min(usize::try_from(asked).unwrap_or(usize::MAX))
        } else {
            0
        };
        let by_letter = || self.config.compatibility.max_increment(policy);
        let wanted = Wanted::items(items.saturating_add(hidden.min(MAX_HIDDEN)))
            .max_increment(self.config.max_increment.or_else(by_letter))
            .for_asker(client.host, client.identity.as_ref());
        let near = &self.near;
        let leads_there = |key: ElementKey| near.leads_there(key, scope);
        // To count a hidden element of another policy as selected would change its load.
        let takes_turns = [PolicyType::ROUND_ROBIN, PolicyType::RANDOM].contains(&policy);
        let mut retries = if takes_turns && hidden <= MAX_RETRIES { hidden } else { 0 };
        let selection = loop {
            let selection = self.handlespace.select(handle, wanted, &mut self.rng)?;
            let first = selection.elements().next();
            if retries == 0 || first.is_none_or(|(key, _)| leads_there(key)) {
                break selection;
            }
            retries -= 1;
        };
        let mut told: Vec<_> = selection.elements().collect();
        let offers_some = !told.is_empty();
        told.retain(|(key, _)| leads_there(*key));
        told.truncate(items);
        let policy_type = selection.policy_type();
        let mut keys: Vec<_> = told.into_iter().map(|(key, _)| key).collect();
        if keys.is_empty() && offers_some {
            // All that were selected are hidden: others will do, as far as they are found soon.
            let members = self.handlespace.members(handle).take(MAX_SEARCH);
            keys.extend(members.filter(|key| leads_there(*key)).take(items));
            if keys.is_empty() {
                return None;
            }
        }
        let told = || keys.iter().filter_map(|key| self.handlespace.get(*key));
        let sound = told().filter(|element| !element.state.is_doubted());
        let doubted = told().filter(|element| element.state.is_doubted());
        let elements = sound.chain(doubted).map(Element::encoded);
        Some(HandleResolutionResponse::encode_pool(false, handle, policy_type, elements, due))
    }
}

/// The number of hidden elements up to which a selection is repeated if its first element, which the
/// policy counts as selected, may not be told to the user. So policies of turns hold among the elements
/// that the user is told.
const MAX_RETRIES: usize = 16;

/// The maximum number of elements that are selected besides those that the user wants, since some may
/// not be told to the user.
const MAX_HIDDEN: usize = 128;

/// The maximum number of elements that are looked at if all that the policy selected are hidden.
const MAX_SEARCH: usize = 4096;
