//! Registrar, elements and users in virtual time (RFC 5352 section 3).
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool_proto::element::{self, ElementConfig};
use rserpool_proto::registrar::{self, RegistrarConfig, RemovalReason};
use rserpool_proto::testing::by_hand::{self, send_asap as send};
use rserpool_proto::testing::echo_pool::{
    element_config, handle, hunt, new_element, new_registrar, new_user, resolve, resolve_with,
    service,
};
use rserpool_proto::testing::world::{Event, NodeId, World, address};
use rserpool_proto::user::{self, ResolveError, ResolveOptions, UserConfig};
use rserpool_proto::wire::enrp::{HandleUpdate, Route, UpdateAction};
use rserpool_proto::wire::parameter::ItemCount;
use rserpool_proto::wire::{
    Bytes, ErrorCause, PolicyParameters, PolicyType, PoolElement, PoolElementId, PoolHandle, Ppid,
    RegistrarId, RegistrationLife, TransportAddress, TransportProtocol, UserMessage, UserTransport,
    asap,
};
use rserpool_proto::{Compatibility, ConnectionEvent, Element, Machine, Output, Registrar, User};

const SECOND: Duration = Duration::from_secs(1);

fn removals(world: &mut World, registrar: NodeId) -> Vec<RemovalReason> {
    let events = world.take_events(registrar);
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::Registrar(registrar::Event::Removed(_, reason, _)) => Some(reason),
            _ => None,
        })
        .collect()
}

fn answers(world: &mut World) -> Vec<asap::Body> {
    let received = std::mem::take(&mut world.received);
    received
        .into_iter()
        .map(|(_, message)| asap::Message::decode(&message.payload).unwrap().body)
        .collect()
}

fn registration(identifier: u32) -> asap::Registration {
    by_hand::registration("EchoPool", identifier)
}

#[test]
fn elements_register_and_are_resolved_in_turn() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    for seed in 1..=3 {
        world.element(new_element(seed));
    }
    let user = world.user(new_user(&[registrar]));
    world.run(SECOND);
    assert_eq!(world.elements(registrar), 3);
    let first = resolve(&mut world, user).unwrap();
    let second = resolve(&mut world, user).unwrap();
    assert_eq!(first.len(), 3);
    assert_eq!(second, [first[1], first[2], first[0]]);
}

#[test]
fn registrations_are_renewed_and_outlive_their_lifetime() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let element = world.element(new_element(1));
    world.run(SECOND * 1000);
    assert_eq!(world.elements(registrar), 1);
    assert!(matches!(
        world.take_events(element).as_slice(),
        [Event::Element(element::Event::Registered { .. })]
    ));
}

#[test]
fn an_element_that_leaves_is_gone_at_once() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let element = world.element(new_element(1));
    let user = world.user(new_user(&[registrar]));
    world.run(SECOND);
    world.with_element(element, |element, now| element.deregister(now));
    world.run(Duration::ZERO);
    assert_eq!(
        world.take_events(element).last(),
        Some(&Event::Element(element::Event::Deregistered(element::Departure::Confirmed)))
    );
    assert_eq!(removals(&mut world, registrar), [RemovalReason::Deregistered]);
    assert_eq!(resolve(&mut world, user), Err(ResolveError::UnknownPool(handle())));
}

#[test]
fn a_killed_element_is_gone_at_once() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let element = world.element(new_element(1));
    world.run(SECOND);
    world.kill(element);
    world.run(Duration::ZERO);
    assert_eq!(removals(&mut world, registrar), [RemovalReason::Unreachable]);
}

#[test]
fn an_element_whose_connection_breaks_is_asked_and_stays() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let element = world.element(new_element(1));
    world.run(SECOND);
    world.disconnect(element);
    world.run(SECOND * 300);
    assert_eq!(world.elements(registrar), 1);
    assert_eq!(removals(&mut world, registrar), []);
}

