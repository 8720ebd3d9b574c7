//! Tests single messages and actions of elements and users (RFC 5352). The test acts as their
//! registrar.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rserpool_proto::element::{self, ElementConfig};
use rserpool_proto::registrar::{Registrar, RegistrarConfig};
use rserpool_proto::testing::by_hand::registration;
use rserpool_proto::testing::echo_pool::{handle, hunt, new_element, new_user, service};
use rserpool_proto::testing::world::{World, address};
use rserpool_proto::user::{self, ResolveError, ResolveOptions, UserConfig};
use rserpool_proto::wire::asap::{self, Body, Resolved};
use rserpool_proto::wire::{
    ErrorCause, PoolElement, PoolElementId, PoolHandle, Ppid, RegistrarId, TransportAddress,
    UserMessage,
};
use rserpool_proto::{
    Compatibility, ConnectionEvent, ConnectionId, Element, HuntConfig, Machine, Output, User,
};

const SECOND: Duration = Duration::from_secs(1);

/// A machine whose outputs are recorded for the test.
struct Watched<M: Machine> {
    machine: M,
    now: Instant,
    /// Connection attempts whose outcome has not been reported.
    dialled: Vec<ConnectionId>,
    sent: Vec<(ConnectionId, Body)>,
    closed: BTreeSet<ConnectionId>,
    events: Vec<M::Event>,
}

impl<M: Machine> Watched<M> {
    fn new(machine: M) -> Self {
        let now = World::default().now();
        let (dialled, sent, events) = Default::default();
        let mut watched = Self { machine, now, dialled, sent, closed: BTreeSet::new(), events };
        watched.act(|machine, now| machine.start(now));
        watched
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut M, Instant) -> R) -> R {
        let result = act(&mut self.machine, self.now);
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Connect { connection, .. } => self.dialled.push(connection),
                Output::Send { connection, message } => {
                    assert!(!self.closed.contains(&connection), "it is over");
                    let body = asap::Message::decode(&message.payload).unwrap().body;
                    self.sent.push((connection, body));
                }
                Output::Close { connection, .. } => {
                    self.dialled.retain(|dialled| *dialled != connection);
                    self.closed.insert(connection);
                }
                Output::Event(event) => self.events.push(event),
                Output::Addresses(_) => {}
                _ => panic!("it measures or announces something"),
            }
        }
        result
    }

    /// Reports to the machine that the registrar which it dialled first accepts the connection.
    fn accept(&mut self) -> ConnectionId {
        let connection = self.dialled.remove(0);
        let event =
            ConnectionEvent::Established { local: address(1), peer: address(0), identity: None };
        self.act(|machine, now| machine.handle_connection(now, connection, event));
        connection
    }

    /// Reports to the machine that a connection, or a connection attempt, failed.
    fn lose(&mut self, connection: ConnectionId) {
        self.dialled.retain(|dialled| *dialled != connection);
        self.closed.insert(connection);
        let event = ConnectionEvent::Lost;
        self.act(|machine, now| machine.handle_connection(now, connection, event));
    }

    fn hear(&mut self, from: ConnectionId, message: impl Into<asap::Message>) {
        let message = UserMessage::new(Ppid::ASAP, message.into().encode().unwrap());
        self.act(|machine, now| machine.handle_message(now, from, message));
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.machine.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.act(|machine, now| machine.handle_timeout(now));
        }
        self.now = end;
    }

    fn take_sent(&mut self) -> Vec<(ConnectionId, Body)> {
        std::mem::take(&mut self.sent)
    }
}

fn taken(identifier: PoolElementId) -> asap::RegistrationResponse {
    let pool_handle = handle();
    asap::RegistrationResponse { reject: false, pool_handle, identifier, error: None }
}

fn pool(elements: Vec<PoolElement>) -> asap::HandleResolutionResponse {
    let policy = Some("RoundRobin".parse().unwrap());
    let result = Resolved::Pool { policy, elements };
    asap::HandleResolutionResponse {
        subscribed: false,
        partial: false,
        pool_handle: handle(),
        result,
    }
}

