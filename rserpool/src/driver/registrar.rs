//! A registrar that runs.

use std::time::Instant;

use futures::channel::{mpsc, oneshot};

use super::task::{Role, Task};
use super::{ASAP, ListenError, Network};
use crate::protocol::Machine;
use crate::protocol::registrar::{self, RegistrarConfig};
use crate::wire::{RegistrarId, TransportAddress};

/// A registrar that runs in the background until this handle is dropped.
#[derive(Debug)]
pub struct Registrar {
    commands: mpsc::Sender<Command>,
    identifier: RegistrarId,
    local: TransportAddress,
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
    /// Starts a registrar that offers ASAP at `address`.
    ///
    /// # Errors
    ///
    /// When the address cannot be had; nothing runs then.
    pub fn start(
        network: &Network,
        address: &TransportAddress,
        config: RegistrarConfig,
    ) -> Result<Self, ListenError> {
        let endpoint = network.listen(ASAP, address)?;
        let local = endpoint.local().unwrap_or(address).clone();
        let machine = registrar::Registrar::new(config.clone());
        let identifier = machine.identifier();
        let announcements =
            if config.announces() { network.announcements(Some(local.port)) } else { None };
        let role = RegistrarRole { machine, finished: false, done: None };
        let commands = Task::spawn(role, network, endpoint, announcements);
        Ok(Self { commands, identifier, local })
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

    /// Closes the connections and ends the registrar.
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

    fn handle_command(&mut self, _: Instant, command: Command) {
        let Command::Shutdown(done) = command;
        self.finished = true;
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
            Event::Misbehaved { peer, reason } => tracing::warn!(%peer, reason, "misbehaved"),
        }
    }

    fn handle_abandoned(&mut self, _: Instant) {
        self.finished = true;
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
