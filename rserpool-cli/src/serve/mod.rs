//! `rserpool serve`.

mod calcapp;
mod chargen;
mod counter;
mod daytime;
mod discard;
mod echo;
mod pingpong;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use rserpool::cookie::{KeyRing, Seal};
use rserpool::proto::wire::ErrorCause;
use rserpool::{
    Departure, ElementControl, ElementSession, JoinError, PolicyParameters, PoolElement,
    PoolElementId, PoolHandle, ServiceConfig, SessionClosed, SessionSendError,
};
use serde_json::json;
use tokio::sync::watch;

use crate::options::{self, RegistrarOption, TransportOption};
use crate::status;

use calcapp::Processor;
pub(crate) use calcapp::{CALC_APP, Kind as CalcAppKind, Message as CalcAppMessage};
pub(crate) use counter::read_count;
pub(crate) use pingpong::{PING_PONG, Pong, make_ping};

/// Run a server: a pool element that offers a service
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Service to offer
    service: Service,
    /// Handle of the pool to join [default: the service's own, EchoPool and so on]
    #[arg(long, value_name = "HANDLE", value_parser = options::pool_handle)]
    pool: Option<PoolHandle>,
    /// Policy of the pool, and this server's values: RoundRobin, LeastUsed:30%,
    /// WeightedRandom:5 ...
    #[arg(long, value_name = "NAME[:VALUE...]", default_value = "RoundRobin")]
    policy: PolicyParameters,
    /// Identifier in the pool [default: drawn at random]
    #[arg(long, value_name = "ID", value_parser = options::identifier)]
    identifier: Option<PoolElementId>,
    /// Address to accept clients on; over SCTP, repeat it for further addresses with the same port
    /// [default: any port of the addresses that reach the registrar]
    #[arg(long, value_name = "ADDR", value_parser = options::listen_address)]
    listen: Vec<SocketAddr>,
    /// Computations a second, for calcapp
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    capacity: u64,
    /// Maximum number of jobs at a time, for calcapp
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_jobs: u32,
    #[command(flatten)]
    registrar: RegistrarOption,
    #[command(flatten)]
    transport: TransportOption,
    /// File of the keys that seal the sessions' state, for counter; `rserpool keys` makes one
    #[arg(long, value_name = "FILE", required_if_eq("service", "counter"))]
    keys: Option<PathBuf>,
    /// Time, in seconds, that open sessions may take to finish after Ctrl-C or SIGTERM. A session of
    /// counter finishes its current request; the sessions of the other services end when their
    /// clients close them
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = options::seconds)]
    grace: Duration,
    /// Print the identifier as JSON
    #[arg(long)]
    json: bool,
    /// Exit when standard input closes
    #[arg(long, hide = true)]
    until_eof: bool,
}

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Sends each message back
    Echo,
    /// Discards all messages
    Discard,
    /// Sends the time
    Daytime,
    /// Sends characters without end
    Chargen,
    /// Numbers the pings that it receives
    Pingpong,
    /// Computes jobs, and continues where another server stopped
    Calcapp,
    /// Counts the requests of each session; a failover keeps the count
    Counter,
}

impl Service {
    fn default_pool(self) -> &'static str {
        match self {
            Self::Echo => "EchoPool",
            Self::Discard => "DiscardPool",
            Self::Daytime => "DaytimePool",
            Self::Chargen => "CharGenPool",
            Self::Calcapp => "CalcAppPool",
            Self::Pingpong => "PingPongPool",
            Self::Counter => "CounterPool",
        }
    }

    async fn serve(self, session: ElementSession, processor: Arc<Processor>) {
        let peer = session.peer().clone();
        let result = match self {
            Self::Echo => echo::serve(session).await,
            Self::Discard => discard::serve(session).await,
            Self::Daytime => daytime::serve(session).await,
            Self::Chargen => chargen::serve(session).await,
            Self::Calcapp => calcapp::serve(session, &processor).await,
            Self::Pingpong => pingpong::serve(session).await,
            // The framework serves the sessions of this service: see the module `counter`.
            Self::Counter => Ok(()),
        };
        match result {
            Ok(()) | Err(Broken::Closed(SessionClosed::ByPeer)) => {
                tracing::info!(%peer, "session ended");
            }
            Err(error) => tracing::info!(%peer, %error, "session broke"),
        }
    }
}