#[test]
fn a_silent_element_is_removed_and_comes_back_when_it_wakes() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let element = world.element(new_element(1));
    world.run(SECOND);
    world.pause(element);
    // There are at most 7.5 s until the next keep-alive, and the element has 5 s to answer.
    world.run(SECOND * 13);
    assert_eq!(removals(&mut world, registrar), [RemovalReason::KeepAliveTimeout]);
    assert_eq!(world.elements(registrar), 0);
    world.resume(element);
    world.run(SECOND);
    assert_eq!(world.elements(registrar), 1);
}

#[test]
fn keep_alives_are_spread_over_time() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let on = world.connect(registrar);
    let mut lasting = registration(7);
    lasting.pool_element.registration_life = RegistrationLife::INFINITE;
    send(&mut world, on, lasting);
    let mut gaps = std::collections::BTreeSet::new();
    for _ in 0..20 {
        world.received.clear();
        let mut gap = 0;
        while world.received.is_empty() {
            world.run(Duration::from_millis(10));
            gap += 10;
        }
        assert!((2500..=7510).contains(&gap), "{gap} ms");
        gaps.insert(gap);
        let ack =
            asap::EndpointKeepAliveAck { pool_handle: handle(), identifier: PoolElementId(7) };
        send(&mut world, on, ack);
    }
    assert!(gaps.len() > 15);
}

#[test]
fn a_registration_that_is_not_renewed_expires_and_its_element_is_told() {
    let mut world = World::default();
    let config = RegistrarConfig::default()
        .identifier(RegistrarId(1))
        .keep_alive_interval(SECOND * 1000)
        .keep_alive_timeout(SECOND);
    let registrar = world.registrar(Registrar::new(config, 1));
    let on = world.connect(registrar);
    send(&mut world, on, registration(7));
    world.run(SECOND * 89);
    assert_eq!(world.elements(registrar), 1);
    answers(&mut world);
    world.run(SECOND * 2);
    assert_eq!(removals(&mut world, registrar), [RemovalReason::Expired]);
    assert!(matches!(
        answers(&mut world).as_slice(),
        [asap::Body::DeregistrationResponse(asap::DeregistrationResponse { error: None, .. })]
    ));
}

#[test]
fn what_answers_stays_however_many_report_it() {
    let mut world = World::default();
    let config = RegistrarConfig::default().identifier(RegistrarId(1)).max_bad_pe_reports(2);
    let registrar = world.registrar(Registrar::new(config, 1));
    let element = world.element(new_element(1));
    world.run(SECOND);
    let identifier = world.with_element(element, |element, _| element.identifier());
    let report = || asap::EndpointUnreachable { pool_handle: handle(), identifier };
    for host in 50..90 {
        let user = world.connect_from(host, Ppid::ASAP, registrar);
        send(&mut world, user, report());
    }
    world.run(SECOND * 10);
    assert_eq!(removals(&mut world, registrar), []);
    assert_eq!(world.elements(registrar), 1);
}

#[test]
fn what_many_hosts_report_has_a_second_to_answer_and_many_connections_of_one_are_one() {
    for (hosts, patience) in [(vec![50, 51, 52], SECOND), (vec![50; 9], SECOND * 5)] {
        let mut world = World::default();
        let config = RegistrarConfig::default().identifier(RegistrarId(1)).max_bad_pe_reports(2);
        let registrar = world.registrar(Registrar::new(config, 1));
        let element = world.element(new_element(1));
        world.run(SECOND);
        let identifier = world.with_element(element, |element, _| element.identifier());
        world.pause(element);
        for host in hosts {
            let user = world.connect_from(host, Ppid::ASAP, registrar);
            let report = asap::EndpointUnreachable { pool_handle: handle(), identifier };
            send(&mut world, user, report);
        }
        world.run(patience - SECOND / 10);
        assert_eq!(removals(&mut world, registrar), []);
        world.run(SECOND / 5);
        assert_eq!(removals(&mut world, registrar).len(), 1);
        // The element is alive after all: it was told that it was removed, and registers again at
        // once.
        world.resume(element);
        world.run(Duration::ZERO);
        assert_eq!(world.elements(registrar), 1);
    }
}

