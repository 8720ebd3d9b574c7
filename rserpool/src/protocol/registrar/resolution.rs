//! Handle resolution (RFC 5352 section 3.3).

use std::time::Instant;

use super::Registrar;
use super::membership::Client;
use super::shares::Limit;
use crate::policy::Wanted;
use crate::protocol::ConnectionId;
use crate::wire::asap::{HandleResolution, HandleResolutionResponse, Resolved};
use crate::wire::{Bytes, ErrorCause, PoolHandle, Ppid};

impl Registrar {
    pub(super) fn handle_resolution(
        &mut self,
        now: Instant,
        from: ConnectionId,
        request: HandleResolution,
    ) {
        let Some(host) = self.connections.get(&from).map(Client::host) else { return };
        if !self.allows(now, host, Limit::Resolutions) {
            let result = Resolved::Error(ErrorCause::LackOfResources.into());
            return self.answer(from, request.pool_handle, result);
        }
        let unknown = self.handlespace.is_unknown(&request.pool_handle);
        if unknown && self.defer(from, &request) {
            return;
        }
        self.answer_resolution(now, from, request);
    }

    /// Answers a resolution, whatever there is to answer.
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
        match self.resolve(&pool_handle, wanted.min(self.config.max_items)) {
            Some(answer) => self.out.send_encoded(from, Ppid::ASAP, answer),
            None => {
                let result = Resolved::Error(ErrorCause::UnknownPoolHandle.into());
                self.answer(from, pool_handle, result);
            }
        }
    }

    fn answer(&mut self, to: ConnectionId, pool_handle: PoolHandle, result: Resolved) {
        self.out.send(to, HandleResolutionResponse { subscribed: false, pool_handle, result });
    }

    /// The answer with so many elements, those last which may be unreachable. None where there is
    /// no such pool.
    fn resolve(&mut self, handle: &PoolHandle, count: u32) -> Option<Bytes> {
        let items = usize::try_from(count).unwrap_or(usize::MAX);
        let wanted = Wanted { items, max_increment: self.config.max_increment };
        let selection = self.handlespace.select(handle, wanted, &mut self.rng)?;
        let sound = selection.elements().filter(|element| !element.state.is_doubted());
        let doubted = selection.elements().filter(|element| element.state.is_doubted());
        let elements = sound.chain(doubted).map(|element| element.encoded());
        Some(HandleResolutionResponse::encode_pool(
            false,
            handle,
            selection.policy_type(),
            elements,
        ))
    }
}
