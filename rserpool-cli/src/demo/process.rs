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

/// A running registrar.
#[derive(Debug)]
pub(super) struct RegistrarProcess {
    child: Child,
    pub(super) address: SocketAddr,
}

impl RegistrarProcess {
    pub(super) async fn start(transport: &str) -> anyhow::Result<Self> {
        let arguments = ["registrar", "--asap", "127.0.0.1:0", "--transport", transport];
        let (child, said) = start(&arguments).await?;
        let address = field(&said, "asap")?.parse().context("not an address")?;
        Ok(Self { child, address })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }
}

/// A running server.
#[derive(Debug)]
pub(super) struct ServerProcess {
    child: Child,
    pub(super) identifier: String,
}

impl ServerProcess {
    pub(super) async fn start(registrar: SocketAddr, transport: &str) -> anyhow::Result<Self> {
        let (at, pool) = (registrar.to_string(), pool().to_string());
        let arguments =
            ["serve", "counter", "--pool", &pool, "--registrar", &at, "--transport", transport];
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
