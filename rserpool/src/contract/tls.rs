//! Certificates for tests over TLS, and cases that only TLS can pass.

use std::future::poll_fn;
use std::sync::Arc;

use futures::future::join_all;
use rserpool_proto::wire::{Ppid, UserMessage};
use rustls::crypto::CryptoProvider;

use super::{any_address, pause};
use crate::Network;
use crate::transport::tls::TlsConfig;
use crate::transport::{Connection, Event, Purpose, Tcp, Tls, Transport};

const AUTHORITY: &[u8] = include_bytes!("tls/authority.pem");
const CERTIFICATE: &[u8] = include_bytes!("tls/certificate.pem");
const KEY: &[u8] = include_bytes!("tls/key.pem");

/// The names in the certificate of the tests.
const NAMES: [&str; 2] = ["spiffe://rserpool.example/everybody", "everybody.rserpool.example"];

/// Returns a configuration with a certificate for tests. Its key is public: everybody can read it.
///
/// # Panics
///
/// Panics if `provider` cannot use the certificate.
#[must_use]
pub fn tls_config(provider: Arc<CryptoProvider>) -> TlsConfig {
    let config = TlsConfig::new(provider, AUTHORITY).expect("the certificate of an authority");
    config.certificate(CERTIFICATE, KEY).expect("a certificate and its key")
}

/// Returns TLS over a transport, with the certificate for tests.
///
/// # Panics
///
/// Panics if `provider` cannot use the certificate.
#[must_use]
pub fn tls_over(inner: impl Transport, provider: CryptoProvider) -> Tls {
    Tls::over(inner, &tls_config(Arc::new(provider))).expect("a certificate and its key")
}

async fn next(connection: &mut Box<dyn Connection>) -> Event {
    poll_fn(|cx| connection.poll_event(cx)).await
}

/// Both ends of a connection know the names in the certificate of the other, whether its handshake
/// was a whole one or resumed a session.
pub async fn both_ends_are_identified(network: Network) {
    let mut server = network.listen(Purpose::Session, &any_address(&network)).expect("a free port");
    let address = server.local().cloned().expect("it listens");
    let mut client = network.dialler(Purpose::Session).expect("a dialler");
    for _ in 0..3 {
        let mut ours = client.connect(&address);
        let accept = poll_fn(|cx| server.poll_accept(cx));
        let (event, theirs) = futures::join!(next(&mut ours), accept);
        assert!(matches!(event, Event::Established { .. }), "{event:?}");
        let mut theirs = theirs.expect("a connection");
        for end in [&ours, &theirs] {
            let identity = end.identity().expect("an identity");
            assert!(identity.names().eq(NAMES), "{identity}");
        }
        // The ticket for resumption follows the handshake.
        theirs.send(UserMessage::new(Ppid::NONE, "hello")).expect("it is established");
        poll_fn(|cx| theirs.poll_flush(cx)).await;
        assert!(matches!(next(&mut ours).await, Event::Message(_)));
    }
}

/// Clients that do not finish their handshake, or do not use TLS at all, do not keep others waiting,
/// and a server without TLS is not taken for one with it. `network` uses TLS over TCP.
pub async fn handshakes_fail_alone(network: Network) {
    let purpose = Purpose::Protocol(Ppid::ASAP);
    let plain = Network::shared(Arc::clone(network.runtime()), Arc::new(Tcp::new()));
    let mut server = network.listen(purpose, &any_address(&network)).expect("a free port");
    let address = server.local().cloned().expect("it listens");
    let mut strangers = plain.dialler(Purpose::Bytes).expect("a dialler");
    let mut talking = strangers.connect(&address);
    // More silent clients than there may be handshakes under way.
    let mut silent: Vec<_> = (0..300).map(|_| strangers.connect(&address)).collect();
    let mut client = network.dialler(purpose).expect("a dialler");
    let run = async {
        assert!(matches!(next(&mut talking).await, Event::Established { .. }));
        talking.send(UserMessage::new(Ppid::NONE, &[1, 0, 0, 4][..])).expect("it is established");
        assert!(matches!(next(&mut talking).await, Event::Closed | Event::Lost(_)));
        for connection in &mut silent {
            assert!(matches!(next(connection).await, Event::Established { .. }));
        }
        let mut ours = client.connect(&address);
        assert!(matches!(next(&mut ours).await, Event::Established { .. }));
        ours
    };
    let accept = poll_fn(|cx| server.poll_accept(cx));
    let (_ours, theirs) = futures::join!(run, accept);
    assert!(theirs.expect("a connection").identity().is_some());
    drop(silent);

    let mut server = plain.listen(Purpose::Bytes, &any_address(&plain)).expect("a free port");
    let address = server.local().cloned().expect("it listens");
    let mut ours = client.connect(&address);
    let answer = async {
        let mut theirs = poll_fn(|cx| server.poll_accept(cx)).await.expect("a connection");
        assert!(matches!(next(&mut theirs).await, Event::Message(_)), "the client's first message");
        theirs.send(UserMessage::new(Ppid::NONE, &[1, 0, 0, 4][..])).expect("it is established");
        poll_fn(|cx| theirs.poll_flush(cx)).await;
        pause(&plain, 100).await;
    };
    let (event, ()) = futures::join!(next(&mut ours), answer);
    assert!(matches!(&event, Event::Lost(error) if error.to_string().contains("does not use TLS")));
}

/// More clients than handshakes may be under way connect at once, and all are accepted.
pub async fn a_crowd_of_clients_is_accepted(network: Network) {
    const CLIENTS: usize = 600;
    let mut server = network.listen(Purpose::Session, &any_address(&network)).expect("a free port");
    let address = server.local().cloned().expect("it listens");
    let mut client = network.dialler(Purpose::Session).expect("a dialler");
    let mut ours: Vec<_> = (0..CLIENTS).map(|_| client.connect(&address)).collect();
    let established = join_all(ours.iter_mut().map(next));
    let accept = async {
        let mut theirs = Vec::new();
        while theirs.len() < CLIENTS {
            theirs.push(poll_fn(|cx| server.poll_accept(cx)).await.expect("a connection"));
        }
        theirs
    };
    let (events, _theirs) = futures::join!(established, accept);
    assert!(events.iter().all(|event| matches!(event, Event::Established { .. })));
}
