//! `rserpool registrar`.

mod access;
mod control;
mod limits;
mod rule;
mod selection;
mod supervisor;
mod timers;

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use rserpool::runtime::Runtime;
use rserpool::{
    PoolElementId, Registrar, RegistrarConfig, RegistrarId, StartError, TransportAddress,
    TransportProtocol,
};
use serde_json::json;

use crate::admin::Admin;
use crate::names::{Names, Remote, remote};
use crate::options::{self, CompatibilityOption, HostPort, TransportOption};
use crate::status;
use access::AccessOptions;
use control::{Control, ControlSignals};
use limits::LimitOptions;
use selection::SelectionOptions;
use supervisor::Supervisor;
use timers::TimerOptions;

/// Maximum time for a shutdown, even if the registrar's thread hangs.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);

/// Run a registrar, with which servers register and which clients ask for servers
///
/// Each option that concerns more than one call can also be set in the file of --config, by its name,
/// and by a variable such as RSERPOOL_MAX_CONNECTIONS. The command line has precedence over variables,
/// and these over the file. On SIGHUP the settings are read again; limits, timers, other registrars
/// and access rules change at once. On SIGUSR1 the registrar logs its state.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File with settings, in the format TOML: the names of options and their values
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the settings and the files that they name, and exit
    #[arg(long)]
    check: bool,
    /// Name of this registrar in its log and in its HTTP interface
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Identifier among registrars, a number that is not 0 [default: drawn at random]
    #[arg(long, value_name = "ID", value_parser = options::identifier)]
    identifier: Option<PoolElementId>,
    /// ASAP address to listen on, for servers and clients; over SCTP, repeat it for further
    /// addresses with the same port. The default port is 3863, or 3864 with TLS
    #[arg(long, value_name = "ADDR", value_parser = options::address,
          default_value = options::DEFAULT_REGISTRAR)]
    asap: Vec<HostPort>,
    /// Do not announce the registrar in the local network. A registrar at a loopback address is
    /// never announced
    #[arg(long)]
    no_announce: bool,
    /// ENRP address to listen on, for other registrars [default: port 9901, or 9902 with TLS, of the
    /// address of --asap; any free port if that has port 0]
    #[arg(long, value_name = "ADDR", value_parser = options::address)]
    enrp: Option<HostPort>,
    /// ENRP address of another registrar, or name with all its addresses; may be repeated.
    /// Registrars replicate the handlespace and take over from each other [default: registrars found
    /// by multicast]
    #[arg(long, value_name = "ADDR", value_parser = remote)]
    peer: Vec<Remote>,
    /// Address of an HTTP interface for the operator: a page at /, and /metrics, /healthz, /readyz, /v1/status,
    /// /v1/pools, /v1/pools/POOL, /v1/peers and /v1/events. It only reads, and does not know who asks:
    /// choose a loopback address, or one that only operators reach
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,
    /// Unix socket for the orders of an operator, `rserpool drain` and `rserpool deregister`. It also
    /// has all of --admin. Who may open it may give orders: the user and the group of this process
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Print the addresses as JSON
    #[arg(long)]
    json: bool,
    /// Exit when standard input closes
    #[arg(long, hide = true)]
    until_eof: bool,
    // Options with headings come after those without.
    #[command(flatten)]
    compatibility: CompatibilityOption,
    #[command(flatten)]
    transport: TransportOption,
    #[command(flatten)]
    access: AccessOptions,
    #[command(flatten)]
    selection: SelectionOptions,
    #[command(flatten)]
    timers: TimerOptions,
    #[command(flatten)]
    limits: LimitOptions,
}

impl Arguments {
    /// Returns the first address of ASAP, and the further ones.
    fn asap(&self) -> anyhow::Result<(SocketAddr, Vec<IpAddr>)> {
        let asap: Vec<_> = self.asap.iter().map(|at| self.transport.asap(*at)).collect();
        let (first, further) = options::same_port(&asap, "--asap")?;
        Ok((first.context("no address for ASAP")?, further))
    }

    /// Returns the address of ENRP.
    fn enrp(&self) -> anyhow::Result<SocketAddr> {
        let (asap, _) = self.asap()?;
        let port = if asap.port() == 0 { 0 } else { self.transport.enrp_port() };
        let usual = SocketAddr::new(asap.ip(), port);
        Ok(self.enrp.map_or(usual, |at| self.transport.enrp(at)))
    }

    /// Resolves the names of the other registrars.
    async fn names(&self, protocol: TransportProtocol) -> Names {
        Names::resolve(&self.peer, self.transport.enrp_port(), protocol).await
    }

