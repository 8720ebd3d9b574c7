//! Registrars, elements and users on a virtual network, and the faults inflicted on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::element::ElementConfig;
use crate::registrar::{self, RegistrarConfig};
use crate::user::{RequestId, ResolveError, ResolveOptions, UserConfig};
use crate::wire::{
    PolicyParameters, PoolElement, PoolElementId, PoolHandle, Ppid, RegistrarId, TransportAddress,
};
use crate::{Compatibility, Element, HuntConfig, Registrar, User, user};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, RngExt, SeedableRng};

use super::network::{HostId, Network};
use super::plan::{Fault, Plan, Selection};
use super::report::Tally;
use super::trace::Trace;
use crate::testing::adversary::Adversary;
use crate::testing::event::Event;
use crate::testing::role::Role;

/// All hosts of a simulation, and the observations of the simulator about them.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) plan: Plan,
    pub(super) network: Network,
    pub(super) rng: StdRng,
    pub(super) tally: Tally,
    pub(super) registrars: Vec<HostId>,
    pub(super) elements: BTreeMap<HostId, Member>,
    pub(super) users: Vec<HostId>,
    pub(super) adversaries: Vec<HostId>,
    /// The times of the users' unanswered requests. The simulator also removes a request when its
    /// user is killed or its host loses power.
    pub(super) asked: BTreeMap<(HostId, RequestId), Duration>,
    /// The answers to the users' requests.
    pub(super) answers: BTreeMap<(HostId, RequestId), Result<Vec<PoolElement>, ResolveError>>,
    /// Pairs of a registrar and an element that the registrar has known at some time since the last
    /// fault that disturbed one of the two hosts.
    pub(super) present: BTreeSet<(HostId, HostId)>,
    /// The time since which an element is missing at a registrar although neither of the two hosts
    /// was disturbed.
    pub(super) missing: BTreeMap<(HostId, HostId), Duration>,
    /// Last notification to each user about each pool. All users subscribe to all pools.
    pub(super) told: BTreeMap<(HostId, PoolHandle), Vec<PoolElement>>,
}

/// An element as the registrars should know it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) pool: usize,
    /// The configured identifier. If none, the element draws one.
    fixed: Option<PoolElementId>,
    /// The kind of its policy.
    selection: Selection,
    pub(super) policy: PolicyParameters,
    /// True if the element is to be registered; false after it was told to leave.
    pub(super) wants: bool,
}

pub(super) fn handle(pool: usize) -> PoolHandle {
    format!("Pool{pool}").parse().expect("a pool handle")
}

/// Interval between checks of the rules that hold at all times.
const GLANCE: Duration = Duration::from_millis(250);

impl Cluster {
    /// Creates the hosts with their processes, which start within the first seconds.
    pub(super) fn new(seed: u64, adversary: Option<Ppid>, trace: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan { adversary, ..Plan::draw(&mut rng) };
        let mut trace = Trace::new(trace);
        trace.line(Duration::ZERO, || format!("{plan:?}"));
        let network = Network::new(rng.next_u64(), plan.weather.clone(), trace);
        let mut cluster = Self {
            network,
            rng,
            tally: Tally::default(),
            registrars: Vec::new(),
            elements: BTreeMap::new(),
            users: Vec::new(),
            adversaries: Vec::new(),
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            present: BTreeSet::new(),
            missing: BTreeMap::new(),
            told: BTreeMap::new(),
            plan,
        };
        cluster.add_hosts();
        cluster
    }

    fn add_hosts(&mut self) {
        for index in 0..self.plan.registrars {
            let host = self.add_host(format!("registrar{index}"));
            self.registrars.push(host);
        }
        for index in 0..self.plan.elements {
            let host = self.add_host(format!("element{index}"));
            let pool = self.rng.random_range(0..self.plan.pools.len());
            let identifier = PoolElementId(u32::try_from(host).expect("few hosts"));
            let fixed = self.rng.random_bool(0.5).then_some(identifier);
            let selection = if self.plan.quarrel {
                Selection::draw(&mut self.rng)
            } else {
                self.plan.pools[pool]
            };
            let policy = selection.policy(&mut self.rng);
            let member = Member { pool, fixed, selection, policy, wants: true };
            self.elements.insert(host, member);
        }
        for index in 0..self.plan.users {
            let host = self.add_host(format!("user{index}"));
            self.users.push(host);
        }
        if self.plan.adversary.is_some() {
            for index in 0..self.rng.random_range(1..=2) {
                let host = self.add_host(format!("adversary{index}"));
                self.adversaries.push(host);
            }
        }
        for host in 0..self.network.hosts().len() {
            if self.rng.random_bool(0.5) {
                let wait = Duration::from_millis(self.rng.random_range(0..3_000));
                self.run(wait);
            }
            self.start(host);
        }
    }

