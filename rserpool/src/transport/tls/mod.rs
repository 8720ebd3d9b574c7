//! TLS over any other transport.
//!
//! Over TCP, this is ordinary TLS, and any client of TLS can connect. Over SCTP, each record is an
//! ordered message of stream 0 (after RFC 3436, with one stream for both directions). The messages
//! within are delimited as over TCP, see [`framing`](super::tcp::framing).
//!
//! Both ends present a certificate of an authority that the other trusts. The names in it are the
//! peer's [`Identity`](crate::proto::Identity), see [`Connection::identity`].

mod config;
mod connection;
mod endpoint;
mod failure;
mod verifier;

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rserpool_proto::wire::{Ppid, TransportAddress, TransportProtocol};
use rustls::{ClientConfig, ServerConfig};

use super::{Endpoint, Purpose, Transport};
use crate::runtime::Runtime;

pub use config::{TlsConfig, TlsConfigError};

use endpoint::TlsEndpoint;
use verifier::PeerVerifier;

#[cfg(doc)]
use super::Connection;

/// Maximum size of a session's message in bytes. Not from the RFCs: the default of the transport
/// TCP.
const MAX_MESSAGE_SIZE: usize = 1024 * 1024;

/// TLS over another transport.
///
/// Clones share the configuration.
///
/// ```no_run
/// use std::sync::Arc;
/// use rserpool::transport::{Tcp, Tls, tls::TlsConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let provider = Arc::new(rustls::crypto::ring::default_provider());
/// let config = TlsConfig::new(provider, &std::fs::read("ca.pem")?)?
///     .certificate_files("element.pem", "element.key")?;
/// let transport = Tls::over(Tcp::new(), &config)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    inner: Arc<dyn Transport>,
    configs: Arc<RwLock<Arc<Configs>>>,
    max_message_size: usize,
}

/// The configurations for new connections, one for each purpose.
struct Configs {
    asap: Pair,
    enrp: Pair,
    session: Pair,
}

#[derive(Clone)]
struct Pair {
    client: End<ClientConfig>,
    /// `None` without a certificate: connections cannot be accepted then.
    server: Option<End<ServerConfig>>,
}

/// The configuration of one end of connections.
#[derive(Debug)]
struct End<C> {
    config: Arc<C>,
    /// The verifier of the other end.
    verifier: PeerVerifier,
}

impl<C> Clone for End<C> {
    fn clone(&self) -> Self {
        Self { config: Arc::clone(&self.config), verifier: self.verifier.clone() }
    }
}

impl Configs {
    fn new(config: &TlsConfig) -> Result<Self, TlsConfigError> {
        Ok(Self {
            asap: config.pair(b"asap")?,
            enrp: config.pair(b"enrp")?,
            session: config.pair(b"rserpool-session")?,
        })
    }

    fn of(&self, purpose: Purpose) -> &Pair {
        match purpose {
            Purpose::Protocol(Ppid::ENRP) => &self.enrp,
            Purpose::Protocol(_) => &self.asap,
            Purpose::Session | Purpose::Bytes => &self.session,
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Tls {
    /// Returns TLS over `inner`.
    ///
    /// # Errors
    ///
    /// Returns an error if the certificate, the key and the authorities do not fit each other or
    /// the cryptography.
    pub fn over(inner: impl Transport, config: &TlsConfig) -> Result<Self, TlsConfigError> {
        Self::shared(Arc::new(inner), config)
    }

    /// Returns TLS over a transport that is chosen at run time.
    ///
    /// # Errors
    ///
    /// Returns an error if the certificate, the key and the authorities do not fit each other or
    /// the cryptography.
    pub fn shared(inner: Arc<dyn Transport>, config: &TlsConfig) -> Result<Self, TlsConfigError> {
        let configs = Arc::new(RwLock::new(Arc::new(Configs::new(config)?)));
        Ok(Self { inner, configs, max_message_size: MAX_MESSAGE_SIZE })
    }

    /// Sets the maximum size of a session's message, sent or received. Default: 1 MiB. Not from the
    /// RFCs: bounds the memory that a peer can take.
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Replaces the certificate, the key and the authorities for new connections of all endpoints.
    /// Established connections go on.
    ///
    /// # Errors
    ///
    /// Returns an error if they do not fit each other; the configuration is unchanged then. A
    /// listening endpoint refuses connections if the new configuration has no certificate.
    pub fn reload(&self, config: &TlsConfig) -> Result<(), TlsConfigError> {
        let configs = Arc::new(Configs::new(config)?);
        *self.configs.write().unwrap_or_else(PoisonError::into_inner) = configs;
        Ok(())
    }

    fn pair(&self, purpose: Purpose) -> Pair {
        let configs = self.configs.read().unwrap_or_else(PoisonError::into_inner);
        configs.of(purpose).clone()
    }
}

impl Transport for Tls {
    fn protocol(&self) -> TransportProtocol {
        self.inner.protocol()
    }

    fn open(
        &self,
        runtime: &Arc<dyn Runtime>,
        purpose: Purpose,
        listen: Option<&TransportAddress>,
    ) -> io::Result<Box<dyn Endpoint>> {
        if listen.is_some() && self.pair(purpose).server.is_none() {
            let text = "a certificate is needed to accept connections over TLS";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let inner = self.inner.open(runtime, Purpose::Bytes, listen)?;
        Ok(Box::new(TlsEndpoint::new(self.clone(), Arc::clone(runtime), purpose, inner)))
    }
}
