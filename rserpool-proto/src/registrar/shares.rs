//! Limits on the resources of one host and of all hosts together (RFC 5352 section 9.1, RFC 5355).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::membership::{Charge, Origin};
use super::{Event, Registrar, Timer};
use crate::Identity;
use crate::handlespace::ElementKey;
use crate::wire::{PoolElement, PoolHandle, quote};

/// The burst size of a rate limit, as a time: a host may send the requests allowed in this time at
/// once.
const WINDOW: Duration = Duration::from_secs(1);

/// The number of connections that are closed at a time when there are too many.
const MAX_CLOSED: usize = 16;

/// The limits on the resources of one host, and of all hosts together. The registrar refuses
/// requests above a limit, and takes nothing away that it granted before.
///
/// The defaults are not from the RFCs: a busy but honest host does not reach them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub(super) connections_per_host: usize,
    pub(super) elements_per_host: usize,
    pub(super) elements: usize,
    pub(super) bytes_per_host: usize,
    pub(super) bytes: usize,
    pub(super) subscriptions_per_host: usize,
    pub(super) resolutions: u32,
    pub(super) reports: u32,
    pub(super) registrations: u32,
    pub(super) pages: u32,
    pub(super) dials: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_host: 32_768,
            elements_per_host: 1_000_000,
            elements: 2_000_000,
            bytes_per_host: 128 * 1024 * 1024,
            bytes: 256 * 1024 * 1024,
            subscriptions_per_host: 16_384,
            resolutions: 10_000,
            reports: 100,
            registrations: 50_000,
            pages: 1_000,
            dials: 100,
        }
    }
}

/// A resource with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "drivers handle each")]
pub enum Limit {
    /// The number of connections of one host.
    Connections,
    /// The number of elements, or their size in bytes: of one host, or of all hosts together.
    Elements,
    /// The number of subscriptions: on one connection, of one host, or of all hosts together.
    Subscriptions,
    /// Resolutions of one host in a second.
    Resolutions,
    /// Reports of unreachable elements of one host in a second.
    Reports,
    /// Registrations of one host in a second.
    Registrations,
    /// Pages of the handlespace (parts of the table for peers) that one host asks for in a second.
    Pages,
    /// Addresses that one peer names and the registrar connects to, in a second.
    Dials,
    /// Other registrars.
    Peers,
}

impl Limit {
    /// All limits.
    pub const ALL: [Self; 9] = [
        Self::Connections,
        Self::Elements,
        Self::Subscriptions,
        Self::Resolutions,
        Self::Reports,
        Self::Registrations,
        Self::Pages,
        Self::Dials,
        Self::Peers,
    ];
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "connections",
            Self::Elements => "elements",
            Self::Subscriptions => "subscriptions",
            Self::Resolutions => "resolutions per second",
            Self::Reports => "reports per second",
            Self::Registrations => "registrations per second",
            Self::Pages => "pages of the handlespace per second",
            Self::Dials => "addresses to dial per second",
            Self::Peers => "peers",
        })
    }
}

impl Limits {
    /// Sets the maximum number of connections of one host. Default: 32,768.
    #[must_use]
    pub fn connections_per_host(mut self, connections: usize) -> Self {
        self.connections_per_host = connections;
        self
    }

    /// Sets the maximum number of pool elements that one host registers, or that it announces as a
    /// peer. Default: 1,000,000.
    #[must_use]
    pub fn elements_per_host(mut self, elements: usize) -> Self {
        self.elements_per_host = elements;
        self
    }

    /// Sets the maximum number of pool elements. Default: 2,000,000.
    #[must_use]
    pub fn elements(mut self, elements: usize) -> Self {
        self.elements = elements;
        self
    }

    /// Sets the maximum size of the elements of one host in bytes. Each element counts with its
    /// encoded parameter and its pool handle. Default: 128 MiB.
    #[must_use]
    pub fn bytes_per_host(mut self, bytes: usize) -> Self {
        self.bytes_per_host = bytes;
        self
    }

    /// Sets the maximum size of all elements in bytes. Each element counts with its encoded
    /// parameter and its pool handle. Default: 256 MiB.
    #[must_use]
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets the maximum number of subscriptions of one host, over all of its connections. Default:
    /// 16,384.
    #[must_use]
    pub fn subscriptions_per_host(mut self, subscriptions: usize) -> Self {
        self.subscriptions_per_host = subscriptions;
        self
    }

    /// Sets the maximum number of resolutions per second by the users of one host. Default: 10,000
    /// (RFC 5352 section 9.1, threat 8). More are refused for lack of resources.
    #[must_use]
    pub fn resolutions(mut self, per_second: u32) -> Self {
        self.resolutions = per_second;
        self
    }