#[test]
fn a_report_finds_a_silent_element_before_its_next_keep_alive() {
    let mut world = World::default();
    let config = RegistrarConfig::default()
        .identifier(RegistrarId(1))
        .keep_alive_interval(SECOND * 1000)
        .keep_alive_timeout(SECOND * 5);
    let registrar = world.registrar(Registrar::new(config, 1));
    let element = world.element(new_element(1));
    let user = world.user(new_user(&[registrar]));
    world.run(SECOND);
    let identifier = world.with_element(element, |element, _| element.identifier());
    world.pause(element);
    world.with_user(user, |user, now| user.report_unreachable(now, handle(), identifier));
    world.run(SECOND * 6);
    assert_eq!(removals(&mut world, registrar), [RemovalReason::KeepAliveTimeout]);
}

#[test]
fn what_does_not_fit_the_pool_is_refused_with_the_cause_of_the_rfc() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let on = world.connect(registrar);
    let refusal = |world: &mut World, body: asap::Registration| {
        send(world, on, body);
        match answers(world).pop() {
            Some(asap::Body::RegistrationResponse(response)) if response.reject => {
                response.error.unwrap().causes[0].clone()
            }
            other => panic!("{other:?}"),
        }
    };
    send(&mut world, on, registration(7));
    answers(&mut world);

    let mut policy = registration(8);
    policy.pool_element.policy = "LeastUsed:1".parse().unwrap();
    let expected = Bytes::from_static(&[0, 8, 0, 8, 0, 0, 0, 1]);
    assert_eq!(refusal(&mut world, policy), ErrorCause::InconsistentPolicy(expected));

    let mut foreign = registration(8);
    foreign.pool_element.user_transport =
        TransportAddress::tcp("10.0.0.1:7".parse().unwrap()).into();
    // The error cause quotes the invalid parameter (RFC 5354 section 3.12.3).
    let ErrorCause::InvalidValues(quoted) = refusal(&mut world, foreign) else { panic!() };
    assert_eq!(quoted[..], [0, 5, 0, 16, 0, 7, 0, 0, 0, 1, 0, 8, 10, 0, 0, 1]);

    let mut nameless = registration(8);
    nameless.pool_element.identifier = PoolElementId(0);
    assert!(matches!(refusal(&mut world, nameless), ErrorCause::InvalidValues(_)));

    for life in [0, -2, i32::MIN] {
        let mut lifeless = registration(8);
        lifeless.pool_element.registration_life = RegistrationLife(life);
        assert!(matches!(refusal(&mut world, lifeless), ErrorCause::InvalidValues(_)));
    }

    let mut huge = registration(8);
    huge.pool_element.policy = PolicyParameters::new(PolicyType::ROUND_ROBIN, &[0; 2000]);
    assert!(matches!(refusal(&mut world, huge), ErrorCause::InvalidValues(_)));

    let mut transport = registration(8);
    transport.pool_element.user_transport =
        TransportAddress::sctp("10.0.0.99:7".parse().unwrap()).into();
    assert!(matches!(refusal(&mut world, transport), ErrorCause::InconsistentTransport(_)));
    assert_eq!(world.elements(registrar), 1);
}

#[test]
fn nobody_takes_the_identifier_of_another_or_deregisters_it() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let element = world.element(new_element(1));
    world.run(SECOND);
    let identifier = world.with_element(element, |element, _| element.identifier());
    let on = world.connect(registrar);
    send(&mut world, on, registration(identifier.0));
    send(&mut world, on, asap::Deregistration { pool_handle: handle(), identifier });
    match answers(&mut world).as_slice() {
        [
            asap::Body::RegistrationResponse(registration),
            asap::Body::DeregistrationResponse(deregistration),
        ] => {
            assert!(registration.reject);
            let cause = &registration.error.as_ref().unwrap().causes[0];
            assert_eq!(cause, &ErrorCause::NonUniqueIdentifier);
            let cause = &deregistration.error.as_ref().unwrap().causes[0];
            assert_eq!(cause, &ErrorCause::Security);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.elements(registrar), 1);
    // An element that drew a taken identifier draws another.
    let config = element_config(&[registrar]);
    world.element(Element::new(config, 1));
    world.run(SECOND);
    assert_eq!(world.elements(registrar), 2);
}

