//! Tests of transports whose connections have paths, streams and partial reliability: SCTP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::future::{Either, select};
use rserpool_proto::session::Event as SessionEvent;
use rserpool_proto::wire::{Ppid, Reliability, TransportAddress, UserMessage};

use super::any_address;
use super::pause;
use super::service::{new_user, pool, start_registrar};
use super::transport::{connect, event, message, send};
use crate::transport::{Connection, Endpoint, Event, Paths, Purpose, SendError};
use crate::{Correspondent, ElementEvent, MessengerEvent, Network, PoolElement, SessionSendError};

const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const THREE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const SIX: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Connects two endpoints that have these addresses. Returns the listening endpoint, the dialling
/// end, and the accepted end.
async fn multi_homed(
    network: &Network,
    addresses: &[IpAddr],
) -> (Box<dyn Endpoint>, Box<dyn Connection>, Box<dyn Connection>) {
    let any = TransportAddress {
        addresses: addresses.iter().copied().collect(),
        ..TransportAddress::new(network.protocol(), (ONE, 0).into())
    };
    let mut server = network.listen(Purpose::Session, &any).expect("a free port");
    let mut client = network.listen(Purpose::Session, &any).expect("a free port");
    let mut ours = client.connect(server.local().expect("it listens"));
    // Poll the dialling endpoint, too: it establishes the association.
    let accepted = select(
        Box::pin(std::future::poll_fn(|cx| client.poll_accept(cx))),
        Box::pin(event(&mut *ours)),
    );
    match accepted.await {
        Either::Right((Event::Established { .. }, _)) => {}
        _ => panic!("not established"),
    }
    let theirs = std::future::poll_fn(|cx| server.poll_accept(cx)).await.expect("a connection");
    drop(client);
    (server, ours, theirs)
}

fn paths(connection: &mut dyn Connection) -> &mut dyn Paths {
    connection.paths().expect("it has paths")
}

fn sorted(address: TransportAddress) -> Vec<IpAddr> {
    let mut addresses = address.addresses.to_vec();
    addresses.sort_unstable();
    addresses
}

/// Checks that both ends know all addresses of a connection, of both IP versions.
pub async fn all_addresses_of_both_ends_are_known(network: Network) {
    let (_server, mut ours, mut theirs) = multi_homed(&network, &[ONE, TWO, SIX]).await;
    for connection in [&mut ours, &mut theirs] {
        let paths = paths(&mut **connection);
        assert_eq!(sorted(paths.local().expect("alive")), [ONE, TWO, SIX]);
        assert_eq!(sorted(paths.peer().expect("alive")), [ONE, TWO, SIX]);
    }
    let peer = sorted(theirs.peer().clone());
    assert_eq!(peer, [ONE, TWO, SIX], "who accepts is told them too");
}

/// Checks that the primary path can be set to any of the peer's addresses.
pub async fn data_go_where_they_are_wanted(network: Network) {
    let (_server, mut ours, mut theirs) = multi_homed(&network, &[ONE, TWO]).await;
    for address in [TWO, ONE, TWO] {
        let paths = paths(&mut *ours);
        paths.set_primary(address).expect("the peer has it");
        assert_eq!(paths.primary().expect("alive"), address);
        send(&mut *ours, UserMessage::new(Ppid(1), b"there".as_slice())).await;
        assert_eq!(message(&mut *theirs).await.payload, "there");
    }
    assert!(paths(&mut *ours).set_primary(THREE).is_err());
    assert_eq!(paths(&mut *ours).primary().expect("alive"), TWO);
}

/// Checks that the round-trip time is measured, which policies with a delay penalty factor need.
pub async fn the_way_to_the_peer_and_back_is_measured(network: Network) {
    let (_server, mut ours, mut theirs) = multi_homed(&network, &[ONE, TWO]).await;
    for _ in 0..3 {
        send(&mut *ours, UserMessage::new(Ppid(1), b"there".as_slice())).await;
        assert_eq!(message(&mut *theirs).await.payload, "there");
    }
    let time = paths(&mut *ours).round_trip_time().expect("alive");
    assert!(time < Duration::from_secs(1), "{time:?} on this host");
}

