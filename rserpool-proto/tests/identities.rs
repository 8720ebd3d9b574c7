//! Tests of the access rules on authenticated identities.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rserpool_proto::access::{AccessRole, AccessRules};
use rserpool_proto::registrar::{self, RegistrarConfig};
use rserpool_proto::testing::by_hand::{registration, send_asap, send_enrp, take_asap, take_enrp};
use rserpool_proto::testing::world::{Event, NodeId, World, address};
use rserpool_proto::user::UserConfig;
use rserpool_proto::wire::asap::{
    Body, Deregistration, EndpointUnreachable, HandleResolution, Resolved,
};
use rserpool_proto::wire::enrp::{self, Presence, Route};
use rserpool_proto::wire::{
    ErrorCause, PoolElementId, Ppid, RegistrarId, ServerInformation, UserMessage,
};
use rserpool_proto::{ConnectionId, HuntConfig, Identity, Machine, Registrar, User, element, user};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> RegistrarConfig {
    RegistrarConfig::default().identifier(RegistrarId(1)).ready_after(Duration::ZERO)
}

fn registrar(world: &mut World) -> NodeId {
    let host = world.hosts();
    world.registrar(Registrar::new(config().enrp(address(host)), 1))
}

/// Gives a host the identity with this name.
fn name(world: &mut World, host: usize, name: &str) {
    world.identities.insert(address(host).host(), Identity::new([name]));
}

/// Sends a registration from `host`, whose address the element has. Returns the error cause of a
/// refusal.
fn register(
    world: &mut World,
    on: ConnectionId,
    host: usize,
    (pool, identifier): (&str, u32),
) -> Option<ErrorCause> {
    let mut registration = registration(pool, identifier);
    registration.pool_element.user_transport = address(host).into();
    send_asap(world, on, registration);
    let responses = take_asap(world, on);
    let cause = responses.into_iter().find_map(|body| match body {
        Body::RegistrationResponse(response) => Some(response.error),
        _ => None,
    });
    cause.expect("a response").map(|error| error.causes[0].clone())
}

