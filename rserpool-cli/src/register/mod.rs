//! `rserpool register`.

mod check;
mod group;
mod grpc;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use futures::future::BoxFuture;
use futures::poll;
use rserpool::{
    Departure, HuntConfig, JoinError, Network, PolicyParameters, PoolElement, PoolElementId,
    PoolHandle, TransportAddress,
};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::names::Names;
use crate::options::{self, RegistrarOption, TransportOption};
use check::{Check, Load, Verdict};
use group::Group;

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
    /// File with settings, in the format TOML: the names of options and their values, and those of
    /// the arguments without an option, as in `pool = "Web"`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Handle of the pool to join
    #[arg(value_name = "POOL", value_parser = options::pool_handle)]
    pool: PoolHandle,
    /// Address of the server: IP:PORT or HOST:PORT, as clients reach it
    #[arg(value_name = "ADDR", value_parser = options::server_address)]
    address: SocketAddr,
    /// Check that decides whether the server works: tcp (it accepts connections), http:/PATH (it
    /// answers with a status below 400), grpc or grpc:SERVICE (it says that it serves, by the health
    /// service of gRPC), ttl:SECONDS:FILE (the file was written within this time, by the server or who
    /// watches it), or exec:COMMAND (the command succeeds)
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
    ensure!(
        arguments.load.is_none() || arguments.policy.with_load(0.0).is_some(),
        "--load needs a policy by load, such as LeastUsed: see --policy"
    );
    let network = arguments.transport.network()?;
    let names = arguments.registrar.names(&network, &arguments.transport).await;
    let mut end = Box::pin(options::wait_for_end(arguments.until_eof));
    // From now on, no signal ends this program without the command.
    if poll!(&mut end).is_ready() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut command = start_command(&arguments.command)?;
    let mut membership = Membership::new(&arguments, network, names);
    let outcome = tokio::select! {
        status = ended(command.as_mut()) => Ok(Some(status?)),
        () = end => Ok(None),
        failed = membership.follow() => Err(failed),
    };
    let reason = match &outcome {
        Ok(Some(_)) => "its command has ended",
        Ok(None) => "this program ends",
        Err(_) => "it cannot be a member",
    };
    membership.leave(reason).await;
    if let Ok(Some(status)) = outcome {
        return Ok(exit_code(status));
    }
    if membership.was_member {
        sleep(arguments.grace).await;
    }
    if let Some(command) = &mut command {
        end_command(command).await?;
    }
    outcome.map(|_| ExitCode::SUCCESS)
}

fn start_command(command: &[String]) -> anyhow::Result<Option<Group>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let group = Group::spawn(Command::new(program).args(arguments));
    group.map(Some).with_context(|| format!("cannot run {program}"))
}

/// Waits for the end of the command. Never ready without one.
async fn ended(command: Option<&mut Group>) -> std::io::Result<ExitStatus> {
    match command {
        Some(group) => group.child.wait().await,
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

async fn end_command(command: &mut Group) -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        command.terminate();
        if timeout(COMMAND_END, command.child.wait()).await.is_ok() {
            return Ok(());
        }
        notify!("the command did not end within {} s: killed", COMMAND_END.as_secs());
    }
    command.child.kill().await.context("cannot end the command")
}

/// The server's membership in the pool.
struct Membership<'a> {
    arguments: &'a Arguments,
    network: Network,
    registrars: watch::Receiver<Names>,
    hunt: HuntConfig,
    element: Option<PoolElement>,
    /// State of the element's registration.
    registration: Registration,
    /// True once the server was a member.
    was_member: bool,
    /// The departure that is in progress. It continues if its wait is interrupted.
    departure: Option<BoxFuture<'static, Departure>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registration {
    Awaited,
    /// The user was told that no registrar answers, or that one refuses.
    Delayed,
    Complete,
}

impl<'a> Membership<'a> {
    fn new(arguments: &'a Arguments, network: Network, names: Names) -> Self {
        Self {
            arguments,
            network,
            hunt: arguments.registrar.hunt(names.addresses()),
            registrars: names.follow(),
            element: None,
            registration: Registration::Awaited,
            was_member: false,
            departure: None,
        }
    }

