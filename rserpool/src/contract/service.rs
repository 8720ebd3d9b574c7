//! Tests of registrars, elements, users and sessions on a runtime and a transport.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::StreamExt;
use futures::future::join_all;
use rserpool_proto::HuntConfig;
use rserpool_proto::registrar::RegistrarConfig;
use rserpool_proto::session::{Event, SessionConfig, SessionError};
use rserpool_proto::user::{ResolveError, ResolveOptions, UserConfig};
use rserpool_proto::wire::asap::BusinessCard;
use rserpool_proto::wire::{
    Bytes, ErrorCause, PoolElementId, PoolHandle, Ppid, RegistrarId, TransportAddress,
    TransportProtocol, TransportUse, UserMessage, asap,
};

use super::any_address;
use super::pause;
use super::transport::{event, message, send};
use crate::transport::{self, Memory, Purpose, SendError, Tcp, Transport};
use crate::{
    Correspondent, Departure, ElementEvent, ElementSession, MessengerError, MessengerEvent,
    Network, PoolChange, PoolElement, PoolUser, Registrar, SentToAll, Session, SessionClosed,
    SessionSendError,
};

pub(super) fn pool() -> PoolHandle {
    "ContractPool".parse().expect("a handle")
}

pub(super) fn start_registrar(network: &Network, address: &TransportAddress) -> Registrar {
    let config = RegistrarConfig::default().identifier(RegistrarId(1)).ready_after(Duration::ZERO);
    Registrar::start(network, [address], config).expect("the address is free")
}

/// Starts an element that answers each message with the number of messages in the session so far,
/// and stores this number in the cookie.
pub(super) async fn start_counter(network: &Network, registrar: &TransportAddress) -> Counter {
    start_counter_of("ContractPool", network, registrar).await
}

pub(super) async fn start_counter_of(
    pool: &str,
    network: &Network,
    registrar: &TransportAddress,
) -> Counter {
    let builder = PoolElement::builder(network, pool, [registrar]);
    let mut element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    let identifier = element.registered().await.expect("the registrar takes it");
    let (stop, stopped) = futures::channel::oneshot::channel::<bool>();
    let (left, done) = futures::channel::oneshot::channel();
    let runtime = network.runtime().clone();
    network.runtime().spawn(Box::pin(async move {
        let mut sessions = futures::stream::FuturesUnordered::new();
        let mut stopped = stopped.fuse();
        let leave = loop {
            futures::select! {
                session = element.accept().fuse() => sessions.push(serve_counter(session.expect("it runs"))),
                _ = sessions.select_next_some() => {}
                leave = stopped => break leave.unwrap_or(false),
            }
        };
        // Unless the element is to leave the pool, it and its sessions are dropped, as in a crash.
        if leave {
            let _ = left.send(element.leave().await);
        }
        drop(runtime);
    }));
    Counter { identifier, stop, done }
}

pub(super) struct Counter {
    pub(super) identifier: PoolElementId,
    pub(super) stop: futures::channel::oneshot::Sender<bool>,
    pub(super) done: futures::channel::oneshot::Receiver<Departure>,
}

/// Serves a session of a counter, whose state is in its cookie.
pub(super) async fn serve_counter(mut session: ElementSession) {
    let mut count = 0_u64;
    while let Ok(event) = session.recv().await {
        match event {
            ElementEvent::CookieEcho(cookie) => {
                count = u64::from_be_bytes(cookie[..].try_into().expect("our own cookie"));
            }
            ElementEvent::Message(message) => {
                count += 1;
                let bytes = count.to_be_bytes().to_vec();
                let sent = session.send_cookie(bytes.clone()).await;
                let replied = session.send(message.ppid, bytes).await;
                if sent.and(replied).is_err() {
                    break;
                }
            }
            ElementEvent::BusinessCard(_) | ElementEvent::NotDelivered(_) => {}
        }
    }
}

/// Requests the next number until an answer arrives. Returns it with the failovers that happened
/// meanwhile.
pub(super) async fn next(session: &mut Session) -> (u64, Vec<(PoolElementId, PoolElementId)>) {
    let mut moves = Vec::new();
    session.send(Ppid(99), b"next".as_slice()).await.expect("the session lives");
    loop {
        match session.recv().await.expect("the session lives") {
            Event::Message(message) => {
                assert_eq!(message.ppid, Ppid(99));
                let count = message.payload[..].try_into().expect("a number");
                return (u64::from_be_bytes(count), moves);
            }
            Event::FailoverCompleted { from, to } => {
                moves.push((from, to));
                session.send(Ppid(99), b"next".as_slice()).await.expect("the session lives");
            }
            _ => {}
        }
    }
}