/// Checks that a heartbeat interval applies to one connection only, and at once.
pub async fn the_peer_is_asked_as_often_as_one_wants(network: Network) {
    let (_server, mut ours, theirs) = multi_homed(&network, &[ONE, TWO]).await;
    let port = paths(&mut *ours).local().expect("alive").port;
    let untouched = heartbeat(theirs.peer().port, paths(&mut *ours).peer().expect("alive").port);
    for seconds in [2, 4] {
        ours.set_heartbeat(Duration::from_secs(seconds)).expect("alive");
        let [is, other] = [heartbeat(port, 0), heartbeat(0, port)];
        assert_eq!(is, untouched * seconds, "one second is the default");
        assert_eq!(other, untouched, "the other end is its own master");
    }
}

/// Returns the heartbeat interval of the association with these ports, in the kernel's ticks. A
/// port of 0 matches any.
fn heartbeat(local_port: u16, peer_port: u16) -> u64 {
    let associations = std::fs::read_to_string("/proc/net/sctp/assocs").expect("there is SCTP");
    let is = |port: u16, field: &str| port == 0 || field == port.to_string();
    let found = associations.lines().find_map(|line| {
        let (fields, rest) = line.split_once("<->")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let interval = rest.split_whitespace().find(|field| !field.contains(['.', ':']))?;
        (is(local_port, fields[11]) && is(peer_port, fields[12])).then(|| interval.parse())
    });
    found.expect("the association").expect("a number")
}

/// Checks that a connection survives the addition and removal of its host's addresses (RFC 5061).
pub async fn addresses_come_and_go_while_the_connection_lives(network: Network) {
    let (_server, mut ours, mut theirs) = multi_homed(&network, &[ONE, TWO]).await;
    paths(&mut *ours).add_local(THREE).expect("the host has it");
    told(&mut *theirs, &[ONE, TWO, THREE]).await;
    paths(&mut *ours).remove_local(ONE).expect("there are others");
    told(&mut *theirs, &[TWO, THREE]).await;
    send(&mut *ours, UserMessage::new(Ppid(1), b"still there".as_slice())).await;
    assert_eq!(message(&mut *theirs).await.payload, "still there");
    send(&mut *theirs, UserMessage::new(Ppid(1), b"so am I".as_slice())).await;
    assert_eq!(message(&mut *ours).await.payload, "so am I");
    // An address that the host does not have cannot be added, and the last address cannot be
    // removed.
    assert!(paths(&mut *ours).add_local(Ipv4Addr::new(192, 0, 2, 1).into()).is_err());
    paths(&mut *ours).remove_local(TWO).expect("there is another");
    told(&mut *theirs, &[THREE]).await;
    assert!(paths(&mut *ours).remove_local(THREE).is_err());
}

