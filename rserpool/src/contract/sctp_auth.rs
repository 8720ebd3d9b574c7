//! Tests of SCTP with authenticated chunks (RFC 4895).

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::{Either, select};
use rserpool_proto::wire::{Ppid, TransportAddress, UserMessage};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::any_address;
use super::pause;
use super::transport::{connect, event, message, send};
use crate::Network;
use crate::sys::IPPROTO_SCTP;
use crate::transport::sctp::AuthKeys;
use crate::transport::{Endpoint, Event, Purpose, Sctp};

const PURPOSE: Purpose = Purpose::Protocol(Ppid::ASAP);

/// Returns SCTP with the keys of these numbers. A number stands for the same key in each network.
#[must_use]
pub fn with_keys(numbers: &[u8]) -> Sctp {
    let line = |number: &u8| format!("{number}:{}\n", format!("{number:02x}").repeat(32));
    let keys = AuthKeys::parse(&numbers.iter().map(line).collect::<String>());
    Sctp::new().auth_keys(keys.expect("keys"))
}

fn on_sctp(network: &Network, sctp: Sctp) -> Network {
    Network::shared(Arc::clone(network.runtime()), Arc::new(sctp))
}

/// Polls a listening endpoint, and the connections that it accepts, until all of them are lost or
/// some seconds have passed without one. Panics if a message arrives. Returns the number of the
/// connections.
async fn hears_nobody(network: &Network, server: &mut dyn Endpoint, seconds: u64) -> usize {
    let mut accepted = Vec::new();
    let mut lost = 0;
    let hear = poll_fn(|cx| {
        while let Poll::Ready(connection) = server.poll_accept(cx) {
            accepted.push(connection.expect("a connection"));
        }
        accepted.retain_mut(|connection| {
            loop {
                match connection.poll_event(cx) {
                    Poll::Pending => break true,
                    Poll::Ready(Event::Path { .. }) => {}
                    Poll::Ready(Event::Lost(_)) => {
                        lost += 1;
                        break false;
                    }
                    Poll::Ready(event) => panic!("{event:?}"),
                }
            }
        });
        if lost > 0 && accepted.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    select(Box::pin(hear), Box::pin(network.sleep(Duration::from_secs(seconds)))).await;
    assert_eq!(accepted.len(), 0, "{accepted:?}");
    lost
}

/// Two ends that share a key exchange messages in both directions, over one-to-one and one-to-many
/// sockets. It makes no difference which key each of them prefers, as long as the other has it.
pub async fn who_has_the_key_is_known(network: Network) {
    for (server_keys, client_keys) in
        [(&[1][..], &[1][..]), (&[1], &[1, 2]), (&[1, 2], &[2, 1]), (&[2, 1], &[2, 3, 1])]
    {
        let servers = on_sctp(&network, with_keys(server_keys));
        let clients = on_sctp(&network, with_keys(client_keys));
        let mut server = servers.listen(PURPOSE, &any_address(&network)).expect("a free port");
        let address = server.local().cloned().expect("it listens");
        for listens in [false, true] {
            let mut client = match listens {
                true => clients.listen(PURPOSE, &any_address(&network)).expect("a free port"),
                false => clients.dialler(PURPOSE).expect("a dialler"),
            };
            let mut ours = client.connect(&address);
            let established =
                select(Box::pin(event(&mut *ours)), Box::pin(poll_fn(|cx| client.poll_accept(cx))));
            let Either::Left((Event::Established { .. }, _)) = established.await else {
                panic!("not established");
            };
            let accepted = poll_fn(|cx| server.poll_accept(cx)).await;
            let mut theirs = accepted.expect("a connection");
            for end in [&ours, &theirs] {
                let identity = end.identity().expect("an identity");
                assert_eq!(identity.to_string(), "sctp-auth");
            }
            let hello = UserMessage::new(Ppid::ASAP, "hello");
            send(&mut *ours, hello.clone()).await;
            assert_eq!(message(&mut *theirs).await.payload, hello.payload);
            send(&mut *theirs, hello.clone()).await;
            assert_eq!(message(&mut *ours).await.payload, hello.payload);
        }
    }
}

/// Nothing is heard from ends without a shared key, and their associations do not last: neither with
/// another key under the same number, nor with another number, nor without a key. Those without
/// support of authentication are refused at once.
pub async fn who_has_no_key_is_not_heard(network: Network) {
    let servers = on_sctp(&network, with_keys(&[1, 2]));
    let mut server = servers.listen(PURPOSE, &any_address(&network)).expect("a free port");
    let address = server.local().cloned().expect("it listens");
    let at = SockAddr::from(address.socket_addresses().next().expect("an address"));
    let other = AuthKeys::parse(&format!("1:{}", "ff".repeat(32))).expect("a key");
    for stranger in [with_keys(&[3]), Sctp::new().auth_keys(other), Sctp::new()] {
        // A socket whose owner does not check who answers, and sends what it wants.
        let socket = stranger.socket(Domain::IPV4, Type::STREAM).expect("a socket");
        // With one address, so that there is one path to probe.
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&SockAddr::from(local)).expect("a free port");
        let _ = socket.connect(&at);
        pause(&network, 100).await;
        let _ = socket.send(b"hello");
        hears_nobody(&network, &mut *server, 25).await;
        assert!(socket.send(b"hello").is_err(), "the association is over");
    }
    // The kernel establishes associations with those that do not support authentication.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(IPPROTO_SCTP)));
    let socket = socket.expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    let _ = socket.connect(&at);
    assert_eq!(hears_nobody(&network, &mut *server, 1).await, 0);
    assert!(socket.send(b"hello").is_err(), "the association is aborted");
    // Those that have the key are not affected.
    let clients = on_sctp(&network, with_keys(&[1]));
    let mut client = clients.dialler(PURPOSE).expect("a dialler");
    let mut ours = client.connect(&address);
    let accept = poll_fn(|cx| server.poll_accept(cx));
    let (established, theirs) = futures::join!(event(&mut *ours), accept);
    assert!(matches!(established, Event::Established { .. }), "{established:?}");
    theirs.expect("a connection");
}

/// A client with a key does not take a server without it for one that has it.
pub async fn a_server_without_the_key_is_refused(network: Network) {
    for impostor in [with_keys(&[3]), Sctp::new()] {
        let impostors = on_sctp(&network, impostor);
        let mut server = impostors.listen(PURPOSE, &any_address(&network)).expect("a free port");
        let address: TransportAddress = server.local().cloned().expect("it listens");
        let clients = on_sctp(&network, with_keys(&[1]));
        let mut client = clients.dialler(PURPOSE).expect("a dialler");
        let mut ours = client.connect(&address);
        let mut accepted = Vec::new();
        let refused = poll_fn(|cx| {
            while let Poll::Ready(connection) = server.poll_accept(cx) {
                accepted.push(connection.expect("a connection"));
            }
            ours.poll_event(cx)
        });
        match select(Box::pin(refused), Box::pin(pause(&network, 3_000))).await {
            Either::Left((Event::Lost(_), _)) | Either::Right(_) => {}
            Either::Left((event, _)) => panic!("{event:?}"),
        }
    }
}

/// Messages of any length pass, and in order.
pub async fn large_messages_are_authenticated(network: Network) {
    let network = on_sctp(&network, with_keys(&[1]));
    let (_server, mut ours, mut theirs) = connect(&network, Purpose::Session).await;
    for length in [1, 1_000, 60_000] {
        let message_sent = UserMessage::new(Ppid::NONE, vec![7; length]);
        send(&mut *ours, message_sent.clone()).await;
        assert_eq!(message(&mut *theirs).await.payload, message_sent.payload);
    }
}