#[test]
fn an_answer_has_as_many_elements_as_asked_for_within_limits() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let on = world.connect(registrar);
    for identifier in 1..=200 {
        send(&mut world, on, registration(identifier));
    }
    answers(&mut world);
    for (items, expected) in [(None, 32), (Some(1), 1), (Some(100), 100), (Some(1000), 128)] {
        let items = items.map(ItemCount);
        let request = asap::HandleResolution::new(handle());
        send(&mut world, on, asap::HandleResolution { items, ..request });
        match answers(&mut world).pop() {
            Some(asap::Body::HandleResolutionResponse(asap::HandleResolutionResponse {
                result: asap::Resolved::Pool { elements, .. },
                ..
            })) => assert_eq!(elements.len(), expected, "{items:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_cannot_be_recognised_does_not_get_the_element_of_another_registrar() {
    let mut world = World::default();
    let config = RegistrarConfig::default().identifier(RegistrarId(1)).enrp(address(0));
    let registrar = world.registrar(Registrar::new(config, 1));
    let enrp = world.connect_for(Ppid::ENRP, registrar);
    let opaque = |identifier, asap_transport| {
        let mut opaque = registration(identifier);
        opaque.pool_element.user_transport = UserTransport::Opaque(Bytes::from_static(b"here"));
        opaque.pool_element.asap_transport = asap_transport;
        opaque
    };
    // The first element has no address; the second has that of its ASAP endpoint.
    for (identifier, at, taken) in [(7, None, false), (8, Some(address(99)), true)] {
        let asap::Registration { pool_handle, pool_element } = opaque(identifier, at.clone());
        let update = HandleUpdate {
            takeover_suggested: false,
            route: Route { sender: RegistrarId(99), receiver: RegistrarId(0) },
            action: UpdateAction::Add,
            reserved: 0,
            pool_handle,
            pool_element: PoolElement { home_registrar: RegistrarId(99), ..pool_element },
        };
        by_hand::send_enrp(&mut world, enrp, update);
        let on = world.connect(registrar);
        send(&mut world, on, opaque(identifier, at));
        match by_hand::take_asap(&mut world, on).pop() {
            Some(asap::Body::RegistrationResponse(response)) => {
                assert_eq!(response.reject, !taken, "{response:?}");
            }
            other => panic!("{other:?}"),
        }
        let home = if taken { 1 } else { 99 };
        assert!(world.homes(registrar).contains(&(identifier, home)));
    }
}

#[test]
fn rubbish_is_answered_logged_once_and_harms_nobody() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    world.element(new_element(1));
    let user = world.user(new_user(&[registrar]));
    let on = world.connect(registrar);
    let rubbish: [&'static [u8]; 5] = [
        b"GET / HTTP/1.1\r\n",
        b"\x05",
        b"\x01\0\0\x08\0\x09\0\x03",
        b"\x42\0\0\x04",
        b"\x05\0\0\x14\0\x09\0\x04\x40\xff\0\x08abcd\0\0\0\0",
    ];
    for bytes in rubbish {
        world.send(on, UserMessage::new(Ppid::ASAP, bytes));
        match answers(&mut world).as_slice() {
            [asap::Body::Error(error)] => assert_eq!(error.error.causes.len(), 1),
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
    world.send(on, UserMessage::new(Ppid::ASAP, b"\x3f\0\0\x04".as_slice()));
    world.send(on, UserMessage::new(Ppid::ASAP, b"\x0e\0\0\x08\0\0\0\0".as_slice()));
    assert_eq!(answers(&mut world), []);
    let misbehaved =
        |event: &Event| matches!(event, Event::Registrar(registrar::Event::Misbehaved { .. }));
    assert_eq!(world.take_events(registrar).iter().filter(|event| misbehaved(event)).count(), 1);
    assert_eq!(resolve(&mut world, user).unwrap().len(), 1);
}

#[test]
fn users_may_be_silent_and_registrars_may_not() {
    let mut world = World::default();
    let registrar = world.join(1, &[]);
    world.connect(registrar);
    world.connect_for(Ppid::ENRP, registrar);
    world.run(SECOND * 9);
    assert_eq!(world.with_registrar(registrar).footprint().connections, 2);
    world.run(SECOND * 2);
    assert_eq!(world.with_registrar(registrar).footprint().connections, 1);
    world.run(SECOND * 1000);
    assert_eq!(world.with_registrar(registrar).footprint().connections, 1);
}

#[test]
fn the_cache_answers_until_it_is_stale_and_turns_by_itself() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    for seed in 1..=2 {
        world.element(new_element(seed));
    }
    let user = world.user(new_user(&[registrar]));
    world.run(SECOND);
    let fresh = resolve(&mut world, user).unwrap();
    world.element(new_element(3));
    world.run(SECOND);
    let options = ResolveOptions::default().max_age(SECOND * 10);
    let cached = resolve_with(&mut world, user, &options).unwrap();
    assert_eq!(cached, [fresh[1], fresh[0]], "the registrar is not asked");
    world.with_user(user, |user, now| user.report_unreachable(now, handle(), fresh[1]));
    assert_eq!(resolve_with(&mut world, user, &options).unwrap(), [fresh[0]]);
    world.run(SECOND * 11);
    let renewed = resolve_with(&mut world, user, &options).unwrap();
    assert_eq!(renewed.len(), 3, "a stale entry leads to a new resolution");
    // Without a registrar, a request gets the last answer if it allows that, and others wait.
    world.kill(registrar);
    world.run(SECOND * 11);
    world.with_user(user, |user, now| user.resolve(now, handle(), &options));
    let options = options.allow_stale(true);
    world.with_user(user, |user, now| user.resolve(now, handle(), &options));
    world.run(SECOND);
    let resolved = |event: Event| match event {
        Event::User(user::Event::Resolved { result, .. }) => Some(result.unwrap().len()),
        _ => None,
    };
    let events = world.take_events(user).into_iter().filter_map(resolved);
    assert_eq!(events.collect::<Vec<_>>(), [3]);
}

#[test]
fn under_the_profile_of_rsplib_nothing_is_sent_that_ends_it() {
    let mut world = World::default();
    let registrar =
        RegistrarConfig::default().identifier(RegistrarId(1)).compatibility(Compatibility::Rsplib);
    let registrar = world.registrar(Registrar::new(registrar, 1));
    let rsplib = || hunt(&[0]).compatibility(Compatibility::Rsplib);
    let long: PoolHandle = "x".repeat(33).parse().unwrap();
    let incompatible =
        |event: &Event| matches!(event, Event::Element(element::Event::Incompatible(_)));

    let element = Element::new(ElementConfig::new(long.clone(), service(), rsplib()), 1);
    let element = world.element(element);
    world.run(SECOND);
    assert!(world.take_events(element).iter().any(incompatible));
    let user = world.user(User::new(UserConfig::new(rsplib()), 5));
    world.with_user(user, |user, now| {
        user.resolve(now, long.clone(), &ResolveOptions::default());
        while user.poll_output().is_some_and(|output| {
            !matches!(
                output,
                Output::Event(user::Event::Resolved {
                    result: Err(ResolveError::Incompatible(_)),
                    ..
                })
            )
        }) {}
        user.report_unreachable(now, long.clone(), PoolElementId(1));
        let sent = std::iter::from_fn(|| user.poll_output())
            .any(|output| matches!(output, Output::Send { .. }));
        assert!(!sent);
    });

    let weighted = |weight: u32| format!("WeightedRandom:{weight}").parse().unwrap();
    let config = ElementConfig::new(handle(), service(), rsplib()).policy(weighted(1));
    let element = world.element(Element::new(config, 1));
    world.run(SECOND);
    assert_eq!(world.elements(registrar), 1);
    world.with_element(element, |element, now| element.set_policy(now, weighted(0)));
    world.run(SECOND);
    assert!(world.take_events(element).iter().any(incompatible));
    assert!(world.with_element(element, |element, _| element.is_registered()));

    // The registrar also refuses a registration with the long handle, since it would tell its
    // peers.
    let on = world.connect(registrar);
    let mut other = registration(7);
    other.pool_handle = long;
    send(&mut world, on, other);
    world.run(SECOND);
    assert_eq!(world.elements(registrar), 1);
}

#[test]
fn a_member_that_is_refused_comes_back_when_the_pool_lets_it() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let element = world.element(new_element(1));
    world.run(SECOND);
    // Another element creates the pool anew, with another policy, while the element is away.
    world.pause(element);
    world.run(SECOND * 20);
    assert_eq!(world.elements(registrar), 0);
    let on = world.connect(registrar);
    let mut other = registration(7);
    other.pool_element.policy = "LeastUsed:1".parse().unwrap();
    send(&mut world, on, other);
    world.resume(element);
    world.run(SECOND);
    let refused = |event: &Event| matches!(event, Event::Element(element::Event::Rejected(_)));
    assert!(world.take_events(element).iter().any(refused));
    let gone = asap::Deregistration { pool_handle: handle(), identifier: PoolElementId(7) };
    send(&mut world, on, gone);
    world.run(SECOND * 5);
    assert!(world.with_element(element, |element, _| element.is_registered()));
}

#[test]
fn elements_that_share_an_endpoint_share_the_connection_to_it() {
    let now = World::default().now();
    let mut registrar = new_registrar();
    registrar.start(now);
    let from = registrar.accept(now, Ppid::ASAP, address(99), None);
    let connects = |registrar: &mut Registrar| {
        std::iter::from_fn(|| registrar.poll_output())
            .filter(|output| matches!(output, Output::Connect { .. }))
            .count()
    };
    // There are more elements behind one endpoint than the maximum number of connections being made
    // at a time.
    for identifier in 1..=300 {
        let mut element = registration(identifier);
        element.pool_element.asap_transport = Some(address(99));
        let payload = asap::Message::from(element).encode().unwrap();
        registrar.handle_message(now, from, UserMessage::new(Ppid::ASAP, payload));
        assert_eq!(connects(&mut registrar), 0);
    }
    assert_eq!(registrar.elements(), 300);
    registrar.handle_connection(now, from, ConnectionEvent::Lost);
    assert_eq!(connects(&mut registrar), 1);
}

/// Tests that a keep-alive is repeated when its connection breaks, since the element may have
/// moved.
#[test]
fn an_element_whose_connection_breaks_while_it_is_asked_stays() {
    let mut world = World::default();
    let config = RegistrarConfig::default()
        .identifier(RegistrarId(1))
        .keep_alive_interval(SECOND)
        .keep_alive_timeout(SECOND * 5);
    let registrar = world.registrar(Registrar::new(config, 1));
    let element = world.element(new_element(1));
    world.run(SECOND);
    world.pause(element);
    world.run(SECOND * 2);
    world.disconnect(element);
    world.resume(element);
    world.run(SECOND * 20);
    assert_eq!(removals(&mut world, registrar), []);
    assert_eq!(world.elements(registrar), 1);
}

#[test]
fn an_element_whose_addresses_change_registers_the_new_ones_and_is_believed() {
    let mut world = World::default();
    world.follows_addresses = true;
    let registrar = world.registrar(new_registrar());
    let host = world.hosts();
    let anywhere = TransportAddress::new(TransportProtocol::Sctp, "0.0.0.0:7".parse().unwrap());
    let config = ElementConfig::new(handle(), anywhere, hunt(&[registrar]));
    let element = world.element(Element::new(config, 1));
    let addresses = |world: &World| {
        let known = world.with_registrar(registrar).members().next();
        known.unwrap().1.user_transport.address().unwrap().addresses.to_vec()
    };
    world.run(SECOND);
    let [old, new] = [address(host), address(77)];
    assert_eq!(addresses(&world), old.addresses.to_vec());
    let both = TransportAddress {
        addresses: [&old, &new].map(|one| one.addresses[0]).into_iter().collect(),
        ..old
    };
    for now in [both, new] {
        world.readdress(element, now.clone());
        world.run(SECOND * 2);
        assert_eq!(addresses(&world), now.addresses.to_vec());
    }
    assert_eq!(removals(&mut world, registrar), []);
    let registered = world.take_events(element);
    assert_eq!(registered.len(), 1, "it stays a member: {registered:?}");
}

#[test]
fn a_registration_that_cannot_be_read_is_refused_as_a_registration() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let on = world.connect(registrar);
    let good = asap::Message::from(registration(8)).encode().unwrap();
    let element = good.windows(4).position(|bytes| bytes == [0, 0xa, 0, 0x38]).unwrap();
    let refused = |world: &mut World, bytes: Vec<u8>| {
        world.send(on, UserMessage::new(Ppid::ASAP, bytes));
        match answers(world).as_slice() {
            [asap::Body::RegistrationResponse(response)] => {
                assert!(response.reject);
                assert_eq!(
                    (&response.pool_handle, response.identifier),
                    (&handle(), PoolElementId(8))
                );
                response.error.clone().unwrap().causes[0].clone()
            }
            other => panic!("{other:?}"),
        }
    };
    // In turn: the policy has a parameter type that is unknown, first one to be reported and then
    // one that is not; the user transport has no address; a parameter follows the pool element.
    let policy = element + 16 + 16;
    for (at, bytes) in [(policy, [0x40, 0x77]), (policy, [0, 0x77])] {
        let mut bad = good.to_vec();
        bad[at..at + 2].copy_from_slice(&bytes);
        refused(&mut world, bad);
    }
    let mut bad = good.to_vec();
    bad[element + 16 + 11] = 7;
    assert!(matches!(refused(&mut world, bad), ErrorCause::InvalidValues(_)));
    let unknown = [&good[..], &[0x40, 0x77, 0, 4]].concat();
    let mut bad = unknown.clone();
    bad[3] += 4;
    let expected = ErrorCause::UnrecognizedParameter(Bytes::from_static(&[0x40, 0x77, 0, 4]));
    assert_eq!(refused(&mut world, bad), expected);
    // Without a handle or an identifier, a registration cannot be refused by a response.
    for length in 0..12 {
        let mut short = good[..length].to_vec();
        if let Some(field) = short.get_mut(2..4) {
            field.copy_from_slice(&(length as u16).to_be_bytes());
        }
        world.send(on, UserMessage::new(Ppid::ASAP, short));
        let answers = answers(&mut world);
        assert!(
            answers.iter().all(|answer| matches!(answer, asap::Body::Error(_))),
            "{length}: {answers:?}"
        );
    }
    assert_eq!(world.elements(registrar), 0);
}