pub(super) fn new_user(network: &Network, registrar: &TransportAddress) -> PoolUser {
    PoolUser::new(network, [registrar.clone()]).expect("a dialler")
}

/// Checks registration, resolution, connection, and messages in both directions.
pub async fn a_session_reaches_an_element(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let counter = start_counter(&network, registrar.local_address()).await;
    let user = new_user(&network, registrar.local_address());
    let mut session = user.open(pool()).await.expect("the pool has an element");
    assert_eq!(session.element(), Some(counter.identifier));
    assert!(matches!(session.recv().await, Ok(Event::Connected(_))));
    for expected in 1..=100 {
        assert_eq!(next(&mut session).await, (expected, vec![]));
    }
    session.close().await;
    drop(counter.stop);
}

/// Checks that the session's count continues although its element crashes in the middle of the
/// session, again and again.
pub async fn a_session_outlives_its_element(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let user = new_user(&network, registrar.local_address());
    let mut counters = Vec::new();
    for _ in 0..3 {
        counters.push(start_counter(&network, registrar.local_address()).await);
    }
    let mut session = user.open(pool()).await.expect("the pool has elements");
    let mut expected = 0;
    for _ in 0..5 {
        for _ in 0..10 {
            expected += 1;
            assert_eq!(next(&mut session).await.0, expected);
        }
        let serving = session.element().expect("it just answered");
        let index = counters.iter().position(|counter| counter.identifier == serving);
        let killed = counters.swap_remove(index.expect("one of them"));
        drop(killed.stop);
        let _ = killed.done.await;
        expected += 1;
        let (count, moves) = next(&mut session).await;
        assert_eq!(count, expected, "nothing is lost, nothing is counted twice");
        assert_eq!(moves.len(), 1);
        assert_eq!(moves[0].0, serving);
        counters.push(start_counter(&network, registrar.local_address()).await);
    }
}

/// Checks that a session uses its pool's transport while the registrar is asked over another one.
pub async fn a_session_goes_over_the_transport_of_its_pool(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let other: Arc<dyn Transport> = match network.protocol() {
        TransportProtocol::Tcp => Arc::new(Memory::new()),
        _ => Arc::new(Tcp::new()),
    };
    let elsewhere = Network::shared(network.runtime().clone(), other.clone());
    let mut server =
        elsewhere.listen(Purpose::Session, &any_address(&elsewhere)).expect("a free port");
    let address = server.local().expect("it listens").clone();
    let element = PoolElement::builder(&network, pool(), [at.clone()])
        .serving_at(address.with_usage(TransportUse::DATA_PLUS_CONTROL))
        .start()
        .expect("a free port");
    element.registered().await.expect("the registrar takes it");
    network.runtime().spawn(Box::pin(async move {
        let accepted = std::future::poll_fn(|cx| server.poll_accept(cx)).await;
        let mut connection = accepted.expect("a connection");
        loop {
            let asked = message(&mut *connection).await;
            let ends = asked.ppid != Ppid::ASAP;
            send(&mut *connection, asked).await;
            if ends {
                break;
            }
        }
        while let transport::Event::Message(_) = event(&mut *connection).await {}
    }));

    // Nothing listens at the registrar's address over the other transport: users ask registrars
    // over the network's own transport only.
    let there = TransportAddress { protocol: elsewhere.protocol(), ..at.clone() };
    let mut dialler = elsewhere.dialler(Purpose::Protocol(Ppid::ASAP)).expect("a dialler");
    let lost = event(&mut *dialler.connect(&there)).await;
    assert!(matches!(lost, transport::Event::Lost(_)), "{lost:?}");
    let error = new_user(&network, &at).open(pool()).await.expect_err("it is served elsewhere");
    assert!(matches!(error, SessionError::OtherTransport { .. }), "{error}");
    let user = new_user(&network.clone().with_sessions_over(other), &at);
    let config = SessionConfig::default().heartbeat(Duration::from_millis(700));
    let mut session = user.open_with(pool(), config).await.expect("it reaches that");
    session.send(Ppid(7), b"there".as_slice()).await.expect("it lives");
    let Ok(Event::Connected(_)) = session.recv().await else { panic!("not connected") };
    let Ok(Event::Message(reply)) = session.recv().await else { panic!("no reply") };
    assert_eq!(reply.payload, "there");
    session.close().await;
}

