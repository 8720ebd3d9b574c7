//! `rserpool register`.

mod check;

use std::net::SocketAddr;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use rserpool::{
    Departure, HuntConfig, Network, PolicyParameters, PoolElement, PoolElementId, PoolHandle,
    TransportAddress,
};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::options::{self, RegistrarOption, TransportOption};
use check::{Check, Load, Verdict};

/// Time between two checks of a server that has not worked yet.
const FIRST_CHECKS: Duration = Duration::from_millis(100);

/// Time that a command has to end after SIGTERM; then it is killed.
const COMMAND_END: Duration = Duration::from_secs(10);

/// Put a server that exists into a pool, as long as it works
///
/// Any server that clients connect to over TCP can be a member of a pool, whatever its protocol.
/// Clients reach it through `rserpool proxy`, or with the address that `rserpool resolve` shows.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Handle of the pool to join
    #[arg(value_name = "POOL", value_parser = options::pool_handle)]
    pool: PoolHandle,
    /// Address of the server: IP:PORT or HOST:PORT, as clients reach it
    #[arg(value_name = "ADDR", value_parser = options::server_address)]
    address: SocketAddr,
    /// Check that decides whether the server works: tcp (it accepts connections), http:/PATH (it
    /// answers with a status below 400), or exec:COMMAND (the command succeeds)
    #[arg(long, value_name = "CHECK", default_value = "tcp")]
    check: Check,
    /// Time between two checks
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = options::seconds)]
    every: Duration,
    /// Time within which a check has to succeed
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = options::seconds)]
    timeout: Duration,
    /// Number of successful checks in a row after which a server that had failed joins again
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rise: u32,
    /// Number of failed checks in a row after which the server leaves the pool
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    fall: u32,
    /// Policy of the pool, and this server's values: RoundRobin, LeastUsed:30%, WeightedRandom:5 ...
    #[arg(long, value_name = "NAME[:VALUE...]", default_value = "RoundRobin")]
    policy: PolicyParameters,
    /// Way to ask for the load of the server, for policies by load: http:/PATH or exec:COMMAND, which
    /// answer with a number from 0 to 1, or a percentage
    #[arg(long, value_name = "SOURCE")]
    load: Option<Load>,
    /// Identifier in the pool [default: drawn at random]
    #[arg(long, value_name = "ID", value_parser = options::identifier)]
    identifier: Option<PoolElementId>,
    #[command(flatten)]
    registrar: RegistrarOption,
    #[command(flatten)]
    transport: TransportOption,
    /// Time, in seconds, between leaving the pool and the end, for clients to finish
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = options::seconds)]
    grace: Duration,
    /// Print as JSON, one line each, when the server joins and leaves the pool
    #[arg(long)]
    json: bool,
    /// Exit when standard input closes
    #[arg(long, hide = true)]
    until_eof: bool,
    /// Command that runs the server. It is ended with this program, and this program with it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    let hunt = arguments.registrar.hunt(&network, &arguments.transport);
    let mut child = start_command(&arguments.command)?;
    let end = options::wait_for_end(arguments.until_eof);
    let mut membership = Membership { arguments: &arguments, network, hunt, element: None };
    let status = tokio::select! {
        status = ended(child.as_mut()) => Some(status?),
        () = end => None,
        stopped = membership.follow() => return Err(stopped),
    };
    membership
        .leave(if status.is_some() { "its command has ended" } else { "this program ends" })
        .await;
    if let Some(status) = status {
        return Ok(exit_code(status));
    }
    sleep(arguments.grace).await;
    if let Some(child) = &mut child {
        end_command(child).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn start_command(command: &[String]) -> anyhow::Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let mut command = Command::new(program);
    let child = command.args(arguments).kill_on_drop(true).spawn();
    child.map(Some).with_context(|| format!("cannot run {program}"))
}

/// Waits for the end of the command. Never ready without one.
async fn ended(child: Option<&mut Child>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// Returns the exit status of this program for that of the command: the same, or 128 plus the number
/// of the signal, as shells do.
fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|number| 128 + number);
    #[cfg(not(unix))]
    let signal = None;
    let code = status.code().or(signal).and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

