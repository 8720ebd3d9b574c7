//! The state of a peer, and its transitions (RFC 5353 sections 3.4.3 and 3.5).
//!
//! ```text
//!            silent            no answer             all agreed
//!   Active ---------> Suspected ---------> TakingOver ---------> (forgotten)
//!     ^  ^               |                   |   |
//!     |  +---------------+ message           |   | another registrar takes over
//!     +--------------------------------------+   v
//!     | presence                              Inactive
//!     +------------------------------------------+
//! ```
//!
//! An inactive peer that nobody took over in time is suspected again.

use std::collections::BTreeSet;

use super::PeerCondition;
use crate::wire::RegistrarId;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PeerState(State);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum State {
    #[default]
    Active,
    /// The peer was silent for too long, and this registrar asked for its presence.
    Suspected,
    /// The peer is dead, and this registrar wants to take over its elements. The peers in `pending`
    /// have yet to agree (RFC 5353 section 3.5.1).
    TakingOver {
        pending: BTreeSet<RegistrarId>,
        /// The number of earlier rounds of requests for agreement.
        rounds: u32,
    },
    /// The peer is dead according to another registrar, which takes over its elements.
    Inactive,
}

/// The action that is due when the timer of a peer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimerAction {
    /// Nothing: the peer has sent a message in the meantime.
    Wait,
    /// Ask the peer for its presence; it is suspected now.
    Ask,
    /// Take over the peer's elements: it did not answer and is dead.
    Dead,
    /// Ask the other peers again, since not all agreed to the takeover in time.
    AskAgain,
}

impl PeerState {
    pub(super) fn condition(&self) -> PeerCondition {
        match self.0 {
            State::Active => PeerCondition::Alive,
            State::Suspected => PeerCondition::Suspected,
            State::TakingOver { .. } => PeerCondition::TakenOver,
            State::Inactive => PeerCondition::Inactive,
        }
    }

    /// Returns whether the peer is believed to be alive.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.0, State::Active | State::Suspected)
    }

    /// Returns whether the peer is alive and not even suspected.
    pub(super) fn is_active(&self) -> bool {
        self.0 == State::Active
    }

    /// Returns whether another registrar takes over the peer's elements.
    pub(super) fn is_inactive(&self) -> bool {
        self.0 == State::Inactive
    }

    pub(super) fn is_taken_over(&self) -> bool {
        matches!(self.0, State::TakingOver { .. })
    }

    /// Ends the suspicion that the peer is dead, because a message was received from it. Returns
    /// whether the peer was suspected.
    pub(super) fn hear(&mut self) -> bool {
        let suspected = self.0 == State::Suspected;
        if suspected {
            self.0 = State::Active;
        }
        suspected
    }

    /// Makes the peer active because it sent its presence, even if another registrar is taking over
    /// its elements. Returns whether the peer was believed to be dead.
    pub(super) fn revive(&mut self) -> bool {
        let dead = !self.is_alive();
        if dead {
            self.0 = State::Active;
        }
        dead
    }

    /// Handles the peer's timer and returns the action that is due; `heard` is true if a message
    /// was received from the peer recently.
    pub(super) fn handle_timer(&mut self, heard: bool) -> TimerAction {
        match self.0 {
            State::Active if heard => TimerAction::Wait,
            State::Active | State::Inactive => {
                self.0 = State::Suspected;
                TimerAction::Ask
            }
            State::Suspected => TimerAction::Dead,
            State::TakingOver { .. } => TimerAction::AskAgain,
        }
    }

    /// Begins a round of requests for agreement to a takeover of this peer. Returns the number of
    /// earlier rounds.
    pub(super) fn begin_takeover(&mut self) -> u32 {
        let before = match self.0 {
            State::TakingOver { rounds, .. } => rounds + 1,
            State::Active | State::Suspected | State::Inactive => 0,
        };
        self.0 = State::TakingOver { pending: BTreeSet::new(), rounds: before };
        before
    }

    /// Sets the peers that have to agree to the takeover that has begun.
    pub(super) fn await_agreement(&mut self, of: impl Iterator<Item = RegistrarId>) {
        if let State::TakingOver { pending, .. } = &mut self.0 {
            *pending = of.collect();
        }
    }

    /// Records that `peer` agrees to the takeover or can no longer be asked. Returns true if this
    /// was the last missing agreement. Ignores a peer that was not asked.
    pub(super) fn agree(&mut self, peer: RegistrarId) -> bool {
        match &mut self.0 {
            State::TakingOver { pending, .. } => pending.remove(&peer) && pending.is_empty(),
            State::Active | State::Suspected | State::Inactive => false,
        }
    }

    /// Leaves the takeover to another registrar.
    pub(super) fn leave_to_another(&mut self) {
        self.0 = State::Inactive;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_leads_to_suspicion_and_then_to_death() {
        let mut state = PeerState::default();
        assert_eq!(state.handle_timer(true), TimerAction::Wait);
        assert_eq!(state.handle_timer(false), TimerAction::Ask);
        assert!(state.is_alive() && !state.is_active());
        assert!(state.hear() && state.is_active() && !state.hear());
        assert_eq!(state.handle_timer(false), TimerAction::Ask);
        assert_eq!(state.handle_timer(true), TimerAction::Dead);
    }

    #[test]
    fn a_takeover_is_complete_when_all_who_were_asked_agree() {
        let mut state = PeerState::default();
        assert_eq!(state.begin_takeover(), 0);
        state.await_agreement([1, 2].map(RegistrarId).into_iter());
        assert!(!state.agree(RegistrarId(3)) && !state.agree(RegistrarId(1)));
        assert_eq!(state.handle_timer(false), TimerAction::AskAgain);
        assert_eq!(state.begin_takeover(), 1);
        state.await_agreement([2].map(RegistrarId).into_iter());
        assert!(state.agree(RegistrarId(2)) && !state.agree(RegistrarId(2)));
    }

    #[test]
    fn presence_revives_the_dead() {
        let mut state = PeerState::default();
        assert!(!state.revive());
        state.begin_takeover();
        assert!(!state.is_alive() && !state.hear() && state.revive() && state.is_active());
        state.leave_to_another();
        assert!(state.is_inactive() && state.revive() && state.is_active());
        state.leave_to_another();
        assert_eq!(state.handle_timer(true), TimerAction::Ask);
    }
}