fn member(identifier: u32, policy: &str) -> PoolElement {
    let element = registration("EchoPool", identifier).pool_element;
    PoolElement { policy: policy.parse().unwrap(), ..element }
}

#[test]
fn attempts_to_register_are_counted_anew_after_each_that_was_taken() {
    let mut element = Watched::new(new_element(1));
    let identifier = element.machine.identifier();
    let given_up = |element: &mut Watched<Element>| {
        let events = std::mem::take(&mut element.events);
        events.contains(&element::Event::NoRegistrar)
    };
    // The first attempt is not answered, the second one is.
    element.accept();
    element.run(SECOND * 5);
    assert!(!given_up(&mut element));
    let home = element.accept();
    element.hear(home, taken(identifier));
    // Since the second attempt was answered, the next one without an answer counts as the first
    // again.
    element.run(SECOND * 286);
    assert!(!given_up(&mut element));
    element.accept();
    element.run(SECOND * 5);
    assert!(given_up(&mut element), "and this was the second");
}

/// Returns an element that has registered, its identifier, and its connection to its home
/// registrar.
fn registered() -> (Watched<Element>, PoolElementId, ConnectionId) {
    let mut element = Watched::new(new_element(1));
    let identifier = element.machine.identifier();
    let home = element.accept();
    element.hear(home, taken(identifier));
    element.take_sent();
    (element, identifier, home)
}

#[test]
fn a_deregistration_without_an_answer_starts_over_with_another_registrar() {
    for answered in [true, false] {
        let (mut element, identifier, first) = registered();
        element.events.clear();
        element.act(|element, now| element.deregister(now));
        let deregistration = Body::from(asap::Deregistration { pool_handle: handle(), identifier });
        assert_eq!(element.take_sent(), [(first, deregistration.clone())]);
        element.run(SECOND * 5);
        assert!(element.closed.contains(&first) && element.events.is_empty());
        let second = element.accept();
        assert_eq!(element.take_sent(), [(second, deregistration)]);
        if answered {
            let (pool_handle, error) = (handle(), None);
            let response = asap::DeregistrationResponse { pool_handle, identifier, error };
            element.hear(second, response);
        }
        element.run(SECOND * 5);
        let departure = match answered {
            true => element::Departure::Confirmed,
            false => element::Departure::Unconfirmed,
        };
        let left = element::Event::Deregistered(departure);
        assert_eq!(element.events, [left], "at the latest after twice T3");
        assert_eq!(element.machine.poll_timeout(), None);
    }
}

#[test]
fn a_keep_alive_for_another_pool_or_element_is_discarded_in_silence() {
    let (mut element, identifier, home) = registered();
    let keep_alive = |pool_handle: PoolHandle, identifier| asap::EndpointKeepAlive {
        home: true,
        registrar: RegistrarId(9),
        pool_handle,
        identifier,
    };
    element.hear(home, keep_alive("Other".parse().unwrap(), Some(identifier)));
    element.hear(home, keep_alive(handle(), Some(PoolElementId(identifier.0 ^ 1))));
    assert_eq!(element.take_sent(), []);
    element.hear(home, keep_alive(handle(), Some(identifier)));
    let acknowledged = element.take_sent();
    assert!(matches!(acknowledged[0], (_, Body::EndpointKeepAliveAck(_))), "{acknowledged:?}");
}

