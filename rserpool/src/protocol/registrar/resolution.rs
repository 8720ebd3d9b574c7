//! Handle resolution (RFC 5352 section 3.3).

use super::Registrar;
use crate::protocol::ConnectionId;
use crate::wire::asap::{HandleResolution, HandleResolutionResponse, Resolved};
use crate::wire::{ErrorCause, PolicyParameters, PoolElement, PoolHandle};

impl Registrar {
    pub(super) fn handle_resolution(&mut self, from: ConnectionId, request: HandleResolution) {
        let wanted = match request.items {
            None => self.config.default_items,
            Some(items) if items.0 == 0 => self.config.default_items,
            Some(items) => items.0,
        };
        let pool_handle = request.pool_handle;
        let mut result = self.resolve(&pool_handle, wanted.min(self.config.max_items));
        loop {
            let response = HandleResolutionResponse {
                // Subscriptions are not offered, which the RFC allows.
                subscribed: false,
                pool_handle: pool_handle.clone(),
                result: result.clone(),
            };
            match (self.out.send(from, response), &mut result) {
                (Err(_), Resolved::Pool { elements, .. }) if !elements.is_empty() => {
                    // More than fit a message: those which are to be tried first.
                    elements.truncate(elements.len() / 2);
                }
                _ => break,
            }
        }
    }

    fn resolve(&mut self, handle: &PoolHandle, count: u32) -> Resolved {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let Some(selection) = self.handlespace.select(handle, count, &mut self.rng) else {
            return Resolved::Error(ErrorCause::UnknownPoolHandle.into());
        };
        // Pool users have no business with an element's ASAP endpoint.
        let elements: Vec<_> = selection
            .elements()
            .map(|element| PoolElement { asap_transport: None, ..element.value.clone() })
            .collect();
        let policy = match elements.first() {
            Some(first) => first.policy.clone(),
            None => PolicyParameters::new(selection.policy_type(), &[]),
        };
        Resolved::Pool { policy: Some(policy), elements }
    }
}
