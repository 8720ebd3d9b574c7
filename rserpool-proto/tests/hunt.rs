//! Tests how elements and users search for a registrar (RFC 5352 section 3.6).
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool_proto::element;
use rserpool_proto::registrar::RegistrarConfig;
use rserpool_proto::testing::echo_pool::{
    element_config, handle, new_element, new_registrar, new_user, resolve,
};
use rserpool_proto::testing::world::{Event, NodeId, World, address};
use rserpool_proto::user::{self, ResolveError, ResolveOptions, UserConfig};
use rserpool_proto::wire::{Ppid, RegistrarId, TransportAddress, UserMessage, asap};
use rserpool_proto::{
    Compatibility, ConnectionEvent, Element, HuntConfig, Machine, Output, Registrar, User,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn element_and_user_move_on_when_their_registrar_is_gone() {
    let mut world = World::default();
    let first = world.registrar(new_registrar());
    let second = world.registrar(new_registrar());
    world.pause(second);
    let element = world.element(Element::new(element_config(&[first, second]), 1));
    let user = world.user(new_user(&[first, second]));
    world.run(SECOND);
    assert_eq!(world.elements(first), 1);
    world.resume(second);
    world.kill(first);
    world.run(SECOND);
    assert_eq!(world.elements(second), 1);
    assert!(matches!(
        world.take_events(element).as_slice(),
        [
            Event::Element(element::Event::Registered { .. }),
            Event::Element(element::Event::RegistrarLost),
            Event::Element(element::Event::Registered { .. }),
        ]
    ));
    assert_eq!(resolve(&mut world, user).unwrap().len(), 1);
}

#[test]
fn a_registrar_that_hangs_is_left() {
    let mut world = World::default();
    let first = world.registrar(new_registrar());
    let second = world.registrar(new_registrar());
    world.pause(second);
    world.element(Element::new(element_config(&[first, second]), 1));
    let user = world.user(new_user(&[first, second]));
    world.run(SECOND);
    world.resume(second);
    world.pause(first);
    let options = ResolveOptions::default();
    world.with_user(user, |user, now| user.resolve(now, handle(), &options));
    world.run(SECOND * 100);
    assert_eq!(world.elements(second), 1, "its renewal was not answered");
    assert_eq!(resolve(&mut world, user).unwrap().len(), 1);
}

#[test]
fn a_registrar_that_comes_late_is_found() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    world.kill(registrar);
    world.element(new_element(1));
    let user = world.user(new_user(&[registrar]));
    let options = ResolveOptions::default();
    world.with_user(user, |user, now| user.resolve(now, handle(), &options));
    world.run(SECOND * 20);
    assert!(world.take_events(user).iter().any(|event| matches!(
        event,
        Event::User(user::Event::Resolved { result: Err(ResolveError::NoRegistrar(at)), .. })
            if *at == [address(registrar)]
    )));
    world.resume(registrar);
    world.run(SECOND * 11);
    assert_eq!(world.elements(registrar), 1);
    assert_eq!(resolve(&mut world, user).unwrap().len(), 1);
}

/// Tests that a search goes on with the registrars that a program sets anew, whether it pauses or
/// waits for answers, and that a home registrar is kept.
#[test]
fn registrars_are_replaced_while_they_are_searched_for() {
    for old in [None, Some(false), Some(true)] {
        let mut world = World::default();
        let [dead, registrar] = [(); 2].map(|()| world.registrar(new_registrar()));
        match old {
            // Nobody answers, or it is refused.
            Some(true) => world.pause(dead),
            _ => world.kill(dead),
        }
        let known: &[NodeId] = if old.is_some() { &[dead] } else { &[] };
        let user = world.user(new_user(known));
        let options = ResolveOptions::default();
        world.with_user(user, |user, now| user.resolve(now, handle(), &options));
        world.run(SECOND * 2);
        let is_found = |event: &Event| matches!(event, Event::User(user::Event::RegistrarFound(_)));
        assert!(!world.take_events(user).iter().any(is_found));
        world.with_user(user, |user, now| user.set_registrars(now, vec![address(registrar)]));
        world.run(SECOND / 10);
        assert!(world.take_events(user).iter().any(is_found), "{old:?}");
        world.with_user(user, |user, now| user.set_registrars(now, vec![address(dead)]));
        world.run(SECOND * 5);
        let lost = |event: &Event| matches!(event, Event::User(user::Event::RegistrarLost));
        assert!(!world.take_events(user).iter().any(lost));
    }
}

