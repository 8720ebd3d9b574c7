//! The elements that a session may connect to, and their order.

use std::collections::VecDeque;

use super::{Session, SessionError};
use crate::wire::PoolElement;

impl Session {
    /// Returns those of the elements that the session can use, in the order in which to try them: by
    /// transport, then in the order of a business card, then in that of the registrar. Elements that
    /// failed or refused the session come last.
    ///
    /// # Errors
    ///
    /// Returns an error if no element has a transport of the session, or if the element that the
    /// configuration names is not among them.
    pub(super) fn candidates(
        &mut self,
        elements: Vec<PoolElement>,
    ) -> Result<VecDeque<PoolElement>, SessionError> {
        let protocols = &self.protocols;
        let rank = |element: &PoolElement| {
            let address = element.user_transport.address()?;
            protocols.iter().position(|protocol| *protocol == address.protocol)
        };
        let (mut usable, other): (Vec<_>, Vec<_>) =
            elements.into_iter().partition(|element| rank(element).is_some());
        if let (true, Some(other)) = (usable.is_empty(), other.first()) {
            let (offered, ours) = (other.user_transport.clone(), protocols.clone());
            return Err(SessionError::OtherTransport { offered, ours });
        }
        usable.sort_by_key(rank);
        self.known.clone_from(&usable);
        if let (Some(chosen), None) = (self.config.element, self.last) {
            usable.retain(|element| element.identifier == chosen);
            if usable.is_empty() {
                return Err(SessionError::NotReached(chosen));
            }
        }
        // Elements that failed recently come last: they may be alive after all.
        let last_resort = |element: &PoolElement| {
            self.failed.contains(&element.identifier) || self.refused.contains(&element.identifier)
        };
        let (mut failed, mut candidates): (VecDeque<_>, VecDeque<_>) =
            usable.into_iter().partition(last_resort);
        failed.make_contiguous().sort_by_key(|element| self.refused.contains(&element.identifier));
        let place = |element: &PoolElement| {
            let preferred = self.preferred.iter();
            preferred.enumerate().find(|(_, id)| **id == element.identifier).map(|(at, _)| at)
        };
        candidates.make_contiguous().sort_by_key(|element| place(element).unwrap_or(usize::MAX));
        candidates.extend(failed);
        Ok(candidates)
    }
}
