//! Tests of a transport.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use rserpool_proto::wire::{Ppid, TransportAddress, UserMessage};

use super::any_address;
use super::pause;
use crate::Network;
use crate::transport::{Connection, Endpoint, Event, Purpose, SendError};

pub(super) async fn event(connection: &mut dyn Connection) -> Event {
    poll_fn(|cx| connection.poll_event(cx)).await
}

pub(super) async fn message(connection: &mut dyn Connection) -> UserMessage {
    match event(connection).await {
        Event::Message(message) => message,
        other => panic!("no message but {other:?}"),
    }
}

pub(super) async fn send(connection: &mut dyn Connection, message: UserMessage) {
    poll_fn(|cx| connection.poll_ready(cx)).await;
    connection.send(message).expect("it was ready");
    poll_fn(|cx| {
        let _ = connection.poll_ready(cx);
        Poll::Ready(())
    })
    .await;
}

pub(super) async fn close(connection: &mut dyn Connection) {
    poll_fn(|cx| connection.poll_close(cx)).await;
}

/// Opens a connection. Returns the listening endpoint, the dialling end, and the accepted end.
pub(super) async fn connect(
    network: &Network,
    purpose: Purpose,
) -> (Box<dyn Endpoint>, Box<dyn Connection>, Box<dyn Connection>) {
    let mut server = network.listen(purpose, &any_address(network)).expect("a free port");
    let address = server.local().expect("it listens").clone();
    assert_ne!(address.port, 0);
    let mut client = network.dialler(purpose).expect("a dialler");
    let mut ours = client.connect(&address);
    // Both ends take part in a handshake of TLS.
    let accept = poll_fn(|cx| server.poll_accept(cx));
    let (established, theirs) = futures::join!(event(&mut *ours), accept);
    let Event::Established { peer, .. } = established else { panic!("not established") };
    assert_eq!((peer.port, peer.protocol), (address.port, network.protocol()));
    (server, ours, theirs.expect("a connection"))
}

/// Checks that messages of any length arrive intact, in both directions.
pub async fn messages_keep_order_boundaries_and_identifiers(network: Network) {
    let (_server, mut ours, mut theirs) = connect(&network, Purpose::Session).await;
    let lengths = [1, 3, 4, 5, 1000, 4096, 17_000, 60_000];
    for (number, length) in (0_u32..).zip(lengths) {
        let sent = UserMessage::new(Ppid(100 + number), vec![number as u8; length]);
        send(&mut *ours, sent.clone()).await;
        assert_eq!(message(&mut *theirs).await, sent);
        send(&mut *theirs, sent.clone()).await;
        assert_eq!(message(&mut *ours).await, sent);
    }
    // Send ASAP and ENRP messages, several at once.
    let (_server, mut ours, mut theirs) = connect(&network, Purpose::Protocol(Ppid::ASAP)).await;
    let request = UserMessage::new(Ppid::ASAP, b"\x05\0\0\x10\0\x09\0\x0cEchoPool".as_slice());
    for _ in 0..3 {
        send(&mut *ours, request.clone()).await;
    }
    for _ in 0..3 {
        assert_eq!(message(&mut *theirs).await, request);
    }
}

/// Checks that connecting to an address without a listener fails soon.
pub async fn nobody_there_is_lost_at_once(network: Network) {
    let free = network.listen(Purpose::Session, &any_address(&network)).expect("a free port");
    let address: TransportAddress = free.local().expect("it listens").clone();
    drop(free);
    let mut client = network.dialler(Purpose::Session).expect("a dialler");
    let mut connection = client.connect(&address);
    assert!(matches!(event(&mut *connection).await, Event::Lost(_)));
    let sent = connection.send(UserMessage::new(Ppid::NONE, b"late".as_slice()));
    assert_eq!(sent, Err(SendError::NotConnected));
}

/// Checks that an orderly close and a broken connection are told apart: only the latter is a reason
/// for a failover.
pub async fn an_end_in_good_order_is_told_from_a_broken_connection(network: Network) {
    let (_server, mut ours, mut theirs) = connect(&network, Purpose::Session).await;
    send(&mut *theirs, UserMessage::new(Ppid::NONE, b"bye".as_slice())).await;
    network.runtime().spawn(Box::pin(async move { close(&mut *theirs).await }));
    assert_eq!(message(&mut *ours).await.payload, "bye");
    assert!(matches!(event(&mut *ours).await, Event::Closed));

    let (_server, mut ours, mut theirs) = connect(&network, Purpose::Session).await;
    send(&mut *theirs, UserMessage::new(Ppid::NONE, b"last words".as_slice())).await;
    drop(theirs);
    assert_eq!(message(&mut *ours).await.payload, "last words");
    assert!(matches!(event(&mut *ours).await, Event::Lost(_)));
}

/// Checks that messages sent before a close arrive before the close is reported, also when both are
/// ready at once.
pub async fn last_words_and_the_end_both_arrive(network: Network) {
    for purpose in [Purpose::Session, Purpose::Protocol(Ppid::ASAP)] {
        let (_server, mut ours, mut theirs) = connect(&network, purpose).await;
        let words = UserMessage::new(Ppid::ASAP, b"\x05\0\0\x10\0\x09\0\x0cEchoPool".as_slice());
        // Wait for the event before the message and the close arrive.
        let waiting = futures::poll!(std::pin::pin!(event(&mut *ours)));
        assert!(waiting.is_pending());
        send(&mut *theirs, words.clone()).await;
        network.runtime().spawn(Box::pin(async move { close(&mut *theirs).await }));
        pause(&network, 50).await;
        assert_eq!(message(&mut *ours).await, words);
        assert!(matches!(event(&mut *ours).await, Event::Closed));
    }
}

/// Checks that a sender whose peer does not read uses bounded memory at both ends, and that every
/// accepted message arrives.
pub async fn a_peer_that_does_not_read_holds_the_sender_up_and_nothing_is_lost(network: Network) {
    let (_server, mut ours, mut theirs) = connect(&network, Purpose::Session).await;
    let block = vec![7; 32 * 1024];
    let mut sent = 0_u32;
    let timeout = network.now() + Duration::from_millis(200);
    let mut timer = network.runtime().timer(timeout);
    // Send until the connection is not ready for a while.
    poll_fn(|cx| {
        while ours.poll_ready(cx).is_ready() {
            ours.send(UserMessage::new(Ppid(sent), block.clone())).expect("it was ready");
            sent += 1;
            assert!(sent < 10_000, "it takes more than 300 MB");
        }
        timer.as_mut().poll(cx)
    })
    .await;
    assert!(sent > 0);
    network.runtime().spawn(Box::pin(async move {
        close(&mut *ours).await;
    }));
    for number in 0..sent {
        assert_eq!(message(&mut *theirs).await.ppid, Ppid(number));
    }
    assert!(matches!(event(&mut *theirs).await, Event::Closed));
}

/// Checks that listening on a port in use is an error.
pub async fn an_address_in_use_is_an_error(network: Network) {
    let first = network.listen(Purpose::Session, &any_address(&network)).expect("a free port");
    let address = first.local().expect("it listens").clone();
    let error = network.listen(Purpose::Session, &address).expect_err("it is in use");
    assert_eq!(error.io_error().kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    drop(first);
    network.listen(Purpose::Session, &address).expect("it is free again");
}