#[test]
fn addresses_that_are_left_out_are_said() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let on = world.connect(registrar);
    let mut both = registration(8);
    let named = TransportAddress {
        addresses: [address(99), address(5)].map(|it| it.addresses[0]).into_iter().collect(),
        ..TransportAddress::sctp("10.0.0.99:7".parse().unwrap())
    };
    both.pool_element.user_transport = named.clone().into();
    for said in [true, false] {
        if !said {
            let own = TransportAddress { addresses: address(99).addresses, ..named.clone() };
            both.pool_element.user_transport = own.into();
        }
        send(&mut world, on, both.clone());
        match answers(&mut world).as_slice() {
            [asap::Body::RegistrationResponse(response)] => {
                assert!(!response.reject);
                let causes = response.error.clone().unwrap_or_default().causes;
                assert_eq!(causes.len(), usize::from(said));
                let invalid = |cause: &ErrorCause| matches!(cause, ErrorCause::InvalidValues(_));
                assert!(causes.iter().all(invalid), "{causes:?}");
            }
            other => panic!("{other:?}"),
        }
        let (_, element) = world.with_registrar(registrar).members().next().unwrap();
        let registered = element.user_transport.address().unwrap().addresses.to_vec();
        assert_eq!(registered, address(99).addresses.to_vec());
    }
}

