//! Handle resolution (RFC 5352 section 3.3).

use std::time::Instant;

use super::limits::Limited;
use super::{MAX_ELEMENT_SIZE, Registrar};
use crate::protocol::ConnectionId;
use crate::wire::asap::{HandleResolution, HandleResolutionResponse, Resolved};
use crate::wire::{ErrorCause, PolicyParameters, PoolElement, PoolHandle};

/// What the elements of an answer may take of its 65,535 bytes; the pool handle and the policy
/// take the rest.
const MAX_ELEMENTS_SIZE: usize = 65_535 - PoolHandle::MAX_LENGTH - MAX_ELEMENT_SIZE - 64;

impl Registrar {
    pub(super) fn handle_resolution(
        &mut self,
        now: Instant,
        from: ConnectionId,
        request: HandleResolution,
    ) {
        if !self.allows(now, from, Limited::Resolution) {
            let result = Resolved::Error(ErrorCause::LackOfResources.into());
            return self.answer(from, request.pool_handle, result);
        }
        self.handle_allowed_resolution(from, request);
    }

    /// Answers a resolution that counts, or did when it was put off.
    pub(super) fn handle_allowed_resolution(
        &mut self,
        from: ConnectionId,
        request: HandleResolution,
    ) {
        let wanted = match request.items {
            None => self.config.default_items,
            Some(items) if items.0 == 0 => self.config.default_items,
            Some(items) => items.0,
        };
        let unknown = self.handlespace.is_unknown(&request.pool_handle);
        if unknown && self.defer(from, &request) {
            return;
        }
        let pool_handle = request.pool_handle;
        let result = self.resolve(&pool_handle, wanted.min(self.config.max_items));
        self.answer(from, pool_handle, result);
    }

    fn answer(&mut self, to: ConnectionId, pool_handle: PoolHandle, result: Resolved) {
        // Subscriptions are not offered, which the RFC allows.
        let response = HandleResolutionResponse { subscribed: false, pool_handle, result };
        self.out.send(to, response).expect("elements are chosen to fit");
    }

    fn resolve(&mut self, handle: &PoolHandle, count: u32) -> Resolved {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let Some(selection) = self.handlespace.select(handle, count, &mut self.rng) else {
            return Resolved::Error(ErrorCause::UnknownPoolHandle.into());
        };
        // Pool users have no business with an element's ASAP endpoint.
        let mut room = MAX_ELEMENTS_SIZE;
        let elements: Vec<_> = selection
            .elements()
            .take_while(|element| {
                // Those which are to be tried first, as many as fit a message.
                let fits = room.checked_sub(element.state.size);
                room = fits.unwrap_or(0);
                fits.is_some()
            })
            .map(|element| PoolElement { asap_transport: None, ..element.value.clone() })
            .collect();
        let policy = match elements.first() {
            Some(first) => first.policy.clone(),
            None => PolicyParameters::new(selection.policy_type(), &[]),
        };
        Resolved::Pool { policy: Some(policy), elements }
    }
}