#[test]
fn what_is_not_answered_goes_to_the_next_registrar_and_never_twice_to_one() {
    let mut user = Watched::new(new_user(&[0, 1]));
    let first = user.accept();
    let options = ResolveOptions::default();
    user.act(|user, now| user.resolve(now, handle(), &options));
    let asked = user.take_sent();
    assert!(matches!(asked[..], [(on, Body::HandleResolution(_))] if on == first), "{asked:?}");
    user.lose(first);
    // There is no registrar to send the report to.
    user.act(|user, now| user.report_unreachable(now, handle(), PoolElementId(7)));
    assert_eq!(user.take_sent(), []);
    user.run(SECOND);
    let second = user.accept();
    assert_ne!(first, second);
    let asked = user.take_sent();
    let both = [
        asked.iter().any(|(_, body)| matches!(body, Body::HandleResolution(_))),
        asked.iter().any(|(_, body)| matches!(body, Body::EndpointUnreachable(_))),
    ];
    assert_eq!((both, asked.len()), ([true; 2], 2), "{asked:?}");
    assert!(asked.iter().all(|(on, _)| *on == second));

    // The answer stops T1.
    assert!(user.machine.poll_timeout().is_some());
    user.hear(second, pool(vec![member(1, "RoundRobin")]));
    let resolved = user.events.iter();
    let resolved = resolved.filter(|event| matches!(event, user::Event::Resolved { .. }));
    assert_eq!(resolved.count(), 1);
    user.run(SECOND * 600);
    assert_eq!(user.take_sent(), []);
}

#[test]
fn a_registrar_has_as_long_to_answer_as_the_profile_says() {
    for (profile, request, registration) in
        [(Compatibility::All, 3, 5), (Compatibility::Rsplib, 3, 5), (Compatibility::Rfc, 15, 30)]
    {
        let hunt = || hunt(&[0]).compatibility(profile);
        let mut user = Watched::new(User::new(UserConfig::new(hunt()), 1));
        let home = user.accept();
        let options = ResolveOptions::default();
        user.act(|user, now| user.resolve(now, handle(), &options));
        user.run(SECOND * request - SECOND / 10);
        assert!(!user.closed.contains(&home), "{profile}: T1");
        user.run(SECOND / 5);
        assert!(user.closed.contains(&home), "{profile}: T1");

        let config = ElementConfig::new(handle(), service(), hunt());
        let mut element = Watched::new(Element::new(config, 1));
        let home = element.accept();
        element.run(SECOND * registration - SECOND / 10);
        assert!(!element.closed.contains(&home), "{profile}: T2");
        element.run(SECOND / 5);
        assert!(element.closed.contains(&home), "{profile}: T2");
    }
}

#[test]
fn a_connection_ends_the_search_and_a_failure_moves_it_on() {
    let mut user = Watched::new(new_user(&[0, 1, 2, 3, 4]));
    assert_eq!(user.dialled.len(), 3);
    // The first attempt fails, and a fourth registrar is dialled in its place.
    let failed = user.dialled[0];
    user.lose(failed);
    assert_eq!(user.dialled.len(), 3);
    let attempts: BTreeSet<_> = user.dialled.iter().copied().collect();
    let home = user.accept();
    let others: BTreeSet<_> = attempts.into_iter().filter(|attempt| *attempt != home).collect();
    assert!(user.closed.is_superset(&others), "the other attempts are given up");
    let next = user.machine.poll_timeout();
    let idle = Some(user.now + Duration::from_secs(30));
    assert_eq!(next, idle, "T5 is stopped; the connection ends when it is not needed");
}

#[test]
fn a_registrar_that_goes_on_announcing_itself_is_remembered() {
    for again in [false, true] {
        let hunt = HuntConfig::default().listen_for_announcements();
        let mut user = Watched::new(User::new(UserConfig::new(hunt), 5));
        let announce = |user: &mut Watched<User>| {
            let transports = vec![address(3)];
            let announce = asap::ServerAnnounce { registrar: RegistrarId(1), transports };
            let payload = asap::Message::from(announce).encode().unwrap();
            let message = UserMessage::new(Ppid::ASAP, payload);
            user.act(|user, now| user.handle_announcement(now, address(3), message));
        };
        announce(&mut user);
        let refuse = |user: &mut Watched<User>| {
            let attempts = std::mem::take(&mut user.dialled);
            attempts.iter().for_each(|attempt| user.lose(*attempt));
            attempts.len()
        };
        assert_eq!(refuse(&mut user), 1, "it is tried at once");
        let mut late = 0;
        for step in 1..=90 {
            user.run(SECOND / 10);
            if again && step == 40 {
                announce(&mut user);
            }
            let tried = refuse(&mut user);
            if step > 50 {
                late += tried;
            }
        }
        // An announcement is valid for T7, which is 5 s.
        assert_eq!(late > 0, again, "tried {late} times later than 5 s after the first");
    }
}