    /// Sets the maximum number of reports of unreachable elements per second by the users of one
    /// host. Default: 100 (RFC 5352 section 9.1, threat 9). More are ignored.
    #[must_use]
    pub fn reports(mut self, per_second: u32) -> Self {
        self.reports = per_second;
        self
    }

    /// Sets the maximum number of registrations per second from one host, including renewals.
    /// Default: 50,000. More are refused for lack of resources.
    #[must_use]
    pub fn registrations(mut self, per_second: u32) -> Self {
        self.registrations = per_second;
        self
    }

    /// Sets the maximum number of pages of the handlespace that one host may ask for per second.
    /// Default: 1,000, which is up to 128,000 elements. More are refused.
    #[must_use]
    pub fn pages(mut self, per_second: u32) -> Self {
        self.pages = per_second;
        self
    }

    /// Sets the maximum number of addresses named by one peer that are dialled per second. Default:
    /// 100.
    #[must_use]
    pub fn dials(mut self, per_second: u32) -> Self {
        self.dials = per_second;
        self
    }

    fn rate(&self, limit: Limit) -> Option<u32> {
        match limit {
            Limit::Resolutions => Some(self.resolutions),
            Limit::Reports => Some(self.reports),
            Limit::Registrations => Some(self.registrations),
            Limit::Pages => Some(self.pages),
            Limit::Dials => Some(self.dials),
            Limit::Connections | Limit::Elements | Limit::Subscriptions | Limit::Peers => None,
        }
    }
}

/// Usage of each host that holds any resource, or used a rate recently.
#[derive(Debug, Default)]
pub(super) struct Shares {
    hosts: HashMap<IpAddr, Share>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Share {
    connections: usize,
    elements: usize,
    bytes: usize,
    subscriptions: usize,
    /// For each rate, the time at which the whole allowance is available again.
    used_until: [Option<Instant>; Limit::ALL.len()],
    watched: bool,
}

impl Share {
    fn is_empty(&self) -> bool {
        self.connections + self.elements + self.subscriptions == 0
    }
}

impl Shares {
    /// Returns the number of hosts whose rates are being counted.
    pub(super) fn watched(&self) -> usize {
        self.hosts.values().filter(|share| share.watched).count()
    }

    fn credit(&mut self, host: IpAddr, give_back: impl FnOnce(&mut Share)) {
        if let Some(share) = self.hosts.get_mut(&host) {
            give_back(share);
            if share.is_empty() && !share.watched {
                self.hosts.remove(&host);
                if self.hosts.len() * 8 < self.hosts.capacity() {
                    self.hosts.shrink_to(2 * self.hosts.len());
                }
            }
        }
    }

    pub(super) fn close_connection(&mut self, host: IpAddr) {
        self.credit(host, |share| share.connections -= 1);
    }

    pub(super) fn unsubscribe(&mut self, host: IpAddr, count: usize) {
        self.credit(host, |share| share.subscriptions -= count);
    }

    /// Stops counting an element against the limits of its host: the element was removed, or counts
    /// for another host now.
    pub(super) fn discharge(&mut self, charge: Option<(IpAddr, u32)>) {
        let Some((host, bytes)) = charge else { return };
        let bytes = bytes as usize;
        self.bytes -= bytes;
        self.credit(host, |share| {
            share.elements -= 1;
            share.bytes -= bytes;
        });
    }
}

impl Registrar {
    /// Reports that a host reached a limit.
    pub(super) fn hit(&mut self, limit: Limit, host: IpAddr) {
        self.out.event(Event::LimitHit(limit, host));
    }

    /// Returns whether the rate limit allows this request of a host now, and counts it.
    pub(super) fn allows(&mut self, now: Instant, host: IpAddr, limit: Limit) -> bool {
        let Some(per_second) = self.config.limits.rate(limit) else { return true };
        let share = self.shares.hosts.entry(host).or_default();
        if !std::mem::replace(&mut share.watched, true) {
            self.timers.set(Timer::Host(host), now + 2 * WINDOW);
        }
        let until = share.used_until[limit as usize].get_or_insert(now);
        let next = (*until).max(now) + WINDOW / per_second.max(1);
        let allowed = next <= now + WINDOW;
        if allowed {
            *until = next;
        } else {
            self.hit(limit, host);
        }
        allowed
    }

    /// Stops counting the rates of a host once its whole allowance is available again.
    pub(super) fn handle_host_timer(&mut self, now: Instant, host: IpAddr) {
        let Some(share) = self.shares.hosts.get_mut(&host) else { return };
        if share.used_until.iter().flatten().all(|until| *until <= now) {
            share.watched = false;
            share.used_until = Default::default();
            self.shares.credit(host, |_| {});
        } else {
            self.timers.set(Timer::Host(host), now + 2 * WINDOW);
        }
    }

