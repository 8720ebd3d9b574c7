//! Announcements (RFC 5352 section 3.6).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Registrar, Timer};
use crate::wire::{Ppid, RegistrarId, UserMessage, asap};

/// The maximum number of announcing registrars that are counted. Not from the RFCs: limited since
/// anyone can announce.
const MAX_HEARD: usize = 1024;

/// The other registrars that announce themselves.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    heard: BTreeMap<RegistrarId, Instant>,
}

impl Announcements {
    pub(super) fn heard(&mut self, now: Instant, registrar: RegistrarId) {
        if self.heard.len() < MAX_HEARD || self.heard.contains_key(&registrar) {
            self.heard.insert(registrar, now);
        }
    }

    fn count(&mut self, now: Instant, outdate: Duration) -> u32 {
        // With N registrars, each announces itself every N intervals, so announcements stay valid
        // for longer.
        let others = u32::try_from(self.heard.len()).unwrap_or(u32::MAX);
        self.heard.retain(|_, heard| now < *heard + outdate * others);
        u32::try_from(self.heard.len()).unwrap_or(u32::MAX)
    }
}

impl Registrar {
    /// Starts announcing the registrar, once it has joined the others.
    pub(super) fn start_announcing(&mut self, now: Instant) {
        if self.config.announced.is_some() && self.knows_others() {
            self.timers.set(Timer::Announce, now);
        }
    }

    /// Announces the registrar. The interval grows with the number of registrars, so that there is
    /// about one announcement per T6-Serverannounce in total.
    pub(super) fn announce(&mut self, now: Instant) {
        let Some(transports) = &self.config.announced else { return };
        let others = self.announcements.count(now, self.config.announce_outdate);
        let next = now + self.config.announce_interval * (others + 1);
        let message = asap::Message::from(asap::ServerAnnounce {
            registrar: self.config.identifier,
            transports: transports.clone(),
        });
        match message.encode() {
            Ok(payload) => self.out.announce(UserMessage::new(Ppid::ASAP, payload)),
            Err(error) => tracing::warn!(%error, "cannot encode the announcement"),
        }
        self.timers.set(Timer::Announce, next);
    }
}