/// Checks that one task can be an element of one pool and a user of another.
pub async fn a_program_may_be_an_element_and_a_user(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let _counter = start_counter(&network, &at).await;
    let front: PoolHandle = "FrontPool".parse().expect("a handle");
    let builder = PoolElement::builder(&network, front.clone(), [at.clone()]);
    let mut element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    element.registered().await.expect("the registrar takes it");
    let inner = new_user(&network, &at);
    network.runtime().spawn(Box::pin(async move {
        let mut asked = element.accept().await.expect("it runs");
        let mut counter = inner.open(pool()).await.expect("the pool has an element");
        while let Ok(ElementEvent::Message(message)) = asked.recv().await {
            counter.send(message.ppid, message.payload).await.expect("it lives");
            let counted = loop {
                if let Event::Message(message) = counter.recv().await.expect("it lives") {
                    break message;
                }
            };
            asked.send(counted.ppid, counted.payload).await.expect("it lives");
        }
    }));
    let mut session = new_user(&network, &at).open(front).await.expect("it is there");
    for count in 1..=3 {
        assert_eq!(next(&mut session).await.0, count);
    }
}

/// Checks that open sessions go on after their element has left the pool, and that no new ones
/// reach it.
pub async fn open_sessions_go_on_when_their_element_has_left(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(&network, pool(), [at.clone()]);
    let mut element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    element.registered().await.expect("the registrar takes it");
    let user = new_user(&network, &at);
    let (session, accepted) = futures::join!(user.open(pool()), element.accept());
    let (mut session, accepted) = (session.expect("it is there"), accepted.expect("it runs"));
    assert_eq!(element.leave().await, Departure::Confirmed);
    network.runtime().spawn(Box::pin(serve_counter(accepted)));
    assert_eq!(next(&mut session).await.0, 1);
    let unknown = user.open(pool()).await.expect_err("it has left");
    assert_eq!(unknown, ResolveError::UnknownPool(pool()).into());
    assert_eq!(next(&mut session).await.0, 2);
}

/// Checks that application data cannot use the control channel's identifier, and that the session
/// continues.
pub async fn data_are_not_sent_as_control(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(&network, pool(), [at.clone()]);
    let mut element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    element.registered().await.expect("the registrar takes it");
    let user = new_user(&network, &at);
    let (session, accepted) = futures::join!(user.open(pool()), element.accept());
    let (mut session, mut accepted) = (session.expect("it is there"), accepted.expect("it runs"));
    let cookie = b"\x0b\0\0\x08\0\x0d\0\x04".as_slice();
    let refused = session.send(Ppid::ASAP, cookie).await;
    assert_eq!(refused, Err(SessionSendError::Message(SendError::Reserved)));
    let refused = accepted.send(Ppid::ASAP, cookie).await;
    assert_eq!(refused, Err(SessionSendError::Message(SendError::Reserved)));
    let mut messenger = user.messenger(pool()).expect("a dialler");
    let refused = messenger.send(UserMessage::new(Ppid::ASAP, cookie)).await;
    assert!(matches!(refused, Err(MessengerError::Message(SendError::Reserved))), "{refused:?}");
    network.runtime().spawn(Box::pin(serve_counter(accepted)));
    assert_eq!(next(&mut session).await.0, 1);
}

