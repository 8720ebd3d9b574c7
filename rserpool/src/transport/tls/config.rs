//! Certificates, keys and settings.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, sign::CertifiedKey,
    version::TLS12, version::TLS13,
};

use super::verifier::{PeerVerifier, ServerVerifier};
use super::{End, Pair};
use crate::private_file::{self, Unread};

/// Maximum number of sessions that can be resumed, for each protocol. Not from the RFCs.
const MAX_RESUMABLE: usize = 4096;

/// Certificates, keys and settings of [`Tls`](super::Tls).
///
/// Connections use TLS 1.3; [`Self::allow_tls12`] allows TLS 1.2, too. Both ends verify that the
/// certificate of the other was issued by one of the authorities, is valid now, and is not revoked.
#[derive(Clone)]
pub struct TlsConfig {
    provider: Arc<CryptoProvider>,
    authorities: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    certified: Option<Arc<CertifiedKey>>,
    anonymous: bool,
    tls12: bool,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("authorities", &self.authorities.len())
            .field("has_certificate", &self.certified.is_some())
            .finish_non_exhaustive()
    }
}

/// Error of configuring TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// The text is not PEM, or lacks what is needed.
    #[error("cannot read {what} in PEM format: {reason}")]
    Pem {
        /// The item that was expected, such as "a certificate".
        what: &'static str,
        /// The reason.
        reason: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Name of the file.
        path: PathBuf,
        /// The reason.
        #[source]
        error: io::Error,
    },
    /// Other users of the host can read the key.
    #[error("others can read the key {0}: run `chmod 600 {0}`, or create a new key")]
    NotPrivate(PathBuf),
    /// The key is not that of the certificate.
    #[error("the key does not belong to the certificate")]
    KeyMismatch,
    /// The certificate, the key or a revocation list cannot be used.
    #[error("cannot use {what}: {reason}")]
    Unusable {
        /// The item, such as "the key".
        what: &'static str,
        /// The reason.
        reason: String,
    },
}

fn unusable(what: &'static str) -> impl Fn(rustls::Error) -> TlsConfigError {
    move |error| TlsConfigError::Unusable { what, reason: error.to_string() }
}

/// Parses all items of a kind, at least one.
fn parse<T: PemObject>(what: &'static str, text: &[u8]) -> Result<Vec<T>, TlsConfigError> {
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(text).collect();
    match items {
        Ok(items) if items.is_empty() => {
            Err(TlsConfigError::Pem { what, reason: "there is none".to_owned() })
        }
        Ok(items) => Ok(items),
        Err(error) => Err(TlsConfigError::Pem { what, reason: error.to_string() }),
    }
}

impl TlsConfig {
    /// Creates a configuration that trusts the authorities with these certificates, in PEM format.
    /// `provider` is the program's choice of cryptography.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not PEM or has no certificate.
    pub fn new(provider: Arc<CryptoProvider>, authorities: &[u8]) -> Result<Self, TlsConfigError> {
        Ok(Self {
            provider,
            authorities: parse("the certificate of an authority", authorities)?,
            revoked: Vec::new(),
            certified: None,
            anonymous: false,
            tls12: false,
        })
    }

    /// Sets the certificate to present, with the certificates between it and the authority, and its
    /// private key, in PEM format. Default: none; then only clients of servers that allow anonymous
    /// clients can use TLS.
    ///
    /// # Errors
    ///
    /// Returns an error if a text is not PEM, or the key is not that of the certificate.
    pub fn certificate(mut self, chain: &[u8], key: &[u8]) -> Result<Self, TlsConfigError> {
        let chain = parse("a certificate", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsConfigError::Pem {
            what: "a private key",
            // The error does not contain the text.
            reason: error.to_string(),
        })?;
        let key = self.provider.key_provider.load_private_key(key).map_err(unusable("the key"))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(TlsConfigError::KeyMismatch),
            Err(error) => return Err(unusable("the certificate")(error)),
        }
        self.certified = Some(Arc::new(certified));
        Ok(self)
    }

    /// Sets the certificate to present, see [`Self::certificate`], from files.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read, if other users of the host can read the key (on
    /// Unix), or in the cases of [`Self::certificate`].
    pub fn certificate_files(
        self,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsConfigError> {
        let (chain, key) = (chain.as_ref(), key.as_ref());
        let read = |path: &Path, error| TlsConfigError::Read { path: path.to_owned(), error };
        let certificate = fs::read(chain).map_err(|error| read(chain, error))?;
        let secret = private_file::read(key).map_err(|error| match error {
            Unread::Io(error) => read(key, error),
            Unread::NotPrivate => TlsConfigError::NotPrivate(key.to_owned()),
        })?;
        self.certificate(&certificate, &secret)
    }

    /// Adds lists of revoked certificates, in PEM format. A certificate is refused if a list of its
    /// authority names it.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not PEM or has no list.
    pub fn revocation_lists(mut self, lists: &[u8]) -> Result<Self, TlsConfigError> {
        self.revoked.extend(parse("a revocation list", lists)?);
        Ok(self)
    }

    /// Sets whether clients without a certificate are accepted. They have an identity without
    /// names. Default: false.
    #[must_use]
    pub fn allow_anonymous(mut self, allow: bool) -> Self {
        self.anonymous = allow;
        self
    }

    /// Sets whether TLS 1.2 is allowed besides TLS 1.3. Default: false.
    #[must_use]
    pub fn allow_tls12(mut self, allow: bool) -> Self {
        self.tls12 = allow;
        self
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        if self.tls12 { &ALL } else { &ALL[..1] }
    }

    /// Returns the configurations of both ends for the protocol with this ALPN name.
    pub(super) fn pair(&self, alpn: &[u8]) -> Result<Pair, TlsConfigError> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(unusable("the certificate of an authority"))?;
        }
        let roots = Arc::new(roots);
        let alpn = vec![alpn.to_vec()];

        let verifier = ServerVerifier::new(&self.provider, Arc::clone(&roots), &self.revoked)?;
        let verifier = Arc::new(verifier);
        let client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.versions())
            .map_err(unusable("the cryptography"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone());
        let mut client = match &self.certified {
            Some(certified) => client.with_client_cert_resolver(Arc::new(
                rustls::sign::SingleCertAndKey::from(Arc::clone(certified)),
            )),
            None => client.with_no_client_auth(),
        };
        client.alpn_protocols.clone_from(&alpn);
        // Servers are named by the certificate, not by the address that is dialled.
        client.enable_sni = false;
        let sessions = Arc::new(ClientSessionMemoryCache::new(MAX_RESUMABLE));
        client.resumption = Resumption::store(sessions);
        let client = End { config: Arc::new(client), verifier: PeerVerifier::Server(verifier) };

        let mut server = None;
        if let Some(certified) = &self.certified {
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
                    .with_crls(self.revoked.iter().cloned())
                    .allow_unknown_revocation_status();
            if self.anonymous {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|error| TlsConfigError::Unusable {
                what: "a revocation list",
                reason: error.to_string(),
            })?;
            let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
                .with_protocol_versions(self.versions())
                .map_err(unusable("the cryptography"))?
                .with_client_cert_verifier(Arc::clone(&verifier))
                .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(
                    certified,
                ))));
            config.alpn_protocols = alpn;
            config.session_storage = ServerSessionMemoryCache::new(MAX_RESUMABLE);
            let verifier = PeerVerifier::Client(verifier);
            server = Some(End { config: Arc::new(config), verifier });
        }
        Ok(Pair { client, server })
    }
}
