//! Options that several commands have.

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use rserpool::runtime::Runtime;
use rserpool::transport::{Tcp, Transport};
use rserpool::{
    AccessRules, Compatibility, HuntConfig, Network, PoolElementId, PoolHandle, PoolUser,
    StartError, TransportAddress, UserConfig,
};
use rserpool_tokio::TokioRuntime;

use crate::grants::GrantOption;
use crate::names::{Names, Remote, remote};
use crate::tls::TlsOptions;

/// The ports of ASAP (RFC 5352 sections 8.2 and 8.3), without and with TLS.
const ASAP_PORTS: [u16; 2] = [3863, 3864];

/// The ports of ENRP (RFC 5353 sections 5.3 and 7), without and with TLS.
const ENRP_PORTS: [u16; 2] = [9901, 9902];

/// Default address of the registrar, to connect to and to listen on, at the port of the protocol.
pub(crate) const DEFAULT_REGISTRAR: &str = "127.0.0.1";

/// An address of an option. Without a port, it is that of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostPort {
    host: IpAddr,
    port: Option<u16>,
}

impl HostPort {
    fn with_default(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.host, self.port.unwrap_or(port))
    }
}

/// The option that selects the transport.
#[derive(Debug, Clone, Args)]
pub(crate) struct TransportOption {
    /// Transport protocol; auto takes SCTP if the system has it
    #[arg(long, value_name = "PROTOCOL", default_value = "auto")]
    pub(crate) transport: Protocol,
    /// Authenticate associations over SCTP by the keys in this file, which all programs share. Each
    /// line has a number and a key, as `rserpool keys` prints them; the first one is used for what is
    /// sent. Others must not be able to read the file
    #[arg(long, value_name = "FILE")]
    pub(crate) sctp_auth_keys: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsOptions,
}

/// Transport protocol of the option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// SCTP if the system has it, else TCP; a registrar then offers both
    Auto,
    /// SCTP
    Sctp,
    /// TCP
    Tcp,
    /// Both: a registrar offers both; others ask registrars over SCTP and use servers of both
    #[value(name = "sctp,tcp")]
    Both,
}

impl TransportOption {
    /// Returns the network on the current runtime.
    pub(crate) fn network(&self) -> anyhow::Result<Network> {
        let runtime = TokioRuntime::try_current().context("no runtime")?;
        self.network_on(Arc::new(runtime))
    }

    /// Returns the network on `runtime` for a program that others connect to: with all available
    /// transports, unless one was chosen (RFC 5352 section 3.3).
    pub(crate) fn offered_on(&self, runtime: Arc<dyn Runtime>) -> anyhow::Result<Network> {
        match self.transport {
            Protocol::Auto if self.sctp_auth_keys.is_none() && self.sctp()?.is_ok() => {
                Self { transport: Protocol::Both, ..self.clone() }.network_on(runtime)
            }
            Protocol::Auto | Protocol::Sctp | Protocol::Tcp | Protocol::Both => {
                self.network_on(runtime)
            }
        }
    }

    /// Returns an address for ASAP.
    pub(crate) fn asap(&self, at: HostPort) -> SocketAddr {
        at.with_default(self.asap_port())
    }

    /// Returns the port of ASAP.
    pub(crate) fn asap_port(&self) -> u16 {
        ASAP_PORTS[usize::from(self.tls.are_given())]
    }

    /// Returns an address for ENRP.
    pub(crate) fn enrp(&self, at: HostPort) -> SocketAddr {
        at.with_default(self.enrp_port())
    }

    /// Returns the port of ENRP.
    pub(crate) fn enrp_port(&self) -> u16 {
        ENRP_PORTS[usize::from(self.tls.are_given())]
    }

    /// Returns whether all that is received is authenticated.
    pub(crate) fn authenticates(&self) -> bool {
        self.tls.are_given() || self.sctp_auth_keys.is_some()
    }

    /// Returns the SCTP transport, or the reason why the system does not support it.
    ///
    /// # Errors
    ///
    /// Returns an error if the keys cannot be read.
    #[cfg(target_os = "linux")]
    fn sctp(&self) -> anyhow::Result<std::io::Result<Arc<dyn Transport>>> {
        use rserpool::transport::Sctp;
        use rserpool::transport::sctp::AuthKeys;
        let mut sctp = Sctp::new();
        if let Some(file) = &self.sctp_auth_keys {
            let keys = AuthKeys::from_file(file);
            sctp = sctp
                .auth_keys(keys.with_context(|| format!("--sctp-auth-keys {}", file.display()))?);
        }
        Ok(Sctp::check_available().map(|()| Arc::new(sctp) as Arc<dyn Transport>))
    }

