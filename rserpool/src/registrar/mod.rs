//! A running registrar.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::future::{Either, select};
use rserpool_proto::Machine;
use rserpool_proto::access::AccessRole;
use rserpool_proto::registrar::{self, RegistrarConfig};
use rserpool_proto::wire::parameter::Addresses;
use rserpool_proto::wire::{Ppid, RegistrarId, TransportAddress, TransportProtocol};

use crate::log::{self, note_limited, warn_limited};
use crate::runtime::Runtime;
use crate::task::{Ended, Role, Task};
use crate::transport::{Purpose, interfaces};
use crate::verify::{hosts_with, log_denial};
use crate::{ASAP, IntoAddress, ListenError, Network, StartError, Stopped, address, random_seed};

/// A registrar that runs in the background until this handle is dropped.
///
/// ```
/// use rserpool::{Network, Registrar, RegistrarConfig};
/// # use rserpool::transport::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = Network::new(rserpool_tokio::TokioRuntime::current(), Memory::new());
/// let registrar = Registrar::start(&network, ["192.0.2.1:3863"], RegistrarConfig::default())?;
/// assert_eq!(registrar.local_address().port, 3863);
/// registrar.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Registrar {
    commands: mpsc::Sender<Command>,
    ended: Ended,
    runtime: Arc<dyn Runtime>,
    identifier: RegistrarId,
    local: Vec<TransportAddress>,
    enrp: Option<TransportAddress>,
}

#[derive(Debug)]
enum Command {
    Shutdown,
}

/// Maximum time that a shutdown may take. The elements are handed over within a second, and
/// connections are closed within two.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

struct RegistrarRole {
    machine: registrar::Registrar,
    finished: bool,
}