    /// Returns the configuration of the registrar, with other registrars at these addresses.
    fn settings(&self, peers: Vec<TransportAddress>) -> anyhow::Result<RegistrarConfig> {
        let mut config = RegistrarConfig::default().compatibility(self.compatibility.profile);
        let authenticates = self.transport.authenticates();
        config = self.limits.apply(self.timers.apply(config));
        config = self.selection.apply(self.access.apply(config, authenticates))?;
        if !self.no_announce && !self.asap()?.0.ip().is_loopback() {
            config = config.announce([]).multicast_presence();
        }
        if let Some(PoolElementId(number)) = self.identifier {
            config = config.identifier(RegistrarId(number));
        }
        Ok(config.peers(peers))
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let signals = ControlSignals::new();
    let runtime = runtime()?;
    let network = arguments.transport.offered_on(runtime).map_err(status::wrong)?;
    let names = arguments.names(network.protocol()).await;
    let config = arguments.settings(names.addresses()).map_err(status::wrong)?;
    let (first, further) = arguments.asap().map_err(status::wrong)?;
    let enrp = TransportAddress::new(network.protocol(), arguments.enrp()?);
    if let Some(path) = &arguments.control {
        crate::admin::check_control(path).map_err(status::wrong)?;
    }
    if arguments.check {
        announce!("the settings are valid");
        return Ok(ExitCode::SUCCESS);
    }
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
    let admin = match arguments.admin {
        Some(address) => {
            let admin = Admin::listen(address, arguments.name.clone()).await;
            Some(admin.with_context(|| format!("cannot listen on {address}, see --admin"))?)
        }
        None => None,
    };
    let control_socket =
        match &arguments.control {
            Some(path) => {
                let socket = Admin::listen_for_orders(path, arguments.name.clone());
                Some(socket.with_context(|| {
                    format!("cannot listen at {}, see --control", path.display())
                })?)
            }
            None => None,
        };
    let registrar = Registrar::start(&network, &addresses, config.enrp(enrp.clone()));
    let registrar = registrar.map_err(|error| match &error {
        StartError::Listen(at) if *at.address() == enrp => options::explain_start(error, "--enrp"),
        _ => options::explain_start(error, "--asap"),
    })?;
    announce_start(&registrar, &arguments, admin.as_ref(), control_socket.as_ref())?;
    let (until_eof, name) = (arguments.until_eof, arguments.name.clone());
    let mut control = Control::new(arguments, names, signals);
    let supervisor = Supervisor::default();
    let serve = async |interface: &Option<Admin>| match interface {
        Some(interface) => interface.serve(&registrar).await,
        None => pending().await,
    };
    tokio::select! {
        () = options::wait_for_end(until_eof) => {}
        () = registrar.stopped() => bail!("the registrar has stopped by itself"),
        never = serve(&admin) => match never {},
        never = serve(&control_socket) => match never {},
        never = control.follow(&registrar, &supervisor) => match never {},
        never = supervisor.report(&registrar) => match never {},
    }
    supervisor.tell_stopping();
    let identifier = registrar.identifier();
    tracing::info!(target: "rserpool::notice", registrar = %identifier, name = name.as_deref(), "stopping");
    let stopped = tokio::time::timeout(SHUTDOWN_TIMEOUT, registrar.shutdown()).await;
    if !matches!(stopped, Ok(Ok(()))) {
        bail!("the registrar did not stop in good order");
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints and logs where the registrar is.
fn announce_start(
    registrar: &Registrar,
    arguments: &Arguments,
    admin: Option<&Admin>,
    control: Option<&Admin>,
) -> anyhow::Result<()> {
    let identifier = registrar.identifier();
    let admin_at = admin.map(Admin::local).transpose()?;
    let local = registrar.local_addresses();
    let asap = local.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    let enrp = registrar.enrp_address();
    let name = arguments.name.as_deref();
    if arguments.json {
        let first = |address: &TransportAddress| {
            address.socket_addresses().next().map(|address| address.to_string())
        };
        let identifier = identifier.to_string();
        announce!(
            "{}",
            json!({
                "identifier": identifier,
                "name": name,
                "asap": local.first().and_then(first),
                "enrp": enrp.and_then(first),
                "admin": admin_at,
                "control": control.map(Admin::local).transpose()?,
            })
        );
    } else {
        let enrp = enrp.map(|enrp| format!(", ENRP at {enrp}")).unwrap_or_default();
        let admin = admin_at.map(|at| format!(", http://{at}/")).unwrap_or_default();
        let control = control.map(Admin::local).transpose()?;
        let control = control.map(|at| format!(", takes orders at {at}")).unwrap_or_default();
        let name = name.map(|name| format!(" {name}")).unwrap_or_default();
        announce!(
            "registrar{name} {identifier} offers ASAP at {asap}{enrp}{admin}{control}; Ctrl-C ends it"
        );
    }
    tracing::info!(target: "rserpool::notice", registrar = %identifier, name, %asap, "started");
    Ok(())
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