/// Waits until the peer has received these addresses.
async fn told(connection: &mut dyn Connection, expected: &[IpAddr]) {
    loop {
        match event(connection).await {
            Event::Addresses { peer, .. } if sorted(peer.clone()) == expected => {
                assert_eq!(sorted(paths(connection).peer().expect("alive")), expected);
                assert_eq!(sorted(connection.peer().clone()), expected);
                return;
            }
            Event::Addresses { .. } | Event::Path { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Checks that a message arrives with its stream and its unordered flag.
pub async fn streams_and_order_are_kept_or_left(network: Network) {
    let (_server, mut ours, mut theirs) = connect(&network, Purpose::Session).await;
    for (stream, unordered) in [(0, false), (3, true), (15, false)] {
        let sent = UserMessage { stream, unordered, ..UserMessage::new(Ppid(7), b"x".as_slice()) };
        send(&mut *ours, sent.clone()).await;
        assert_eq!(message(&mut *theirs).await, sent);
    }
}

/// Checks that a message with a lifetime is not delivered after it, and that its sender is notified
/// (RFC 3758).
pub async fn what_is_too_old_is_given_up_and_told(network: Network) {
    let (_server, mut ours, mut theirs) = connect(&network, Purpose::Session).await;
    // Send more than the peer's receive buffer holds, but less than the kernel's send buffer does.
    let sent = 8;
    for _ in 0..sent {
        ours.send(UserMessage::new(Ppid(1), vec![7; 32 * 1024])).expect("there is room");
        poll_ready(&mut *ours).await;
    }
    let reliability = Reliability::Lifetime(Duration::from_millis(20));
    let mortal = UserMessage { reliability, ..UserMessage::new(Ppid(2), b"news".as_slice()) };
    ours.send(mortal.clone()).expect("there is room");
    poll_ready(&mut *ours).await;
    pause(&network, 300).await;
    let mut received = Vec::new();
    let given_up = loop {
        let next = select(Box::pin(event(&mut *ours)), Box::pin(message(&mut *theirs)));
        match next.await {
            Either::Left((Event::SendFailed(message), _)) => break message,
            Either::Left((other, _)) => panic!("{other:?}"),
            Either::Right((message, _)) => received.push(message.ppid.0),
        }
    };
    assert_eq!((given_up.ppid, &given_up.payload[..]), (mortal.ppid, &b"news"[..]));
    // The messages without a lifetime all arrive, even if the one with a lifetime was dropped.
    while received.len() < sent {
        let next = select(Box::pin(message(&mut *theirs)), Box::pin(event(&mut *ours)));
        if let Either::Left((message, _)) = next.await {
            received.push(message.ppid.0);
        }
    }
    assert_eq!(received, vec![1; sent]);
}

async fn poll_ready(connection: &mut dyn Connection) {
    std::future::poll_fn(|cx| {
        let _ = connection.poll_ready(cx);
        std::task::Poll::Ready(())
    })
    .await;
}

/// Checks that the application is notified of undelivered messages, at both ends of a session.
pub async fn sessions_tell_what_was_not_delivered(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(&network, pool(), [at.clone()]);
    let mut element = builder.listen((ONE, 0).into()).start().expect("a free port");
    element.registered().await.expect("the registrar takes it");
    let mut ours = new_user(&network, &at).open(pool()).await.expect("it is there");
    let mut theirs = element.accept().await.expect("it runs");
    assert!(matches!(ours.recv().await, Ok(SessionEvent::Connected(_))));
    let mortal = UserMessage {
        reliability: Reliability::Lifetime(Duration::from_millis(20)),
        ..UserMessage::new(Ppid(2), b"news".as_slice())
    };
    let bulk = || UserMessage::new(Ppid(1), vec![7; 32 * 1024]);
    for _ in 0..6 {
        ours.send_message(bulk()).await.expect("there is room");
    }
    ours.send_message(mortal.clone()).await.expect("there is room");
    pause(&network, 300).await;
    let given_up = loop {
        let next = select(Box::pin(ours.recv()), Box::pin(theirs.recv()));
        match next.await {
            Either::Left((Ok(SessionEvent::NotDelivered(message)), _)) => break message,
            Either::Left((other, _)) => panic!("{other:?}"),
            Either::Right((message, _)) => drop(message.expect("it lives")),
        }
    };
    assert_eq!((given_up.ppid, &given_up.payload[..]), (Ppid(2), &b"news"[..]));
    // Test the other direction.
    for _ in 0..6 {
        theirs.send_message(bulk()).await.expect("there is room");
    }
    theirs.send_message(mortal).await.expect("there is room");
    pause(&network, 300).await;
    let given_up = loop {
        let next = select(Box::pin(theirs.recv()), Box::pin(ours.recv()));
        match next.await {
            Either::Left((Ok(ElementEvent::NotDelivered(message)), _)) => break message,
            // Skip the messages that were sent before.
            Either::Left((Ok(ElementEvent::Message(_)), _)) => {}
            Either::Left((other, _)) => panic!("{other:?}"),
            Either::Right((message, _)) => drop(message.expect("it lives")),
        }
    };
    assert_eq!((given_up.ppid, &given_up.payload[..]), (Ppid(2), &b"news"[..]));
}

/// Checks that a messenger reports what was not delivered.
pub async fn messengers_tell_what_was_not_delivered(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(&network, pool(), [at.clone()]);
    let mut element = builder.listen((ONE, 0).into()).start().expect("a free port");
    element.registered().await.expect("the registrar takes it");
    let mut messenger = new_user(&network, &at).messenger(pool()).expect("a dialler");
    // Nobody reads, so the messages wait.
    for _ in 0..6 {
        let bulk = UserMessage::new(Ppid(1), vec![7; 32 * 1024]);
        messenger.send(bulk).await.expect("there is room");
    }
    let mortal = UserMessage {
        reliability: Reliability::Lifetime(Duration::from_millis(20)),
        ..UserMessage::new(Ppid(2), b"news".as_slice())
    };
    let to = messenger.send(mortal).await.expect("there is room");
    let mut session = element.accept().await.expect("it runs");
    pause(&network, 300).await;
    let reader = async {
        while session.recv().await.is_ok() {}
        unreachable!("the messenger lives");
    };
    let Either::Left((event, _)) = select(Box::pin(messenger.recv()), Box::pin(reader)).await;
    let (from, MessengerEvent::NotDelivered(message)) = event else { panic!("{event:?}") };
    assert_eq!((from, message.ppid), (Correspondent::Element(to), Ppid(2)));
    assert_eq!(message.payload, "news");
}

/// Checks that a message which is cut off is not delivered.
pub async fn what_was_cut_off_is_no_message(network: Network) {
    let (_server, mut ours, mut theirs) = connect(&network, Purpose::Session).await;
    let long = vec![7; 200_000];
    send(&mut *ours, UserMessage::new(Ppid(1), long.clone())).await;
    drop(ours);
    loop {
        match event(&mut *theirs).await {
            Event::Message(message) => assert_eq!(message.payload.len(), long.len()),
            Event::Lost(_) => break,
            other => panic!("{other:?}"),
        }
    }
}

/// Checks that both ends of a session can choose the stream and the order of messages.
pub async fn sessions_choose_streams_and_order(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(&network, pool(), [at.clone()]);
    let mut element = builder.listen((ONE, 0).into()).start().expect("a free port");
    element.registered().await.expect("the registrar takes it");
    let mut ours = new_user(&network, &at).open(pool()).await.expect("it is there");
    let mut theirs = element.accept().await.expect("it runs");
    let on = |stream, unordered| UserMessage {
        stream,
        unordered,
        ..UserMessage::new(Ppid(7), b"there".as_slice())
    };
    ours.send_message(on(3, true)).await.expect("it lives");
    match theirs.recv().await.expect("it lives") {
        ElementEvent::Message(message) => assert_eq!(message, on(3, true)),
        other => panic!("{other:?}"),
    }
    theirs.send_message(on(5, false)).await.expect("it lives");
    assert!(matches!(ours.recv().await, Ok(SessionEvent::Connected(_))));
    assert_eq!(ours.recv().await, Ok(SessionEvent::Message(on(5, false))));
    let none = SendError::NoStream { stream: 60_000, streams: 16 };
    assert_eq!(ours.send_message(on(60_000, false)).await, Err(SessionSendError::Message(none)));
    assert_eq!(theirs.send_message(on(60_000, false)).await, Err(none.into()));
    ours.send(Ppid(7), b"still".as_slice()).await.expect("it lives");
    assert!(matches!(theirs.recv().await, Ok(ElementEvent::Message(_))));
}
