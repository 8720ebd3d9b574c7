//! Handle resolution (RFC 5352 section 3.3).

use std::time::Instant;

use super::limits::Limited;
use super::{MAX_ELEMENT_SIZE, Registrar};
use crate::handlespace::Element;
use crate::policy::Wanted;
use crate::protocol::ConnectionId;
use crate::wire::asap::{HandleResolution, HandleResolutionResponse, Resolved};
use crate::wire::{Bytes, EncodedElement, ErrorCause, PoolHandle, Ppid, UserMessage};

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
        self.handle_allowed_resolution(now, from, request);
    }

    /// Answers a resolution that counts, or did when it was put off.
    pub(super) fn handle_allowed_resolution(
        &mut self,
        now: Instant,
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
        if request.subscribe && self.subscribe(now, from, &request) {
            return;
        }
        let pool_handle = request.pool_handle;
        match self.resolve(&pool_handle, wanted.min(self.config.max_items)) {
            Some(answer) => self.out.send_encoded(from, UserMessage::new(Ppid::ASAP, answer)),
            None => {
                let result = Resolved::Error(ErrorCause::UnknownPoolHandle.into());
                self.answer(from, pool_handle, result);
            }
        }
    }

    fn answer(&mut self, to: ConnectionId, pool_handle: PoolHandle, result: Resolved) {
        let response = HandleResolutionResponse { subscribed: false, pool_handle, result };
        self.out.send(to, response).expect("an error is short");
    }

    /// The answer with so many elements. None where there is no such pool.
    fn resolve(&mut self, handle: &PoolHandle, count: u32) -> Option<Bytes> {
        let items = usize::try_from(count).unwrap_or(usize::MAX);
        let wanted = Wanted { items, max_increment: self.config.max_increment };
        let selection = self.handlespace.select(handle, wanted, &mut self.rng)?;
        let elements = that_fit(selection.elements().map(Element::encoded));
        let policy = selection.policy_type();
        let answer = HandleResolutionResponse::encode_pool(false, handle, policy, elements);
        Some(answer.expect("elements are chosen to fit"))
    }
}

/// The first of them, as many as fit an answer.
pub(super) fn that_fit<'e>(
    elements: impl Iterator<Item = &'e EncodedElement>,
) -> impl Iterator<Item = &'e EncodedElement> {
    let mut room = MAX_ELEMENTS_SIZE;
    elements.take_while(move |element| {
        let fits = room.checked_sub(element.user_size());
        room = fits.unwrap_or(0);
        fits.is_some()
    })
}
