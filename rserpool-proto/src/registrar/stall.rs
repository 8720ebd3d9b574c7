//! Reaction to the registrar's own delay, when its machine was busy or asleep, or when there is
//! more to do than it can.
//!
//! Deadlines passed that others kept: what they sent has yet to be read. Nobody is given up for
//! that. A driver reads all that there is to read before it calls
//! [`handle_timeout`](crate::Machine::handle_timeout), unless that is late already.

use std::time::{Duration, Instant};

use super::peers::Status;
use super::{Event, Registrar, Timer};
use crate::Machine;
use crate::handlespace::ElementKey;

/// A timer that is so late means that others were not heard meanwhile.
const LATE: Duration = Duration::from_millis(200);

/// The time that it may take to read what came meanwhile.
const CATCHING_UP: Duration = Duration::from_secs(1);

/// For how long it is known that others may have taken the registrar for dead.
const MEMORY: Duration = Duration::from_secs(30);

/// Maximum factor by which the intervals between keep-alives grow, and the time without delay after
/// which they shrink again.
const MAX_STRETCH: u32 = 16;
const RECOVERY: Duration = Duration::from_secs(10);

/// The registrar's delay.
#[derive(Debug)]
pub(super) struct Stall {
    /// Until when it reads what came while it was late.
    catching_up: Option<Instant>,
    /// When it was late last.
    last: Option<Instant>,
    /// Factor by which the intervals between keep-alives are stretched.
    stretch: u32,
    changed: Option<Instant>,
}

impl Default for Stall {
    fn default() -> Self {
        Self { catching_up: None, last: None, stretch: 1, changed: None }
    }
}

impl Stall {
    pub(super) fn stretch(&self) -> u32 {
        self.stretch
    }
}

impl Registrar {
    /// Notices that the registrar was late until now.
    pub(super) fn notice_stall(&mut self, now: Instant) {
        let late = self.poll_timeout().map(|due| now.saturating_duration_since(due));
        let stall = &mut self.stall;
        let since = stall.changed.map(|changed| now.saturating_duration_since(changed));
        if let Some(late) = late.filter(|late| *late >= LATE) {
            let again = stall.catching_up.is_some_and(|until| now < until + CATCHING_UP);
            stall.catching_up = Some(now + CATCHING_UP);
            stall.last = Some(now);
            // Late once may be the host's affair; late again and again is too much to do.
            if again && since.is_none_or(|since| since >= CATCHING_UP) {
                stall.stretch = (stall.stretch * 2).min(MAX_STRETCH);
                stall.changed = Some(now);
            }
            self.out.event(Event::Behind { late, stretch: self.stall.stretch });
        } else if stall.stretch > 1 && since.is_some_and(|since| since >= RECOVERY) {
            stall.stretch /= 2;
            stall.changed = Some(now);
        }
    }

    /// Returns whether the registrar was late not long ago, so that others may have taken it for
    /// dead.
    pub(super) fn was_silent(&self, now: Instant) -> bool {
        self.stall.last.is_some_and(|last| now < last + MEMORY)
    }

    pub(super) fn is_catching_up(&self, now: Instant) -> bool {
        self.stall.catching_up.is_some_and(|until| now < until)
    }

    /// A registration expired while we were late, or just after: perhaps it was renewed.
    pub(super) fn postpone_expiry(&mut self, now: Instant, key: ElementKey) {
        let time = 2 * self.config.keep_alive_timeout;
        self.handlespace.set_lifetime(key, now, Some(time));
        self.send_keep_alive(now, key);
    }

    /// A deadline passed while we were late, or just after.
    pub(super) fn postpone(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::KeepAlive(key) => self.extend_term(now, key),
            Timer::Peer(peer) => {
                if let Some(peer) = self.peers.known.get_mut(&peer)
                    && peer.status == Status::Suspected
                {
                    peer.status = Status::Active;
                }
                self.handle_peer_timer(now, peer);
            }
            Timer::Claimant(_)
            | Timer::Denied(_)
            | Timer::FirstMessage(_)
            | Timer::Page(_)
            | Timer::Download(_)
            | Timer::Mentor
            | Timer::NextMentor
            | Timer::Leave => self.timers.set(timer, now + CATCHING_UP),
            Timer::Announce
            | Timer::Heartbeat
            | Timer::Host(_)
            | Timer::Ready
            | Timer::Tidy
            | Timer::Subscriptions => self.handle_timer(now, timer),
        }
    }
}