#[test]
fn who_does_not_understand_a_keep_alive_is_asked_as_the_rfc_has_it() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let on = world.connect(registrar);
    send(&mut world, on, registration(8));
    let named = |world: &mut World| {
        let asked = answers(world).into_iter().find_map(|answer| match answer {
            asap::Body::EndpointKeepAlive(asked) => Some(asked.identifier.is_some()),
            _ => None,
        });
        asked.expect("a keep-alive")
    };
    world.run(SECOND * 8);
    assert!(named(&mut world));
    let error = || asap::Error { error: ErrorCause::InvalidValues(Bytes::new()).into() };
    send(&mut world, on, error());
    assert!(!named(&mut world), "at once");
    // The keep-alive names no element; the only element of the pool answers.
    let answer =
        || asap::EndpointKeepAliveAck { pool_handle: handle(), identifier: PoolElementId(8) };
    for _ in 0..3 {
        send(&mut world, on, answer());
        answers(&mut world);
        world.run(SECOND * 8);
        assert!(!named(&mut world), "and from now on");
    }
    send(&mut world, on, answer());
    assert_eq!(removals(&mut world, registrar), []);
    // An error message does not answer the keep-alive, and does not make the registrar send another
    // one.
    world.run(SECOND * 8);
    answers(&mut world);
    for _ in 0..3 {
        send(&mut world, on, error());
    }
    assert_eq!(answers(&mut world), []);
    world.run(SECOND * 6);
    assert_eq!(removals(&mut world, registrar), [RemovalReason::KeepAliveTimeout]);
}

