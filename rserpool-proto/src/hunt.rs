//! The search for a home registrar (RFC 5352 section 3.6), shared by elements and users.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{Compatibility, ConnectionId, Identity, Outbox, announcement};
use crate::access::{AccessRole, AccessRules};
use crate::timers::bounded;
use crate::wire::{Ppid, RegistrarId, TransportAddress, TransportProtocol, UserMessage};

/// The maximum number of connections that a hunt (search for a registrar) makes at a time (RFC 5352
/// section 3.6, SH1).
const MAX_ATTEMPTS: usize = 3;

/// The longest pause between rounds during [`AT_FIRST`]. Not from the RFCs: short, since a
/// registrar that restarts waits only a few seconds for its elements to register again.
const MAX_PAUSE_AT_FIRST: Duration = Duration::from_secs(1);

/// The duration of the first phase of a search, with short pauses.
const AT_FIRST: Duration = Duration::from_secs(60);

/// The maximum number of registrars remembered from announcements. Not from the RFCs: limited since
/// anyone can announce.
const MAX_ANNOUNCED: usize = 64;

/// The maximum number of addresses remembered of one announced registrar. Not from the RFCs.
const MAX_ADDRESSES: usize = 16;

/// Configuration of a search for registrars: their addresses, the timeouts, and their
/// implementations.
#[derive(Debug, Clone)]
pub struct HuntConfig {
    registrars: Vec<TransportAddress>,
    listen: bool,
    server_hunt: Duration,
    server_hunt_max: Duration,
    outdate: Duration,
    retry_delay: Duration,
    compatibility: Compatibility,
    access: AccessRules,
}

impl Default for HuntConfig {
    fn default() -> Self {
        Self {
            registrars: Vec::new(),
            listen: false,
            server_hunt: Duration::from_secs(10),
            server_hunt_max: Duration::from_secs(60),
            outdate: Duration::from_secs(5),
            retry_delay: Duration::from_millis(250),
            compatibility: Compatibility::default(),
            access: AccessRules::default(),
        }
    }
}

impl HuntConfig {
    /// Creates a configuration that looks for registrars at these addresses.
    #[must_use]
    pub fn new(registrars: impl IntoIterator<Item = TransportAddress>) -> Self {
        Self { registrars: registrars.into_iter().collect(), ..Self::default() }
    }

    /// Sets T5-Serverhunt, the time that a registrar may take to accept a connection before others
    /// are tried. It is doubled after each round in which it expires, up to `max`, RETRAN.max.
    /// Default: 10 s and 60 s (RFC 5352 section 7).
    #[must_use]
    pub fn server_hunt_timeout(mut self, first: Duration, max: Duration) -> Self {
        (self.server_hunt, self.server_hunt_max) = (bounded(first), bounded(max));
        self
    }

    /// Sets the time for which an announcement is valid, T7-ENRPoutdate. Default: 5 s (RFC 5352
    /// section 7.1).
    #[must_use]
    pub fn announcement_lifetime(mut self, lifetime: Duration) -> Self {
        self.outdate = bounded(lifetime);
        self
    }

    /// Sets the pause after all registrars refused the connection. Each further pause is twice as
    /// long, up to 1 s in the first minute and up to T5-Serverhunt after that. Default: 250 ms. Not
    /// from the RFCs: short, since a registrar that restarts waits only a few seconds for its
    /// elements to register again.
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = bounded(delay);
        self
    }

    /// Enables discovery by announcements of registrars in the local network. Default: disabled.
    #[must_use]
    pub fn listen_for_announcements(mut self) -> Self {
        self.listen = true;
        self
    }

    /// Sets the implementations to be compatible with. Default: [`Compatibility::All`].
    #[must_use]
    pub fn compatibility(mut self, profile: Compatibility) -> Self {
        self.compatibility = profile;
        self
    }

    /// Sets the rules on who is believed: which registrars this element or user uses, which elements
    /// a user opens sessions with, and which users an element serves. Default:
    /// [`AccessRules::default`].
    #[must_use]
    pub fn access(mut self, rules: AccessRules) -> Self {
        self.access = rules;
        self
    }

    /// Returns the rules on who is believed.
    #[must_use]
    pub fn access_rules(&self) -> &AccessRules {
        &self.access
    }

    /// Returns the compatibility profile.
    #[must_use]
    pub fn profile(&self) -> Compatibility {
        self.compatibility
    }

    /// Returns whether discovery by announcements is enabled.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.listen
    }

    /// Returns the addresses of the configured registrars.
    #[must_use]
    pub fn registrars(&self) -> &[TransportAddress] {
        &self.registrars
    }
}

