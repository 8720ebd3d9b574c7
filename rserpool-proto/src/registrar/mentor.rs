//! Joining the other registrars: finding a mentor, and downloading the handlespace from it (RFC
//! 5353 section 3.2).

use std::time::{Duration, Instant};

use rand::RngExt;

use super::membership::Confirmation;
use super::peers::Download;
use super::{Event, Registrar, Timer};
use crate::ConnectionId;
use crate::wire::asap::HandleResolution;
use crate::wire::enrp::{HandleTableRequest, ListRequest};
use crate::wire::{PoolHandle, RegistrarId};

/// The maximum number of resolutions of unknown pools that wait until the registrar is ready.
/// Further ones are answered at once.
const MAX_DEFERRED: usize = 1024;

/// The additional time for a download from the mentor after the search for a mentor has timed out.
/// Resolutions do not wait for it: they are answered after `ready_after` at the latest.
const MAX_DOWNLOAD: Duration = Duration::from_secs(25);

/// The pause after a mentor refused or did not answer, before this registrar asks it or another
/// one. Not from the RFCs.
const PAUSE: Duration = Duration::from_millis(500);

/// State of joining the other registrars.
#[derive(Debug)]
pub(super) enum Joining {
    /// No registrar has answered yet. The first one that does becomes the mentor.
    Seeking,
    /// The last mentor refused or did not answer. After a pause, one of the known peers is asked.
    Pausing,
    /// The handlespace is being downloaded from the mentor.
    Downloading(RegistrarId),
    /// The registrar has the handlespace of the others, or there are none.
    Done,
}

impl Registrar {
    /// Starts to look for other registrars, if that is configured.
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

    /// Returns whether joining is done, so that other registrars can ask this one for the
    /// handlespace.
    pub(super) fn knows_others(&self) -> bool {
        matches!(self.joining, Joining::Done)
    }

    /// Chooses `peer`, which has answered, as the mentor if there is none yet, and asks it for the
    /// peer list and the handlespace.
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

    /// Finishes joining if no registrar answered at any of the addresses.
    pub(super) fn handle_no_mentor(&mut self, now: Instant) {
        if matches!(self.joining, Joining::Seeking)
            && !self.config.multicast_presence
            && !self.peers.is_dialling()
        {
            self.finish_joining(now);
        }
    }

    /// Handles a mentor that refused, perhaps since it is joining itself, or that did not answer.
    pub(super) fn handle_mentor_refused(&mut self, now: Instant, peer: RegistrarId) {
        if matches!(self.joining, Joining::Downloading(mentor) if mentor == peer) {
            if !self.timers.is_set(Timer::Mentor) {
                return self.finish_joining(now);
            }
            self.joining = Joining::Pausing;
            self.timers.set(Timer::NextMentor, now + PAUSE);
        }
    }

    /// Asks a registrar again after the pause.
    pub(super) fn handle_pause_over(&mut self, now: Instant) {
        self.joining = Joining::Seeking;
        let peers: Vec<_> = self.peers.active().collect();
        if !peers.is_empty() {
            let (peer, connection) = peers[self.rng.rng().random_range(0..peers.len())];
            self.consider_mentor(now, peer, connection);
        }
    }

    /// Handles the timeout of the search for a mentor. A download that is in progress gets more
    /// time, once.
    pub(super) fn handle_mentor_timer(&mut self, now: Instant) {
        let downloading = matches!(self.joining, Joining::Downloading(_));
        if downloading && !std::mem::replace(&mut self.mentor_is_slow, true) {
            self.timers.set(Timer::Mentor, now + MAX_DOWNLOAD);
        } else {
            self.finish_joining(now);
        }
    }

    /// Finishes joining: the download from the mentor is complete, or there is no mentor.
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

    /// Makes the registrar ready: it now answers resolutions of unknown pools, including those that
    /// waited, with the error that the pool does not exist. By now, the elements have had time to
    /// register, or other registrars have announced them.
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

    /// Defers the resolution of an unknown pool while the registrar is not ready. Returns false if
    /// the resolution is to be answered now.
    pub(super) fn defer(&mut self, from: ConnectionId, request: &HandleResolution) -> bool {
        let deferred = !self.ready && self.deferred.len() < MAX_DEFERRED;
        if deferred {
            self.deferred.push((from, request.clone()));
        }
        deferred
    }

    /// Answers the waiting resolutions of a pool, which exists now.
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

    /// Asks a peer for its own elements, or for all elements that it knows.
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
