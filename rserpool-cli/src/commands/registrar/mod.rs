//! `rserpool registrar`.

mod access;
mod limits;
mod rule;
mod selection;
mod timers;

use std::future::pending;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use rserpool::runtime::Runtime;
use rserpool::{
    Network, Registrar, RegistrarConfig, StartError, TransportAddress, TransportProtocol,
};
use serde_json::json;

use crate::admin::Admin;
use crate::options::{self, CompatibilityOption, HostPort, TransportOption};
use access::AccessOptions;
use limits::LimitOptions;
use selection::SelectionOptions;
use timers::TimerOptions;

/// Maximum time for a shutdown, even if the registrar's thread hangs.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);

/// Run a registrar, with which servers register and which clients ask for servers
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// ASAP address to listen on, for servers and clients; over SCTP, repeat it for further
    /// addresses with the same port. The default port is 3863, or 3864 with TLS
    #[arg(long, value_name = "ADDR", value_parser = options::address,
          default_value = options::DEFAULT_REGISTRAR)]
    asap: Vec<HostPort>,
    /// Do not announce the registrar in the local network. A registrar at a loopback address is
    /// never announced
    #[arg(long)]
    no_announce: bool,
    /// ENRP address to listen on, for other registrars [default: port 9901, or
    /// 9902 with TLS, of the address of --asap, or any other port if that is taken]
    #[arg(long, value_name = "ADDR", value_parser = options::address)]
    enrp: Option<HostPort>,
    /// ENRP address of another registrar; may be repeated. Registrars replicate the handlespace and
    /// take over from each other [default: registrars found by multicast]
    #[arg(long, value_name = "ADDR", value_parser = options::address)]
    peer: Vec<HostPort>,
    #[command(flatten)]
    selection: SelectionOptions,
    #[command(flatten)]
    timers: TimerOptions,
    #[command(flatten)]
    access: AccessOptions,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    compatibility: CompatibilityOption,
    #[command(flatten)]
    transport: TransportOption,
    /// Address of an HTTP interface for the operator: /metrics, /healthz, /readyz, /v1/status,
    /// /v1/pools, /v1/pools/POOL, /v1/peers and /v1/events. It only reads, and does not know who asks:
    /// choose a loopback address, or one that only operators reach
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,
    /// Print the addresses as JSON
    #[arg(long)]
    json: bool,
    /// Exit when standard input closes
    #[arg(long, hide = true)]
    until_eof: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.offered_on(runtime()?)?;
    let asap = arguments.asap.iter().map(|at| arguments.transport.asap(*at)).collect::<Vec<_>>();
    let (first, further) = options::same_port(&asap, "--asap")?;
    let first = first.context("no address for ASAP")?;
    let mut address = TransportAddress::new(network.protocol(), first);
    address.addresses.extend(further);
    // TCP uses only one address.
    let addresses: Vec<_> = network
        .protocols()
        .map(|protocol| match protocol {
            TransportProtocol::Tcp => TransportAddress::new(protocol, first),
            protocol => TransportAddress { protocol, ..address.clone() },
        })
        .collect();
    let profile = arguments.compatibility.profile;
    let mut config = RegistrarConfig::default().compatibility(profile);
    let authenticates = arguments.transport.authenticates();
    config = arguments.limits.apply(arguments.timers.apply(config));
    config = arguments.selection.apply(arguments.access.apply(config, authenticates))?;
    if !arguments.no_announce && !first.ip().is_loopback() {
        config = config.announce([]).multicast_presence();
    }
    let at = |address: &HostPort| {
        TransportAddress::new(network.protocol(), arguments.transport.enrp(*address))
    };
    config = config.peers(arguments.peer.iter().map(at));
    let admin = match arguments.admin {
        Some(address) => {
            let admin = Admin::listen(address).await;
            Some(admin.with_context(|| format!("cannot listen on {address}, see --admin"))?)
        }
        None => None,
    };
    let admin_at = admin.as_ref().map(Admin::local).transpose()?;
    let registrar = start(&network, &addresses, config, &arguments)?;
    let identifier = registrar.identifier();
    let local = registrar.local_addresses();
    let asap = local.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let enrp = registrar.enrp_address();
    if arguments.json {
        let first = |address: &TransportAddress| {
            address.socket_addresses().next().map(|address| address.to_string())
        };
        let identifier = identifier.to_string();
        announce!(
            "{}",
            json!({
                "identifier": identifier,
                "asap": local.first().and_then(first),
                "enrp": enrp.and_then(first),
                "admin": admin_at,
            })
        );
    } else {
        let enrp = enrp.map(|enrp| format!(", ENRP at {enrp}")).unwrap_or_default();
        let admin = admin_at.map(|at| format!(", http://{at}/metrics")).unwrap_or_default();
        announce!("registrar {identifier} offers ASAP at {asap}{enrp}{admin}; Ctrl-C ends it");
    }
    tracing::info!(target: "rserpool::notice", registrar = %identifier, %asap, "started");
    let served = async {
        match &admin {
            Some(admin) => admin.serve(&registrar).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = options::wait_for_end(arguments.until_eof) => {}
        () = registrar.stopped() => bail!("the registrar has stopped by itself"),
        never = served => match never {},
    }
    tracing::info!(target: "rserpool::notice", registrar = %identifier, "stopping");
    let stopped = tokio::time::timeout(SHUTDOWN_TIMEOUT, registrar.shutdown()).await;
    if !matches!(stopped, Ok(Ok(()))) {
        bail!("the registrar did not stop in good order");
    }
    Ok(ExitCode::SUCCESS)
}

/// A registrar is one task, and runs best on a thread of its own. The thread that handles signals
/// is independent of it.
#[cfg(unix)]
fn runtime() -> anyhow::Result<Arc<dyn Runtime>> {
    Ok(Arc::new(rserpool_mio::MioRuntime::start()?))
}

/// The runtime of the command.
#[cfg(not(unix))]
fn runtime() -> anyhow::Result<Arc<dyn Runtime>> {
    Ok(Arc::new(rserpool_tokio::TokioRuntime::try_current().context("no runtime")?))
}

/// Starts the registrar. If --enrp is not given and the usual port is taken, ENRP is offered at any
/// free port, since there may be several registrars on a host.
fn start(
    network: &Network,
    addresses: &[TransportAddress],
    config: RegistrarConfig,
    arguments: &Arguments,
) -> anyhow::Result<Registrar> {
    // By default, ENRP is offered at the addresses of ASAP.
    let address = addresses.first().context("no address for ASAP")?;
    let usual = TransportAddress { port: arguments.transport.enrp_port(), ..address.clone() };
    let at = |address| TransportAddress::new(network.protocol(), arguments.transport.enrp(address));
    let enrp = arguments.enrp.map_or(usual, at);
    match Registrar::start(network, addresses, config.clone().enrp(enrp.clone())) {
        Ok(registrar) => Ok(registrar),
        Err(StartError::Listen(error)) if *error.address() == enrp && arguments.enrp.is_none() => {
            let any = TransportAddress { port: 0, ..enrp };
            Registrar::start(network, addresses, config.enrp(any))
                .map_err(|error| options::explain_start(error, "--enrp"))
        }
        Err(StartError::Listen(error)) if *error.address() == enrp => {
            Err(options::explain_start(error.into(), "--enrp"))
        }
        Err(error) => Err(options::explain_start(error, "--asap")),
    }
}