#[derive(Debug)]
pub(crate) struct Hunt {
    config: HuntConfig,
    announced: Vec<Announced>,
    running: bool,
    /// The time at which the search began. `None` after a registrar answered a request.
    searching_since: Option<Instant>,
    /// The last registrar that accepted a connection, and the time of that. `None` after the
    /// registrar answered a request.
    unproven: Option<(TransportAddress, Instant)>,
    /// Registrars that accepted a connection and closed it soon after. They are tried again only
    /// after a pause, the other registrars at once.
    fickle: Vec<TransportAddress>,
    attempts: Vec<(ConnectionId, TransportAddress)>,
    /// Addresses that are still to be tried in this round.
    untried: Vec<TransportAddress>,
    /// The value of T5-Serverhunt for the next attempts, which grows while no registrar answers.
    timeout: Duration,
    /// The pause before the next round.
    delay: Duration,
    /// The time at which the attempts time out, or at which the pause is over.
    deadline: Option<Instant>,
}

/// Effect of a failed connection on a hunt (search for a registrar).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HuntProgress {
    /// The connection does not belong to the hunt.
    NotOurs,
    /// Other addresses are still being tried.
    GoesOn,
    /// All attempts failed. The addresses are tried again after a pause.
    NobodyFound,
}

#[derive(Debug)]
struct Announced {
    registrar: RegistrarId,
    address: TransportAddress,
    heard: Instant,
}

impl Announced {
    /// Returns whether `address` is that of the announced registrar, or another address of its SCTP
    /// endpoint. Two associations with one endpoint would interfere with each other.
    fn is_at(&self, address: &TransportAddress) -> bool {
        let sctp = self.address.protocol == TransportProtocol::Sctp;
        let same = self.address.protocol == address.protocol && self.address.port == address.port;
        same && (sctp || self.address == *address)
    }

    fn merge(&mut self, address: &TransportAddress) {
        for address in &address.addresses {
            let addresses = &mut self.address.addresses;
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(address) {
                addresses.push(*address);
            }
        }
    }
}

impl Hunt {
    pub(crate) fn new(config: HuntConfig) -> Self {
        Self {
            announced: Vec::new(),
            running: false,
            searching_since: None,
            unproven: None,
            fickle: Vec::new(),
            attempts: Vec::new(),
            untried: Vec::new(),
            timeout: config.server_hunt,
            delay: config.retry_delay,
            deadline: None,
            config,
        }
    }

    pub(crate) fn registrars(&self) -> &[TransportAddress] {
        self.config.registrars()
    }

    /// Replaces the configured registrars. A search that is running tries the new ones at once.
    pub(crate) fn set_registrars<E>(
        &mut self,
        now: Instant,
        registrars: Vec<TransportAddress>,
        out: &mut Outbox<E>,
        rng: &mut StdRng,
    ) {
        let old = std::mem::replace(&mut self.config.registrars, registrars);
        let all = &self.config.registrars;
        let has = |of: &[TransportAddress], address: &TransportAddress| {
            of.iter().any(|its| its.reaches_same(address))
        };
        let stays = |address: &TransportAddress| has(all, address) || !has(&old, address);
        self.fickle.retain(stays);
        self.untried.retain(stays);
        self.attempts.retain(|(connection, address)| {
            let stays = stays(address);
            if !stays {
                out.abort(*connection);
            }
            stays
        });
        if !self.running {
            return;
        }
        if self.attempts.is_empty() {
            return self.round(now, out, rng);
        }
        let all = &self.config.registrars;
        let waiting = self.attempts.iter().map(|(_, address)| address);
        let waiting: Vec<_> = waiting.chain(&self.untried).chain(&self.fickle).collect();
        let is_new = |address: &&TransportAddress| {
            !old.iter().any(|its| its.reaches_same(address))
                && !waiting.iter().any(|its| its.reaches_same(address))
        };
        let new: Vec<_> = all.iter().filter(is_new).cloned().collect();
        self.untried.extend(new);
        self.continue_round(now, out);
    }

