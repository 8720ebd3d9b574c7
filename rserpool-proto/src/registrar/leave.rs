//! Leaving in good order: before a registrar terminates, it hands its elements over to other
//! registrars.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::dials::Dials;
use super::{Event, Registrar, Timer};
use crate::handlespace::ElementKey;
use crate::wire::enrp::UpdateAction;
use crate::wire::{Ppid, RegistrarId};

/// The time that the other registrars may take to take over the elements. Not from the RFCs.
const PATIENCE: Duration = Duration::from_secs(1);

/// The maximum number of elements that are being handed over at a time. Not from the RFCs.
const MAX_SUGGESTED: usize = 256;

/// State of an orderly departure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// Other registrars are being asked to take over the elements, in the order of their keys.
    /// Contains the key of the last element for which one was asked.
    HandingOver(Option<ElementKey>),
    Done,
}

impl Registrar {
    /// Leaves the operational scope: suggests to the other registrars that they take over the
    /// elements, each element to one registrar (draft-dreibholz-rserpool-enrp-takeover). Closes all
    /// connections when the elements are taken over, or after a second. [`Event::Left`] is the last
    /// event.
    ///
    /// Elements and users that are still connected then look for another registrar at once.
    pub fn leave(&mut self, now: Instant) {
        self.out.begin();
        if self.leaving != Leaving::No {
            return;
        }
        self.leaving = Leaving::HandingOver(None);
        self.timers.cancel(Timer::Announce);
        let peers: Vec<_> = self.peers.active().collect();
        if peers.is_empty() || !self.config.compatibility.suggests_takeover() {
            return self.finish_leaving();
        }
        self.timers.set(Timer::Leave, now + PATIENCE);
        self.suggest_takeovers(MAX_SUGGESTED);
        self.leave_if_alone();
    }

    /// Suggests to other registrars to take over the next `count` elements.
    fn suggest_takeovers(&mut self, count: usize) {
        let peers: Vec<_> = self.peers.active().collect();
        let Leaving::HandingOver(last) = self.leaving else { return };
        if peers.is_empty() {
            return;
        }
        let ours = self.config.identifier;
        let next: Vec<_> = self.handlespace.owned_by(ours, last).take(count).collect();
        for key in next {
            self.leaving = Leaving::HandingOver(Some(key));
            let (_, connection) = peers[self.rng.rng().random_range(0..peers.len())];
            if let Some(update) = self.encode_update(UpdateAction::Add, true, key) {
                self.out.send_encoded(connection, Ppid::ENRP, update);
            }
        }
    }

    /// Suggests the next takeover, after another registrar became the home of an element.
    pub(super) fn handle_handed_over(&mut self) {
        self.suggest_takeovers(1);
        self.leave_if_alone();
    }

    /// Handles the suggestion of a leaving peer to take over one of its elements.
    pub(super) fn handle_suggestion(&mut self, now: Instant, key: ElementKey, from: RegistrarId) {
        let heeded = self.config.compatibility.suggests_takeover() && self.leaving == Leaving::No;
        if heeded && self.home_of(key) == Some(from) {
            self.handlespace.set_home(key, self.config.identifier);
            self.announce_element(key);
            self.adopt(now, key);
        }
    }

    /// Finishes leaving if all elements have another home registrar and have closed their
    /// connections to this one.
    pub(super) fn leave_if_alone(&mut self) {
        let ours = self.config.identifier;
        if matches!(self.leaving, Leaving::HandingOver(_))
            && self.handlespace.owned_by(ours, None).next().is_none()
            && self.connections.values().all(|client| client.elements.is_empty())
        {
            self.finish_leaving();
        }
    }

    pub(super) fn finish_leaving(&mut self) {
        self.leaving = Leaving::Done;
        self.timers.clear();
        let mut connections: Vec<_> = self.connections.drain().map(|(id, _)| id).collect();
        connections.extend(self.peers.forget_links());
        connections.sort_unstable();
        for connection in connections {
            self.out.close(connection);
        }
        self.dials = Dials::default();
        self.claimants.clear();
        self.deferred.clear();
        self.out.event(Event::Left);
    }
}