/// Checks that an element handles an unknown message on the control channel as the two high bits of
/// the message type require, and that the session continues.
pub async fn what_is_unknown_on_a_control_channel_is_answered(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let _counter = start_counter(&network, registrar.local_address()).await;
    let user = new_user(&network, registrar.local_address());
    let elements = user.resolve(pool(), ResolveOptions::default()).await.expect("it is there");
    let address = elements[0].user_transport.address().expect("it has one");
    let mut endpoint = network.dialler(Purpose::Session).expect("a dialler");
    let mut connection = endpoint.connect(address);
    let transport::Event::Established { .. } = event(&mut *connection).await else {
        panic!("not established")
    };
    let unknown = b"\x7e\0\0\x04".as_slice();
    send(&mut *connection, UserMessage::new(Ppid::ASAP, unknown)).await;
    let answer = message(&mut *connection).await;
    let cause = ErrorCause::UnrecognizedMessage(Bytes::from_static(unknown));
    let expected = asap::Message::from(asap::Error { error: cause.into() });
    assert_eq!(asap::Message::decode(&answer.payload), Ok(expected));
    send(&mut *connection, UserMessage::new(Ppid(7), b"next".as_slice())).await;
    assert_eq!(message(&mut *connection).await.ppid, Ppid::ASAP, "the cookie");
    assert_eq!(message(&mut *connection).await.ppid, Ppid(7));
}

/// Checks that sessions do not interfere with each other, and that round robin spreads them.
pub async fn many_sessions_at_a_time(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let mut counters = Vec::new();
    for _ in 0..2 {
        counters.push(start_counter(&network, registrar.local_address()).await);
    }
    let user = new_user(&network, registrar.local_address());
    let sessions = join_all((0..20).map(|_| async {
        let mut session = user.open(pool()).await.expect("the pool has elements");
        for expected in 1..=20 {
            assert_eq!(next(&mut session).await.0, expected);
        }
        session.element().expect("connected")
    }))
    .await;
    for counter in &counters {
        assert!(sessions.contains(&counter.identifier));
    }
}

/// Checks that a registrar serves other clients while one client sends without pause.
pub async fn one_who_talks_without_end_does_not_keep_others_waiting(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let _counter = start_counter(&network, registrar.local_address()).await;
    let (stop, mut stopped) = futures::channel::oneshot::channel::<()>();
    let (talker, address) = (network.clone(), registrar.local_address().clone());
    network.runtime().spawn(Box::pin(async move {
        let purpose = Purpose::Protocol(Ppid::ASAP);
        let mut client = talker.dialler(purpose).expect("a dialler");
        let mut connection = client.connect(&address);
        let _ = std::future::poll_fn(|cx| connection.poll_event(cx)).await;
        // Send reports about an unknown element, which the registrar does not answer.
        let report = b"\x09\0\0\x14\0\x09\0\x08Pool\0\x0e\0\x08\0\0\0\x01";
        while stopped.try_recv().is_ok_and(|stop| stop.is_none()) {
            std::future::poll_fn(|cx| connection.poll_ready(cx)).await;
            let message = UserMessage::new(Ppid::ASAP, &report[..]);
            if connection.send(message).is_err() {
                break;
            }
        }
    }));
    pause(&network, 50).await;
    for _ in 0..5 {
        let user = new_user(&network, registrar.local_address());
        let found = user.resolve(pool(), ResolveOptions::default()).await;
        assert_eq!(found.expect("it is there").len(), 1);
    }
    drop(stop);
}

/// Checks that an element which has left the pool is not resolved any more.
pub async fn an_element_that_leaves_is_not_resolved_any_more(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let counter = start_counter(&network, registrar.local_address()).await;
    let user = new_user(&network, registrar.local_address());
    let resolve = || user.resolve(pool(), ResolveOptions::default());
    assert_eq!(resolve().await.expect("it is there").len(), 1);
    counter.stop.send(true).expect("it runs");
    assert_eq!(counter.done.await, Ok(Departure::Confirmed));
    assert_eq!(resolve().await, Err(ResolveError::UnknownPool(pool())));
}