    /// Tries addresses that were added to a round.
    fn continue_round<E>(&mut self, now: Instant, out: &mut Outbox<E>) {
        self.fill(out);
        if !self.untried.is_empty() {
            let turn = now + self.turn();
            self.deadline = Some(self.deadline.map_or(turn, |deadline| deadline.min(turn)));
        }
    }

    /// Returns the number of connections that are being made.
    pub(crate) fn attempts(&self) -> usize {
        self.attempts.len()
    }

    /// Returns the time at which to call [`Self::handle_timeout`] next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Starts the search, unless it is running.
    pub(crate) fn start<E>(&mut self, now: Instant, out: &mut Outbox<E>, rng: &mut StdRng) {
        if std::mem::replace(&mut self.running, true) {
            return;
        }
        self.searching_since.get_or_insert(now);
        if let Some((address, found)) = self.unproven.take()
            && now < found + self.delay
        {
            self.fickle.push(address);
        }
        self.round(now, out, rng);
    }

    fn round<E>(&mut self, now: Instant, out: &mut Outbox<E>, rng: &mut StdRng) {
        self.announced.retain(|known| now < known.heard + self.config.outdate);
        self.untried = self.config.registrars.clone();
        for known in &self.announced {
            if !self.untried.iter().any(|address| address.reaches_same(&known.address)) {
                self.untried.push(known.address.clone());
            }
        }
        let fickle = &self.fickle;
        self.untried.retain(|address| !fickle.iter().any(|its| its.reaches_same(address)));
        // A random order distributes the elements and users over the registrars.
        self.untried.shuffle(rng);
        self.fill(out);
        self.set_timer(now);
    }

    fn fill<E>(&mut self, out: &mut Outbox<E>) {
        while self.attempts.len() < MAX_ATTEMPTS
            && let Some(address) = self.untried.pop()
        {
            self.attempts.push((out.connect(Ppid::ASAP, address.clone()), address));
        }
    }

    /// Returns the time that an attempt may take while other addresses wait.
    fn turn(&self) -> Duration {
        self.config.compatibility.hunt_turn(self.config.server_hunt)
    }

    fn set_timer(&mut self, now: Instant) {
        let wait = if self.attempts.is_empty() || !self.fickle.is_empty() {
            let delay = self.delay;
            let at_first = self.searching_since.is_none_or(|since| now < since + AT_FIRST);
            let longest = match at_first {
                true => MAX_PAUSE_AT_FIRST.min(self.config.server_hunt),
                false => self.config.server_hunt,
            };
            self.delay = (delay * 2).min(longest);
            delay
        } else if self.untried.is_empty() {
            self.timeout
        } else {
            self.turn()
        };
        self.deadline = Some(now + wait);
    }

    /// Handles a connection that a registrar accepted: the registrar becomes the home registrar,
    /// and the other attempts are aborted. Returns the registrar's address, or `None` if the
    /// connection was not an attempt of this hunt.
    pub(crate) fn handle_established<E>(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        out: &mut Outbox<E>,
    ) -> Option<TransportAddress> {
        let index = self.attempts.iter().position(|(attempt, _)| *attempt == connection)?;
        let (_, address) = self.attempts.swap_remove(index);
        self.stop(out);
        self.unproven = Some((address.clone(), now));
        Some(address)
    }

    /// Returns whether the rules permit a party to be a registrar.
    pub(crate) fn is_registrar(
        &self,
        peer: &TransportAddress,
        identity: Option<&Identity>,
    ) -> bool {
        self.config.access.permits(peer.host(), identity, AccessRole::Registrar, None)
    }

    /// Handles the first answer of the registrar that was found.
    pub(crate) fn handle_answer(&mut self) {
        self.unproven = None;
        self.searching_since = None;
        self.fickle.clear();
        self.timeout = self.config.server_hunt;
        self.delay = self.config.retry_delay;
    }

