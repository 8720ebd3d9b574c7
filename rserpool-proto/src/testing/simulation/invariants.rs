//! Rules that hold at all times, or when no fault has happened for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Registrar;
use crate::handlespace::Checksum;
use crate::registrar::{ElementName, RemovalReason};
use crate::wire::{PolicyParameters, PoolElement, PoolElementId, PoolHandle, Ppid, RegistrarId};

use super::cluster::{Cluster, Member, handle};
use super::network::HostId;
use crate::testing::adversary;
use crate::testing::role::Role;

/// The time without a fault after which a host counts as steady. It is longer than the 45 s within
/// which the cluster has to recover from faults.
const STEADY: Duration = Duration::from_secs(60);

/// The maximum time that a steady element may be missing at a steady registrar. In this time, the
/// registrar asks the element whether it is alive, and may have to connect to it first.
const MISSING: Duration = Duration::from_millis(1500);

/// A part of a partitioned network: hosts that reach each other.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) registrars: Vec<HostId>,
    pub(super) elements: Vec<HostId>,
    pub(super) users: Vec<HostId>,
}

impl Cluster {
    /// Returns the parts of the network that have a registrar which the other hosts can find.
    pub(super) fn parts(&self) -> Vec<Part> {
        let running: Vec<_> =
            (0..self.network.hosts().len()).filter(|h| self.network.is_running(*h)).collect();
        let mut left: BTreeSet<_> = running.into_iter().collect();
        let mut parts = Vec::new();
        while let Some(first) = left.first().copied() {
            let hosts: BTreeSet<_> = left
                .iter()
                .copied()
                .filter(|other| *other == first || self.network.reach(first, *other))
                .collect();
            left.retain(|host| !hosts.contains(host));
            let of = |role: &[HostId]| role.iter().copied().filter(|h| hosts.contains(h)).collect();
            let members = self.elements.iter().filter(|(_, member)| member.wants);
            let members: Vec<_> = members.map(|(host, _)| *host).collect();
            parts.push(Part {
                registrars: of(&self.registrars),
                elements: of(&members),
                users: of(&self.users),
            });
        }
        let found = |part: &Part| {
            !part.registrars.is_empty()
                && (self.plan.discovery.multicast()
                    || part.registrars.iter().any(|host| self.well_known().contains(host)))
        };
        parts.retain(found);
        parts
    }

    fn registrar_at(&self, host: HostId) -> &Registrar {
        self.network.role(host).and_then(Role::registrar).expect("a registrar runs there")
    }

    /// Returns the elements that a part of the network should have, by pool and identifier, with
    /// their policies.
    pub(super) fn truth(
        &self,
        part: &Part,
    ) -> BTreeMap<(PoolHandle, PoolElementId), PolicyParameters> {
        let of = |host: &HostId| {
            let element = self.network.role(*host).and_then(Role::element).expect("it runs");
            let member = &self.elements[host];
            ((handle(member.pool), element.identifier()), member.policy.clone())
        };
        part.elements.iter().map(of).collect()
    }

    /// Checks that all registrars of each part know exactly the elements that exist.
    pub(super) fn agreement(&self) -> Result<(), String> {
        self.parts().iter().try_for_each(|part| self.agree(part))
    }

