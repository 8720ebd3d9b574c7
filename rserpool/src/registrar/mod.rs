//! A running registrar.

mod logging;
mod observe;
mod role;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures::SinkExt;
use futures::channel::mpsc;
use futures::future::{Either, select};
use rserpool_proto::access::AccessRole;
use rserpool_proto::registrar::{self, RegistrarConfig};
use rserpool_proto::wire::parameter::Addresses;
use rserpool_proto::wire::{Ppid, RegistrarId, TransportAddress, TransportProtocol};

use crate::runtime::Runtime;
use crate::task::{Ended, Task};
use crate::transport::{Purpose, interfaces};
use crate::verify::hosts_with;
use crate::{ASAP, IntoAddress, ListenError, Network, StartError, Stopped, address, random_seed};

use role::{Command, RegistrarRole};

pub use observe::{OrderError, PoolSnapshot, RegistrarEvent, RegistrarEvents, RegistrarSnapshot};

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
pub struct Registrar {
    commands: mpsc::Sender<Command>,
    ended: Ended,
    runtime: Arc<dyn Runtime>,
    identifier: RegistrarId,
    local: Vec<TransportAddress>,
    enrp: Option<TransportAddress>,
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar")
            .field("identifier", &self.identifier)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

/// Maximum time that a shutdown may take. The elements are handed over within a second, and
/// connections are closed within two.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

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
        let rules = Arc::new(RwLock::new(config.access_rules().clone()));
        let machine = registrar::Registrar::new(config, random_seed());
        let identifier = machine.identifier();
        for (protocol, endpoint) in &mut endpoints {
            let roles: &[AccessRole] = match *protocol {
                Ppid::ENRP => &[AccessRole::Registrar],
                _ => &[AccessRole::Element, AccessRole::User],
            };
            endpoint.accept_only(hosts_with(&rules, roles, network.runtime()));
        }
        let role = RegistrarRole::new(machine, rules);
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
        let leave: Command = Box::new(|role, now| role.machine.leave(now));
        self.commands.send(leave).await.map_err(|_| Stopped)?;
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