    /// Returns the reason why there is no SCTP transport.
    #[cfg(not(target_os = "linux"))]
    fn sctp(&self) -> anyhow::Result<std::io::Result<Arc<dyn Transport>>> {
        let text = "only that of Linux is supported";
        Ok(Err(std::io::Error::new(std::io::ErrorKind::Unsupported, text)))
    }

    /// Returns the network on `runtime`.
    pub(crate) fn network_on(&self, runtime: Arc<dyn Runtime>) -> anyhow::Result<Network> {
        if self.sctp_auth_keys.is_some() && !self.tls.are_given() {
            ensure!(
                matches!(self.transport, Protocol::Auto | Protocol::Sctp),
                "--sctp-auth-keys authenticates only SCTP: use --transport sctp, or TLS"
            );
        }
        let mut files = self.tls.load()?;
        let mut secured = |transport| match &mut files {
            Some(files) => files.over(transport),
            None => Ok(transport),
        };
        let tcp = secured(Arc::new(Tcp::new()))?;
        let sctp = match self.sctp()? {
            Ok(sctp) => Ok(secured(sctp)?),
            Err(error) => Err(error),
        };
        if let Some(files) = files {
            files.watch();
        }
        match (self.transport, sctp) {
            (Protocol::Tcp, _) => Ok(Network::shared(runtime, tcp)),
            (Protocol::Both, Ok(sctp)) => {
                Ok(Network::shared(runtime, sctp).with_sessions_over(tcp))
            }
            (_, Ok(sctp)) => {
                tracing::info!("transport: SCTP");
                Ok(Network::shared(runtime, sctp))
            }
            (Protocol::Auto, Err(error)) if self.sctp_auth_keys.is_none() => {
                // On a terminal, print a message; otherwise only log it, so that an error stays one
                // line.
                if std::io::stderr().is_terminal() {
                    notify!("SCTP is not available, using TCP: {error}");
                } else {
                    tracing::info!("SCTP is not available, using TCP: {error}");
                }
                Ok(Network::shared(runtime, tcp))
            }
            (_, Err(error)) => bail!(
                "there is no SCTP: {error}; load the kernel's module with `modprobe sctp`, or use \
                 --transport tcp"
            ),
        }
    }
}

/// Options that name the registrars to ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistrarOption {
    /// Address of a registrar, or name with all its addresses; may be repeated. The default port is
    /// 3863, or 3864 with TLS [default: 127.0.0.1, and registrars that announce themselves in the
    /// local network]
    #[arg(long, value_name = "ADDR", value_parser = remote)]
    registrar: Vec<Remote>,
    #[command(flatten)]
    compatibility: CompatibilityOption,
    #[command(flatten)]
    grants: GrantOption,
}

/// The option that selects the compatibility profile.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompatibilityOption {
    /// Implementations to be compatible with: all, rsplib (if registrars of rsplib take part), or
    /// rfc (strictly the RFCs)
    #[arg(long = "compatibility", value_name = "PROFILE", default_value_t)]
    pub(crate) profile: Compatibility,
}

impl RegistrarOption {
    /// Resolves the addresses of the registrars on `network`, which `transport` made.
    pub(crate) async fn names(&self, network: &Network, transport: &TransportOption) -> Names {
        let default = remote(DEFAULT_REGISTRAR).ok().filter(|_| self.registrar.is_empty());
        let remotes = self.registrar.iter().chain(&default);
        Names::resolve(remotes, transport.asap_port(), network.protocol()).await
    }

    /// Returns the configuration of a search for registrars at these addresses.
    pub(crate) fn hunt(&self, registrars: Vec<TransportAddress>) -> HuntConfig {
        let hunt = HuntConfig::new(registrars);
        let hunt = if self.registrar.is_empty() { hunt.listen_for_announcements() } else { hunt };
        let rules = self.grants.apply(AccessRules::default());
        hunt.compatibility(self.compatibility.profile).access(rules)
    }

    /// Starts a pool user, which follows the names of the registrars. Commands for people let
    /// `configure` give up early if there is no registrar.
    pub(crate) async fn user(
        &self,
        network: &Network,
        transport: &TransportOption,
        configure: impl FnOnce(UserConfig) -> UserConfig,
    ) -> anyhow::Result<PoolUser> {
        let mut names = self.names(network, transport).await;
        let config = configure(UserConfig::new(self.hunt(names.addresses())));
        let user = PoolUser::with_config(network, config)?;
        let follower = user.clone();
        tokio::spawn(async move {
            while follower.set_registrars(names.changed().await).await.is_ok() {}
        });
        Ok(user)
    }
}

