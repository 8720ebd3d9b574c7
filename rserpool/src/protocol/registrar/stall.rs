//! What to do after the registrar itself stood still, because its machine was busy or asleep.
//!
//! Deadlines passed that others kept: what they sent has yet to be read. Nobody is given up for
//! that.

use std::time::{Duration, Instant};

use super::peers::Status;
use super::{Registrar, Timer};
use crate::handlespace::ElementKey;
use crate::protocol::Machine;

/// A timer that is so late means that we stood still, and so long it may take to read what came
/// meanwhile; both ours.
const STALL: Duration = Duration::from_secs(1);

impl Registrar {
    /// Notices that the registrar stood still until now.
    pub(super) fn notice_stall(&mut self, now: Instant) {
        let late = self.poll_timeout().map(|due| now.saturating_duration_since(due));
        if let Some(late) = late.filter(|late| *late >= STALL) {
            tracing::warn!(?late, "stood still");
            self.catching_up = Some(now + STALL);
        }
    }

    pub(super) fn is_catching_up(&self, now: Instant) -> bool {
        self.catching_up.is_some_and(|until| now < until)
    }

    /// A registration expired while we stood still, or just after: perhaps it was renewed.
    pub(super) fn excuse_expiry(&mut self, now: Instant, key: ElementKey) {
        let time = 2 * self.config.keep_alive_timeout;
        self.handlespace.set_lifetime(key, now, Some(time));
        self.send_keep_alive(now, key);
    }

    /// A deadline passed while we stood still, or just after.
    pub(super) fn excuse(&mut self, now: Instant, timer: Timer) {
        match timer {
            // They are asked, again.
            Timer::KeepAlive(key) => self.send_keep_alive(now, key),
            Timer::Peer(peer) => {
                if let Some(peer) = self.peers.known.get_mut(&peer)
                    && peer.status == Status::Suspected
                {
                    peer.status = Status::Active;
                }
                self.handle_peer_timer(now, peer);
            }
            Timer::FirstMessage(_)
            | Timer::Page(_)
            | Timer::Download(_)
            | Timer::Mentor
            | Timer::NextMentor
            | Timer::Leave => self.timers.set(timer, now + STALL),
            Timer::Announce | Timer::Heartbeat | Timer::Limit(_) | Timer::Subscriptions => {
                self.handle_timer(now, timer);
            }
        }
    }
}
