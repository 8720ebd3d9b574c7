//! Tests the session's state machine (RFC 5352 sections 3.5 and 3.8).
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use rserpool_proto::session::{Event, Output, Session, SessionConfig, SessionError};
use rserpool_proto::testing::world::World;
use rserpool_proto::user::{ResolveError, ResolveOptions};
use rserpool_proto::wire::parameter::Cookie;
use rserpool_proto::wire::{
    Bytes, ErrorCause, PolicyParameters, PoolElement, PoolElementId, Ppid, RegistrarId,
    RegistrationLife, TransportAddress, TransportProtocol, TransportUse, UserMessage, asap,
};
use rserpool_proto::{ConnectionEvent, ConnectionId};

fn element(number: u8) -> PoolElement {
    let address = TransportAddress::tcp(([127, 0, 0, 1], u16::from(number)).into());
    PoolElement {
        identifier: PoolElementId(number.into()),
        home_registrar: RegistrarId(1),
        registration_life: RegistrationLife(60),
        user_transport: address.with_usage(TransportUse::DATA_PLUS_CONTROL).into(),
        policy: PolicyParameters::round_robin(),
        asap_transport: None,
    }
}

fn cookie(bytes: &'static [u8]) -> UserMessage {
    let message = asap::Cookie { cookie: Cookie(Bytes::from_static(bytes)) };
    UserMessage::new(Ppid::ASAP, asap::Message::from(message).encode().unwrap())
}

struct Fixture {
    session: Session,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(configure: impl FnOnce(SessionConfig) -> SessionConfig) -> Self {
        let mut session =
            Session::new(configure(SessionConfig::default()), [TransportProtocol::Tcp]);
        let now = World::default().now();
        session.start(now);
        let mut fixture = Self { session, now };
        assert_eq!(fixture.outputs(), [open()]);
        fixture
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.poll_output()).collect()
    }

    fn resolved(&mut self, numbers: &[u8]) -> Vec<Output> {
        let elements = numbers.iter().copied().map(element).collect();
        self.session.handle_resolution(self.now, Ok(elements));
        self.outputs()
    }

    fn established(&mut self, connection: u64) -> Vec<Output> {
        let address = TransportAddress::tcp(([127, 0, 0, 1], 1).into());
        let event =
            ConnectionEvent::Established { local: address.clone(), peer: address, identity: None };
        self.session.handle_connection(self.now, ConnectionId(connection), &event);
        let outputs = self.outputs();
        if !matches!(outputs.as_slice(), [Output::Send { message, .. }] if message.payload[0] == 0x3d)
        {
            return outputs;
        }
        // The program of the element answers the heartbeat.
        let reply = UserMessage::new(Ppid::ASAP, b"\x3d\x01\0\x04".as_slice());
        self.session.handle_message(self.now, ConnectionId(connection), reply);
        self.outputs()
    }

    /// Passes the session a message from the element, which proves that the connection works.
    fn proven(&mut self, connection: u64) {
        let message = UserMessage::new(Ppid::NONE, b"hello".as_slice());
        self.session.handle_message(self.now, ConnectionId(connection), message);
        assert_eq!(self.outputs().len(), 1);
    }

    fn lost(&mut self, connection: u64) -> Vec<Output> {
        let event = ConnectionEvent::Lost;
        self.session.handle_connection(self.now, ConnectionId(connection), &event);
        self.outputs()
    }

    fn pass(&mut self, duration: Duration) -> Vec<Output> {
        self.now += duration;
        self.session.handle_timeout(self.now);
        self.outputs()
    }
}

fn connect(connection: u64, number: u8) -> Output {
    let to = element(number).user_transport.address().unwrap().clone();
    Output::Connect { connection: ConnectionId(connection), to }
}

/// Returns the resolution with which a session begins: an older answer will do if no registrar
/// answers.
fn open() -> Output {
    Output::Resolve(ResolveOptions::default().allow_stale(true))
}

fn resolve() -> Output {
    Output::Resolve(ResolveOptions::default())
}

fn event(event: Event) -> Output {
    Output::Event(event)
}

