//! A registrar that runs.

use std::net::IpAddr;
use std::time::Instant;

use futures::channel::{mpsc, oneshot};

use super::task::{Role, Task};
use super::{ASAP, ListenError, Network};
use crate::protocol::Machine;
use crate::protocol::registrar::{self, RegistrarConfig};
use crate::transport::{Purpose, interfaces};
use crate::wire::{Ppid, RegistrarId, TransportAddress};

/// A registrar that runs in the background until this handle is dropped.
#[derive(Debug)]
pub struct Registrar {
    commands: mpsc::Sender<Command>,
    identifier: RegistrarId,
    local: TransportAddress,
    enrp: Option<TransportAddress>,
}

#[derive(Debug)]
enum Command {
    Shutdown(oneshot::Sender<()>),
}

struct RegistrarRole {
    machine: registrar::Registrar,
    finished: bool,
    /// Dropped with the task, when all connections are closed.
    done: Option<oneshot::Sender<()>>,
}

impl Registrar {
    /// Starts a registrar that offers ASAP at `address`, and ENRP where `config` says so.
    ///
    /// # Errors
    ///
    /// When an address cannot be had; nothing runs then.
    pub fn start(
        network: &Network,
        address: &TransportAddress,
        mut config: RegistrarConfig,
    ) -> Result<Self, ListenError> {
        let asap = network.listen(ASAP, address)?;
        let local = asap.local().unwrap_or(address).clone();
        let profile = config.profile();
        let mut endpoints = vec![(Ppid::ASAP, asap)];
        let mut multicast = Vec::new();
        if config.announces() {
            let groups = profile.announcement_groups();
            multicast.extend(network.multicast(Ppid::ASAP, groups, Some(&local)));
            let bound_to_all = local.addresses.iter().any(IpAddr::is_unspecified);
            if profile.announces_transports() && !bound_to_all {
                config = config.announce([local.clone()]);
            }
        }
        if let Some(address) = config.enrp_transport().cloned() {
            let enrp = network.listen(Purpose::Protocol(Ppid::ENRP), &address)?;
            config = config.enrp(interfaces::reachable(enrp.local().unwrap_or(&address)));
            if config.has_multicast_presence() {
                let groups = profile.presence_groups();
                let local = enrp.local().unwrap_or(&address);
                multicast.extend(network.multicast(Ppid::ENRP, groups, Some(local)));
            }
            endpoints.push((Ppid::ENRP, enrp));
        }
        let enrp = config.enrp_transport().cloned();
        let machine = registrar::Registrar::new(config);
        let identifier = machine.identifier();
        let role = RegistrarRole { machine, finished: false, done: None };
        let commands = Task::spawn(role, network, endpoints, multicast);
        Ok(Self { commands, identifier, local, enrp })
    }

    /// The registrar's identifier.
    #[must_use]
    pub fn identifier(&self) -> RegistrarId {
        self.identifier
    }

    /// Where it offers ASAP.
    #[must_use]
    pub fn local_address(&self) -> &TransportAddress {
        &self.local
    }

    /// Where other registrars reach it, if they shall.
    #[must_use]
    pub fn enrp_address(&self) -> Option<&TransportAddress> {
        self.enrp.as_ref()
    }

    /// Hands the elements to the other registrars, if there are any, which takes up to a second;
    /// then closes the connections and ends the registrar.
    ///
    /// # Cancel safety
    ///
    /// It ends even if the future is dropped.
    pub async fn shutdown(mut self) {
        let (done, wait) = oneshot::channel();
        if self.commands.try_send(Command::Shutdown(done)).is_ok() {
            let _ = wait.await;
        }
    }
}

impl Role for RegistrarRole {
    type Machine = registrar::Registrar;
    type Command = Command;

    fn machine(&mut self) -> &mut registrar::Registrar {
        &mut self.machine
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        let Command::Shutdown(done) = command;
        self.machine.leave(now);
        self.done = Some(done);
    }

    fn handle_event(&mut self, event: <registrar::Registrar as Machine>::Event) {
        use registrar::Event;
        match event {
            Event::Registered(element) => tracing::info!(%element, "registered"),
            Event::Reregistered(element) => tracing::debug!(%element, "registered again"),
            Event::Refused(element, response) => {
                let cause = response.error.unwrap_or_default();
                tracing::info!(%element, %cause, "refused");
            }
            Event::Removed(element, reason) => tracing::info!(%element, %reason, "removed"),
            Event::PeerFound(registrar) => tracing::info!(%registrar, "peer found"),
            Event::PeerLost(registrar) => tracing::info!(%registrar, "peer lost"),
            Event::PeerDead(registrar) => tracing::warn!(%registrar, "peer does not answer"),
            Event::Joined { elements } => tracing::info!(elements, "joined the other registrars"),
            Event::TookOver { registrar, elements } => {
                tracing::warn!(%registrar, elements, "took over");
            }
            Event::TakenOver { by } => tracing::warn!(%by, "was taken over"),
            Event::Left => self.finished = true,
            Event::Misbehaved { peer, reason } => tracing::warn!(%peer, reason, "misbehaved"),
        }
    }

    fn handle_abandoned(&mut self, now: Instant) {
        self.machine.leave(now);
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