    fn agree(&self, part: &Part) -> Result<(), String> {
        let name = |host: HostId| &self.network.hosts()[host].name;
        let truth = self.truth(part);
        let identifiers: BTreeSet<RegistrarId> =
            part.registrars.iter().map(|host| self.registrar_at(*host).identifier()).collect();
        for host in &part.elements {
            let element = self.network.role(*host).and_then(Role::element).expect("it runs");
            if !element.is_registered() && !self.plan.quarrel {
                return Err(format!("{} is not registered", name(*host)));
            }
        }
        let mut first: Option<(HostId, Known)> = None;
        for host in part.registrars.iter().copied() {
            let registrar = self.registrar_at(host);
            let mut known = known(registrar);
            for home in &identifiers {
                let mut sum = Checksum::default();
                let owned = known.iter().filter(|(_, element)| element.home_registrar == *home);
                owned.for_each(|((pool, identifier), _)| sum.add(pool, *identifier));
                if registrar.checksum(*home) != sum {
                    return Err(format!("{} has a wrong checksum of {home}", name(host)));
                }
            }
            // The registrars need not agree on the elements of adversaries.
            known.retain(|(_, identifier), _| !adversary::is_own(*identifier));
            let found: BTreeMap<_, _> =
                known.iter().map(|(key, element)| (key.clone(), element.policy.clone())).collect();
            let right = if self.plan.quarrel {
                found.iter().all(|(key, policy)| truth.get(key) == Some(policy))
            } else {
                found == truth
            };
            if !right {
                let wrong = describe_difference(&found, &truth);
                return Err(format!("{} is wrong about {wrong}", name(host)));
            }
            let lost = known.values().find(|e| !identifiers.contains(&e.home_registrar));
            if let Some(lost) = lost {
                let (element, home) = (lost.identifier, lost.home_registrar);
                return Err(format!(
                    "{}: {element} has the home {home}, which is none",
                    name(host)
                ));
            }
            let peers: BTreeSet<_> = registrar.peers().into_iter().collect();
            let mut others = identifiers.clone();
            others.remove(&registrar.identifier());
            if peers != others {
                return Err(format!(
                    "{} ({}) has the peers {peers:?}, not {others:?}",
                    name(host),
                    registrar.identifier()
                ));
            }
            match &first {
                Some((other, theirs)) if *theirs != known => {
                    let differing = known.iter().zip(theirs).find(|(one, two)| one != two);
                    return Err(format!(
                        "{} and {} differ: {differing:?}",
                        name(host),
                        name(*other)
                    ));
                }
                Some(_) => {}
                None => first = Some((host, known)),
            }
        }
        Ok(())
    }

    /// Checks a rule that holds at all times: once a steady registrar knows a steady element, the
    /// element is missing at that registrar for less than [`MISSING`].
    pub(super) fn check_steady(&mut self) {
        let now = self.network.now();
        let since = now.saturating_sub(STEADY);
        // Registrars believe what adversaries announce over ENRP.
        let believed = self.plan.adversary == Some(Ppid::ENRP);
        if self.plan.quarrel || believed || now < STEADY || !self.network.whole_since(since) {
            self.present.clear();
            return self.missing.clear();
        }
        let steady = |host: &HostId| {
            self.network.is_running(*host) && self.network.hosts()[*host].disturbed <= since
        };
        let registrars: Vec<_> = self.registrars.iter().copied().filter(steady).collect();
        let elements: Vec<_> = self
            .elements
            .iter()
            .filter(|(host, member)| member.wants && steady(host))
            .map(|(host, member)| (*host, handle(member.pool)))
            .collect();
        let (mut missing, mut all_present) = (BTreeMap::new(), BTreeSet::new());
        for registrar in registrars {
            let known = self.registrar_at(registrar);
            let present: BTreeSet<_> =
                known.members().map(|(pool, element)| (pool.clone(), element.identifier)).collect();
            for (host, pool) in &elements {
                let element = self.network.role(*host).and_then(Role::element).expect("it runs");
                let key = (registrar, *host);
                if !element.is_registered() {
                    continue;
                }
                if present.contains(&(pool.clone(), element.identifier())) {
                    all_present.insert(key);
                } else if self.present.contains(&key) {
                    all_present.insert(key);
                    let since = self.missing.get(&key).copied().unwrap_or(now);
                    missing.insert(key, since);
                }
            }
        }
        (self.missing, self.present) = (missing, all_present);
        let too_long = self.missing.iter().find(|(_, since)| now - **since >= MISSING);
        if let Some(((registrar, element), since)) = too_long {
            let hosts = self.network.hosts();
            let (registrar, element) = (&hosts[*registrar].name, &hosts[*element].name);
            let text = format!("{registrar} does not have {element} since {since:?}");
            self.network.violate(text);
        }
    }

