//! Starts, kills and replaces the processes of the demonstration.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Context;
use rserpool::cookie::KeyRing;
use tempfile::NamedTempFile;
use tokio::task::JoinSet;

use super::pool;
use super::report::{Report, Screen};
use crate::process::{Inherited, Place, RegistrarProcess, ServerProcess};

const REGISTRARS: usize = 3;
const SERVERS: usize = 3;

/// The processes of the demonstration.
#[derive(Debug)]
pub(super) struct Cast {
    options: Options,
    places: Vec<Place>,
    registrars: Vec<RegistrarProcess>,
    servers: Vec<ServerProcess>,
    replacing: JoinSet<anyhow::Result<Newcomer>>,
    /// Key file with which the servers seal the state of their sessions.
    keys: NamedTempFile,
    kills: usize,
}

/// The options of the processes.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) registrars: Inherited,
    pub(super) servers: Inherited,
}

/// The victim of a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Registrar,
    Server,
    /// No process: all candidates are dead already.
    Nobody,
}

#[derive(Debug)]
enum Newcomer {
    Registrar(RegistrarProcess),
    Server(ServerProcess),
}

impl Cast {
    /// Starts all processes.
    pub(super) async fn start(options: Options, screen: &Screen) -> anyhow::Result<Self> {
        let (mut places, mut registrars) = (Vec::new(), Vec::new());
        for _ in 0..REGISTRARS {
            let registrar =
                RegistrarProcess::start(Place::default(), &places, &[], &options.registrars)
                    .await
                    .context("no registrar")?;
            let (at, process) = (registrar.place.asap, registrar.id());
            screen.say(&format!("registrar at {at} (process {process})"));
            places.push(registrar.place);
            registrars.push(registrar);
        }
        let at: Vec<_> = places.iter().map(|place| place.asap).collect();
        let mut keys = NamedTempFile::new().context("no file for the keys")?;
        keys.write_all(KeyRing::new_line(1).as_bytes())?;
        let mut servers = Vec::new();
        for _ in 0..SERVERS {
            let server = ServerProcess::start(&pool(), &at, &options.servers, keys.path()).await;
            let server = server.context("no server")?;
            screen.joined(&server);
            servers.push(server);
        }
        let replacing = JoinSet::new();
        Ok(Self { options, places, registrars, servers, replacing, keys, kills: 0 })
    }

    /// Returns the addresses of the registrars.
    pub(super) fn registrars(&self) -> impl Iterator<Item = SocketAddr> {
        self.places.iter().map(|place| place.asap)
    }

    /// Kills a server that has sessions, or every third time a registrar. It is replaced by another
    /// one.
    pub(super) async fn kill_one(
        &mut self,
        report: &mut Report,
        screen: &Screen,
    ) -> anyhow::Result<Victim> {
        self.kills += 1;
        if !self.kills.is_multiple_of(3) {
            return self.kill_server(report, screen);
        }
        // Kill only one registrar at a time: the others need time to replicate its data.
        if self.registrars.len() < REGISTRARS {
            return Ok(Victim::Nobody);
        }
        let mut victim = self.registrars.remove(0);
        let (place, process) = (victim.place, victim.id());
        screen.say(&format!("KILL    registrar at {} (process {process})", place.asap));
        report.registrar_killed();
        victim.kill().await?;
        let others: Vec<_> = self.registrars.iter().map(|registrar| registrar.place).collect();
        let options = self.options.registrars.clone();
        self.replacing.spawn(async move {
            let registrar = RegistrarProcess::start(place, &others, &[], &options).await;
            registrar.context("no registrar").map(Newcomer::Registrar)
        });
        Ok(Victim::Registrar)
    }

    fn kill_server(&mut self, report: &mut Report, screen: &Screen) -> anyhow::Result<Victim> {
        if self.servers.is_empty() {
            return Ok(Victim::Nobody);
        }
        // A server that has sessions, or else the oldest one.
        let serving = report.serving();
        let serves = |server: &ServerProcess| serving.contains(&server.identifier);
        let mut victim = self.servers.remove(self.servers.iter().position(serves).unwrap_or(0));
        report.killed(&victim.identifier, screen, victim.id());
        victim.kill()?;
        let at: Vec<_> = self.registrars().collect();
        let options = self.options.servers.clone();
        let keys = self.keys.path().to_owned();
        self.replacing.spawn(async move {
            victim.wait().await?;
            let server = ServerProcess::start(&pool(), &at, &options, &keys).await;
            server.context("no server").map(Newcomer::Server)
        });
        Ok(Victim::Server)
    }

    /// Waits until a killed process was replaced, and reports the new one.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a later call still reports the replacement.
    pub(super) async fn replaced(&mut self, screen: &Screen) -> anyhow::Result<()> {
        let Some(newcomer) = self.replacing.join_next().await else {
            return std::future::pending().await;
        };
        match newcomer?? {
            Newcomer::Registrar(registrar) => {
                let (at, process) = (registrar.place.asap, registrar.id());
                screen.say(&format!("registrar at {at} is back (process {process})"));
                self.registrars.push(registrar);
            }
            Newcomer::Server(server) => {
                screen.joined(&server);
                self.servers.push(server);
            }
        }
        Ok(())
    }
}
