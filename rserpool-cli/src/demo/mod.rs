//! `rserpool demo`: shows failovers as they happen.
//!
//! Three registrars and three servers run in processes of their own. Clients send requests to the
//! servers, while servers and registrars are killed again and again.

mod cast;
mod client;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use rserpool::{PoolHandle, PoolUser, RequestConfig, TransportAddress};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::commands::certs::Authority;
use crate::options::TransportOption;
use crate::process::Inherited;
use crate::tls::TlsOptions;
use cast::{Cast, Options, Victim};
use report::{Report, Screen};

/// Returns the handle of the demonstration's pool.
fn pool() -> PoolHandle {
    "DemoPool".parse().expect("not empty")
}

const SESSIONS: usize = 3;

/// Time after the last kill in which its failover should complete.
const CALM: Duration = Duration::from_millis(700);

/// Maximum time for the sessions to finish their last requests.
const GRACE: Duration = Duration::from_secs(10);

/// Watch sessions survive the crashes of their servers
///
/// Starts three registrars and three servers that count requests, and opens sessions. While they
/// work, kills a server again and again, and every third time a registrar, with SIGKILL. Prints a
/// summary at the end; the exit status is 0 if no request was lost and none was counted twice.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Duration in seconds
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Number of processes to kill, in place of --seconds
    #[arg(long, value_name = "N", conflicts_with = "seconds",
          value_parser = clap::value_parser!(u64).range(1..))]
    kills: Option<u64>,
    /// Mean time between kills in milliseconds; each is between half and one and a half times as
    /// long
    #[arg(long, value_name = "N", default_value_t = 700,
          value_parser = clap::value_parser!(u64).range(20..=60_000))]
    every: u64,
    #[command(flatten)]
    transport: TransportOption,
    /// Use TLS everywhere, with certificates of an authority that is created for the demonstration
    #[arg(long, conflicts_with = "tls_ca")]
    secure: bool,
    /// Print only the summary, as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    tokio::select! {
        result = demonstrate(&arguments) => {
            let report = result?;
            if arguments.json {
                out!("{}", report.json());
            } else {
                out!("{report}");
            }
            Ok(if report.is_flawless() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        // Dropping this future drops the handles of the child processes, which kills them.
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
    }
}

async fn demonstrate(arguments: &Arguments) -> anyhow::Result<Report> {
    // The folder is removed when the demonstration is over.
    let certificates = tempfile::tempdir().context("no folder for the certificates")?;
    if arguments.secure {
        let authority = Authority::create(certificates.path())?;
        let grants = [("registrar", "registrar"), ("server", "element"), ("client", "user")];
        for (name, grant) in grants {
            authority.issue(name, &[grant.parse()?], 1)?;
        }
    }
    let transport_of = |role| match arguments.secure {
        true => TransportOption {
            tls: TlsOptions::in_folder(certificates.path(), role),
            ..arguments.transport.clone()
        },
        false => arguments.transport.clone(),
    };
    let transport = transport_of("client");
    let network = transport.network()?;
    let options = Options {
        registrars: Inherited::new(&network, &transport_of("registrar")),
        servers: Inherited::new(&network, &transport_of("server")),
    };
    let screen = Screen::new(!arguments.json);
    if transport.tls.are_given() {
        screen.say("all connections use TLS");
    }

    let mut cast = Cast::start(options, &screen).await?;
    let addresses = cast.registrars().map(|at| TransportAddress::new(network.protocol(), at));
    let user = PoolUser::new(&network, addresses)?;
    let (tell, mut told) = mpsc::channel(64);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut sessions = JoinSet::new();
    for number in 1..=SESSIONS {
        let session = user.open_requests(pool(), RequestConfig::default()).await;
        let session = session.context("no session")?;
        sessions.spawn(client::count(number, session, tell.clone(), stopped.clone()));
    }
    drop(tell);

    let mut report = Report::default();
    let pause = || Duration::from_millis(arguments.every).mul_f64(rand::random_range(0.5..1.5));
    let mut kills_left = arguments.kills.unwrap_or(u64::MAX);
    let mut next_kill = Instant::now() + pause();
    let mut end = match arguments.kills {
        Some(_) => next_kill + Duration::from_secs(u64::from(u32::MAX)),
        None => Instant::now() + Duration::from_secs(arguments.seconds),
    };
    // The last kill is early enough for its failover to complete before the end.
    let last_kill = end - CALM.min(Duration::from_secs(arguments.seconds) / 2);
    let mut resolving = JoinSet::new();
    loop {
        tokio::select! {
            Some(news) = told.recv() => report.take(news, &screen),
            () = tokio::time::sleep_until(next_kill), if kills_left > 0 && next_kill < last_kill => {
                let victim = cast.kill_one(&mut report, &screen).await?;
                if victim == Victim::Registrar {
                    resolving.spawn(client::resolve_again(user.clone()));
                }
                kills_left -= u64::from(victim != Victim::Nobody);
                next_kill = Instant::now() + pause();
                if kills_left == 0 {
                    end = Instant::now() + CALM;
                }
            }
            replaced = cast.replaced(&screen) => replaced?,
            Some(resolved) = resolving.join_next() => report.resolved(resolved?, &screen),
            () = tokio::time::sleep_until(end) => break,
        }
    }
    // Requests in progress are answered before the end.
    let _ = stop.send(true);
    let deadline = Instant::now() + GRACE;
    loop {
        tokio::select! {
            news = told.recv() => match news {
                Some(news) => report.take(news, &screen),
                None => break,
            },
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    sessions.shutdown().await;
    Ok(report)
}
