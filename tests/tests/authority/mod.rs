//! An authority for tests, which issues and revokes certificates.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber,
};
use rserpool::Grant;
use rserpool::transport::tls::TlsConfig;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Returns the name in the certificate with a serial number.
pub(crate) fn name(serial: u64) -> String {
    format!("spiffe://example.org/{serial}")
}

/// An authority and its key.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM format.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Returns the authority's certificate in PEM format.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate that is valid from `from` to `until`, both relative to now in days.
    pub(crate) fn issue(&self, serial: u64, from: i64, until: i64) -> Issued {
        self.issue_with(serial, from, until, &[])
    }

    /// Returns the configuration of one with a certificate that grants these roles.
    pub(crate) fn granted(&self, serial: u64, grants: &[&str]) -> TlsConfig {
        self.config(&self.issue_with(serial, -1, 1, grants))
    }

    pub(crate) fn issue_with(&self, serial: u64, from: i64, until: i64, grants: &[&str]) -> Issued {
        let at = |days: i64| {
            let distance = DAY * u32::try_from(days.abs()).unwrap();
            let now = SystemTime::now();
            if days < 0 { now - distance } else { now + distance }
        };
        self.issue_between(serial, at(from), at(until), grants)
    }

    pub(crate) fn issue_between(
        &self,
        serial: u64,
        from: SystemTime,
        until: SystemTime,
        grants: &[&str],
    ) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, serial.to_string());
        params.not_before = from.into();
        params.not_after = until.into();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let grants = grants.iter().map(|grant| grant.parse::<Grant>().unwrap().to_uri());
        // A certificate with the serial number 0 has no name.
        let name = (serial > 0).then(|| name(serial));
        for name in name.into_iter().chain(grants) {
            params.subject_alt_names.push(SanType::URI(name.try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn revoke(&self, serial: u64) -> String {
        let params = CertificateRevocationListParams {
            this_update: (SystemTime::now() - DAY).into(),
            next_update: (SystemTime::now() + DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: (SystemTime::now() - DAY).into(),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// Returns the configuration of one that trusts this authority.
    pub(crate) fn trusted(&self) -> TlsConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        TlsConfig::new(provider, self.0.pem().as_bytes()).unwrap()
    }

    pub(crate) fn config(&self, issued: &Issued) -> TlsConfig {
        let (certificate, key) = (issued.certificate.as_bytes(), issued.key.as_bytes());
        self.trusted().certificate(certificate, key).unwrap()
    }
}
