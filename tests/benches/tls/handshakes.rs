//! Handshakes over the transport in memory, and between two connections of rustls without any
//! transport.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Instant;

use rserpool::Network;
use rserpool::proto::wire::{Ppid, TransportAddress, UserMessage};
use rserpool::transport::{Endpoint, Event, Memory, Purpose, Tls};
use rserpool_tokio::TokioRuntime;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

use super::{Certificates, median};

/// Measures in turn the handshakes a second of ours and of rustls. Returns the medians, and the
/// median of the ratios.
pub fn measure(
    certificates: &Certificates,
    rounds: usize,
    handshakes: usize,
    resumed: bool,
) -> (f64, f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut rustls = Rustls::new(certificates);
    runtime.block_on(async {
        let mut pool = Ours::new(certificates, if resumed { 1 } else { handshakes });
        for _ in 0..rounds {
            ours.push(pool.per_second(handshakes).await);
            theirs.push(rustls.per_second(handshakes, resumed));
            ratios.push(ours[ours.len() - 1] / theirs[theirs.len() - 1]);
            if !resumed {
                pool = Ours::new(certificates, handshakes);
            }
        }
    });
    (median(&mut ours), median(&mut theirs), median(&mut ratios))
}

/// Endpoints of ours. Each client resumes only its own sessions.
struct Ours {
    server: Box<dyn Endpoint>,
    clients: Vec<Box<dyn Endpoint>>,
}

const ASAP: Purpose = Purpose::Protocol(Ppid::ASAP);

impl Ours {
    fn new(certificates: &Certificates, clients: usize) -> Self {
        let (memory, config) = (Memory::new(), certificates.config());
        let network = || {
            let tls = Tls::over(memory.clone(), &config).unwrap();
            Network::new(TokioRuntime::current(), tls)
        };
        let at = TransportAddress::tcp("127.0.0.1:3864".parse().unwrap());
        let server = network().listen(ASAP, &at).unwrap();
        let clients = (0..clients).map(|_| network().dialler(ASAP).unwrap()).collect();
        Self { server, clients }
    }

    async fn per_second(&mut self, handshakes: usize) -> f64 {
        let at = self.server.local().unwrap().clone();
        let message = UserMessage::new(Ppid::ASAP, &b"\x05\0\0\x10\0\x09\0\x0cEchoPool"[..]);
        let begin = Instant::now();
        for number in 0..handshakes {
            let client = number % self.clients.len();
            let mut ours = self.clients[client].connect(&at);
            let client = async {
                let event = poll_fn(|cx| ours.poll_event(cx)).await;
                assert!(matches!(event, Event::Established { .. }), "{event:?}");
                // The answer comes after the tickets for resumption.
                let event = poll_fn(|cx| ours.poll_event(cx)).await;
                assert!(matches!(event, Event::Message(_)), "{event:?}");
            };
            let server = async {
                let mut theirs = poll_fn(|cx| self.server.poll_accept(cx)).await.unwrap();
                theirs.send(message.clone()).unwrap();
                poll_fn(|cx| theirs.poll_flush(cx)).await;
                theirs
            };
            tokio::join!(client, server);
        }
        handshakes as f64 / begin.elapsed().as_secs_f64()
    }
}

struct Rustls {
    certificates: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, Arc<RootCertStore>),
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Rustls {
    fn new(certificates: &Certificates) -> Self {
        let chain = CertificateDer::from_pem_slice(certificates.certificate.as_bytes()).unwrap();
        let authority = CertificateDer::from_pem_slice(certificates.authority.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(certificates.key.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority).unwrap();
        let certificates = (vec![chain], key, Arc::new(roots));
        let (server, client) = (Self::server(&certificates), Self::client(&certificates));
        Self { certificates, server, client }
    }

    fn server(
        (chain, key, roots): &(
            Vec<CertificateDer<'static>>,
            PrivateKeyDer<'static>,
            Arc<RootCertStore>,
        ),
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::clone(roots),
            Arc::clone(&provider),
        );
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap());
        Arc::new(config.with_single_cert(chain.clone(), key.clone_key()).unwrap())
    }

    fn client(
        (chain, key, roots): &(
            Vec<CertificateDer<'static>>,
            PrivateKeyDer<'static>,
            Arc<RootCertStore>,
        ),
    ) -> Arc<ClientConfig> {
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(Arc::clone(roots));
        Arc::new(config.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap())
    }

    fn per_second(&mut self, handshakes: usize, resumed: bool) -> f64 {
        let clients: Vec<_> =
            (0..handshakes)
                .map(|_| {
                    if resumed {
                        Arc::clone(&self.client)
                    } else {
                        Self::client(&self.certificates)
                    }
                })
                .collect();
        let begin = Instant::now();
        for client in clients {
            let name = ServerName::try_from("host.example.org").unwrap();
            let mut client: Connection = ClientConnection::new(client, name).unwrap().into();
            let mut server: Connection =
                ServerConnection::new(Arc::clone(&self.server)).unwrap().into();
            loop {
                let moved = transfer(&mut client, &mut server) + transfer(&mut server, &mut client);
                if moved == 0 {
                    break;
                }
            }
            assert!(!client.is_handshaking() && !server.is_handshaking());
        }
        handshakes as f64 / begin.elapsed().as_secs_f64()
    }
}

/// Passes records on. Returns the number of bytes.
fn transfer(from: &mut Connection, to: &mut Connection) -> usize {
    let mut records = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut records).unwrap();
    }
    let mut rest = &records[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().unwrap();
    }
    records.len()
}
