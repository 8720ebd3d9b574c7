//! Joining the other registrars: finding a mentor, and taking over what it knows (RFC 5353
//! section 3.2).

use std::time::{Duration, Instant};

use rand::RngExt;

use super::membership::Confirmation;
use super::peers::Download;
use super::{Event, Registrar, Timer};
use crate::ConnectionId;
use crate::wire::asap::HandleResolution;
use crate::wire::enrp::{HandleTableRequest, ListRequest};
use crate::wire::{PoolHandle, RegistrarId};

/// The most resolutions that wait until the registrar is ready.
const MAX_DEFERRED: usize = 1024;

/// Time that a mentor's download may take beyond the search for the mentor. Resolutions wait until
/// then.
const MAX_DOWNLOAD: Duration = Duration::from_secs(25);

/// The time to wait when a mentor refused, or did not answer, until another is asked, or it again.
/// Not from the RFCs.
const PAUSE: Duration = Duration::from_millis(500);

/// State of joining the other registrars.
#[derive(Debug)]
pub(super) enum Joining {
    /// No registrar answered yet. The first that does becomes the mentor.
    Seeking,
    /// The last mentor was none. The next is asked in a while.
    Pausing,
    /// The mentor sends us what it knows.
    Downloading(RegistrarId),
    /// We know what others know, or there are none.
    Done,
}

impl Registrar {
    /// Looks for other registrars, if it was told to.
    pub(super) fn start_joining(&mut self, now: Instant) {
        if self.config.ready_after.is_zero() {
            self.ready = true;
        } else {
            self.timers.set(Timer::Ready, now + self.config.ready_after);
        }
        if self.config.enrp.is_none() {
            return;
        }
        self.timers.set(Timer::Heartbeat, now + self.config.heartbeat().cycle);
        if self.config.peers.is_empty() && !self.config.multicast_presence {
            return;
        }
        self.joining = Joining::Seeking;
        self.timers.set(Timer::Mentor, now + self.config.mentor_discovery);
        self.announce_presence();
        self.dial_peers(now);
    }

    /// Returns whether we know what other registrars know, so that they can ask us for it.
    pub(super) fn knows_others(&self) -> bool {
        matches!(self.joining, Joining::Done)
    }

    /// A registrar is there: it becomes the mentor, if there is none yet.
    pub(super) fn consider_mentor(
        &mut self,
        now: Instant,
        peer: RegistrarId,
        connection: ConnectionId,
    ) {
        if !matches!(self.joining, Joining::Seeking) {
            return;
        }
        self.joining = Joining::Downloading(peer);
        let route = self.route(peer);
        self.out.send_enrp(connection, ListRequest { route });
        self.start_download(now, peer, connection, false);
    }

    /// Nobody was where a registrar should have been.
    pub(super) fn handle_no_mentor(&mut self, now: Instant) {
        if matches!(self.joining, Joining::Seeking)
            && !self.config.multicast_presence
            && !self.peers.is_dialling()
        {
            self.finish_joining(now);
        }
    }

    /// The mentor does not want to, for it may be joining itself, or it does not answer.
    pub(super) fn handle_mentor_refused(&mut self, now: Instant, peer: RegistrarId) {
        if matches!(self.joining, Joining::Downloading(mentor) if mentor == peer) {
            if !self.timers.is_set(Timer::Mentor) {
                return self.finish_joining(now);
            }
            self.joining = Joining::Pausing;
            self.timers.set(Timer::NextMentor, now + PAUSE);
        }
    }

    /// It is time to ask a registrar again.
    pub(super) fn handle_pause_over(&mut self, now: Instant) {
        self.joining = Joining::Seeking;
        let peers: Vec<_> = self.peers.active().collect();
        if !peers.is_empty() {
            let (peer, connection) = peers[self.rng.random_range(0..peers.len())];
            self.consider_mentor(now, peer, connection);
        }
    }

    /// We looked for a mentor for long enough. One that is telling us what it knows may take
    /// longer, but not for ever.
    pub(super) fn handle_mentor_timer(&mut self, now: Instant) {
        let downloading = matches!(self.joining, Joining::Downloading(_));
        if downloading && !std::mem::replace(&mut self.mentor_is_slow, true) {
            self.timers.set(Timer::Mentor, now + MAX_DOWNLOAD);
        } else {
            self.finish_joining(now);
        }
    }

    /// There was no mentor in time, or it did not answer: what we know is what there is.
    pub(super) fn finish_joining(&mut self, now: Instant) {
        if self.knows_others() {
            return;
        }
        self.joining = Joining::Done;
        self.timers.cancel(Timer::Mentor);
        self.timers.cancel(Timer::NextMentor);
        self.out.event(Event::Joined { elements: self.handlespace.len() });
        if !self.handlespace.is_empty() {
            self.become_ready(now);
        }
        self.start_announcing(now);
    }

    /// The elements had the time to find this registrar, or other registrars told of them: a pool
    /// that is not known does not exist.
    pub(super) fn become_ready(&mut self, now: Instant) {
        if std::mem::replace(&mut self.ready, true) {
            return;
        }
        self.timers.cancel(Timer::Ready);
        self.out.event(Event::Ready { elements: self.handlespace.len() });
        for (from, request) in std::mem::take(&mut self.deferred) {
            if self.connections.contains_key(&from) {
                self.answer_resolution(now, from, request);
            }
        }
    }

    /// Keeps a resolution of a pool that is not known while the registrar is not ready. False
    /// where it is to be answered now.
    pub(super) fn defer(&mut self, from: ConnectionId, request: &HandleResolution) -> bool {
        let deferred = !self.ready && self.deferred.len() < MAX_DEFERRED;
        if deferred {
            self.deferred.push((from, request.clone()));
        }
        deferred
    }

    /// There is a pool that somebody may have asked for.
    pub(super) fn answer_deferred(&mut self, now: Instant, handle: &PoolHandle) {
        if self.deferred.is_empty() {
            return;
        }
        let (answered, kept) = std::mem::take(&mut self.deferred)
            .into_iter()
            .partition(|(_, request)| request.pool_handle == *handle);
        self.deferred = kept;
        let answered: Vec<_> = answered;
        for (from, request) in answered {
            if self.connections.contains_key(&from) {
                self.answer_resolution(now, from, request);
            }
        }
    }

    /// Asks a peer for its own elements, or for all that it knows.
    pub(super) fn start_download(
        &mut self,
        now: Instant,
        peer: RegistrarId,
        connection: ConnectionId,
        own_children_only: bool,
    ) {
        let Some(known) = self.peers.known.get_mut(&peer) else { return };
        known.download = Some(Download { connection, elements: 0 });
        if own_children_only {
            self.mark_all(peer, Confirmation::Confirmed, Confirmation::Pending);
            self.rivals.forget_home(peer);
        }
        self.request_page(now, peer, connection, own_children_only);
    }

    pub(super) fn request_page(
        &mut self,
        now: Instant,
        peer: RegistrarId,
        connection: ConnectionId,
        own_children_only: bool,
    ) {
        let request = HandleTableRequest { own_children_only, route: self.route(peer) };
        self.out.send_enrp(connection, request);
        self.timers.set(Timer::Download(peer), now + self.config.heartbeat().max_no_response);
    }
}
