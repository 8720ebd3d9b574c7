//! Reaction of the registrar to its own delay, after its host was suspended or overloaded.
//!
//! After a delay, deadlines of elements and peers may have passed although their messages arrived
//! in time and are still unread. So no element or peer is considered dead because of the delay. A
//! driver reads all available input before it calls
//! [`handle_timeout`](crate::Machine::handle_timeout), unless that call is late already.

use std::time::{Duration, Instant};

use super::{Event, Registrar, Timer};
use crate::Machine;
use crate::handlespace::ElementKey;

/// The smallest delay of a timer after which messages that arrived in time may still be unread.
const LATE: Duration = Duration::from_millis(200);

/// The time allowed for reading the messages that arrived during a delay.
const CATCHING_UP: Duration = Duration::from_secs(1);

/// The time after a delay of this registrar during which other registrars may have considered it
/// dead.
const MEMORY: Duration = Duration::from_secs(30);

/// Maximum factor by which the intervals between keep-alives are stretched, and the time without
/// delay after which the factor is halved.
const MAX_STRETCH: u32 = 16;
const RECOVERY: Duration = Duration::from_secs(10);

/// Records the delays of the registrar, and the reaction to them.
#[derive(Debug)]
pub(super) struct Stall {
    /// End of the time for reading the input that arrived during the delay.
    catching_up: Option<Instant>,
    /// The time at which the registrar last noticed a delay.
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
    /// Checks whether this input comes late, at least [`LATE`] after a timer was due. If so,
    /// reports it, and stretches the intervals between keep-alives if it happens repeatedly.
    pub(super) fn notice_stall(&mut self, now: Instant) {
        let late = self.poll_timeout().map(|due| now.saturating_duration_since(due));
        let stall = &mut self.stall;
        let since = stall.changed.map(|changed| now.saturating_duration_since(changed));
        if let Some(late) = late.filter(|late| *late >= LATE) {
            let again = stall.catching_up.is_some_and(|until| now < until + CATCHING_UP);
            stall.catching_up = Some(now + CATCHING_UP);
            stall.last = Some(now);
            // A single delay may be caused by the host; repeated delays mean too much load.
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

    /// Returns whether the registrar was late recently, so that others may have considered it dead.
    pub(super) fn was_silent(&self, now: Instant) -> bool {
        self.stall.last.is_some_and(|last| now < last + MEMORY)
    }

    pub(super) fn is_catching_up(&self, now: Instant) -> bool {
        self.stall.catching_up.is_some_and(|until| now < until)
    }

    /// Postpones the expiry of a registration while this registrar is late or catching up, since a
    /// renewal may have arrived that is still unread.
    pub(super) fn postpone_expiry(&mut self, now: Instant, key: ElementKey) {
        let time = 2 * self.config.keep_alive_timeout;
        self.handlespace.set_lifetime(key, now, Some(time));
        self.send_keep_alive(now, key);
    }

    /// Postpones a timer that expired while this registrar was late or catching up, if the timer is
    /// a deadline for an element, a peer or a client. Handles other timers as usual.
    pub(super) fn postpone(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::KeepAlive(key) => self.extend_term(now, key),
            Timer::Peer(peer) => {
                if let Some(peer) = self.peers.known.get_mut(&peer) {
                    peer.state.hear();
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
