//! The search for a home registrar (RFC 5352 section 3.6), which elements and users share.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{ConnectionId, Outbox};
use crate::wire::{RegistrarId, TransportAddress, asap};

/// The most connections that a hunt makes at a time (RFC 5352 section 3.6, SH1).
const MAX_ATTEMPTS: usize = 3;

/// The most registrars remembered from announcements; ours, since anyone can announce.
const MAX_ANNOUNCED: usize = 64;

/// Where to look for registrars, and how patiently.
#[derive(Debug, Clone)]
pub struct HuntConfig {
    registrars: Vec<TransportAddress>,
    server_hunt: Duration,
    server_hunt_max: Duration,
    outdate: Duration,
    retry_delay: Duration,
}

impl Default for HuntConfig {
    fn default() -> Self {
        Self {
            registrars: Vec::new(),
            server_hunt: Duration::from_secs(10),
            server_hunt_max: Duration::from_secs(60),
            outdate: Duration::from_secs(5),
            retry_delay: Duration::from_millis(250),
        }
    }
}

impl HuntConfig {
    /// Looks for registrars at these addresses, and at those which announce themselves.
    #[must_use]
    pub fn new(registrars: impl IntoIterator<Item = TransportAddress>) -> Self {
        Self { registrars: registrars.into_iter().collect(), ..Self::default() }
    }

    /// How long a registrar may take to accept a connection before others are tried:
    /// T5-Serverhunt, 10 s, doubled each time up to `max`, RETRAN.max, 60 s (RFC 5352 section
    /// 7).
    #[must_use]
    pub fn server_hunt_timeout(mut self, first: Duration, max: Duration) -> Self {
        (self.server_hunt, self.server_hunt_max) = (first, max);
        self
    }

    /// How long an announcement is believed: T7-ENRPoutdate, 5 s (RFC 5352 section 7.1).
    #[must_use]
    pub fn announcement_lifetime(mut self, lifetime: Duration) -> Self {
        self.outdate = lifetime;
        self
    }

    /// How long to wait when all registrars refused, doubled each time up to T5-Serverhunt:
    /// 250 ms, ours.
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = delay;
        self
    }

    /// The configured registrars.
    #[must_use]
    pub fn registrars(&self) -> &[TransportAddress] {
        &self.registrars
    }
}

/// The one timer of a hunt, which its owner runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HuntTimer {
    /// Call [`Hunt::handle_timeout`] after this time.
    After(Duration),
    Stop,
}

#[derive(Debug)]
pub(crate) struct Hunt {
    config: HuntConfig,
    announced: Vec<Announced>,
    running: bool,
    attempts: Vec<(ConnectionId, TransportAddress)>,
    /// Addresses that this round has yet to try.
    untried: Vec<TransportAddress>,
    timeout: Duration,
    delay: Duration,
}

#[derive(Debug)]
struct Announced {
    registrar: RegistrarId,
    address: TransportAddress,
    heard: Instant,
}

impl Hunt {
    pub(crate) fn new(config: HuntConfig) -> Self {
        Self {
            announced: Vec::new(),
            running: false,
            attempts: Vec::new(),
            untried: Vec::new(),
            timeout: config.server_hunt,
            delay: config.retry_delay,
            config,
        }
    }

    /// Starts a round, unless one is running.
    pub(crate) fn start<E>(
        &mut self,
        now: Instant,
        out: &mut Outbox<E>,
        rng: &mut StdRng,
    ) -> HuntTimer {
        self.running = true;
        if !self.attempts.is_empty() {
            return HuntTimer::After(self.timeout);
        }
        self.announced.retain(|known| now < known.heard + self.config.outdate);
        self.untried = self.config.registrars.clone();
        for known in &self.announced {
            if !self.untried.iter().any(|address| address.reaches_same(&known.address)) {
                self.untried.push(known.address.clone());
            }
        }
        // Any order would do; by chance, the registrars share the load.
        self.untried.shuffle(rng);
        self.fill(out);
        self.timer()
    }

    fn fill<E>(&mut self, out: &mut Outbox<E>) {
        while self.attempts.len() < MAX_ATTEMPTS
            && let Some(address) = self.untried.pop()
        {
            self.attempts.push((out.connect(address.clone()), address));
        }
    }

    fn timer(&mut self) -> HuntTimer {
        if !self.attempts.is_empty() {
            return HuntTimer::After(self.timeout);
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(self.config.server_hunt);
        HuntTimer::After(delay)
    }

    /// Whether `connection` is one of the hunt's attempts.
    pub(crate) fn owns(&self, connection: ConnectionId) -> bool {
        self.attempts.iter().any(|(attempt, _)| *attempt == connection)
    }

    /// A registrar accepted: it is the home registrar, the other attempts are given up.
    pub(crate) fn handle_established<E>(
        &mut self,
        connection: ConnectionId,
        out: &mut Outbox<E>,
    ) -> Option<TransportAddress> {
        let index = self.attempts.iter().position(|(attempt, _)| *attempt == connection)?;
        let (_, address) = self.attempts.swap_remove(index);
        self.stop(out);
        self.timeout = self.config.server_hunt;
        self.delay = self.config.retry_delay;
        Some(address)
    }

    /// An attempt failed: another address is tried. `None` where the connection is none of
    /// ours, or others are still under way.
    pub(crate) fn handle_failed<E>(
        &mut self,
        connection: ConnectionId,
        out: &mut Outbox<E>,
    ) -> Option<HuntTimer> {
        let index = self.attempts.iter().position(|(attempt, _)| *attempt == connection)?;
        self.attempts.swap_remove(index);
        self.fill(out);
        self.attempts.is_empty().then(|| self.timer())
    }

    /// T5-Serverhunt expired, or the delay before the next round passed.
    pub(crate) fn handle_timeout<E>(
        &mut self,
        now: Instant,
        out: &mut Outbox<E>,
        rng: &mut StdRng,
    ) -> HuntTimer {
        if !self.running {
            return HuntTimer::Stop;
        }
        if !self.attempts.is_empty() {
            self.timeout = (self.timeout * 2).min(self.config.server_hunt_max);
            for (connection, _) in self.attempts.drain(..) {
                out.abort(connection);
            }
            self.fill(out);
            if !self.attempts.is_empty() {
                return self.timer();
            }
        }
        self.start(now, out, rng)
    }

    pub(crate) fn stop<E>(&mut self, out: &mut Outbox<E>) {
        self.running = false;
        self.untried.clear();
        for (connection, _) in self.attempts.drain(..) {
            out.abort(connection);
        }
    }

    /// A registrar announced itself. True if it may be the one that a running hunt waits for.
    pub(crate) fn handle_announce(
        &mut self,
        now: Instant,
        source: TransportAddress,
        announce: asap::ServerAnnounce,
    ) -> bool {
        let registrar = announce.registrar;
        // Without transport parameters it is SCTP at the source (RFC 5352 section 3.6).
        let addresses =
            if announce.transports.is_empty() { vec![source] } else { announce.transports };
        let mut new = false;
        for address in addresses {
            let known = self
                .announced
                .iter_mut()
                .find(|known| known.registrar == registrar && known.address == address);
            match known {
                Some(known) => known.heard = now,
                None => {
                    self.announced.retain(|known| now < known.heard + self.config.outdate);
                    if self.announced.len() < MAX_ANNOUNCED {
                        self.announced.push(Announced { registrar, address, heard: now });
                        new = true;
                    }
                }
            }
        }
        new && self.running && self.attempts.is_empty()
    }
}