#[test]
fn a_failover_reports_resolves_connects_and_echoes_the_last_cookie_first() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.resolved(&[1, 2]), [connect(1, 1)]);
    assert_eq!(fixture.established(1), [event(Event::Connected(PoolElementId(1)))]);
    fixture.session.handle_message(fixture.now, ConnectionId(1), cookie(b"old."));
    fixture.session.handle_message(fixture.now, ConnectionId(1), cookie(b"newer"));
    let data = UserMessage::new(Ppid::NONE, b"data".as_slice());
    fixture.session.handle_message(fixture.now, ConnectionId(1), data.clone());
    assert_eq!(fixture.outputs(), [event(Event::Message(data.clone()))]);

    assert_eq!(
        fixture.lost(1),
        [
            event(Event::FailoverStarted { from: PoolElementId(1) }),
            Output::Report(PoolElementId(1)),
            resolve()
        ]
    );
    assert_eq!(
        fixture.session.send(fixture.now, data.clone()),
        Err(data),
        "nobody is there to send it to"
    );
    // The registrar still lists the failed element, in first place.
    assert_eq!(fixture.resolved(&[1, 2]), [connect(2, 2)]);
    let echo = asap::CookieEcho { cookie: Cookie(Bytes::from_static(b"newer")) };
    let echo = asap::Message::from(echo).counting_padding(false).encode().unwrap();
    assert_eq!((&echo[2..4], echo.len()), ([0, 13].as_slice(), 16), "the length has no padding");
    let echo = UserMessage::new(Ppid::ASAP, echo);
    let (from, to) = (PoolElementId(1), PoolElementId(2));
    assert_eq!(
        fixture.established(2),
        [
            Output::Send { connection: ConnectionId(2), message: echo },
            event(Event::FailoverCompleted { from, to })
        ]
    );
}

#[test]
fn a_chosen_element_is_sought_in_the_whole_pool_and_others_stand_in_for_it() {
    let configure = |config: SessionConfig| config.element(PoolElementId(2));
    let session = Session::new(configure(SessionConfig::default()), [TransportProtocol::Tcp]);
    let mut fixture = Fixture { session, now: World::default().now() };
    fixture.session.start(fixture.now);
    let all = ResolveOptions::default().items(u32::MAX).allow_stale(true);
    assert_eq!(fixture.outputs(), [Output::Resolve(all)]);
    assert_eq!(fixture.resolved(&[1, 2, 3]), [connect(1, 2)]);
    fixture.established(1);
    fixture.proven(1);
    assert_eq!(fixture.lost(1).last(), Some(&resolve()));
    // There is no registrar, but the other elements of the pool are known.
    fixture.session.handle_resolution(fixture.now, Err(ResolveError::NoRegistrar(Vec::new())));
    assert_eq!(fixture.outputs(), [connect(2, 1)]);
}

#[test]
fn elements_that_do_not_accept_are_reported_and_the_pool_is_asked_again_in_the_end() {
    let mut fixture = Fixture::new();
    fixture.resolved(&[1, 2]);
    assert_eq!(fixture.lost(1), [Output::Report(PoolElementId(1)), connect(2, 2)]);
    // The second element neither accepts nor refuses the connection.
    assert_eq!(fixture.session.poll_timeout(), Some(fixture.now + Duration::from_secs(5)));
    assert_eq!(
        fixture.pass(Duration::from_secs(5)),
        [
            Output::Close { connection: ConnectionId(2), abort: true },
            Output::Report(PoolElementId(2))
        ]
    );
    assert_eq!(fixture.pass(Duration::from_millis(100)), [resolve()]);
    assert_eq!(fixture.resolved(&[1]), [connect(3, 1)], "it may be back");
    assert_eq!(fixture.lost(2), [], "that one is history");
    assert_eq!(fixture.established(3), [event(Event::Connected(PoolElementId(1)))]);
}

