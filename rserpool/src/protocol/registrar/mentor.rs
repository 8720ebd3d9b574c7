//! Joining the other registrars: finding a mentor, and taking over what it knows (RFC 5353
//! section 3.2).

use std::time::{Duration, Instant};

use rand::RngExt;

use super::{Event, Registrar, Timer};
use crate::protocol::ConnectionId;
use crate::wire::RegistrarId;
use crate::wire::asap::HandleResolution;
use crate::wire::enrp::{HandleTableRequest, ListRequest};

/// The most resolutions that wait until we know what others know; ours.
const MAX_DEFERRED: usize = 1024;

/// How long to wait when a mentor refused, or did not answer, until another is asked, or it again;
/// ours.
const PAUSE: Duration = Duration::from_millis(500);

/// How far we are with joining.
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
        if self.config.enrp.is_none() {
            return;
        }
        self.timers.set(Timer::Heartbeat, now + self.config.heartbeat);
        if self.config.peers.is_empty() && !self.config.multicast_presence {
            return;
        }
        self.joining = Joining::Seeking;
        self.timers.set(Timer::Mentor, now + self.config.mentor_discovery);
        self.announce_presence();
        self.dial_peers();
    }

    /// Whether we know what others know, so that we can be asked for it.
    pub(super) fn is_ready(&self) -> bool {
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
        self.out.send_enrp(connection, ListRequest { route }).expect("it is short");
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

    /// We looked for a mentor for long enough. If there is one, its answer takes as long as it
    /// takes, as long as each page comes in time.
    pub(super) fn handle_mentor_timer(&mut self, now: Instant) {
        if !matches!(self.joining, Joining::Downloading(_)) {
            self.finish_joining(now);
        }
    }

    /// There was no mentor in time, or it did not answer: what we know is what there is.
    pub(super) fn finish_joining(&mut self, now: Instant) {
        if self.is_ready() {
            return;
        }
        self.joining = Joining::Done;
        self.timers.cancel(Timer::Mentor);
        self.timers.cancel(Timer::NextMentor);
        self.out.event(Event::Joined { elements: self.handlespace.len() });
        for (from, request) in std::mem::take(&mut self.deferred) {
            if self.connections.contains_key(&from) {
                self.handle_allowed_resolution(now, from, request);
            }
        }
        self.start_announcing(now);
    }

    /// Keeps a resolution that only those can answer who know what others know. False where it
    /// is to be answered now.
    pub(super) fn defer(&mut self, from: ConnectionId, request: &HandleResolution) -> bool {
        let deferred = !self.is_ready() && self.deferred.len() < MAX_DEFERRED;
        if deferred {
            self.deferred.push((from, request.clone()));
        }
        deferred
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
        known.download = Some(connection);
        if own_children_only {
            let owned: Vec<_> = self.handlespace.owned_by(peer, None).collect();
            for key in owned {
                self.handlespace.get_mut(key).expect("it is owned").state.marked = true;
            }
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
        self.out.send_enrp(connection, request).expect("it is short");
        self.timers.set(Timer::Download(peer), now + self.config.max_time_no_response);
    }
}
