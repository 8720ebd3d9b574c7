//! Runs registrars and servers as child processes. Each exits when its standard input closes, so
//! none outlives this program, however this program exits.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use rserpool::{Network, PoolHandle, TransportProtocol};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::options::TransportOption;
use crate::settings;

/// The options for the transport and for TLS, which child processes inherit.
#[derive(Debug, Clone)]
pub(crate) struct Inherited(Arc<[OsString]>);

impl Inherited {
    /// Returns the options for the transport of `network`, and for its authentication.
    pub(crate) fn new(network: &Network, options: &TransportOption) -> Self {
        let transport = match network.protocol() {
            TransportProtocol::Sctp => "sctp",
            _ => "tcp",
        };
        let transport = ["--transport", transport].map(OsString::from);
        let keys = options.sctp_auth_keys.iter();
        let keys = keys.flat_map(|file| ["--sctp-auth-keys".into(), file.into()]);
        Self(transport.into_iter().chain(keys).chain(options.tls.arguments()).collect())
    }
}

/// Starts this program as a child process with `arguments`, and reads the line in which the child
/// reports its start.
async fn start(arguments: &[&str], inherited: &Inherited) -> anyhow::Result<(Child, Value)> {
    let program = std::env::current_exe().context("cannot find our own program")?;
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(settings::PREFIX.as_bytes()) {
            command.env_remove(name);
        }
    }
    let mut child = command
        .args(arguments)
        .args(&*inherited.0)
        .args(["--json", "--until-eof"])
        // Do not log the crashes of other processes, which are intended here.
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

/// The addresses of a registrar, which its replacement takes over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) asap: SocketAddr,
    pub(crate) enrp: SocketAddr,
}

impl Default for Place {
    /// Returns any free ports of the loopback address.
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { asap: any, enrp: any }
    }
}

/// A running registrar.
#[derive(Debug)]
pub(crate) struct RegistrarProcess {
    child: Child,
    pub(crate) place: Place,
}

impl RegistrarProcess {
    pub(crate) async fn start(
        place: Place,
        peers: &[Place],
        options: &[&str],
        inherited: &Inherited,
    ) -> anyhow::Result<Self> {
        let (asap, enrp) = (place.asap.to_string(), place.enrp.to_string());
        let peers: Vec<_> = peers.iter().map(|peer| peer.enrp.to_string()).collect();
        let mut arguments = vec!["registrar", "--asap", &asap, "--enrp", &enrp];
        arguments.extend(peers.iter().flat_map(|peer| ["--peer", peer]));
        arguments.extend(options);
        let (child, said) = start(&arguments, inherited).await?;
        let address = |name| -> anyhow::Result<SocketAddr> {
            field(&said, name)?.parse().context("not an address")
        };
        let place = Place { asap: address("asap")?, enrp: address("enrp")? };
        Ok(Self { child, place })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Stops the process with SIGSTOP. It does not answer then, but its connections stay open.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-s", "STOP", &self.id().to_string()]).status();
        ensure!(status.await?.success(), "cannot stop a child process");
        Ok(())
    }

    /// Kills the process with SIGKILL, and waits until it has exited.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill a child process")
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) identifier: String,
}

impl ServerProcess {
    pub(crate) async fn start(
        pool: &PoolHandle,
        registrars: &[SocketAddr],
        inherited: &Inherited,
        keys: &Path,
    ) -> anyhow::Result<Self> {
        let pool = pool.to_string();
        let registrars: Vec<_> = registrars.iter().map(ToString::to_string).collect();
        let keys = keys.to_str().context("the name of the key file is not text")?;
        let mut arguments = vec!["serve", "counter", "--pool", &pool, "--keys", keys];
        arguments.extend(registrars.iter().flat_map(|at| ["--registrar", at]));
        let (child, said) = start(&arguments, inherited).await?;
        let identifier = field(&said, "identifier")?.to_owned();
        Ok(Self { child, identifier })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Kills the process with SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.start_kill().context("cannot kill a child process")
    }

    /// Waits until the process has exited.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<()> {
        self.child.wait().await.context("cannot wait for a child process").map(drop)
    }
}