#[test]
fn a_pool_that_was_never_there_is_an_error_and_one_that_is_gone_is_waited_for() {
    let missing = || Err(ResolveError::UnknownPool("Pool".parse().unwrap()));
    let mut fixture = Fixture::new();
    fixture.session.handle_resolution(fixture.now, missing());
    assert!(matches!(
        fixture.outputs().as_slice(),
        [Output::Event(Event::Failed(SessionError::Resolve(ResolveError::UnknownPool(_))))]
    ));

    let mut fixture = Fixture::new();
    fixture.resolved(&[1]);
    fixture.established(1);
    fixture.proven(1);
    fixture.lost(1);
    let mut rounds = 0;
    let failed = loop {
        fixture.session.handle_resolution(fixture.now, missing());
        match fixture.outputs().as_slice() {
            [] => {}
            outputs => break outputs.to_vec(),
        }
        rounds += 1;
        assert_eq!(fixture.pass(Duration::from_millis(100)), [resolve()]);
    };
    assert_eq!(failed, [event(Event::Failed(SessionError::NoElement))]);
    assert_eq!(rounds, 600, "for a minute");
}

#[test]
fn without_a_registrar_the_elements_known_before_are_tried() {
    let mut fixture = Fixture::new();
    fixture.resolved(&[1, 2]);
    fixture.established(1);
    fixture.proven(1);
    fixture.lost(1);
    fixture.session.handle_resolution(fixture.now, Err(ResolveError::NoRegistrar(vec![])));
    assert_eq!(fixture.outputs(), [connect(2, 2)]);
}

