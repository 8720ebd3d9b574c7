//! The processes of the demonstration. Each ends when its standard input does, so none
//! outlives us, however we end.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, bail};
use rserpool::wire::PoolHandle;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The pool of the demonstration.
pub(super) fn pool() -> PoolHandle {
    "DemoPool".parse().expect("not empty")
}

/// Starts the program that we are, and reads the line that says what became of it.
async fn start(arguments: &[&str]) -> anyhow::Result<(Child, Value)> {
    let program = std::env::current_exe().context("cannot find our own program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .args(["--json", "--until-eof"])
        // That others are gone is what the demonstration is about.
        .env("RUST_LOG", "rserpool=error")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a process")?;
    let output = child.stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).await?;
    if line.is_empty() {
        let status = child.wait().await?;
        bail!("rserpool {} ended with {status}", arguments.join(" "));
    }
    Ok((child, serde_json::from_str(&line)?))
}

fn field<'v>(value: &'v Value, name: &str) -> anyhow::Result<&'v str> {
    value[name].as_str().with_context(|| format!("no {name} in {value}"))
}

/// Where a registrar is; the one that comes after it is there, too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) asap: SocketAddr,
    enrp: SocketAddr,
}

impl Default for Place {
    /// Somewhere on loopback.
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { asap: any, enrp: any }
    }
}

/// A running registrar.
#[derive(Debug)]
pub(super) struct RegistrarProcess {
    child: Child,
    pub(super) place: Place,
}

impl RegistrarProcess {
    pub(super) async fn start(
        place: Place,
        peers: &[Place],
        transport: &str,
    ) -> anyhow::Result<Self> {
        let (asap, enrp) = (place.asap.to_string(), place.enrp.to_string());
        let peers: Vec<_> = peers.iter().map(|peer| peer.enrp.to_string()).collect();
        let mut arguments =
            vec!["registrar", "--asap", &asap, "--enrp", &enrp, "--transport", transport];
        arguments.extend(peers.iter().flat_map(|peer| ["--peer", peer]));
        let (child, said) = start(&arguments).await?;
        let address = |name| -> anyhow::Result<SocketAddr> {
            field(&said, name)?.parse().context("not an address")
        };
        let place = Place { asap: address("asap")?, enrp: address("enrp")? };
        Ok(Self { child, place })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Kills it without a warning, and waits for its end.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill a process of ours")
    }
}

/// A running server.
#[derive(Debug)]
pub(super) struct ServerProcess {
    child: Child,
    pub(super) identifier: String,
}

impl ServerProcess {
    pub(super) async fn start(registrars: &[SocketAddr], transport: &str) -> anyhow::Result<Self> {
        let pool = pool().to_string();
        let registrars: Vec<_> = registrars.iter().map(ToString::to_string).collect();
        let mut arguments = vec!["serve", "counter", "--pool", &pool, "--transport", transport];
        arguments.extend(registrars.iter().flat_map(|at| ["--registrar", at]));
        let (child, said) = start(&arguments).await?;
        let identifier = field(&said, "identifier")?.to_owned();
        Ok(Self { child, identifier })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Kills it without a warning.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.start_kill().context("cannot kill a process of ours")
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) -> anyhow::Result<()> {
        self.child.wait().await.context("cannot wait for a process of ours").map(drop)
    }
}
