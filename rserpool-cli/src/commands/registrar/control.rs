//! What changes while a registrar runs: the addresses of the other registrars, and the settings.

use std::convert::Infallible;

use rserpool::{Registrar, TransportAddress};
use tokio::sync::watch;

use super::Arguments;
use super::supervisor::{self, State};
use crate::names::Names;
use crate::signals::Signals;

/// Follows the names of the other registrars, SIGHUP and SIGUSR1.
pub(super) struct Control {
    arguments: Arguments,
    peers: watch::Receiver<Vec<TransportAddress>>,
    hangups: Signals,
    questions: Signals,
}

impl Control {
    pub(super) fn new(arguments: Arguments, names: Names) -> Self {
        let (hangups, questions) = (Signals::hangup(), Signals::user_defined());
        Self { arguments, peers: names.follow(), hangups, questions }
    }

    pub(super) async fn follow(&mut self, registrar: &Registrar) -> Infallible {
        loop {
            tokio::select! {
                Ok(()) = self.peers.changed() => {
                    if let Err(error) = self.apply(registrar).await {
                        tracing::warn!(error = format!("{error:#}"), "cannot change the peers");
                    }
                }
                () = self.hangups.next() => {
                    supervisor::tell(&State::Reloading);
                    match self.reload(registrar).await {
                        Ok(()) => {
                            tracing::info!(target: "rserpool::notice", "settings were read again");
                        }
                        Err(error) => tracing::warn!(
                            error = format!("{error:#}"),
                            "cannot read the settings again; the old ones stay in use"
                        ),
                    }
                    supervisor::tell(&State::Ready);
                }
                () = self.questions.next() => log_state(registrar, self.arguments.name.as_deref()).await,
            }
        }
    }

    async fn apply(&mut self, registrar: &Registrar) -> anyhow::Result<()> {
        let peers = self.peers.borrow_and_update().clone();
        Ok(registrar.reconfigure(self.arguments.settings(peers)?).await?)
    }

    /// Reads the settings again, and applies those that can change while the registrar runs.
    async fn reload(&mut self, registrar: &Registrar) -> anyhow::Result<()> {
        let parsed = crate::parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        let crate::Command::Registrar(arguments) = parsed.command else { return Ok(()) };
        let names = arguments.names(registrar.local_address().protocol).await;
        let config = arguments.settings(names.addresses())?;
        for (old, new) in self.arguments.fixed().iter().zip(arguments.fixed()) {
            if *old != new {
                tracing::warn!(setting = new.0, "a setting changes only with a restart");
            }
        }
        registrar.reconfigure(config).await?;
        self.peers = names.follow();
        self.arguments = *arguments;
        Ok(())
    }
}

impl Arguments {
    /// Returns the settings that do not change while the registrar runs, by the names of their
    /// options.
    fn fixed(&self) -> [(&'static str, String); 8] {
        [
            ("name", format!("{:?}", self.name)),
            ("identifier", format!("{:?}", self.identifier)),
            ("asap", format!("{:?}", self.asap)),
            ("enrp", format!("{:?}", self.enrp)),
            ("no-announce", self.no_announce.to_string()),
            ("admin", format!("{:?}", self.admin)),
            ("compatibility", self.compatibility.profile.to_string()),
            ("define-policy", format!("{:?}", self.selection.define_policy)),
        ]
    }
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