impl Registrar {
    /// Starts a registrar that listens for ASAP on `addresses`, one for each transport of the
    /// network, and for ENRP on the address that `config` has.
    ///
    /// Elements and users of all transports share one handlespace (RFC 5352 section 3.3). With
    /// several transports, the registrar listens for ENRP over each of them, and tells other
    /// registrars the address that `config` sets.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no address, one is not valid, or one cannot be listened on.
    pub fn start(
        network: &Network,
        addresses: impl IntoIterator<Item: IntoAddress>,
        mut config: RegistrarConfig,
    ) -> Result<Self, StartError> {
        let profile = config.profile();
        let (mut endpoints, mut local) = (Vec::new(), Vec::new());
        for address in &address::all(addresses, network.protocol())? {
            let asap = network.listen(ASAP, address)?;
            local.push(asap.local().unwrap_or(address).clone());
            endpoints.push((Ppid::ASAP, asap));
        }
        let Some(first) = local.first() else {
            let any = (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
            let address = TransportAddress::new(network.protocol(), any);
            let error = io::ErrorKind::InvalidInput.into();
            return Err(ListenError { address, error }.into());
        };
        let mut multicast = Vec::new();
        if config.announces() {
            let groups = profile.announcement_groups();
            multicast.extend(network.multicast(Ppid::ASAP, groups, Some(first)));
            let addresses = local.iter().flat_map(|local| &local.addresses);
            let bound_to_all = addresses.copied().any(|address| address.is_unspecified());
            if profile.announces_transports() && !bound_to_all {
                let announced = local.iter().take(profile.max_announced_transports());
                config = config.announce(announced.cloned());
            }
        }
        if let Some(address) = config.enrp_transport().cloned() {
            let enrp = network.listen(Purpose::Protocol(Ppid::ENRP), &address)?;
            let bound = enrp.local().unwrap_or(&address).clone();
            config = config.enrp(reachable(&bound));
            for other in local.iter().filter(|other| other.protocol != address.protocol) {
                // Derive the ENRP address for the other transport, as far as that transport
                // supports it.
                let mut address = TransportAddress { protocol: other.protocol, ..bound.clone() };
                if other.protocol == TransportProtocol::Tcp {
                    address.addresses.truncate(1);
                }
                let enrp = network.listen(Purpose::Protocol(Ppid::ENRP), &address)?;
                endpoints.push((Ppid::ENRP, enrp));
            }
            if config.has_multicast_presence() {
                let groups = profile.presence_groups();
                multicast.extend(network.multicast(Ppid::ENRP, groups, Some(&bound)));
            }
            endpoints.push((Ppid::ENRP, enrp));
        }
        let enrp = config.enrp_transport().cloned();
        let rules = config.access_rules().clone();
        let machine = registrar::Registrar::new(config, random_seed());
        let identifier = machine.identifier();
        for (protocol, endpoint) in &mut endpoints {
            let roles: &[AccessRole] = match *protocol {
                Ppid::ENRP => &[AccessRole::Registrar],
                _ => &[AccessRole::Element, AccessRole::User],
            };
            endpoint.accept_only(hosts_with(&rules, roles, network.runtime()));
        }
        let role = RegistrarRole { machine, finished: false };
        let (commands, ended) = Task::spawn(role, network, endpoints, multicast);
        let runtime = Arc::clone(network.runtime());
        Ok(Self { commands, ended, runtime, identifier, local, enrp })
    }

    /// Returns the registrar's identifier.
    #[must_use]
    pub fn identifier(&self) -> RegistrarId {
        self.identifier
    }

    /// Returns the first address at which the registrar offers ASAP.
    #[must_use]
    pub fn local_address(&self) -> &TransportAddress {
        &self.local[0]
    }

    /// Returns the addresses at which the registrar offers ASAP, one for each transport.
    #[must_use]
    pub fn local_addresses(&self) -> &[TransportAddress] {
        &self.local
    }

    /// Returns the address at which other registrars reach this one, if it offers ENRP.
    #[must_use]
    pub fn enrp_address(&self) -> Option<&TransportAddress> {
        self.enrp.as_ref()
    }

    /// Shuts the registrar down: hands its elements to the other registrars, if there are any,
    /// which takes up to a second, and then closes the connections.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar had stopped already, or does not stop within 5 s.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the registrar still shuts down.
    pub async fn shutdown(mut self) -> Result<(), Stopped> {
        let deadline = self.runtime.now() + SHUTDOWN_TIMEOUT;
        self.commands.try_send(Command::Shutdown).map_err(|_| Stopped)?;
        match select(self.ended, self.runtime.timer(deadline)).await {
            Either::Left(_) => Ok(()),
            Either::Right(_) => Err(Stopped),
        }
    }

    /// Waits until the registrar has stopped by itself, which happens only if its task panicked or
    /// its runtime has stopped.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped and the call repeated.
    pub async fn stopped(&self) {
        let _ = self.ended.clone().await;
    }
}

/// Returns the addresses at which other hosts reach a socket bound to `bound`: that address itself,
/// or those of the interfaces if it is unspecified. Without any interface, returns `bound`.
fn reachable(bound: &TransportAddress) -> TransportAddress {
    if !bound.addresses.iter().any(IpAddr::is_unspecified) {
        return bound.clone();
    }
    let version_6 = bound.addresses.iter().any(IpAddr::is_ipv6);
    let mut addresses: Addresses =
        interfaces::outside().filter(|address| version_6 || address.is_ipv4()).collect();
    if bound.protocol != TransportProtocol::Sctp {
        addresses.truncate(1);
    }
    if addresses.is_empty() {
        return bound.clone();
    }
    TransportAddress { addresses, ..bound.clone() }
}

impl Role for RegistrarRole {
    type Machine = registrar::Registrar;
    type Command = Command;

    const NAME: &'static str = "registrar";

    fn machine(&mut self) -> &mut registrar::Registrar {
        &mut self.machine
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        let Command::Shutdown = command;
        self.machine.leave(now);
    }