    fn add_host(&mut self, name: String) -> HostId {
        let number = u8::try_from(self.network.hosts().len() + 1).expect("few hosts");
        let socket_address = SocketAddr::from(([10, 0, 0, number], 3863));
        let address = TransportAddress::new(self.plan.protocol, socket_address);
        self.network.add_host(name, address)
    }

    fn address(&self, host: HostId) -> TransportAddress {
        self.network.hosts()[host].address.clone()
    }

    /// Returns the registrars that are configured on all hosts.
    pub(super) fn well_known(&self) -> &[HostId] {
        &self.registrars[..self.plan.discovery.known(self.registrars.len())]
    }

    fn hunt(&self) -> HuntConfig {
        let hunt = HuntConfig::new(self.well_known().iter().map(|host| self.address(*host)))
            .compatibility(self.plan.compatibility);
        if self.plan.discovery.multicast() { hunt.listen_for_announcements() } else { hunt }
    }

    /// Starts the process that belongs to a host.
    pub(super) fn start(&mut self, host: HostId) {
        let seed = self.rng.next_u64();
        let role = if self.registrars.contains(&host) {
            Role::Registrar(Box::new(self.registrar(host, seed)))
        } else if let Some(protocol) = self.plan.adversary
            && self.adversaries.contains(&host)
        {
            let targets = self.registrars.iter().map(|target| self.address(*target)).collect();
            let pools = (0..self.plan.pools.len()).map(handle).collect();
            let address = self.address(host);
            Role::Adversary(Box::new(Adversary::new(protocol, address, targets, pools, seed)))
        } else if let Some(member) = self.elements.get_mut(&host) {
            member.wants = true;
            Role::Element(Box::new(self.element(host, seed)))
        } else {
            let timeout = Compatibility::default().request_timeout();
            let config = UserConfig::new(self.hunt()).request_timeout(timeout);
            Role::User(Box::new(User::new(config, seed)))
        };
        let skew = self.plan.skew;
        let speed = self.rng.random_range(1_000_000 - skew..=1_000_000 + skew);
        self.tell(|network| format!("start {}", network.hosts()[host].name));
        self.network.start(host, role, speed);
        let pools = self.plan.pools.len();
        self.network.with(host, |role, now| {
            if let Role::User(user) = role {
                for pool in 0..pools {
                    user.subscribe(now, handle(pool)).expect("a short handle");
                }
            }
        });
    }

    fn registrar(&mut self, host: HostId, seed: u64) -> Registrar {
        // Most registrars draw an identifier at each start; some have a fixed one.
        let fixed = host % 4 == 3;
        let number = if fixed { 0x0f00_0000 + host } else { self.rng.random_range(1..0x1000_0000) };
        let identifier = RegistrarId(u32::try_from(number).expect("28 bits"));
        let address = self.address(host);
        let peers = self.well_known().iter().filter(|other| **other != host);
        // The rules assume the timers of the default profile, so these are used with every profile.
        let [cycle, last_heard, no_response] = Compatibility::default().heartbeat();
        let mut config = RegistrarConfig::default()
            .identifier(identifier)
            .compatibility(self.plan.compatibility)
            .heartbeat_cycle(cycle)
            .max_time_last_heard(last_heard)
            .max_time_no_response(no_response)
            .enrp(address.clone())
            .peers(peers.map(|other| self.address(*other)));
        if self.plan.discovery.multicast() {
            config = config.multicast_presence().announce([address]);
        }
        Registrar::new(config, seed)
    }