/// Checks that messages reach the element that the policy selects, a certain element, the one used
/// last, and all elements.
pub async fn messages_reach_a_pool_without_a_session(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let mut counters = Vec::new();
    for _ in 0..3 {
        counters.push(start_counter(&network, registrar.local_address()).await);
    }
    let user = new_user(&network, registrar.local_address());
    let mut messenger = user.messenger(pool()).expect("a dialler");
    let message = || UserMessage::new(Ppid(99), b"next".as_slice());
    let mut chosen = Vec::new();
    for _ in 0..6 {
        chosen.push(messenger.send(message()).await.expect("they are there"));
        let expected = Correspondent::Element(*chosen.last().expect("just pushed"));
        assert_eq!(messenger.recv().await.0, expected);
    }
    assert_eq!(chosen[..3], chosen[3..], "in turn");
    let last = messenger.send_to_last(message()).await.expect("it is there");
    assert_eq!(Some(&last), chosen.last());
    messenger.send_to(chosen[0], message()).await.expect("it is there");
    let SentToAll { reached: all, missed, more } =
        messenger.send_to_all(message()).await.expect("they are there");
    assert_eq!((all.len(), missed.len(), more), (3, 0, false));
    let mut heard = Vec::new();
    for _ in 0..5 {
        heard.push(messenger.recv().await.0);
    }
    let times = |element| heard.iter().filter(|it| **it == Correspondent::Element(element)).count();
    assert_eq!([chosen[0], chosen[1], chosen[2]].map(times), [2, 1, 2]);
    // The last element crashes: another one receives the message.
    let index = counters.iter().position(|counter| Some(counter.identifier) == all.last().copied());
    let killed = counters.swap_remove(index.expect("one of them"));
    drop(killed.stop);
    let _ = killed.done.await;
    loop {
        let last = messenger.send_to_last(message()).await.expect("two are there");
        // A message that was sent before the messenger noticed the crash is lost, so send again.
        if last != killed.identifier {
            break;
        }
    }
    assert_ne!(messenger.recv().await.0, Correspondent::Element(killed.identifier));
    // A message can be sent to an address alone, whether it is in the pool or not.
    let found = user.resolve(pool(), ResolveOptions::default()).await.expect("two are there");
    let address = found[0].user_transport.address().expect("it has one").clone();
    messenger.send_at(&address, message()).await.expect("somebody is there");
    loop {
        let (from, event) = messenger.recv().await;
        if from == Correspondent::Address(address.clone()) {
            let MessengerEvent::Message(reply) = event else { panic!("{event:?}") };
            assert_eq!(reply.payload[..], 1_u64.to_be_bytes(), "a session of its own");
            break;
        }
    }
    let nobody = TransportAddress { port: 1, ..address };
    let refused = messenger.send_at(&nobody, message()).await;
    assert!(matches!(refused, Err(MessengerError::NotReached(_))), "{refused:?}");
}

/// Checks three things: a session can begin with a certain element; a user that is itself an
/// element can name its replacements; a cached answer can be purged.
pub async fn elements_are_chosen_and_named_and_answers_forgotten(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let mut elements = Vec::new();
    for identifier in 1..=3 {
        let builder = PoolElement::builder(&network, pool(), [at.clone()])
            .configure(|config| config.identifier(PoolElementId(identifier)))
            .listen(([127, 0, 0, 1], 0).into());
        let element = builder.start().expect("a free port");
        element.registered().await.expect("the registrar takes it");
        elements.push(element);
    }
    let user = new_user(&network, &at);
    let choose = |identifier| SessionConfig::default().element(PoolElementId(identifier));
    for identifier in [2, 3, 2, 1] {
        let element = &mut elements[identifier as usize - 1];
        let (session, accepted) =
            futures::join!(user.open_with(pool(), choose(identifier)), element.accept());
        let (mut session, mut accepted) = (session.expect("there"), accepted.expect("it runs"));
        assert_eq!(session.element(), Some(PoolElementId(identifier)));
        let others = user.resolve(pool(), ResolveOptions::default()).await.expect("there");
        session.send_business_card(pool(), others.clone()).await.expect("it lives");
        let card = BusinessCard { pool_handle: pool(), elements: others };
        assert_eq!(accepted.recv().await.expect("alive"), ElementEvent::BusinessCard(card));
    }
    let refused = user.open_with(pool(), choose(9)).await.expect_err("there is no such");
    assert_eq!(refused, SessionError::NotReached(PoolElementId(9)));

    let remembered = ResolveOptions::default().max_age(Duration::from_secs(600));
    let count = async || {
        let found = user.resolve(pool(), remembered.clone()).await;
        found.expect("it is there").len()
    };
    assert_eq!(count().await, 3);
    let left = elements.pop().expect("three are there").leave().await;
    assert_eq!(left, Departure::Confirmed);
    assert_eq!(count().await, 3, "as it was");
    user.purge(pool()).await.expect("it runs");
    assert_eq!(count().await, 2);
}

