//! Measures the cost of TLS: handshakes, beside those of rustls alone, and requests, beside those
//! over plain TCP.
//!
//!     cargo bench -p rserpool-tests --bench tls [-- --quick]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::exhaustive_structs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

mod handshakes;
mod requests;

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rserpool::transport::tls::TlsConfig;

/// The certificate of a private authority, and a certificate that it issued, in PEM format.
#[derive(Debug)]
pub struct Certificates {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl Certificates {
    fn issue() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        let name = "host.example.org".try_into().unwrap();
        params.subject_alt_names.push(SanType::DnsName(name));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &authority).unwrap().pem();
        Self { authority: authority.pem(), certificate, key: key.serialize_pem() }
    }

    pub fn config(&self) -> TlsConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = TlsConfig::new(provider, self.authority.as_bytes()).unwrap();
        config.certificate(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let certificates = Certificates::issue();
    let (rounds, handshakes, requests) = if quick { (3, 100, 1000) } else { (9, 500, 20_000) };

    println!("Handshakes a second, both ends on one thread, certificates at both ends, medians");
    println!("{:10}{:>12}{:>12}{:>8}", "", "rserpool", "rustls", "ratio");
    for resumed in [false, true] {
        let (ours, rustls, ratio) = handshakes::measure(&certificates, rounds, handshakes, resumed);
        let name = if resumed { "resumed" } else { "whole" };
        println!("{name:10}{ours:>12.0}{rustls:>12.0}{ratio:>8.2}");
    }
    println!("\nRequests a second in one session over loopback, medians");
    println!("{:18}{:>12}{:>12}{:>8}", "in progress", "TLS", "TCP", "ratio");
    for outstanding in [1, 32] {
        let (tls, tcp, ratio) = requests::measure(&certificates, rounds, requests, outstanding);
        println!("{outstanding:<18}{tls:>12.0}{tcp:>12.0}{ratio:>8.2}");
    }
}