#[test]
fn pools_of_another_transport_are_an_error_that_says_so() {
    let mut fixture = Fixture::new();
    let mut other = element(1);
    other.user_transport = TransportAddress::sctp(([127, 0, 0, 1], 1).into()).into();
    fixture.session.handle_resolution(fixture.now, Ok(vec![other]));
    match fixture.outputs().as_slice() {
        [Output::Event(Event::Failed(error))] => {
            assert_eq!(error.to_string(), "the pool is served over sctp:127.0.0.1:1, not over tcp");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_element_that_closes_ends_the_session_and_one_that_talks_nonsense_does_not() {
    let mut fixture = Fixture::new();
    fixture.resolved(&[1]);
    fixture.established(1);
    let nonsense = UserMessage::new(Ppid::ASAP, b"\x01".as_slice());
    fixture.session.handle_message(fixture.now, ConnectionId(1), nonsense);
    let told = fixture.outputs();
    assert!(matches!(&told[..], [Output::Send { .. }]), "{told:?}");
    fixture.session.handle_connection(fixture.now, ConnectionId(1), &ConnectionEvent::Closed);
    assert_eq!(fixture.outputs(), [event(Event::Closed)]);
}

#[test]
fn an_element_that_accepts_and_fails_is_not_tried_without_pause_or_end() {
    let mut fixture = Fixture::new();
    fixture.resolved(&[1]);
    let mut connection = 1;
    let failed = loop {
        match fixture.established(connection).as_slice() {
            [Output::Event(_)] => {}
            other => panic!("{other:?}"),
        }
        let lost = fixture.lost(connection);
        assert_eq!(lost.len(), 2, "told and reported, and nothing else at once: {lost:?}");
        assert_eq!(fixture.pass(Duration::from_millis(100)), [resolve()]);
        connection += 1;
        match fixture.resolved(&[1]).as_slice() {
            [Output::Connect { .. }] => {}
            outputs => break outputs.to_vec(),
        }
    };
    assert_eq!(failed, [event(Event::Failed(SessionError::NoElement))]);
    assert_eq!(connection, 601, "for a minute");
}

#[test]
fn a_business_card_decides_who_is_tried_first() {
    let mut fixture = Fixture::new();
    fixture.resolved(&[1, 2, 3, 4]);
    fixture.established(1);
    let elements = [4, 9, 1, 3].map(element).to_vec();
    let card = asap::BusinessCard { pool_handle: "EchoPool".parse().unwrap(), elements };
    let card = asap::Message::from(card).encode().unwrap();
    fixture.session.handle_message(
        fixture.now,
        ConnectionId(1),
        UserMessage::new(Ppid::ASAP, card),
    );
    assert_eq!(fixture.outputs(), []);
    fixture.lost(1);
    // Element 9 on the card does not exist, 1 has just failed, and 2 is not on the card.
    assert_eq!(fixture.resolved(&[1, 2, 3, 4]), [connect(2, 4)]);
    assert_eq!(fixture.lost(2), [Output::Report(PoolElementId(4)), connect(3, 3)]);
    assert_eq!(fixture.lost(3), [Output::Report(PoolElementId(3)), connect(4, 2)]);
    assert_eq!(fixture.lost(4), [Output::Report(PoolElementId(2)), connect(5, 1)]);
}

#[test]
fn a_session_that_is_to_be_told_waits_until_it_is() {
    let mut fixture = Fixture::with(|config| config.automatic_failover(false));
    fixture.resolved(&[1, 2]);
    fixture.established(1);
    fixture.proven(1);
    assert_eq!(
        fixture.lost(1),
        [
            event(Event::FailoverStarted { from: PoolElementId(1) }),
            Output::Report(PoolElementId(1)),
        ]
    );
    assert_eq!(fixture.pass(Duration::from_secs(3600)), []);
    fixture.session.fail_over(fixture.now);
    assert_eq!(fixture.outputs(), [resolve()]);
    assert_eq!(fixture.resolved(&[1, 2]), [connect(2, 2)]);
    let completed = Event::FailoverCompleted { from: PoolElementId(1), to: PoolElementId(2) };
    assert_eq!(fixture.established(2), [event(completed)]);
}

#[test]
fn a_session_asks_for_what_it_is_told_to_and_a_failover_never_for_old_answers() {
    let age = Duration::from_secs(30);
    let config = SessionConfig::default().items(1).max_age(age).retry_delay(age);
    let mut session = Session::new(config, [TransportProtocol::Tcp]);
    let now = World::default().now();
    session.start(now);
    let first = ResolveOptions::default().items(1).max_age(age).allow_stale(true);
    assert_eq!(session.poll_output(), Some(Output::Resolve(first)));
    session.handle_resolution(now, Ok(Vec::new()));
    session.handle_timeout(now + age);
    let again = ResolveOptions::default().items(1);
    assert_eq!(session.poll_output(), Some(Output::Resolve(again)));
}

#[test]
fn an_idle_session_fails_over_like_any_other() {
    let mut fixture = Fixture::new();
    fixture.resolved(&[1, 2]);
    fixture.established(1);
    for connection in 1..=3 {
        // The program of the user was suspended for an hour, so the session asks whether the
        // element is still there.
        assert_eq!(fixture.pass(Duration::from_secs(3600)), [heartbeat(connection)]);
        let outputs = fixture.lost(connection);
        assert!(matches!(outputs[0], Output::Event(Event::FailoverStarted { .. })), "{outputs:?}");
        let again = if outputs.len() == 3 { outputs } else { fixture.pass(Duration::from_secs(1)) };
        assert_eq!(again.last(), Some(&resolve()));
        let outputs = fixture.resolved(&[1, 2]);
        assert!(matches!(outputs[..], [Output::Connect { .. }]), "{outputs:?}");
        let outputs = fixture.established(connection + 1);
        assert!(matches!(outputs[..], [Output::Event(Event::FailoverCompleted { .. })]));
    }
}

fn heartbeat(connection: u64) -> Output {
    let message = UserMessage::new(Ppid::ASAP, b"\x3d\0\0\x04".as_slice());
    Output::Send { connection: ConnectionId(connection), message }
}

#[test]
fn an_element_whose_program_does_not_respond_is_left() {
    let mut fixture = Fixture::new();
    fixture.resolved(&[1, 2]);
    fixture.established(1);
    // While the session is idle, the element answers one heartbeat and no more.
    assert_eq!(fixture.pass(Duration::from_secs(5)), [heartbeat(1)]);
    let reply = UserMessage::new(Ppid::ASAP, b"\x3d\x01\0\x04".as_slice());
    fixture.session.handle_message(fixture.now, ConnectionId(1), reply);
    assert_eq!(fixture.pass(Duration::from_secs(2)), []);
    fixture.proven(1);
    // The application waits for an answer, so the element is asked soon.
    fixture.session.handle_sent(fixture.now);
    assert_eq!(fixture.pass(Duration::from_millis(300)), [heartbeat(1)]);
    assert_eq!(fixture.pass(Duration::from_millis(1999)), []);
    let from = PoolElementId(1);
    let close = Output::Close { connection: ConnectionId(1), abort: true };
    let started = event(Event::FailoverStarted { from });
    let left = fixture.pass(Duration::from_millis(1));
    assert_eq!(left, [close, started, Output::Report(from), resolve()]);
}

#[test]
fn an_element_that_answers_no_heartbeat_is_left_to_the_transport_and_the_registrar() {
    let config = SessionConfig::default();
    let mut session = Session::new(config, [TransportProtocol::Sctp]);
    let now = World::default().now();
    session.start(now);
    let address = TransportAddress::sctp(([127, 0, 0, 1], 1).into());
    let user_transport = address.clone().with_usage(TransportUse::DATA_PLUS_CONTROL).into();
    let _ = session.poll_output();
    session.handle_resolution(now, Ok(vec![PoolElement { user_transport, ..element(1) }]));
    let _ = session.poll_output();
    let established =
        ConnectionEvent::Established { local: address.clone(), peer: address, identity: None };
    session.handle_connection(now, ConnectionId(1), &established);
    assert_eq!(session.poll_output(), Some(heartbeat(1)));
    assert!(session.poll_output().is_some());
    assert_eq!(session.poll_timeout(), None);
    session.handle_sent(now);
    // As long as the application waits for an answer, the registrar is asked again and again.
    let due = now + Duration::from_millis(2300);
    assert_eq!(session.poll_timeout(), Some(due));
    let all = Output::Resolve(ResolveOptions::default().items(u32::MAX));
    let others = |session: &mut Session, elements: &[u8]| {
        session.handle_resolution(due, Ok(elements.iter().map(|id| element(*id)).collect()));
        std::iter::from_fn(|| session.poll_output()).collect::<Vec<_>>()
    };
    session.handle_timeout(due);
    assert_eq!(session.poll_output(), Some(all.clone()));
    assert_eq!(others(&mut session, &[1, 2]), [], "it is still there");
    assert_eq!(others(&mut session, &[2]), [], "the registrar was not asked");
    session.handle_timeout(due + Duration::from_millis(2300));
    assert_eq!(session.poll_output(), Some(all.clone()));
    assert_eq!(others(&mut session, &[]), [], "there is no other");
    session.handle_timeout(due + Duration::from_millis(4600));
    assert_eq!(session.poll_output(), Some(all));
    let left = others(&mut session, &[2]);
    let started = event(Event::FailoverStarted { from: PoolElementId(1) });
    assert_eq!(left[..2], [Output::Close { connection: ConnectionId(1), abort: true }, started]);
}

#[test]
fn the_last_element_of_a_pool_is_left_when_the_registrar_has_removed_it() {
    let mut session = Session::new(SessionConfig::default(), [TransportProtocol::Sctp]);
    let now = World::default().now();
    let drain =
        |session: &mut Session| std::iter::from_fn(|| session.poll_output()).collect::<Vec<_>>();
    session.start(now);
    drain(&mut session);
    let address = TransportAddress::sctp(([127, 0, 0, 1], 1).into());
    let user_transport = address.clone().with_usage(TransportUse::DATA_PLUS_CONTROL).into();
    session.handle_resolution(now, Ok(vec![PoolElement { user_transport, ..element(1) }]));
    drain(&mut session);
    let established =
        ConnectionEvent::Established { local: address.clone(), peer: address, identity: None };
    session.handle_connection(now, ConnectionId(1), &established);
    drain(&mut session);
    session.handle_sent(now);
    session.handle_timeout(now + Duration::from_millis(2300));
    drain(&mut session);
    // Once, it may be a registrar that has just started.
    let unknown = || Err(ResolveError::UnknownPool("Pool".parse().unwrap()));
    session.handle_resolution(now + Duration::from_millis(2300), unknown());
    assert_eq!(drain(&mut session), []);
    session.handle_timeout(now + Duration::from_millis(4600));
    drain(&mut session);
    session.handle_resolution(now + Duration::from_millis(4600), unknown());
    let outputs = drain(&mut session);
    let started = event(Event::FailoverStarted { from: PoolElementId(1) });
    assert_eq!(outputs[..2], [Output::Close { connection: ConnectionId(1), abort: true }, started]);
}

#[test]
fn elements_of_the_preferred_transport_come_first_and_others_after_them() {
    let over_sctp = |number: u8| {
        let address = TransportAddress::sctp(([127, 0, 0, 1], u16::from(number)).into());
        PoolElement { user_transport: address.into(), ..element(number) }
    };
    let elements = || Ok(vec![element(1), over_sctp(2), element(3)]);
    let both = [TransportProtocol::Tcp, TransportProtocol::Sctp];
    let tried = |config: SessionConfig, protocols: &[TransportProtocol]| {
        let now = World::default().now();
        let mut session = Session::new(config, protocols.iter().copied());
        session.start(now);
        assert_eq!(session.poll_output(), Some(open()));
        session.handle_resolution(now, elements());
        let mut ports = Vec::new();
        while let Some(Output::Connect { connection, to }) = session.poll_output() {
            ports.push(to.port);
            session.handle_connection(now, connection, &ConnectionEvent::Lost);
            assert!(matches!(session.poll_output(), Some(Output::Report(_))));
        }
        ports
    };
    let preferring = |protocol| SessionConfig::default().preferred_transport(protocol);
    assert_eq!(tried(SessionConfig::default(), &both), [1, 3, 2]);
    assert_eq!(tried(preferring(TransportProtocol::Sctp), &both), [2, 1, 3]);
    assert_eq!(tried(preferring(TransportProtocol::Udp), &both), [1, 3, 2], "it is not in use");
    assert_eq!(tried(SessionConfig::default(), &both[1..]), [2]);
}

#[test]
fn what_is_unknown_on_the_control_channel_is_answered_as_its_high_bits_ask() {
    let mut fixture = Fixture::new();
    fixture.resolved(&[1]);
    fixture.established(1);
    let mut told = |bytes: &'static [u8]| {
        let message = UserMessage::new(Ppid::ASAP, bytes);
        fixture.session.handle_message(fixture.now, ConnectionId(1), message);
        let outputs = fixture.outputs();
        outputs.into_iter().find_map(|output| match output {
            Output::Send { connection: ConnectionId(1), message } => {
                let body = asap::Message::decode(&message.payload).unwrap().body;
                let asap::Body::Error(error) = body else { panic!("{body:?}") };
                Some(error.error.causes[0].clone())
            }
            _ => None,
        })
    };
    // Messages of unknown type: the high bits 01 ask for a report, 00 do not.
    let unknown = ErrorCause::UnrecognizedMessage(Bytes::from_static(b"\x42\0\0\x04"));
    assert_eq!(told(b"\x42\0\0\x04"), Some(unknown));
    assert_eq!(told(b"\x3e\0\0\x04"), None);
    // A cookie and then a parameter of unknown type: with the high bits 11, the receiver continues
    // and reports it; with 00, the receiver stops and does not report it.
    let cookie = |session: &Session| session.cookie().cloned();
    let unknown = ErrorCause::UnrecognizedParameter(Bytes::from_static(b"\xc0\xff\0\x04"));
    assert_eq!(told(b"\x0b\0\0\x10\0\x0d\0\x05\x01\0\0\0\xc0\xff\0\x04"), Some(unknown));
    assert_eq!(told(b"\x0b\0\0\x10\0\x0d\0\x05\x02\0\0\0\x00\xff\0\x04"), None);
    // An error message never causes an error message in return.
    assert_eq!(told(b"\x0e\0\0\x04"), None);
    assert_eq!(cookie(&fixture.session), Some(Bytes::from_static(&[1])));
}