#[test]
fn a_registrar_counts_the_announcements_of_others() {
    let announced = |others: u32| {
        let mut world = World::default();
        let config = RegistrarConfig::default().identifier(RegistrarId(1)).announce([address(0)]);
        let node = world.registrar(Registrar::new(config, 1));
        for _ in 0..240 {
            for other in 0..others {
                let (registrar, transports) = (RegistrarId(100 + other), Vec::new());
                let announce = asap::ServerAnnounce { registrar, transports };
                let payload = asap::Message::from(announce).encode().unwrap();
                let message = UserMessage::new(Ppid::ASAP, payload);
                world.with_registrar_mut(node, |registrar, now| {
                    registrar.handle_announcement(now, address(50), message);
                });
            }
            world.run(SECOND / 4);
        }
        world.announced.len()
    };
    // The interval is 1 s, or N+1 seconds with N other registrars.
    assert!((59..=61).contains(&announced(0)), "{}", announced(0));
    assert!((18..=21).contains(&announced(2)), "{}", announced(2));
}

#[test]
fn a_user_takes_an_error_for_what_it_is() {
    let mut user = Watched::new(new_user(&[0]));
    let home = user.accept();
    user.take_sent();
    let error = || asap::Error { error: ErrorCause::UnrecognizedMessage("?".into()).into() };
    user.hear(home, error());
    assert_eq!(user.take_sent(), []);
    let options = ResolveOptions::default();
    user.act(|user, now| user.resolve(now, handle(), &options));
    user.hear(home, error());
    let answered = |event: &user::Event| matches!(event, user::Event::Resolved { .. });
    assert!(!user.events.iter().any(answered));
    user.hear(home, pool(vec![member(1, "RoundRobin")]));
    let answer = user.events.pop();
    assert!(matches!(answer, Some(user::Event::Resolved { result: Ok(_), .. })), "{answer:?}");
}

#[test]
fn an_answer_is_used_as_it_came_whatever_policies_its_elements_have() {
    let mut user = Watched::new(new_user(&[0]));
    let home = user.accept();
    let options = ResolveOptions::default();
    user.act(|user, now| user.resolve(now, handle(), &options));
    let elements = [member(1, "LeastUsed:9"), member(2, "RoundRobin"), member(3, "RoundRobin")];
    user.hear(home, pool(elements.to_vec()));
    match user.events.pop() {
        Some(user::Event::Resolved { result: Ok(resolved), .. }) => {
            let resolved: Vec<_> = resolved.iter().map(|element| element.identifier.0).collect();
            assert_eq!(resolved, [1, 2, 3]);
        }
        other => panic!("{other:?}"),
    }
    let none = asap::HandleResolutionResponse {
        result: Resolved::Error(ErrorCause::UnknownPoolHandle.into()),
        ..pool(Vec::new())
    };
    user.act(|user, now| user.resolve(now, handle(), &options));
    user.hear(home, none);
    assert!(matches!(
        user.events.pop(),
        Some(user::Event::Resolved { result: Err(ResolveError::UnknownPool(_)), .. })
    ));
}

#[test]
fn a_registrar_that_announces_itself_is_tried_beside_those_that_hang() {
    let hunt = HuntConfig::new([address(0)]).listen_for_announcements();
    let mut user = Watched::new(User::new(UserConfig::new(hunt), 5));
    assert_eq!(user.dialled.len(), 1, "it hangs");
    let announce = |user: &mut Watched<User>, host| {
        let announce = asap::ServerAnnounce { registrar: RegistrarId(1), transports: vec![] };
        let payload = asap::Message::from(announce).encode().unwrap();
        let message = UserMessage::new(Ppid::ASAP, payload);
        user.act(|user, now| user.handle_announcement(now, address(host), message));
    };
    for (host, attempts) in [(1, 2), (1, 2), (0, 2), (2, 3), (3, 3)] {
        announce(&mut user, host);
        assert_eq!(user.dialled.len(), attempts, "host {host}");
    }
    // After a second, the first attempt is given up, to make room for the fourth address.
    let first = user.dialled[0];
    user.run(SECOND);
    assert!(user.closed.contains(&first));
}