fn resolve(world: &mut World, on: ConnectionId, pool: &str, subscribe: bool) -> Resolved {
    let pool_handle = pool.parse().unwrap();
    send_asap(world, on, HandleResolution { subscribe, pool_handle, items: None });
    match take_asap(world, on).pop() {
        Some(Body::HandleResolutionResponse(response)) => response.result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn identities_do_only_what_they_are_granted() {
    let [element, user, peer, nobody] = [7, 8, 9, 10];
    let mut world = World::default();
    let node = registrar(&mut world);
    name(&mut world, element, "rserpool:element:Echo*");
    name(&mut world, user, "rserpool:user:Echo*");
    name(&mut world, peer, "rserpool:registrar");
    name(&mut world, nobody, "rserpool:nobody");
    for (host, protocol, open) in [
        (peer, Ppid::ASAP, false),
        (nobody, Ppid::ASAP, false),
        (element, Ppid::ENRP, false),
        (user, Ppid::ENRP, false),
        (peer, Ppid::ENRP, true),
    ] {
        let on = world.connect_from(host, protocol, node);
        assert_eq!(world.is_open(on), open, "{host}");
    }
    let elements = world.connect_from(element, Ppid::ASAP, node);
    let users = world.connect_from(user, Ppid::ASAP, node);

    assert_eq!(register(&mut world, elements, element, ("EchoPool", 1)), None);
    let security = Some(ErrorCause::Security);
    assert_eq!(register(&mut world, elements, element, ("CalcPool", 1)), security);
    assert_eq!(register(&mut world, users, user, ("EchoPool", 2)), security);
    let denied = Resolved::Error(ErrorCause::Security.into());
    for subscribe in [false, true] {
        assert_eq!(resolve(&mut world, elements, "EchoPool", subscribe), denied);
        assert_eq!(resolve(&mut world, users, "CalcPool", subscribe), denied);
        let granted = resolve(&mut world, users, "EchoPool", subscribe);
        assert!(matches!(granted, Resolved::Pool { .. }), "{granted:?}");
    }
    let (pool_handle, identifier) = ("EchoPool".parse().unwrap(), PoolElementId(1));
    send_asap(&mut world, users, Deregistration { pool_handle, identifier });
    let answers = take_asap(&mut world, users);
    let Some(Body::DeregistrationResponse(response)) = answers.first() else {
        panic!("{answers:?}");
    };
    assert_eq!(response.error, Some(ErrorCause::Security.into()));
    let report = EndpointUnreachable { pool_handle: "EchoPool".parse().unwrap(), identifier };
    send_asap(&mut world, elements, report.clone());
    assert!(take_asap(&mut world, elements).is_empty(), "an element does not report others");
    send_asap(&mut world, users, report);
    assert_eq!(take_asap(&mut world, elements).len(), 1, "a keep-alive");

    let denials = |role| world.with_registrar(node).counters().denials(role);
    assert_eq!(denials(AccessRole::Registrar), 2);
    assert_eq!(denials(AccessRole::Element), 2 + 3);
    assert_eq!(denials(AccessRole::User), 2 + 5);
    let told = world.take_events(node);
    let says_who = |event: &Event| match event {
        Event::Registrar(registrar::Event::Denied(denial)) => denial
            .identity
            .as_ref()
            .is_some_and(|identity| identity.to_string() == "rserpool:element:Echo*"),
        _ => false,
    };
    assert_eq!(told.iter().filter(|event| says_who(event)).count(), 1 + 1 + 3);
}

#[test]
fn who_is_not_authenticated_has_no_role_where_identities_are_required() {
    for (rules, open) in [
        (AccessRules::default(), true),
        (AccessRules::default().require_identity(), false),
        (AccessRules::default().grant("*".parse().unwrap(), "user".parse().unwrap()), false),
    ] {
        let mut world = World::default();
        let node = world.registrar(Registrar::new(config().enrp(address(0)).access(rules), 1));
        for protocol in [Ppid::ASAP, Ppid::ENRP] {
            let on = world.connect_for(protocol, node);
            assert_eq!(world.is_open(on), open);
        }
        assert_eq!(world.with_registrar(node).counters().denials(AccessRole::Element) == 0, open);
    }
}

#[test]
fn an_identity_registers_only_as_many_elements_as_it_is_granted() {
    let host = 7;
    let mut world = World::default();
    let node = registrar(&mut world);
    name(&mut world, host, "rserpool:element:Echo*?max=2");
    // It makes no difference over how many connections and in how many pools it registers.
    let connections = [(); 2].map(|()| world.connect_from(host, Ppid::ASAP, node));
    assert_eq!(register(&mut world, connections[0], host, ("EchoPool", 1)), None);
    assert_eq!(register(&mut world, connections[1], host, ("EchoPool2", 1)), None);
    let full = Some(ErrorCause::LackOfResources);
    assert_eq!(register(&mut world, connections[0], host, ("EchoPool", 2)), full);
    assert_eq!(register(&mut world, connections[1], host, ("EchoPool3", 1)), full);
    assert_eq!(register(&mut world, connections[0], host, ("EchoPool", 1)), None, "renewed");
    let (pool_handle, identifier) = ("EchoPool".parse().unwrap(), PoolElementId(1));
    send_asap(&mut world, connections[0], Deregistration { pool_handle, identifier });
    take_asap(&mut world, connections[0]);
    assert_eq!(register(&mut world, connections[1], host, ("EchoPool", 3)), None);
    assert_eq!(register(&mut world, connections[1], host, ("EchoPool", 4)), full);
    // Another identity has its own count.
    name(&mut world, 8, "rserpool:element:Echo*?max=1");
    let other = world.connect_from(8, Ppid::ASAP, node);
    assert_eq!(register(&mut world, other, 8, ("EchoPool", 5)), None);
    assert_eq!(register(&mut world, other, 8, ("EchoPool", 6)), full);
}

#[test]
fn an_element_is_changed_only_by_its_identity() {
    let mut world = World::default();
    let node = registrar(&mut world);
    // A host that neither accepts connections nor refuses them.
    let host = world.member(7, &[]);
    world.pause(host);
    name(&mut world, host, "spiffe://example.org/a");
    let first = world.connect_from(host, Ppid::ASAP, node);
    assert_eq!(register(&mut world, first, host, ("EchoPool", 1)), None);
    name(&mut world, host, "spiffe://example.org/b");
    let other = world.connect_from(host, Ppid::ASAP, node);
    let taken = Some(ErrorCause::NonUniqueIdentifier);
    assert_eq!(register(&mut world, other, host, ("EchoPool", 1)), taken);
    world.close(first);
    assert_eq!(world.elements(node), 1);
    assert_eq!(register(&mut world, other, host, ("EchoPool", 1)), taken);
    let (pool_handle, identifier) = ("EchoPool".parse().unwrap(), PoolElementId(1));
    send_asap(&mut world, other, Deregistration { pool_handle, identifier });
    assert_eq!(world.elements(node), 1);
    // Its certificate may be renewed with roles.
    let renewed = Identity::new(["spiffe://example.org/a", "rserpool:element:*"]);
    world.identities.insert(address(host).host(), renewed);
    let again = world.connect_from(host, Ppid::ASAP, node);
    assert_eq!(register(&mut world, again, host, ("EchoPool", 1)), None);
}

#[test]
fn a_registrar_speaks_only_for_its_own_identifier() {
    let host = 7;
    let mut world = World::default();
    let node = registrar(&mut world);
    let presence = |identifier| {
        let route = Route { sender: RegistrarId(identifier), receiver: RegistrarId(1) };
        Presence { reply_required: true, route, checksum: None, server: None }
    };
    let mut answers = |name_of_host: &str, identifier: u32| {
        name(&mut world, host, name_of_host);
        let on = world.connect_from(host, Ppid::ENRP, node);
        send_enrp(&mut world, on, presence(identifier));
        !take_enrp(&mut world, on).is_empty()
    };
    assert!(!answers("rserpool:registrar:0x7", 8), "its certificate names another identifier");
    assert!(answers("rserpool:registrar:0x7", 7));
    assert!(answers("spiffe://example.org/a", 8));
    assert!(!answers("spiffe://example.org/b", 8), "the identifier is that of another identity");
    assert!(answers("spiffe://example.org/a", 8));
    assert!(!answers("spiffe://example.org/b", 7));
    assert!(answers("spiffe://example.org/b", 9));
}

#[test]
fn a_multicast_message_is_no_proof_of_an_authenticated_registrar() {
    for authenticated in [false, true] {
        let (host, identifier) = (7, RegistrarId(7));
        let mut world = World::default();
        let config = config().enrp(address(0)).multicast_presence();
        let node = world.registrar(Registrar::new(config, 1));
        if authenticated {
            name(&mut world, host, "spiffe://example.org/a");
        }
        let route = Route { sender: identifier, receiver: RegistrarId(0) };
        let transport = address(host);
        let server = Some(ServerInformation { registrar: identifier, transport });
        let presence = Presence { reply_required: false, route, checksum: None, server };
        let on = world.connect_from(host, Ppid::ENRP, node);
        send_enrp(&mut world, on, presence.clone());
        assert_eq!(world.with_registrar(node).peers(), [identifier]);
        let message = enrp::Message::from(presence).encode().unwrap();
        for _ in 0..200 {
            let message = UserMessage::new(Ppid::ENRP, message.clone());
            world.with_registrar_mut(node, |registrar, now| {
                registrar.handle_announcement(now, address(host), message);
            });
            world.run(SECOND);
        }
        let dead = world
            .take_events(node)
            .into_iter()
            .any(|event| matches!(event, Event::Registrar(registrar::Event::PeerLost(..))));
        assert_eq!(dead, authenticated);
    }
}

#[test]
fn registrars_are_verified_by_those_who_connect_to_them() {
    for (host, granted) in [("rserpool:element", false), ("rserpool:registrar", true)] {
        let mut world = World::default();
        name(&mut world, 0, host);
        let one = world.join(1, &[]);
        let two = world.join(2, &[one]);
        world.run(SECOND * 5);
        assert_eq!(world.with_registrar(two).peers().len(), usize::from(granted));
        let found = |world: &mut World, id| {
            let told = world.take_events(id);
            let denied = told.iter().any(|event| {
                matches!(
                    event,
                    Event::User(user::Event::Denied { .. })
                        | Event::Element(element::Event::Denied { .. })
                )
            });
            assert_eq!(denied, !granted, "{told:?}");
            told.iter().any(|event| {
                matches!(
                    event,
                    Event::User(user::Event::RegistrarFound(_))
                        | Event::Element(element::Event::Registered { .. })
                )
            })
        };
        let hunt = HuntConfig::new([address(one)]);
        let user = world.user(User::new(UserConfig::new(hunt), 1));
        let member = world.member(7, &[one]);
        world.run(SECOND * 5);
        assert_eq!(found(&mut world, user), granted);
        assert_eq!(found(&mut world, member), granted);
    }
}

#[test]
fn an_element_answers_registrars_only() {
    for (host, granted) in [("rserpool:user", false), ("rserpool:registrar", true)] {
        let mut world = World::default();
        let registrar = world.join(1, &[]);
        let member = world.member(7, &[registrar]);
        world.run(SECOND);
        name(&mut world, 50, host);
        let on = world.connect_from(50, Ppid::ASAP, member);
        assert_eq!(world.is_open(on), granted);
    }
}

#[test]
fn who_answers_at_the_address_of_an_element_has_to_be_one_of_its_pool() {
    for (name_there, stays) in [("rserpool:element:Other", false), ("rserpool:element:*", true)] {
        let mut world = World::default();
        let one = world.join(1, &[]);
        let two = world.join(2, &[one]);
        world.run(SECOND * 5);
        let member = world.member(7, &[one]);
        world.run(SECOND);
        assert_eq!(world.elements(two), 1);
        // The element's home crashes, and the other registrar asks the element whether it is alive.
        // The program at its address may have been replaced.
        name(&mut world, member, name_there);
        world.kill(one);
        world.run(SECOND * 2);
        let denied = world.with_registrar(two).counters().denials(AccessRole::Element);
        assert_eq!(denied == 0, stays, "{denied}");
        // No connection is left to a program that is not the element.
        let connections = world.with_registrar(two).footprint().connections;
        assert_eq!(connections, usize::from(stays));
        world.run(SECOND * 300);
        assert_eq!(world.elements(two), usize::from(stays));
    }
}

#[test]
fn elements_are_counted_wherever_they_went_in_between() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    world.run(SECOND * 10);
    let host = world.member(99, &[]);
    world.pause(host);
    name(&mut world, host, "rserpool:element:*?max=1");
    let [to_one, to_two] = [one, two].map(|node| world.connect_from(host, Ppid::ASAP, node));
    let full = Some(ErrorCause::LackOfResources);
    for identifier in 1..=3 {
        // The element registers with one registrar, moves to the other one, and leaves that one. It
        // is still connected to the first one, which takes it back.
        let refused = register(&mut world, to_one, host, ("Pool", identifier));
        assert_eq!(refused, if identifier == 1 { None } else { full.clone() }, "{identifier}");
        world.run(SECOND);
        if register(&mut world, to_two, host, ("Pool", identifier)).is_none() {
            world.run(SECOND);
            let (pool_handle, identifier) = ("Pool".parse().unwrap(), PoolElementId(identifier));
            send_asap(&mut world, to_two, Deregistration { pool_handle, identifier });
            take_asap(&mut world, to_two);
        }
        world.run(SECOND);
        let own = world.homes(one).into_iter().filter(|(_, home)| *home == 1).count();
        assert!(own <= 1, "{own} elements");
    }
}

#[test]
fn an_element_that_was_taken_over_is_changed_only_by_its_identity() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    world.run(SECOND * 5);
    let member = world.hosts();
    name(&mut world, member, "spiffe://example.org/a");
    assert_eq!(world.member(7, &[one]), member);
    world.run(SECOND);
    world.kill(one);
    world.run(SECOND * 100);
    assert_eq!(world.homes(two), [(7, 2)]);
    name(&mut world, member, "spiffe://example.org/b");
    let other = world.connect_from(member, Ppid::ASAP, two);
    let (pool_handle, identifier) = ("Pool".parse().unwrap(), PoolElementId(7));
    send_asap(&mut world, other, Deregistration { pool_handle, identifier });
    assert_eq!(world.elements(two), 1);
    let taken = Some(ErrorCause::NonUniqueIdentifier);
    assert_eq!(register(&mut world, other, member, ("Pool", 7)), taken);
}

#[test]
fn a_program_that_crashed_with_its_host_is_replaced_soon() {
    let mut world = World::default();
    let node = registrar(&mut world);
    let host = world.member(99, &[]);
    world.pause(host);
    name(&mut world, host, "rserpool:element:*?max=1");
    // The old connection stays open, and nobody answers over it.
    let old = world.connect_from(host, Ppid::ASAP, node);
    assert_eq!(register(&mut world, old, host, ("Pool", 1)), None);
    let new = world.connect_from(host, Ppid::ASAP, node);
    let full = Some(ErrorCause::LackOfResources);
    assert_eq!(register(&mut world, new, host, ("Pool", 2)), full);
    world.run(SECOND * 6);
    assert_eq!(register(&mut world, new, host, ("Pool", 2)), None);
}