#[test]
fn a_hunt_asks_three_registrars_at_a_time() {
    let mut world = World::default();
    for _ in 0..5 {
        let registrar = world.registrar(new_registrar());
        world.pause(registrar);
    }
    let now = world.now();
    let mut user = new_user(&[0, 1, 2, 3, 4]);
    user.start(now);
    let connects = |user: &mut User| {
        std::iter::from_fn(|| user.poll_output())
            .filter(|output| matches!(output, Output::Connect { .. }))
            .count()
    };
    assert_eq!(connects(&mut user), 3);
    let timeout = user.poll_timeout().unwrap();
    assert_eq!(timeout, now + SECOND, "others wait for their turn");
    user.handle_timeout(timeout);
    assert_eq!(connects(&mut user), 2, "those that it did not ask before");
    assert_eq!(user.poll_timeout().unwrap(), timeout + SECOND * 10, "T5");
    user.handle_timeout(timeout + SECOND * 10);
    assert_eq!(connects(&mut user), 3, "all are asked again");
    user.handle_timeout(timeout + SECOND * 11);
    assert_eq!(connects(&mut user), 2);
    assert_eq!(user.poll_timeout().unwrap(), timeout + SECOND * 31, "T5 doubles");
}

#[test]
fn registrars_announce_themselves_and_are_found_by_it() {
    let mut world = World::default();
    let config = RegistrarConfig::default().identifier(RegistrarId(1)).announce([address(0)]);
    world.registrar(Registrar::new(config, 1));
    world.run(Duration::from_millis(3500));
    assert_eq!(world.announced.len(), 4);
    let (_, _, message) = world.announced[0].clone();
    let element = world.element(Element::new(element_config(&[]), 1));
    world.run(SECOND);
    assert_eq!(world.elements(0), 0);
    world.with_element(element, |element, now| {
        element.handle_announcement(now, address(9), message);
    });
    world.run(Duration::ZERO);
    assert_eq!(world.elements(0), 1);
}

#[test]
fn an_announcement_without_addresses_is_understood_as_the_profile_has_it() {
    for (profile, port) in Compatibility::ALL.into_iter().zip([4000, 4000, 3863]) {
        let now = World::default().now();
        let hunt = HuntConfig::default().compatibility(profile).listen_for_announcements();
        let mut user = User::new(UserConfig::new(hunt), 5);
        user.start(now);
        while user.poll_output().is_some() {}
        let source = TransportAddress { port: 4000, ..address(3) };
        let announce = asap::ServerAnnounce { registrar: RegistrarId(1), transports: vec![] };
        let payload = asap::Message::from(announce).encode().unwrap();
        user.handle_announcement(now, source, UserMessage::new(Ppid::ASAP, payload));
        let expected = TransportAddress { port, ..address(3) };
        match user.poll_output() {
            Some(Output::Connect { to, .. }) => assert_eq!(to, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_registrar_that_accepts_and_hangs_up_is_not_dialled_without_pause() {
    let now = World::default().now();
    let mut element = new_element(1);
    element.start(now);
    let connect = |element: &mut Element| {
        std::iter::from_fn(|| element.poll_output()).find_map(|output| match output {
            Output::Connect { connection, .. } => Some(connection),
            _ => None,
        })
    };
    let mut time = now;
    let mut pauses = Vec::new();
    for _ in 0..75 {
        let before = time;
        let connection = connect(&mut element).expect("it looks for a registrar");
        let event =
            ConnectionEvent::Established { local: address(1), peer: address(0), identity: None };
        element.handle_connection(time, connection, event);
        assert_eq!(connect(&mut element), None);
        element.handle_connection(time, connection, ConnectionEvent::Closed);
        assert_eq!(connect(&mut element), None, "not at once");
        time = element.poll_timeout().unwrap();
        element.handle_timeout(time);
        pauses.push((time - before).as_millis());
    }
    assert_eq!(pauses[..4], [250, 500, 1000, 1000], "at most 1 s in the first minute");
    assert_eq!(pauses[61..67], [1000, 1000, 2000, 4000, 8000, 10_000], "then up to T5");
}
