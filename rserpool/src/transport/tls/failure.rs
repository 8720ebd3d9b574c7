//! The log lines of failed handshakes and connections.

use std::io;
use std::time::Instant;

use rserpool_proto::wire::TransportAddress;
use rustls::{CertificateError, Error};

use crate::log::warn_limited;

/// Error of a peer whose first bytes are not those of TLS.
#[derive(Debug, thiserror::Error)]
#[error("the peer does not use TLS")]
pub(super) struct NotTls;

/// Logs the failure of a connection. Each kind is logged a few times a minute for each host.
#[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have the same line")]
pub(super) fn log(now: Instant, peer: &TransportAddress, error: &io::Error) {
    let host = peer.host();
    macro_rules! warn {
        ($kind:literal) => {
            warn_limited!(now, host, $kind, %peer, %error)
        };
    }
    let cause = error.get_ref();
    if cause.is_some_and(|cause| cause.is::<NotTls>()) {
        return warn!("plain text on a connection that needs TLS");
    }
    let Some(error) = cause.and_then(|cause| cause.downcast_ref::<Error>()) else {
        if error.kind() == io::ErrorKind::TimedOut {
            return warn!("TLS handshake timed out");
        }
        tracing::debug!(%peer, %error, "TLS handshake not completed");
        return;
    };
    match error {
        Error::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer => warn!("certificate of an unknown authority"),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                warn!("expired certificate");
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                warn!("certificate that is not valid yet");
            }
            CertificateError::Revoked => warn!("revoked certificate"),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                warn!("certificate for another purpose");
            }
            _ => warn!("certificate that cannot be accepted"),
        },
        Error::NoCertificatesPresented => warn!("no certificate presented"),
        Error::NoApplicationProtocol => warn!("TLS for another protocol"),
        Error::AlertReceived(_) => warn!("the peer refused the TLS connection"),
        _ => warn!("TLS failed"),
    }
}