    fn element(&self, host: HostId, seed: u64) -> Element {
        let member = &self.elements[&host];
        let address = self.address(host);
        let service = TransportAddress { port: 7, ..address.clone() };
        let timeout = Compatibility::default().registration_timeout();
        let mut config = ElementConfig::new(handle(member.pool), service, self.hunt())
            .registration_timeout(timeout)
            .deregistration_timeout(timeout)
            .policy(member.policy.clone())
            .asap_transport(address);
        if let Some(identifier) = member.fixed {
            config = config.identifier(identifier);
        }
        Element::new(config, seed)
    }

    fn tell(&mut self, text: impl FnOnce(&Network) -> String) {
        let line = text(&self.network);
        self.network.trace.line(self.network.now(), || format!("* {line}"));
    }

    /// Lets time pass, checks the rules that hold at all times, and records the events of the
    /// machines.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.network.now() + duration;
        while self.network.violation.is_none() && self.network.now() < end {
            let step = end.min(self.network.now() + GLANCE);
            self.network.run_until(step);
            self.check_steady();
        }
        for (host, event) in std::mem::take(&mut self.network.events) {
            match event {
                Event::User(user::Event::Resolved { request, result, .. }) => {
                    if self.asked.remove(&(host, request)).is_none() {
                        self.network.violate("answer without a request".to_owned());
                    }
                    self.answers.insert((host, request), result);
                }
                Event::User(user::Event::PoolChanged { handle, elements }) => {
                    self.told.insert((host, handle), elements);
                }
                Event::Registrar(registrar::Event::Removed(element, reason, _)) => {
                    self.check_removal(host, &element, reason);
                }
                Event::User(_) | Event::Element(_) | Event::Registrar(_) => {}
            }
        }
    }

    /// Returns the hosts on which a process is running, or those on which none is.
    fn hosts(&self, running: bool) -> Vec<HostId> {
        let all = 0..self.network.hosts().len();
        all.filter(|host| self.network.role(*host).is_some() == running).collect()
    }

    /// Inflicts a fault, if it is possible.
    pub(super) fn inflict(&mut self, fault: Fault) {
        let honest = |host: &HostId| !self.adversaries.contains(host);
        let running: Vec<_> = self.hosts(true).into_iter().filter(honest).collect();
        let running = running.choose(&mut self.rng).copied();
        let happened = match (fault, running) {
            (Fault::Kill, Some(host)) => {
                self.tell(|network| format!("kill {}", network.hosts()[host].name));
                self.forget_requests(host);
                self.network.kill(host);
                true
            }
            (Fault::PowerLoss, Some(host)) => {
                self.tell(|network| format!("power off {}", network.hosts()[host].name));
                self.forget_requests(host);
                self.network.power_off(host);
                true
            }
            (Fault::Pause, Some(host)) if self.network.is_running(host) => {
                let duration = Duration::from_millis(self.rng.random_range(50..15_000));
                self.tell(|network| {
                    format!("{} stops for {duration:?}", network.hosts()[host].name)
                });
                self.network.pause(host, duration);
                true
            }
            (Fault::Leave, _) => self.registrar_leaves(),
            (Fault::Restart, _) => self.restart_one(),
            (Fault::Break, _) => self.network.break_connection(),
            (Fault::OneWayCut, _) => {
                let hosts = 0..self.network.hosts().len();
                let chosen = hosts.sample(&mut self.rng, 2);
                let [from, to] = chosen[..] else { return };
                self.tell(|network| {
                    let hosts = network.hosts();
                    format!("{} does not hear {}", hosts[to].name, hosts[from].name)
                });
                self.network.cut(from, to);
                true
            }
            (Fault::Partition, _) => {
                self.part();
                true
            }
            (Fault::Mend, _) => {
                self.tell(|_| "mend the network".to_owned());
                self.network.mend();
                true
            }
            (Fault::Kill | Fault::PowerLoss | Fault::Pause, _) => false,
        };
        if happened {
            *self.tally.faults.entry(fault).or_default() += 1;
        }
    }

    /// Partitions the hosts into two groups that do not reach each other.
    pub(super) fn part(&mut self) {
        let side: Vec<_> =
            (0..self.network.hosts().len()).map(|_| self.rng.random_bool(0.5)).collect();
        self.tell(|network| {
            let one = network.hosts().iter().zip(&side).filter(|(_, side)| **side);
            let names: Vec<_> = one.map(|(host, _)| host.name.as_str()).collect();
            format!("part the network: {} from the others", names.join(" "))
        });
        self.network.mend();
        for from in 0..side.len() {
            for to in 0..side.len() {
                if side[from] != side[to] {
                    self.network.cut(from, to);
                }
            }
        }
    }

    /// Makes a random registrar leave the other registrars gracefully. Returns false if no
    /// registrar is running.
    pub(super) fn registrar_leaves(&mut self) -> bool {
        let running = self.registrars.iter().filter(|host| self.network.is_running(**host));
        let Some(host) = running.copied().choose(&mut self.rng) else { return false };
        self.end_registrar(host);
        true
    }

    pub(super) fn end_registrar(&mut self, host: HostId) {
        self.tell(|network| format!("{} leaves the others", network.hosts()[host].name));
        self.network.with(host, |role, now| {
            let Role::Registrar(registrar) = role else { panic!("no registrar") };
            registrar.leave(now);
        });
    }

    fn restart_one(&mut self) -> bool {
        let Some(host) = self.hosts(false).choose(&mut self.rng).copied() else { return false };
        self.start(host);
        true
    }

    fn forget_requests(&mut self, host: HostId) {
        self.asked.retain(|(user, _), _| *user != host);
        self.told.retain(|(user, _), _| *user != host);
    }

    /// Simulates one ordinary operation: a load changes, an element leaves, or users resolve pools
    /// or report elements.
    pub(super) fn work(&mut self) {
        match self.rng.random_range(0..8) {
            0 | 1 => self.change_policy(),
            2 => self.leave(),
            3 | 4 => self.report(),
            _ => {
                for pool in 0..self.plan.pools.len() {
                    self.ask(pool);
                }
            }
        }
    }

    fn running_member(&mut self) -> Option<HostId> {
        let members = self.elements.iter().filter(|(_, member)| member.wants);
        let hosts = members.map(|(host, _)| *host).filter(|host| self.network.is_running(*host));
        hosts.collect::<Vec<_>>().choose(&mut self.rng).copied()
    }

    pub(super) fn change_policy(&mut self) {
        let Some(host) = self.running_member() else { return };
        let policy = self.elements[&host].selection.policy(&mut self.rng);
        self.tell(|network| format!("{} has the policy {policy} now", network.hosts()[host].name));
        self.elements.get_mut(&host).expect("a member").policy = policy.clone();
        self.network.with(host, |role, now| {
            let Role::Element(element) = role else { panic!("no element") };
            element.set_policy(now, policy);
        });
    }

    pub(super) fn leave(&mut self) {
        if let Some(host) = self.running_member() {
            self.deregister(host);
        }
    }

    pub(super) fn deregister(&mut self, host: HostId) {
        self.tell(|network| format!("{} leaves its pool", network.hosts()[host].name));
        self.elements.get_mut(&host).expect("a member").wants = false;
        self.network.with(host, |role, now| {
            let Role::Element(element) = role else { panic!("no element") };
            element.deregister(now);
        });
    }

    /// Makes a user report an element, in most cases wrongly.
    fn report(&mut self) {
        let users = self.users.iter().copied().filter(|host| self.network.is_running(*host));
        let Some(user) = users.choose(&mut self.rng) else { return };
        let Some(host) = self.elements.keys().copied().choose(&mut self.rng) else { return };
        let Some(identifier) =
            self.network.role(host).and_then(Role::element).map(Element::identifier)
        else {
            return;
        };
        let pool = self.elements[&host].pool;
        self.network.with(user, |role, now| {
            let Role::User(user) = role else { panic!("no user") };
            user.report_unreachable(now, handle(pool), identifier);
        });
    }

    /// Makes all users resolve a pool, and returns their requests.
    pub(super) fn ask(&mut self, pool: usize) -> Vec<(HostId, RequestId)> {
        let users = self.users.iter().copied().filter(|host| self.network.is_running(*host));
        let mut asked = Vec::new();
        for host in users.collect::<Vec<_>>() {
            let request = self.network.with(host, |role, now| {
                let Role::User(user) = role else { panic!("no user") };
                user.resolve(now, handle(pool), &ResolveOptions::default())
            });
            self.asked.insert((host, request), self.network.now());
            asked.push((host, request));
        }
        asked
    }
}