    /// Returns whether a host may have another connection, and counts the connection if so.
    pub(super) fn takes_connection(&mut self, host: IpAddr) -> bool {
        let share = self.shares.hosts.entry(host).or_default();
        let allowed = share.connections < self.config.limits.connections_per_host;
        if allowed {
            share.connections += 1;
        } else {
            self.hit(Limit::Connections, host);
        }
        allowed
    }

    /// Returns whether a host may subscribe to another pool, and counts the subscription if so.
    pub(super) fn takes_subscription(&mut self, host: IpAddr) -> bool {
        let share = self.shares.hosts.entry(host).or_default();
        let allowed = share.subscriptions < self.config.limits.subscriptions_per_host;
        if allowed {
            share.subscriptions += 1;
        } else {
            self.hit(Limit::Subscriptions, host);
        }
        allowed
    }

    /// Returns whether this host, or all hosts together, reached a limit on elements.
    fn is_full(&self, host: IpAddr) -> bool {
        let limits = &self.config.limits;
        let share = self.shares.hosts.get(&host);
        self.handlespace.len() >= limits.elements
            || self.shares.bytes >= limits.bytes
            || share.is_some_and(|share| {
                share.elements >= limits.elements_per_host || share.bytes >= limits.bytes_per_host
            })
    }

    /// Returns whether the limits of this host and of all hosts allow an element with these values.
    /// `present` is the key of the element to be updated, if any. An update that does not increase
    /// the usage of the host is always allowed.
    pub(super) fn has_room(
        &mut self,
        host: IpAddr,
        present: Option<ElementKey>,
        handle: &PoolHandle,
        value: &PoolElement,
    ) -> bool {
        let full = self.is_full(host)
            && present.is_none_or(|key| self.pays_more(key, host, handle, value));
        if full {
            self.hit(Limit::Elements, host);
        }
        !full
    }

    /// Returns whether an update of the element to these values would increase the usage of `host`.
    fn pays_more(
        &self,
        key: ElementKey,
        host: IpAddr,
        handle: &PoolHandle,
        value: &PoolElement,
    ) -> bool {
        let Some(element) = self.handlespace.get(key) else { return true };
        let Some((payer, paid)) = element.state.charge.host else { return true };
        let size = handle.as_bytes().len() + quote(value).len();
        payer != host || size > paid as usize + 3
    }

    /// Counts an element, which is new or has other values, against the limits of `host` and of the
    /// identity that registered it.
    pub(super) fn recharge(&mut self, key: ElementKey, host: IpAddr, owner: Option<Identity>) {
        let Some(pool) = self.handlespace.handle_of(key) else { return };
        let handle = pool.as_bytes().len();
        let Some(element) = self.handlespace.get_mut(key) else { return };
        let size = handle + element.encoded().as_bytes().len();
        // No element is larger than a few thousand bytes.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let charge = Charge { host: Some((host, size)), owner };
        if element.state.charge == charge {
            return;
        }
        let owner = charge.owner.clone();
        let old = std::mem::replace(&mut element.state.charge, charge);
        if old.owner != owner {
            self.change_owner(key, old.owner, owner);
        }
        // The new charge is added before the old one is removed, so that the host is not forgotten
        // in between.
        let share = self.shares.hosts.entry(host).or_default();
        share.elements += 1;
        share.bytes += size as usize;
        self.shares.bytes += size as usize;
        self.shares.discharge(old.host);
    }

    /// Closes connections when there are too many, or no descriptors for more. Considers only
    /// connections that serve no element. Closes those that were silent for the longest time, of
    /// the host that has the most of them.
    pub(super) fn close_silent(&mut self, now: Instant) {
        let clients = self
            .connections
            .iter()
            .filter(|(_, client)| client.origin == Origin::Accepted && client.elements.is_empty());
        let clients = clients
            .map(|(connection, client)| (client.host, (client.heard, *connection)))
            .chain(self.peers.silent_links());
        let mut hosts: BTreeMap<IpAddr, Vec<_>> = BTreeMap::new();
        for (host, connection) in clients {
            hosts.entry(host).or_default().push(connection);
        }
        let most = hosts.into_iter().max_by_key(|(_, connections)| connections.len());
        let Some((host, mut silent)) = most else { return };
        silent.sort_unstable();
        silent.truncate(MAX_CLOSED);
        self.out.event(Event::Crowded { host, closed: silent.len() });
        for (_, connection) in silent {
            self.drop_connection(now, connection);
        }
    }
}