/// The reason for the end of a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Closed(#[from] SessionClosed),
    #[error(transparent)]
    Send(#[from] SessionSendError),
    #[error("the client does not keep to the protocol: {0}")]
    Protocol(&'static str),
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    let pool = match arguments.pool {
        Some(pool) => pool,
        None => arguments.service.default_pool().parse().context("its own handle")?,
    };
    let seal = match (arguments.service, &arguments.keys) {
        (Service::Counter, Some(file)) => {
            let ring = KeyRing::from_file(file);
            let ring = ring.with_context(|| format!("--keys {}", file.display()))?;
            Some(Seal::new(pool.clone(), ring))
        }
        _ => None,
    };
    let mut names = arguments.registrar.names(&network, &arguments.transport).await;
    let hunt = arguments.registrar.hunt(names.addresses());
    let mut builder = PoolElement::builder(&network, &pool, hunt.registrars())
        .configure(|config| config.hunt(hunt.clone()).policy(arguments.policy));
    let (listen, further) = options::same_port(&arguments.listen, "--listen")?;
    if let Some(address) = listen {
        builder = builder.listen(address);
    }
    for address in further {
        builder = builder.also_at(address);
    }
    if let Some(identifier) = arguments.identifier {
        builder = builder.configure(|config| config.identifier(identifier));
    }
    let element = builder.start().map_err(|error| options::explain_start(error, "--listen"))?;
    let follower = element.control();
    tokio::spawn(
        async move { while follower.set_registrars(names.changed().await).await.is_ok() {} },
    );
    let end = options::wait_for_end(arguments.until_eof);
    let mut end = Box::pin(end);
    let registered = async {
        let registered = element.registered();
        tokio::pin!(registered);
        if let Ok(result) = tokio::time::timeout(options::PATIENCE, &mut registered).await {
            return result;
        }
        options::notify_no_registrar(&hunt);
        registered.await
    };
    let identifier = tokio::select! {
        result = registered => result.map_err(|error| explain_join(error, &pool))?,
        () = &mut end => return Ok(ExitCode::SUCCESS),
    };
    let port = element.user_transport().port;
    if arguments.json {
        let identifier = identifier.to_string();
        announce!("{}", json!({ "pool": pool, "identifier": identifier, "port": port }));
    } else {
        announce!("serving {pool} as {identifier} on port {port}; Ctrl-C leaves the pool");
    }
    let control = element.control();
    let serving = async {
        match seal {
            Some(seal) => {
                let config = ServiceConfig::new(seal);
                element.serve(config, counter::Counter::default, end, arguments.grace).await
            }
            None => {
                let processor = Arc::new(Processor::new(arguments.capacity, arguments.max_jobs));
                let serve = |session, _| arguments.service.serve(session, Arc::clone(&processor));
                let load = follow_load(&control, processor.load());
                tokio::select! {
                    outcome = element.serve_sessions(serve, end, arguments.grace) => outcome,
                    stopped = load => match stopped {},
                }
            }
        }
    };
    let outcome = serving.await;
    if outcome.departure == Departure::Unconfirmed {
        notify!(
            "left without the registrar's confirmation: the registration remains until it expires"
        );
    }
    if outcome.aborted > 0 {
        notify!("{} sessions were cut off; their clients fail over", outcome.aborted);
    }
    Ok(ExitCode::SUCCESS)
}

/// Updates the element's load whenever the processor's load changes, as long as the processor
/// exists.
async fn follow_load(control: &ElementControl, mut load: watch::Receiver<f64>) -> Infallible {
    while load.changed().await.is_ok() {
        let share = *load.borrow_and_update();
        if control.set_load(share).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

pub(crate) fn explain_join(error: JoinError, pool: &PoolHandle) -> anyhow::Error {
    let JoinError::Rejected(reasons) = &error else { return error.into() };
    let remedy = match reasons.causes.first() {
        Some(ErrorCause::InvalidValues(_)) => {
            "the address of --listen must be one that reaches the registrar, and the values of \
             --policy must be those that the policy has"
                .to_owned()
        }
        Some(ErrorCause::Security) => format!(
            "its operator has to allow this host (`rserpool registrar --allow-element`), or this \
             program needs a certificate for the pool (`rserpool certs issue --role element --pool \
             {pool}`)"
        ),
        Some(ErrorCause::LackOfResources) => "try again later, or another registrar".to_owned(),
        _ => format!(
            "look at what is in the pool with `rserpool resolve {pool}`, or choose another with \
             --pool"
        ),
    };
    status::explain(error, &remedy)
}
