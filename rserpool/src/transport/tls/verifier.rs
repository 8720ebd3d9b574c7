//! Verification of the certificates of servers, and the names in certificates.

use std::sync::Arc;

use rserpool_proto::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use super::TlsConfigError;

/// Verifies the peers of resumed connections, whose handshakes contain no certificates: the one of
/// the first connection may have expired since.
#[derive(Debug, Clone)]
pub(super) enum PeerVerifier {
    Server(Arc<ServerVerifier>),
    Client(Arc<dyn ClientCertVerifier>),
}

impl PeerVerifier {
    /// Verifies the certificates that a peer presented when its session began, at the current time.
    pub(super) fn verify(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), Error> {
        let Some((end_entity, intermediates)) = chain.and_then(<[_]>::split_first) else {
            return match self {
                Self::Client(verifier) if !verifier.client_auth_mandatory() => Ok(()),
                Self::Client(_) | Self::Server(_) => Err(Error::NoCertificatesPresented),
            };
        };
        let now = UnixTime::now();
        match self {
            Self::Server(verifier) => verifier.verify(end_entity, intermediates, now),
            Self::Client(verifier) => {
                verifier.verify_client_cert(end_entity, intermediates, now).map(drop)
            }
        }
    }
}

/// Verifies that an authority issued the certificate of a server, but not that the certificate
/// contains the address that was dialled: the address of an element may change, and a registrar is
/// recognized by its role. The names are checked by the owner of the connection.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    roots: Arc<RootCertStore>,
    revoked: Vec<CertRevocationList<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    pub(super) fn new(
        provider: &CryptoProvider,
        roots: Arc<RootCertStore>,
        revoked: &[CertificateRevocationListDer<'static>],
    ) -> Result<Self, TlsConfigError> {
        let lists = revoked.iter().map(|list| {
            OwnedCertRevocationList::from_der(list).map(CertRevocationList::from).map_err(|error| {
                TlsConfigError::Unusable { what: "a revocation list", reason: error.to_string() }
            })
        });
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { roots, revoked: lists.collect::<Result<_, _>>()?, algorithms })
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(refusal)?;
        let lists: Vec<_> = self.revoked.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_status_policy(UnknownStatusPolicy::Allow).build());
        certificate
            .verify_for_usage(
                self.algorithms.all,
                &self.roots.roots,
                intermediates,
                now,
                KeyUsage::server_auth(),
                revocation,
                None,
            )
            .map_err(refusal)?;
        Ok(())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Maps an error of the verification to that of TLS, which determines the alert for the server.
#[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have the same alert")]
fn refusal(error: webpki::Error) -> Error {
    let error = match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime => CertificateError::BadEncoding,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::InvalidCertValidity => CertificateError::Expired,
        // Signed by another authority with the same name.
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::UnknownIssuer,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    };
    Error::InvalidCertificate(error)
}

/// Name of the identity of a party whose certificate has no name that counts. It is a URI that grants
/// no role.
const NAMELESS: &str = "rserpool:nameless";

/// Returns the names in the first of these certificates: URIs, then DNS names. Without a
/// certificate, the identity has no names.
pub(super) fn identity(chain: Option<&[CertificateDer<'_>]>) -> Identity {
    let first = chain.and_then(<[_]>::first);
    let Some(Ok(certificate)) = first.map(EndEntityCert::try_from) else {
        return Identity::default();
    };
    let names = certificate.valid_uri_names().chain(certificate.valid_dns_names());
    let identity = Identity::new(names);
    if identity.is_anonymous() { Identity::new([NAMELESS]) } else { identity }
}