    /// Logs an event. Events that others can repeat are logged once a minute for each source.
    fn handle_event(&mut self, now: Instant, event: <registrar::Registrar as Machine>::Event) {
        use registrar::{Event, RemovalReason};
        match event {
            Event::Registered(element, address) => {
                let (pool, element) = (element.pool_handle, element.identifier);
                tracing::info!(%element, %pool, %address, "registered");
            }
            Event::Reregistered(element) => tracing::debug!(%element, "registered again"),
            Event::Refused(element, response) => {
                let cause = response.error.unwrap_or_default();
                tracing::info!(%element, %cause, "refused");
            }
            Event::Removed(element, reason, address) => {
                let (pool, element) = (element.pool_handle, element.identifier);
                let host = address.as_ref().map_or(log::ANYBODY, TransportAddress::host);
                let address = address.map(|address| address.to_string()).unwrap_or_default();
                match reason {
                    RemovalReason::KeepAliveTimeout
                    | RemovalReason::Unreachable
                    | RemovalReason::Reported
                    | RemovalReason::OtherPolicy => {
                        warn_limited!(now, host, "removed", %element, %pool, address, %reason);
                    }
                    RemovalReason::Deregistered
                    | RemovalReason::Expired
                    | RemovalReason::ElsewhereRemoved => {
                        tracing::info!(%element, %pool, address, %reason, "removed");
                    }
                }
            }
            Event::Near(element, address) => {
                let (pool, element) = (element.pool_handle, element.identifier);
                warn_limited!(now, address.host(),
                    "element hidden from other hosts: they cannot reach its address",
                    %pool, %element, %address);
            }
            Event::NotTaken(registrar, reason) => {
                warn_limited!(now, log::ANYBODY, "element from a peer rejected",
                    %registrar, reason);
            }
            Event::PeerFound(registrar, _) => tracing::debug!(%registrar, "peer announced"),
            Event::PeerConnected(registrar, address) => {
                note_limited!(now, address.host(), "peer found", %registrar, %address);
            }
            Event::PeerLost(registrar, host) => {
                let host = host.unwrap_or(log::ANYBODY);
                warn_limited!(now, host, "peer lost", %registrar, %host);
            }
            Event::PeerSilent(address) => {
                warn_limited!(now, address.host(), "peer does not answer", %address);
            }
            Event::PeerDead(registrar) => {
                warn_limited!(now, log::ANYBODY, "peer declared dead", %registrar);
            }
            Event::Joined { elements } => tracing::info!(elements, "joined the other registrars"),
            Event::Ready { elements } => {
                note_limited!(now, log::ANYBODY, "ready", elements);
            }
            Event::Behind { late, stretch } => {
                warn_limited!(
                    now,
                    log::ANYBODY,
                    "running late; failure detection suspended",
                    ?late,
                    stretch
                );
            }
            Event::Denied(denial) => {
                let (identity, pool) = (denial.identity.as_ref(), denial.pool.as_ref());
                log_denial(now, denial.role, denial.host, identity, pool);
            }
            Event::LimitHit(limit, host) => {
                // Each kind of limit is logged separately.
                limit_hit(now, limit, host);
            }
            Event::Crowded { host, closed } => {
                warn_limited!(now, host, "too many connections: closed the longest silent ones",
                    %host, closed);
            }
            Event::TookOver { registrar, elements } => {
                warn_limited!(now, log::ANYBODY, "took over", %registrar, elements);
            }
            Event::TakenOver { by } => {
                warn_limited!(now, log::ANYBODY, "taken over by a peer", %by);
            }
            Event::Left => self.finished = true,
            Event::Misbehaved { peer, reason } => {
                warn_limited!(now, peer.host(), "misbehaved", %peer, reason);
            }
        }
    }

    fn handle_abandoned(&mut self, now: Instant) {
        self.machine.leave(now);
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}

fn limit_hit(now: Instant, limit: registrar::Limit, host: IpAddr) {
    use registrar::Limit;
    let kind = match limit {
        Limit::Connections => "limit of connections reached",
        Limit::Elements => "limit of elements reached",
        Limit::Subscriptions => "limit of subscriptions reached",
        Limit::Resolutions => "limit of resolutions reached",
        Limit::Reports => "limit of reports reached",
        Limit::Registrations => "limit of registrations reached",
        Limit::Pages => "limit of handle table pages reached",
        Limit::Dials => "limit of named addresses reached",
        Limit::Peers => "limit of peers reached",
    };
    if let Some(left_out) = log::admit(now, kind, host) {
        let again = (left_out > 0).then_some(left_out);
        tracing::warn!(%host, again, "{kind}");
    }
}