    /// Checks a rule that holds at all times: a steady registrar never considers a steady element
    /// dead, not even for a moment.
    pub(super) fn check_removal(
        &mut self,
        registrar: HostId,
        name: &ElementName,
        reason: RemovalReason,
    ) {
        let dead = match reason {
            RemovalReason::Expired
            | RemovalReason::KeepAliveTimeout
            | RemovalReason::Unreachable
            | RemovalReason::Reported => true,
            RemovalReason::Deregistered
            | RemovalReason::OtherPolicy
            | RemovalReason::ElsewhereRemoved
            | RemovalReason::Denied
            | RemovalReason::Ordered => false,
        };
        let now = self.network.now();
        let since = now.saturating_sub(STEADY);
        let believed = self.plan.adversary == Some(Ppid::ENRP);
        if !dead || believed || now < STEADY || !self.network.whole_since(since) {
            return;
        }
        let steady = |host: HostId| {
            self.network.is_running(host) && self.network.hosts()[host].disturbed <= since
        };
        let its = |(host, member): &(&HostId, &Member)| {
            let element = self.network.role(**host).and_then(Role::element);
            handle(member.pool) == name.pool_handle
                && element.is_some_and(|it| it.identifier() == name.identifier)
        };
        let alive = self.elements.iter().find(its).map(|(host, _)| *host);
        if let Some(element) = alive.filter(|element| steady(*element) && steady(registrar)) {
            let hosts = self.network.hosts();
            let (registrar, element) = (&hosts[registrar].name, &hosts[element].name);
            let text = format!("{registrar} took {element} for dead: {reason}");
            self.network.violate(text);
        }
    }

    /// Checks that only its home registrar sends keep-alives to each element.
    pub(super) fn check_keep_alives(&self) -> Result<(), String> {
        if self.plan.adversary.is_some() {
            // Adversaries report elements as unreachable. Registrars other than the home registrar
            // then send keep-alives, too.
            return Ok(());
        }
        for part in self.parts() {
            for registrar in &part.registrars {
                let identifier = self.registrar_at(*registrar).identifier();
                let homes: BTreeMap<_, _> = known(self.registrar_at(*registrar))
                    .into_iter()
                    .map(|(key, element)| (key, element.home_registrar))
                    .collect();
                for (from, to) in &self.network.traffic.keep_alives {
                    let element = self.network.role(*to).and_then(Role::element);
                    let (true, Some(element), Some(member)) =
                        (from == registrar, element, self.elements.get(to))
                    else {
                        continue;
                    };
                    let home = homes.get(&(handle(member.pool), element.identifier()));
                    if home.is_some_and(|home| *home != identifier) {
                        let hosts = self.network.hosts();
                        let (from, to) = (&hosts[*from].name, &hosts[*to].name);
                        return Err(format!(
                            "{from} sends keep-alives to {to}, not being its home"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks that registrars hold nothing after all elements and users have left.
    pub(super) fn check_leaks(&self) -> Result<(), String> {
        for host in &self.registrars {
            let Some(registrar) = self.network.role(*host).and_then(Role::registrar) else {
                continue;
            };
            let name = &self.network.hosts()[*host].name;
            let footprint = registrar.footprint();
            // Two peers may connect to each other at the same time, and configured peers that do
            // not answer are tried again and again. Each peer has its timers, and the registrar has
            // one for presence and one for announcements.
            let peers = registrar.peers().len();
            let configured = self.well_known().len();
            if registrar.elements() > 0
                || footprint.waiting + footprint.counted_hosts + footprint.subscriptions > 0
                || footprint.rivals > 0
                || footprint.connections > 2 * peers + configured
                || footprint.timers > 3 * peers + 2
            {
                let elements = registrar.elements();
                return Err(format!(
                    "{name} still holds {elements} elements and {footprint:?}, with {peers} peers: {}",
                    self.network.connections(*host).join(", ")
                ));
            }
        }
        Ok(())
    }
}

type Known = BTreeMap<(PoolHandle, PoolElementId), PoolElement>;

fn known(registrar: &Registrar) -> Known {
    let members = registrar.members();
    members.map(|(pool, element)| ((pool.clone(), element.identifier), element.clone())).collect()
}

fn describe_difference(
    found: &BTreeMap<(PoolHandle, PoolElementId), PolicyParameters>,
    truth: &BTreeMap<(PoolHandle, PoolElementId), PolicyParameters>,
) -> String {
    for ((pool, identifier), policy) in truth {
        match found.get(&(pool.clone(), *identifier)) {
            None => return format!("{pool}/{identifier}, which it does not know"),
            Some(other) if other != policy => {
                return format!("{pool}/{identifier}: {other}, not {policy}");
            }
            Some(_) => {}
        }
    }
    let ghost = found.keys().find(|key| !truth.contains_key(key));
    ghost.map_or_else(String::new, |(pool, identifier)| {
        format!("{pool}/{identifier}, which is not there")
    })
}
