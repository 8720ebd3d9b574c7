//! Changes while a registrar runs: of the addresses of the other registrars, and of the settings.

use std::convert::Infallible;
use std::fmt::Debug;

use rserpool::Registrar;
use tokio::sync::watch;

use super::Arguments;
use super::supervisor::Supervisor;
use crate::names::Names;
use crate::signals::Signals;

/// The signals that a registrar handles. They are received from the start on, so that none ends it.
pub(super) struct ControlSignals {
    hangups: Signals,
    questions: Signals,
}

impl ControlSignals {
    pub(super) fn new() -> Self {
        Self { hangups: Signals::hangup(), questions: Signals::user_defined() }
    }
}

/// Follows the names of the other registrars, SIGHUP and SIGUSR1.
pub(super) struct Control {
    arguments: Arguments,
    peers: watch::Receiver<Names>,
    signals: ControlSignals,
}

impl Control {
    pub(super) fn new(arguments: Arguments, names: Names, signals: ControlSignals) -> Self {
        Self { arguments, peers: names.follow(), signals }
    }

    pub(super) async fn follow(
        &mut self,
        registrar: &Registrar,
        supervisor: &Supervisor,
    ) -> Infallible {
        loop {
            tokio::select! {
                Ok(()) = self.peers.changed() => {
                    if let Err(error) = self.apply(registrar).await {
                        tracing::warn!(error = format!("{error:#}"), "cannot change the peers");
                    }
                }
                () = self.signals.hangups.next() => {
                    supervisor.tell_reloading();
                    match self.reload(registrar).await {
                        Ok(()) => {
                            tracing::info!(target: "rserpool::notice", "settings were read again");
                        }
                        Err(error) => tracing::warn!(
                            error = format!("{error:#}"),
                            "cannot read the settings again; the old ones stay in use"
                        ),
                    }
                    supervisor.tell_reloaded();
                }
                () = self.signals.questions.next() => {
                    log_state(registrar, self.arguments.name.as_deref()).await;
                }
            }
        }
    }

    async fn apply(&mut self, registrar: &Registrar) -> anyhow::Result<()> {
        let peers = self.peers.borrow_and_update().addresses();
        Ok(registrar.reconfigure(self.arguments.settings(peers)?).await?)
    }

    /// Reads the settings again, and applies those that can change while the registrar runs.
    async fn reload(&mut self, registrar: &Registrar) -> anyhow::Result<()> {
        let parsed = crate::parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        let crate::Command::Registrar(mut arguments) = parsed.command else { return Ok(()) };
        for setting in arguments.keep_fixed(&self.arguments) {
            tracing::warn!(setting, "a setting changes only with a restart");
        }
        let mut names = arguments.names(registrar.local_address().protocol).await;
        names.complete_from(&self.peers.borrow());
        registrar.reconfigure(arguments.settings(names.addresses())?).await?;
        self.peers = names.follow();
        self.arguments = *arguments;
        Ok(())
    }
}

impl Arguments {
    /// Takes the settings that do not change while the registrar runs from those with which it runs.
    /// Returns the names of those that differed.
    fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        let mut changed = Vec::new();
        let all = &mut changed;
        keep(all, "name", &mut self.name, &running.name);
        keep(all, "identifier", &mut self.identifier, &running.identifier);
        keep(all, "asap", &mut self.asap, &running.asap);
        keep(all, "enrp", &mut self.enrp, &running.enrp);
        keep(all, "no-announce", &mut self.no_announce, &running.no_announce);
        keep(all, "admin", &mut self.admin, &running.admin);
        keep(all, "control", &mut self.control, &running.control);
        keep(all, "compatibility", &mut self.compatibility, &running.compatibility);
        let (new, old) = (&mut self.selection.define_policy, &running.selection.define_policy);
        keep(all, "define-policy", new, old);
        let (new, old) = (&mut self.transport, &running.transport);
        keep(all, "transport", &mut new.transport, &old.transport);
        keep(all, "sctp-auth-keys", &mut new.sctp_auth_keys, &old.sctp_auth_keys);
        keep(all, "tls", &mut new.tls, &old.tls);
        changed
    }
}

/// Takes the value of a setting from `running`, and notes its name if it differed.
fn keep<T: Debug + Clone>(
    changed: &mut Vec<&'static str>,
    name: &'static str,
    new: &mut T,
    running: &T,
) {
    // Not each type can be compared, but each is shown with all that it has.
    if format!("{new:?}") != format!("{running:?}") {
        changed.push(name);
    }
    new.clone_from(running);
}

async fn log_state(registrar: &Registrar, name: Option<&str>) {
    let Ok(status) = registrar.status().await else { return };
    tracing::info!(
        target: "rserpool::notice",
        registrar = %status.identifier,
        name,
        joined = status.joined,
        ready = status.ready,
        pools = status.pools,
        elements = status.elements,
        own_elements = status.own_elements,
        connections = status.connections,
        subscriptions = status.subscriptions,
        "state"
    );
    for peer in &status.peers {
        tracing::info!(
            target: "rserpool::notice",
            peer = %peer.identifier,
            condition = ?peer.condition,
            connected = peer.connected,
            elements = peer.elements,
            heard_seconds = peer.heard.as_secs_f64(),
            "state of a peer"
        );
    }
}