    /// Handles a failed connection. If it was an attempt of this hunt, tries another address.
    pub(crate) fn handle_failed<E>(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        out: &mut Outbox<E>,
    ) -> HuntProgress {
        let attempt = self.attempts.iter().position(|(attempt, _)| *attempt == connection);
        let Some(index) = attempt else { return HuntProgress::NotOurs };
        self.attempts.swap_remove(index);
        self.fill(out);
        if !self.attempts.is_empty() {
            return HuntProgress::GoesOn;
        }
        self.set_timer(now);
        HuntProgress::NobodyFound
    }

    /// Handles the expiry of T5-Serverhunt, or the end of the pause before the next round.
    pub(crate) fn handle_timeout<E>(
        &mut self,
        now: Instant,
        out: &mut Outbox<E>,
        rng: &mut StdRng,
    ) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        if !self.attempts.is_empty() && !self.fickle.is_empty() {
            // The pause is over for the registrars that closed their connections, while attempts at
            // others are still in progress.
            if self.attempts.len() == MAX_ATTEMPTS {
                let (oldest, _) = self.attempts.remove(0);
                out.abort(oldest);
            }
            self.untried.append(&mut self.fickle);
            self.fill(out);
            return self.set_timer(now);
        }
        self.fickle.clear();
        if !self.attempts.is_empty() {
            if self.untried.is_empty() {
                self.timeout = (self.timeout * 2).min(self.config.server_hunt_max);
            }
            for (connection, _) in self.attempts.drain(..) {
                out.abort(connection);
            }
            self.fill(out);
            if !self.attempts.is_empty() {
                self.set_timer(now);
                return;
            }
        }
        self.round(now, out, rng);
    }

    pub(crate) fn stop<E>(&mut self, out: &mut Outbox<E>) {
        self.running = false;
        self.deadline = None;
        self.untried.clear();
        for (connection, _) in self.attempts.drain(..) {
            out.abort(connection);
        }
    }

    /// Handles an announcement that was received by multicast. A running hunt tries a newly
    /// announced registrar at once, or after the addresses that already wait.
    pub(crate) fn handle_announcement<E>(
        &mut self,
        now: Instant,
        mut source: TransportAddress,
        message: &UserMessage,
        out: &mut Outbox<E>,
        rng: &mut StdRng,
    ) {
        let Some(announce) = announcement(message) else { return };
        source.port = self.config.compatibility.announced_port(source.port);
        let registrar = announce.registrar;
        // Without transport parameters, the registrar is at the source address (RFC 5352 section
        // 3.6).
        let mut addresses = announce.transports;
        addresses.retain(|address| address.protocol == source.protocol);
        if addresses.is_empty() {
            addresses.push(source);
        }
        let mut is_new = false;
        for address in addresses {
            let known = self
                .announced
                .iter_mut()
                .find(|known| known.registrar == registrar && known.is_at(&address));
            match known {
                Some(known) => {
                    known.heard = now;
                    known.merge(&address);
                }
                None => {
                    self.announced.retain(|known| now < known.heard + self.config.outdate);
                    if self.announced.len() < MAX_ANNOUNCED {
                        self.announced.push(Announced { registrar, address, heard: now });
                        is_new = true;
                    }
                }
            }
        }
        if !is_new || !self.running {
            return;
        }
        if self.attempts.is_empty() {
            return self.round(now, out, rng);
        }
        // The attempts that are under way may take long, so the new address does not wait for their
        // end.
        let waiting = self.attempts.iter().map(|(_, address)| address);
        let waiting: Vec<_> = waiting.chain(&self.untried).chain(&self.fickle).collect();
        let mut new: Vec<_> = self
            .announced
            .iter()
            .filter(|known| known.registrar == registrar)
            .filter(|known| !waiting.iter().any(|its| its.reaches_same(&known.address)))
            .map(|known| known.address.clone())
            .collect();
        // The new addresses are tried after those which wait already, since anyone can announce.
        new.truncate(MAX_ANNOUNCED.saturating_sub(self.untried.len()));
        self.untried.splice(..0, new);
        self.continue_round(now, out);
    }
}