#[test]
fn lengths_are_by_the_letter_where_that_is_asked_for() {
    for profile in Compatibility::ALL {
        let mut world = World::default();
        let config =
            RegistrarConfig::default().identifier(RegistrarId(1)).ready_after(Duration::ZERO);
        let registrar = world.registrar(Registrar::new(config.compatibility(profile), 1));
        let on = world.connect(registrar);
        send(&mut world, on, by_hand::registration("Hello", 8));
        world.received.clear();
        world.run(SECOND * 8);
        let (_, asked) = world.received.first().expect("a keep-alive");
        let length = u16::from_be_bytes([asked.payload[2], asked.payload[3]]);
        // Header, registrar, the handle with 9 bytes and 3 of padding, and the element.
        let expected = if profile == Compatibility::Rfc { 17 } else { 28 };
        assert_eq!(length, expected, "{profile}");
        assert_eq!(asked.payload.len() % 4, 0);
    }
}

#[test]
fn a_claim_that_waits_is_older_than_what_the_owner_says() {
    let mut world = World::default();
    let registrar = world.registrar(new_registrar());
    let [owner, claimant] = [world.connect(registrar), world.connect(registrar)];
    let with_load = |load: u32| {
        let mut with_load = registration(8);
        with_load.pool_element.policy = PolicyParameters::least_used(load);
        with_load
    };
    send(&mut world, owner, with_load(1));
    send(&mut world, claimant, with_load(2));
    send(&mut world, owner, with_load(3));
    world.run(SECOND * 3);
    let (_, element) = world.with_registrar(registrar).members().next().unwrap();
    assert_eq!(element.policy, PolicyParameters::least_used(3));
}

#[test]
fn identifiers_are_drawn_and_never_zero() {
    let identifier = |seed| Registrar::new(RegistrarConfig::default(), seed).identifier();
    let drawn: std::collections::BTreeSet<_> = (0..1000).map(identifier).collect();
    assert_eq!(drawn.len(), 1000);
    assert!(!drawn.contains(&RegistrarId(0)));
}