/// Checks that a subscriber learns of the elements that are in the pool, join it and leave it.
pub async fn a_subscriber_sees_the_pool_change(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let first = start_counter(&network, registrar.local_address()).await;
    let user = new_user(&network, registrar.local_address());
    let mut changes = user.subscribe(pool()).await.expect("the user runs");
    drop(user);
    let joined = |change: Option<PoolChange>| match change {
        Some(PoolChange::Joined(element)) => element.identifier,
        other => panic!("{other:?}"),
    };
    assert_eq!(joined(changes.next().await), first.identifier);
    let second = start_counter(&network, registrar.local_address()).await;
    assert_eq!(joined(changes.next().await), second.identifier);
    first.stop.send(true).expect("it runs");
    assert_eq!(changes.next().await, Some(PoolChange::Left(first.identifier)));
    drop(second.stop);
    assert_eq!(changes.next().await, Some(PoolChange::Left(second.identifier)));
    assert_eq!(changes.elements().count(), 0);
}

/// Checks that elements register with a restarted registrar, that users find it, and that sessions
/// are not interrupted.
pub async fn a_registrar_restart_is_survived(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let address = registrar.local_address().clone();
    let counter = start_counter(&network, &address).await;
    let user = new_user(&network, &address);
    let mut session = user.open(pool()).await.expect("the pool has an element");
    assert_eq!(next(&mut session).await.0, 1);
    registrar.shutdown().await.expect("it runs");
    assert_eq!(next(&mut session).await.0, 2);
    let mut other = user.open(pool()).await.expect("the user remembers the element");
    assert_eq!(next(&mut other).await.0, 1);
    // The old registrar may still be closing its port.
    let registrar = loop {
        let config = RegistrarConfig::default().identifier(RegistrarId(2));
        match Registrar::start(&network, [&address], config) {
            Ok(registrar) => break registrar,
            Err(_) => pause(&network, 10).await,
        }
    };
    let mut tries = 0;
    loop {
        match user.resolve(pool(), ResolveOptions::default()).await {
            Ok(elements) => {
                assert_eq!(elements[0].identifier, counter.identifier);
                assert_eq!(elements[0].home_registrar, registrar.identifier());
                break;
            }
            Err(error) => assert!(tries < 200, "{error}"),
        }
        tries += 1;
        pause(&network, 20).await;
    }
    assert_eq!(next(&mut session).await.0, 3);
}

/// Checks that receiving, accepting and resolving can be cancelled at any time.
pub async fn futures_that_are_dropped_lose_nothing(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let _counter = start_counter(&network, registrar.local_address()).await;
    let user = new_user(&network, registrar.local_address());
    let mut session = user.open(pool()).await.expect("the pool has an element");
    assert!(matches!(session.recv().await, Ok(Event::Connected(_))));
    for expected in 1..=50_u64 {
        // The future is polled once and dropped, whatever state it is in.
        let _ = user.resolve(pool(), ResolveOptions::default()).now_or_never();
        session.send(Ppid(99), b"next".as_slice()).await.expect("the session lives");
        let event = loop {
            match session.recv().now_or_never() {
                Some(event) => break event.expect("the session lives"),
                None => pause(&network, 1).await,
            }
        };
        match event {
            Event::Message(message) => assert_eq!(message.payload[..], expected.to_be_bytes()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(user.resolve(pool(), ResolveOptions::default()).await.expect("there").len(), 1);
}

/// Checks that errors name what is missing: the registrar or the pool.
pub async fn no_registrar_and_no_pool_are_errors_that_say_so(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let address = registrar.local_address().clone();
    let user = new_user(&network, &address);
    let error = user.open(pool()).await.expect_err("there is no such pool");
    assert_eq!(error, SessionError::Resolve(ResolveError::UnknownPool(pool())));
    assert_eq!(SessionClosed::from(error).to_string(), "there is no pool ContractPool");
    registrar.shutdown().await.expect("it runs");
    let hunt = HuntConfig::new([address.clone()]);
    let config =
        UserConfig::new(hunt).request_timeout(Duration::from_millis(50)).max_request_retransmit(1);
    let user = PoolUser::with_config(&network, config);
    let error = user.expect("a dialler").open(pool()).await.expect_err("nobody is there");
    assert_eq!(error.to_string(), format!("no registrar answered at {address}"));
}