async fn end_command(child: &mut Child) -> anyhow::Result<()> {
    #[cfg(unix)]
    if let Some(id) = child.id() {
        // The shell has the command in itself.
        let kill = format!("kill -TERM {id}");
        Command::new("sh").args(["-c", &kill]).status().await.context("cannot run sh")?;
        if timeout(COMMAND_END, child.wait()).await.is_ok() {
            return Ok(());
        }
        notify!("the command did not end within {} s: killed", COMMAND_END.as_secs());
    }
    child.kill().await.context("cannot end the command")
}

/// The server's membership in the pool.
struct Membership<'a> {
    arguments: &'a Arguments,
    network: Network,
    hunt: HuntConfig,
    element: Option<PoolElement>,
}

impl Membership<'_> {
    /// Checks the server for ever, and lets it join or leave the pool. Returns an error if it cannot
    /// join.
    async fn follow(&mut self) -> anyhow::Error {
        let arguments = self.arguments;
        let address = arguments.address.to_string();
        let mut verdict = Verdict::new(arguments.rise, arguments.fall);
        let mut loads = interval(arguments.every.max(FIRST_CHECKS));
        loads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Instant::now();
        let (mut worked, mut told) = (false, false);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                _ = loads.tick(), if self.element.is_some() && arguments.load.is_some() => {
                    self.report_load(&address).await;
                    continue;
                }
                failed = failure(self.element.as_ref()) => return failed,
            }
            let result = arguments.check.run(&address, arguments.timeout).await;
            let changed = verdict.note(result.is_ok());
            worked |= verdict.works();
            match result {
                Ok(()) if changed => {
                    if let Err(error) = self.join() {
                        return error;
                    }
                }
                Ok(()) => {}
                Err(error) if changed => self.leave(&format!("{error:#}")).await,
                Err(error) => {
                    tracing::info!(%address, %error, "check failed");
                    if !worked && !std::mem::replace(&mut told, true) {
                        notify!("{address} does not work yet: {error:#}; waiting");
                    }
                }
            }
            let pause = if worked { arguments.every } else { arguments.every.min(FIRST_CHECKS) };
            next = Instant::now() + pause.max(Duration::from_millis(10));
        }
    }

    async fn report_load(&self, address: &str) {
        let (Some(load), Some(element)) = (&self.arguments.load, &self.element) else { return };
        match load.ask(address, self.arguments.timeout).await {
            Ok(load) => drop(element.control().set_load(load).await),
            Err(error) => tracing::warn!(%address, "no load: {error:#}"),
        }
    }

    fn join(&mut self) -> anyhow::Result<()> {
        let Arguments { pool, address, policy, identifier, .. } = self.arguments;
        let hunt = self.hunt.clone();
        let builder = PoolElement::builder(&self.network, pool, hunt.registrars())
            .serving_at(TransportAddress::tcp(*address))
            .configure(|config| {
                let config = config.hunt(hunt.clone()).policy(policy.clone());
                match identifier {
                    Some(identifier) => config.identifier(*identifier),
                    None => config,
                }
            });
        let element = builder.start().map_err(|error| options::explain_start(error, "ADDR"))?;
        self.element = Some(element);
        if self.arguments.json {
            announce!("{}", json!({ "pool": pool, "address": address, "member": true }));
        } else {
            announce!("{address} works and joins {pool}");
        }
        Ok(())
    }

    async fn leave(&mut self, reason: &str) {
        let Some(element) = self.element.take() else { return };
        let Arguments { pool, address, json, .. } = self.arguments;
        if *json {
            announce!(
                "{}",
                json!({ "pool": pool, "address": address, "member": false, "reason": reason })
            );
        } else {
            announce!("{address} leaves {pool}: {reason}");
        }
        if element.leave().await == Departure::Unconfirmed {
            notify!(
                "left without the registrar's confirmation: the registration remains until it expires"
            );
        }
    }
}

/// Waits until the registrar refuses the element for good.
async fn failure(element: Option<&PoolElement>) -> anyhow::Error {
    let Some(element) = element else { return std::future::pending().await };
    match element.registered().await {
        Ok(_) => std::future::pending().await,
        Err(error) => anyhow::Error::from(error).context("the registrar refuses the server"),
    }
}