/// Parses `IP`, `IP:PORT` or `HOST:PORT`.
pub(crate) fn address(text: &str) -> Result<HostPort, String> {
    if let Ok(host) = text.parse() {
        return Ok(HostPort { host, port: None });
    }
    let address = text.parse::<SocketAddr>().ok();
    let found = || text.to_socket_addrs().ok().and_then(|mut found| found.next());
    let address =
        address.or_else(found).ok_or("not an address: write IP:PORT, as in 127.0.0.1:3863")?;
    Ok(HostPort { host: address.ip(), port: Some(address.port()) })
}

/// Parses an address to listen on, in the forms that [`address`] accepts. Default port: any free
/// one.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    Ok(address(text)?.with_default(0))
}

/// Parses the address of a server, which has a port.
pub(crate) fn server_address(text: &str) -> Result<SocketAddr, String> {
    let HostPort { host, port } = address(text)?;
    let port = port.filter(|port| *port != 0);
    Ok(SocketAddr::new(host, port.ok_or("no port: write IP:PORT, as in 192.0.2.1:80")?))
}

/// Parses a pool handle.
pub(crate) fn pool_handle(text: &str) -> Result<PoolHandle, String> {
    text.parse().map_err(|error: rserpool::proto::wire::InvalidPoolHandle| error.to_string())
}

/// Parses an identifier: a number that is not zero, or hexadecimal digits after 0x.
pub(crate) fn identifier(text: &str) -> Result<PoolElementId, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let number = number.filter(|number| *number != 0);
    let number = number.ok_or("not an identifier: write a number of 32 bits, 0x1234 or 4660")?;
    Ok(PoolElementId(number))
}

/// Maximum value of a timer in seconds: one year.
const LONGEST: f64 = 365.0 * 24.0 * 60.0 * 60.0;

/// Parses a number of seconds, which may have a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.0..=LONGEST).contains(&seconds) {
        return Err(format!("from 0 to {LONGEST} seconds are allowed"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Settings of a user for a command that a person waits for: it gives up early if there is no
/// registrar. A registrar that has just started may take 5 s to report that a pool does not exist.
pub(crate) fn impatient(config: UserConfig) -> UserConfig {
    config.max_request_retransmit(1)
}

/// Time without a registrar after which a message is printed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// Prints that no registrar answers yet, and what to do about it.
pub(crate) fn notify_no_registrar(hunt: &HuntConfig) {
    if hunt.registrars().is_empty() {
        // Their names have no address, which was printed.
        return;
    }
    let at = hunt.registrars().iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    notify!(
        "no registrar at {at} yet, and none that announces itself: start one with \
         `rserpool registrar`, or say where it is with --registrar; waiting"
    );
}

/// Parses a number of seconds that is not zero.
pub(crate) fn some_seconds(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    if time.is_zero() { Err("more than 0 seconds are needed".to_owned()) } else { Ok(time) }
}

/// Adds advice to an error of starting: what to do about an address that cannot be used.
pub(crate) fn explain_start(error: StartError, option: &str) -> anyhow::Error {
    let StartError::Listen(error) = error else { return error.into() };
    let address = error.address().clone();
    match error.io_error().kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is in use: stop the program that listens there, or choose another port with {option}"
        ),
        std::io::ErrorKind::AddrNotAvailable => anyhow::anyhow!(
            "{address} is not an address of this host: choose a local address with {option}"
        ),
        std::io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "{address} is not allowed: choose a port of 1024 or above with {option}"
        ),
        _ => error.into(),
    }
}

/// Returns the first address, and the IP addresses of the others, which must have the same port.
pub(crate) fn same_port(
    addresses: &[SocketAddr],
    option: &str,
) -> anyhow::Result<(Option<SocketAddr>, Vec<IpAddr>)> {
    let Some((first, further)) = addresses.split_first() else { return Ok((None, Vec::new())) };
    if further.iter().any(|address| address.port() != first.port()) {
        bail!("the addresses of {option} must have the same port");
    }
    Ok((Some(*first), further.iter().map(SocketAddr::ip).collect()))
}

/// Waits for Ctrl-C, SIGTERM, or, if `with_stdin` is set, the end of standard input.
pub(crate) async fn wait_for_end(with_stdin: bool) {
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    let terminated = async {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            if let Ok(mut signal) = signal(SignalKind::terminate()) {
                signal.recv().await;
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    let abandoned = async {
        if !with_stdin {
            std::future::pending::<()>().await;
        }
        // Read in a thread of its own, since a read of standard input cannot be cancelled.
        let (ended, wait) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = ended.send(());
        });
        let _ = wait.await;
    };
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
        () = abandoned => {}
    }
}