    /// Checks the server for ever, and lets it join or leave the pool. Returns an error if it cannot
    /// be a member.
    async fn follow(&mut self) -> anyhow::Error {
        let arguments = self.arguments;
        let address = arguments.address.to_string();
        let mut verdict = Verdict::new(arguments.rise, arguments.fall);
        let mut loads = interval(arguments.every.max(FIRST_CHECKS));
        loads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Instant::now();
        let (mut worked, mut told) = (false, false);
        loop {
            let member = self.registration == Registration::Complete;
            let (load, wait) = (arguments.load.is_some() && member, !member);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                Ok(()) = self.registrars.changed() => {
                    let registrars = self.registrars.borrow_and_update().addresses();
                    self.hunt = arguments.registrar.hunt(registrars.clone());
                    if let Some(element) = &self.element {
                        let _ = element.control().set_registrars(registrars).await;
                    }
                    continue;
                }
                _ = loads.tick(), if load => {
                    self.report_load(&address).await;
                    continue;
                }
                registered = registration(self.element.as_ref(), self.registration), if wait => {
                    if let Err(error) = self.handle_registration(registered) {
                        return error;
                    }
                    continue;
                }
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
        (self.element, self.registration) = (Some(element), Registration::Awaited);
        Ok(())
    }

    /// Handles the outcome of a registration; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// Returns an error if the server cannot be a member. One that was a member is kept: the element
    /// tries again, since the pool or the rules of the registrar may change.
    fn handle_registration(
        &mut self,
        registered: Option<Result<PoolElementId, JoinError>>,
    ) -> anyhow::Result<()> {
        let Arguments { pool, address, json, .. } = self.arguments;
        match registered {
            Some(Ok(identifier)) => {
                (self.registration, self.was_member) = (Registration::Complete, true);
                if *json {
                    let identifier = identifier.to_string();
                    announce!(
                        "{}",
                        json!({ "pool": pool, "address": address, "member": true, "identifier": identifier })
                    );
                } else {
                    announce!("{address} works and is a member of {pool}, as {identifier}");
                }
            }
            Some(Err(error @ JoinError::Rejected(_))) if self.was_member => {
                self.registration = Registration::Delayed;
                notify!("{address} is not a member of {pool} now: {error}; it tries again");
            }
            Some(Err(error)) => return Err(crate::serve::explain_join(error, pool)),
            None => {
                self.registration = Registration::Delayed;
                options::notify_no_registrar(&self.hunt);
            }
        }
        Ok(())
    }

    async fn leave(&mut self, reason: &str) {
        let Arguments { pool, address, json, .. } = self.arguments;
        if let Some(element) = self.element.take() {
            if self.registration == Registration::Complete {
                if *json {
                    announce!(
                        "{}",
                        json!({ "pool": pool, "address": address, "member": false, "reason": reason })
                    );
                } else {
                    announce!("{address} leaves {pool}: {reason}");
                }
            }
            self.registration = Registration::Awaited;
            self.departure = Some(Box::pin(element.leave()));
        }
        let Some(departure) = &mut self.departure else { return };
        let departed = departure.await;
        self.departure = None;
        if departed == Departure::Unconfirmed {
            notify!(
                "left without the registrar's confirmation: the registration remains until it expires"
            );
        }
    }
}

/// Time after which a rejected element is asked again whether it is registered.
const REJECTION_PAUSE: Duration = Duration::from_secs(5);

/// Waits for the outcome of a registration; returns `None` if there is none after a while.
async fn registration(
    element: Option<&PoolElement>,
    registration: Registration,
) -> Option<Result<PoolElementId, JoinError>> {
    let Some(element) = element else { return std::future::pending().await };
    match registration {
        Registration::Awaited => timeout(options::PATIENCE, element.registered()).await.ok(),
        Registration::Delayed => {
            // Not again at once: the user knows that it was rejected.
            loop {
                match element.registered().await {
                    Err(JoinError::Rejected(_)) => sleep(REJECTION_PAUSE).await,
                    outcome => return Some(outcome),
                }
            }
        }
        Registration::Complete => std::future::pending().await,
    }
}