#[test]
fn one_sctp_endpoint_that_announces_several_addresses_is_dialled_once() {
    let at = |host: u8, port| TransportAddress::sctp(([10, 0, host, 1], port).into());
    let hunt = HuntConfig::default().listen_for_announcements();
    let mut user = User::new(UserConfig::new(hunt), 5);
    let now = World::default().now();
    user.start(now);
    let mut dialled = |source: TransportAddress, transports| {
        let announce = asap::ServerAnnounce { registrar: RegistrarId(1), transports };
        let payload = asap::Message::from(announce).encode().unwrap();
        user.handle_announcement(now, source, UserMessage::new(Ppid::ASAP, payload));
        let outputs = std::iter::from_fn(|| user.poll_output());
        let dialled = outputs.filter_map(|output| match output {
            Output::Connect { to, .. } => Some(to),
            _ => None,
        });
        dialled.collect::<Vec<_>>()
    };
    let mut both = at(1, 4000);
    both.addresses.extend(at(2, 4000).addresses.iter().copied());
    assert_eq!(dialled(at(9, 1), vec![at(1, 4000), at(2, 4000)]), [both]);
    assert_eq!(dialled(at(9, 1), vec![at(3, 4000)]), [], "a third address of the same");
    assert_eq!(dialled(at(9, 1), vec![at(1, 5000)]), [at(1, 5000)], "another port is another");
}

#[test]
fn an_element_follows_its_home_to_another_connection() {
    let (mut element, identifier, home) = registered();
    let keep_alive = |home| asap::EndpointKeepAlive {
        home,
        registrar: RegistrarId(9),
        pool_handle: handle(),
        identifier: Some(identifier),
    };
    element.hear(home, keep_alive(false));
    element.take_sent();
    // The registrar has lost the connection to the element, and makes another one.
    let other = element.act(|element, now| element.accept(now, Ppid::ASAP, address(0), None));
    element.hear(other, keep_alive(true));
    assert!(element.closed.contains(&home));
    let sent = element.take_sent();
    assert!(sent.iter().all(|(on, _)| *on == other), "{sent:?}");
    assert!(sent.iter().any(|(_, body)| matches!(body, Body::Registration(_))), "{sent:?}");
}

#[test]
fn t5_doubles_up_to_retran_max() {
    // There is one registrar, which does not answer.
    let mut element = Watched::new(new_element(1));
    let mut waits = Vec::new();
    for _ in 0..6 {
        let attempt = element.dialled[0];
        let mut waited = 0;
        while element.dialled == [attempt] {
            element.run(SECOND);
            waited += 1;
            assert!(waited < 100, "{waits:?}");
        }
        // The next attempt may follow after a pause.
        while element.dialled.is_empty() {
            element.run(SECOND);
        }
        waits.push(waited);
    }
    assert_eq!(waits, [10, 20, 40, 60, 60, 60], "in seconds");
}

#[test]
fn refusals_are_answers_and_no_attempts_in_vain() {
    let mut element = Watched::new(new_element(1));
    let identifier = element.machine.identifier();
    let home = element.accept();
    for _ in 0..10 {
        let refusal = asap::RegistrationResponse {
            reject: true,
            pool_handle: handle(),
            identifier,
            error: Some(ErrorCause::LackOfResources.into()),
        };
        element.take_sent();
        element.hear(home, refusal);
        while !element.take_sent().iter().any(|(_, body)| matches!(body, Body::Registration(_))) {
            element.run(SECOND);
        }
        assert!(!element.closed.contains(&home), "it stays with who answers");
    }
    assert!(!element.events.contains(&element::Event::NoRegistrar), "{:?}", element.events);
}
