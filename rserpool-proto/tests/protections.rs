//! Tests that a registrar does not believe false claims of other hosts, and does not remove
//! elements because of its own delays.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use rserpool_proto::access::{AccessRole, AccessRules, AddressRange};
use rserpool_proto::registrar::{Event as Told, Limit, Limits, RegistrarConfig};
use rserpool_proto::testing::by_hand::{registration, send_asap, take_asap};
use rserpool_proto::testing::world::{Event, World, address};
use rserpool_proto::wire::asap::{
    Body, Deregistration, EndpointKeepAliveAck, EndpointUnreachable, HandleResolution, Resolved,
    ServerAnnounce,
};
use rserpool_proto::wire::enrp::{Presence, Route};
use rserpool_proto::wire::parameter::ItemCount;
use rserpool_proto::wire::{
    ErrorCause, OperationError, PoolElementId, Ppid, RegistrarId, RegistrationLife,
    ServerInformation, TransportAddress, UserMessage, asap, enrp,
};
use rserpool_proto::{ConnectionEvent, Machine, Output, Registrar, element};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> RegistrarConfig {
    RegistrarConfig::default().identifier(RegistrarId(1)).ready_after(Duration::ZERO)
}

fn resolution() -> HandleResolution {
    HandleResolution { subscribe: false, pool_handle: "Pool".parse().unwrap(), items: None }
}

#[test]
fn a_host_that_asks_too_often_is_refused_and_others_are_not() {
    let mut world = World::default();
    let node =
        world.registrar(Registrar::new(config().limits(Limits::default().resolutions(10)), 1));
    world.member(7, &[node]);
    world.run(SECOND);
    // All connections of a host together have one limit.
    let connections = [world.connect(node), world.connect(node)];
    let mut refused = 0;
    for number in 0..30 {
        let on = connections[number % 2];
        send_asap(&mut world, on, resolution());
        match take_asap(&mut world, on).as_slice() {
            [Body::HandleResolutionResponse(response)] => match &response.result {
                Resolved::Pool { elements, .. } => assert_eq!(elements.len(), 1),
                Resolved::Error(error) => {
                    assert_eq!(error.causes[..], [ErrorCause::LackOfResources]);
                    refused += 1;
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 20);
    // The registrar counts the requests of two hosts: that of the element and that of the test.
    assert_eq!(world.with_registrar(node).footprint().counted_hosts, 2);
    // A second later the host has its whole allowance again, and then it is no longer counted.
    world.run(SECOND);
    send_asap(&mut world, connections[0], resolution());
    let answer = take_asap(&mut world, connections[0]);
    assert!(matches!(
        answer.as_slice(),
        [Body::HandleResolutionResponse(response)]
            if matches!(response.result, Resolved::Pool { .. })
    ));
    world.run(SECOND * 5);
    assert_eq!(world.with_registrar(node).footprint().counted_hosts, 0);
}

fn only(role: AccessRole, host: usize) -> AccessRules {
    AccessRules::default().allow(role, [AddressRange::from(address(host).host())])
}

#[test]
fn hosts_do_only_what_the_access_rules_allow_their_role() {
    let [element, user, peer, stranger] = [7, 8, 9, 10];
    let rules = only(AccessRole::Element, element)
        .allow(AccessRole::User, [address(user).host().into()])
        .allow(AccessRole::Registrar, [address(peer).host().into()]);
    let mut world = World::default();
    let node = world.registrar(Registrar::new(config().access(rules), 1));
    let denied = |world: &World, role| world.with_registrar(node).counters().denials(role);

    // Connections of hosts without any role are closed before they can send.
    for (host, protocol) in [(stranger, Ppid::ASAP), (peer, Ppid::ASAP), (user, Ppid::ENRP)] {
        let on = world.connect_from(host, protocol, node);
        assert!(!world.is_open(on), "{host}");
    }
    let on = world.connect_from(peer, Ppid::ENRP, node);
    assert!(world.is_open(on));
    let counts = [AccessRole::Element, AccessRole::User, AccessRole::Registrar];
    assert_eq!(counts.map(|role| denied(&world, role)), [2, 2, 1]);

    // Others are refused what their role does not include.
    let from_element = world.connect_from(element, Ppid::ASAP, node);
    let from_user = world.connect_from(user, Ppid::ASAP, node);
    let mut elsewhere = registration("Pool", 2);
    elsewhere.pool_element.user_transport = address(user).into();
    send_asap(&mut world, from_user, elsewhere);
    let mut here = registration("Pool", 1);
    here.pool_element.user_transport = address(element).into();
    send_asap(&mut world, from_element, here);
    let security = Some(OperationError::from(ErrorCause::Security));
    let answers = [take_asap(&mut world, from_user), take_asap(&mut world, from_element)];
    for (answers, expected) in answers.iter().zip([security.clone(), None]) {
        let Some(Body::RegistrationResponse(response)) = answers.first() else {
            panic!("{answers:?}");
        };
        assert_eq!((response.reject, &response.error), (expected.is_some(), &expected));
    }
    for subscribe in [false, true] {
        let request = HandleResolution { subscribe, ..resolution() };
        send_asap(&mut world, from_element, request.clone());
        send_asap(&mut world, from_user, request);
        let results = [from_element, from_user].map(|on| match take_asap(&mut world, on).pop() {
            Some(Body::HandleResolutionResponse(response)) => response.result,
            other => panic!("{other:?}"),
        });
        assert_eq!(results[0], Resolved::Error(ErrorCause::Security.into()));
        assert!(matches!(results[1], Resolved::Pool { .. }), "{results:?}");
    }
    // An element does not report others, and a user does not deregister them.
    let (pool_handle, identifier) = (resolution().pool_handle, PoolElementId(1));
    let report = EndpointUnreachable { pool_handle: pool_handle.clone(), identifier };
    send_asap(&mut world, from_element, report);
    assert!(take_asap(&mut world, from_element).is_empty(), "it is not asked");
    send_asap(&mut world, from_user, Deregistration { pool_handle, identifier });
    let answer = take_asap(&mut world, from_user);
    let Some(Body::DeregistrationResponse(response)) = answer.first() else { panic!("{answer:?}") };
    assert_eq!(response.error, security);
    assert_eq!(world.elements(node), 1);
    assert_eq!(counts.map(|role| denied(&world, role)), [4, 5, 1]);
}

#[test]
fn a_registrar_connects_only_to_peers_that_the_rules_allow() {
    for (host, dials) in [(0, true), (50, false)] {
        let rules = only(AccessRole::Registrar, host);
        let config = config().enrp(address(1)).peers([address(0)]).access(rules);
        let mut world = World::default();
        let node = world.registrar(Registrar::new(config, 2));
        world.run(SECOND * 5);
        let denials = world.with_registrar(node).counters().denials(AccessRole::Registrar);
        assert_eq!(denials == 0, dials, "{denials}");
    }
}

#[test]
fn announcements_of_hosts_that_are_no_peers_have_no_effect() {
    let own = address(0);
    let mut world = World::default();
    // The registrar itself is not among the peers that it allows.
    let config = config().enrp(own.clone()).announce([own.clone()]).multicast_presence();
    let node = world.registrar(Registrar::new(config.access(only(AccessRole::Registrar, 1)), 1));
    let mut hear = |sender: u32, source: TransportAddress| {
        let registrar = RegistrarId(sender);
        let server = Some(ServerInformation { registrar, transport: source.clone() });
        let route = Route { sender: registrar, receiver: RegistrarId(0) };
        let presence = Presence { reply_required: false, route, checksum: None, server };
        let announce = ServerAnnounce { registrar, transports: Vec::new() };
        let enrp = enrp::Message::from(presence).encode().unwrap();
        let asap = asap::Message::from(announce).encode().unwrap();
        world.with_registrar_mut(node, |registrar, now| {
            registrar.handle_announcement(now, source.clone(), UserMessage::new(Ppid::ENRP, enrp));
        });
        world.with_registrar_mut(node, |registrar, now| {
            registrar.handle_announcement(now, source, UserMessage::new(Ppid::ASAP, asap));
        });
        world.run(Duration::ZERO);
        world.with_registrar(node).counters().denials(AccessRole::Registrar)
    };
    assert_eq!(hear(1, own), 0, "its own announcements come back to it");
    for sender in 2..12 {
        assert_eq!(hear(sender, address(2)), 2 * u64::from(sender - 1));
    }
    assert_eq!(hear(12, address(1)), 20);
    // Only one of the others counts: so the registrar announces itself every two seconds.
    world.announced.clear();
    world.run(SECOND * 8);
    let announced = world.announced.iter().filter(|(.., message)| message.ppid == Ppid::ASAP);
    let announced = announced.count();
    assert!((3..=5).contains(&announced), "{announced}");
}

#[test]
fn a_host_that_reports_too_often_is_not_heard() {
    let mut world = World::default();
    let limits = config().limits(Limits::default().reports(2)).max_bad_pe_reports(5);
    let node = world.registrar(Registrar::new(limits, 1));
    world.member(7, &[node]);
    world.run(SECOND);
    let report =
        EndpointUnreachable { pool_handle: "Pool".parse().unwrap(), identifier: PoolElementId(7) };
    // All connections of a host together have one limit.
    for _ in 0..20 {
        let on = world.connect(node);
        send_asap(&mut world, on, report.clone());
    }
    world.run(Duration::ZERO);
    assert_eq!(world.elements(node), 1);
    let counters = world.with_registrar(node).counters();
    assert_eq!((counters.reports, counters.limit_hits(Limit::Reports)), (20, 18));
}

#[test]
fn who_has_the_address_of_an_element_is_not_the_element() {
    let mut world = World::default();
    let node = world.registrar(Registrar::new(config(), 1));
    let owner = world.connect(node);
    let identifier = PoolElementId(7);
    send_asap(&mut world, owner, registration("Pool", 7));
    take_asap(&mut world, owner);
    let other = world.connect(node);
    send_asap(&mut world, other, registration("Pool", 7));
    match take_asap(&mut world, other).as_slice() {
        [] => {}
        other => panic!("{other:?}"),
    }
    // The registrar asks the element over its own connection whether it is alive, and the element
    // answers.
    assert!(matches!(take_asap(&mut world, owner).as_slice(), [Body::EndpointKeepAlive(_)]));
    let pool_handle = "Pool".parse().unwrap();
    send_asap(&mut world, owner, EndpointKeepAliveAck { pool_handle, identifier });
    let refused = |body: &Body| match body {
        Body::RegistrationResponse(response) => response.error.clone().map(|it| it.causes),
        other => panic!("{other:?}"),
    };
    let answers = take_asap(&mut world, other);
    let taken = ErrorCause::NonUniqueIdentifier;
    assert_eq!(answers.iter().map(refused).collect::<Vec<_>>(), [Some([taken].into())]);
    // Now the element does not answer over its own connection for a second.
    send_asap(&mut world, other, registration("Pool", 7));
    world.run(SECOND);
    let answers = take_asap(&mut world, other);
    assert_eq!(answers.iter().map(refused).collect::<Vec<_>>(), [None]);
    assert_eq!(world.elements(node), 1);
    // A registration of this element from another host is refused at once.
    let stranger = world.connect_from(98, Ppid::ASAP, node);
    let mut foreign = registration("Pool", 7);
    foreign.pool_element.user_transport = address(98).into();
    send_asap(&mut world, stranger, foreign);
    assert_eq!(take_asap(&mut world, stranger).iter().filter_map(refused).count(), 1);
}

/// Runs a registrar whose clock jumps by `pause` while it waits for an answer and for a
/// registration to be renewed. Returns the types of the messages that it sends, and whether it
/// removed the element.
fn after_standing_still(pause: Duration) -> (Vec<u8>, bool) {
    let mut now = World::default().now();
    let mut registrar = Registrar::new(config(), 1);
    registrar.start(now);
    let on = registrar.accept(now, Ppid::ASAP, address(99), None);
    let payload = asap::Message::from(registration("Pool", 7)).encode().unwrap();
    registrar.handle_message(now, on, UserMessage::new(Ppid::ASAP, payload));
    while registrar.poll_output().is_some() {}
    // Run until the first keep-alive.
    let mut asked = false;
    while !asked {
        now = registrar.poll_timeout().unwrap();
        registrar.handle_timeout(now);
        while let Some(output) = registrar.poll_output() {
            asked |= matches!(output, Output::Send { .. });
        }
    }
    registrar.handle_timeout(now + pause);
    let (mut sent, mut removed) = (Vec::new(), false);
    while let Some(output) = registrar.poll_output() {
        match output {
            Output::Send { message, .. } => sent.push(message.payload[0]),
            Output::Event(Told::Removed(..)) => removed = true,
            _ => {}
        }
    }
    (sent, removed)
}

#[test]
fn nobody_is_given_up_for_what_passed_while_the_registrar_stood_still() {
    const DEREGISTRATION_RESPONSE: u8 = 4;
    // The answer is due after 5 s.
    assert_eq!(after_standing_still(Duration::from_millis(4900)), (vec![], false));
    let removed = (vec![DEREGISTRATION_RESPONSE], true);
    assert_eq!(after_standing_still(Duration::from_millis(5100)), removed, "and told so");
    assert_eq!(after_standing_still(Duration::from_millis(5300)), (vec![], false));
    assert_eq!(after_standing_still(SECOND * 7), (vec![], false));
    // The registration expires after 90 s, too.
    assert_eq!(after_standing_still(SECOND * 200), (vec![], false));
}

#[test]
fn a_registrar_that_leaves_hands_its_elements_over() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    let three = world.join(3, &[one]);
    // The elements are configured with the first registrar alone.
    let elements: Vec<_> = (11..21).map(|id| world.member(id, &[one])).collect();
    world.run(SECOND * 5);
    for node in &elements {
        world.take_events(*node);
    }
    world.with_registrar_mut(one, |registrar, now| registrar.leave(now));
    world.run(Duration::ZERO);
    assert!(world.take_events(one).contains(&Event::Registrar(Told::Left)), "at once");
    for node in [two, three] {
        let homes = world.homes(node);
        assert_eq!(homes.len(), 10);
        assert!(homes.iter().all(|(_, home)| [2, 3].contains(home)), "{homes:?}");
        assert_ne!(homes.iter().filter(|(_, home)| *home == 2).count() % 10, 0, "shared");
    }
    for node in elements {
        let told = world.take_events(node);
        let changed =
            |told: &[Event]| matches!(told, [Event::Element(element::Event::HomeChanged(_))]);
        assert!(changed(&told), "no element lost its registrar: {told:?}");
        assert!(world.with_element(node, |element, _| element.is_registered()));
    }
}

/// Tests that registrars do not tell other hosts, users or peers, about elements with a loopback
/// address.
#[test]
fn addresses_that_lead_elsewhere_are_told_to_nobody_elsewhere() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    world.run(SECOND);
    let loopback = TransportAddress::tcp("127.0.0.1:7".parse().unwrap());
    let here = world.connect_at(loopback.clone(), Ppid::ASAP, one);
    for identifier in 1..=2 {
        let mut near = registration("Pool", identifier);
        near.pool_element.user_transport = loopback.clone().into();
        send_asap(&mut world, here, near);
    }
    let far = world.connect(one);
    send_asap(&mut world, far, registration("Pool", 3));
    world.run(SECOND);
    let told = |world: &mut World, on| {
        take_asap(world, on);
        send_asap(world, on, resolution());
        let answer = take_asap(world, on).pop();
        let Some(Body::HandleResolutionResponse(response)) = answer else { panic!("no answer") };
        let Resolved::Pool { mut elements, .. } = response.result else { panic!("no pool") };
        elements.sort_by_key(|element| element.identifier);
        elements.into_iter().map(|element| element.identifier.0).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut world, here), [1, 2, 3]);
    assert_eq!(told(&mut world, far), [3]);
    assert_eq!(world.homes(one).len(), 3);
    assert_eq!(world.homes(two), [(3, 1)]);
    // The audits (comparisons of checksums) find no difference either.
    let asked = world.requests;
    world.run(SECOND * 5);
    assert_eq!(world.homes(two), [(3, 1)]);
    assert_eq!(world.requests, asked, "no handle table was asked for");
}

/// Tests that an answer to another host has as many elements as the pool can offer to it, in turn,
/// and that a pool which offers it none is unknown to it.
#[test]
fn elements_that_are_not_told_take_no_place_in_an_answer() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    world.run(SECOND);
    let loopback = TransportAddress::tcp("127.0.0.1:7".parse().unwrap());
    let here = world.connect_at(loopback.clone(), Ppid::ASAP, one);
    for (pool, identifier) in [("Pool", 1), ("Pool", 3), ("Near", 1)] {
        let mut near = registration(pool, identifier);
        near.pool_element.user_transport = loopback.clone().into();
        send_asap(&mut world, here, near);
    }
    let far = world.connect(one);
    for identifier in [2, 4] {
        send_asap(&mut world, far, registration("Pool", identifier));
    }
    world.run(SECOND);
    let ask = |world: &mut World, on, pool: &str, subscribe, items| {
        take_asap(world, on);
        let items = Some(ItemCount(items));
        let request = HandleResolution { subscribe, pool_handle: pool.parse().unwrap(), items };
        send_asap(world, on, request);
        let answer = take_asap(world, on).pop();
        let Some(Body::HandleResolutionResponse(response)) = answer else { panic!("no answer") };
        match response.result {
            Resolved::Pool { elements, .. } => {
                Ok(elements.iter().map(|element| element.identifier.0).collect::<Vec<_>>())
            }
            Resolved::Error(error) => Err(error.causes),
            _ => panic!("neither elements nor an error"),
        }
    };
    let resolve = |world: &mut World, on, pool: &str, subscribe| ask(world, on, pool, subscribe, 1);
    let turns: Vec<_> = (0..6).map(|_| resolve(&mut world, far, "Pool", false)).collect();
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "not in turn: {turns:?}");
    assert!(turns.iter().all(|turn| [Ok(vec![2]), Ok(vec![4])].contains(turn)), "{turns:?}");
    for _ in 0..4 {
        assert_eq!(ask(&mut world, far, "Pool", false, 2).map(|it| it.len()), Ok(2));
    }
    let unknown = Err(vec![ErrorCause::UnknownPoolHandle]);
    for subscribe in [false, true] {
        assert_eq!(resolve(&mut world, here, "Near", false), Ok(vec![1]));
        assert_eq!(resolve(&mut world, far, "Near", subscribe), unknown);
    }
    // A subscription ends when the last element that the subscriber may be told of leaves.
    assert_eq!(resolve(&mut world, far, "Pool", true).map(|it| it.len()), Ok(2));
    for identifier in [2, 4] {
        let pool_handle = "Pool".parse().unwrap();
        let identifier = PoolElementId(identifier);
        send_asap(&mut world, far, Deregistration { pool_handle, identifier });
    }
    world.run(SECOND);
    let last = take_asap(&mut world, far).into_iter().rev().find_map(|message| match message {
        Body::HandleResolutionResponse(response) => Some(response),
        _ => None,
    });
    let last = last.expect("no notification");
    assert!(!last.subscribed);
    assert_eq!(last.result, Resolved::Error(ErrorCause::UnknownPoolHandle.into()));
}

/// Tests that a peer downloads all elements that it may receive, although long pool handles fill
/// pages, and the registrar omits elements that the peer may not receive.
#[test]
fn pages_have_all_that_a_peer_is_told_of() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    world.run(SECOND);
    let loopback = TransportAddress::tcp("127.0.0.1:7".parse().unwrap());
    let here = world.connect_at(loopback.clone(), Ppid::ASAP, one);
    for identifier in 1..=300 {
        let mut near = registration("Near", identifier);
        near.pool_element.user_transport = loopback.clone().into();
        near.pool_element.registration_life = RegistrationLife::INFINITE;
        send_asap(&mut world, here, near);
    }
    let far = world.connect(one);
    for number in 0..60 {
        let long = format!("{number:02}{}", "x".repeat(3900));
        send_asap(&mut world, far, registration(&long, 1));
        send_asap(&mut world, far, registration("zz", 1000 + number));
    }
    assert_eq!(world.elements(one), 420);
    let two = world.join(2, &[one]);
    world.run(SECOND);
    assert_eq!(world.elements(two), 120);
}

/// Tests that an element which accepts connections and closes them counts as not answering.
#[test]
fn an_element_that_accepts_and_drops_connections_is_removed() {
    let mut now = World::default().now();
    let mut registrar = Registrar::new(config(), 1);
    // The connections that the registrar makes.
    let dialled = |registrar: &mut Registrar| {
        let outputs = std::iter::from_fn(|| registrar.poll_output());
        let connect = |output| match output {
            Output::Connect { connection, .. } => Some(connection),
            _ => None,
        };
        outputs.filter_map(connect).collect::<Vec<_>>()
    };
    registrar.start(now);
    dialled(&mut registrar);
    let on = registrar.accept(now, Ppid::ASAP, address(99), None);
    dialled(&mut registrar);
    let payload = asap::Message::from(registration("Pool", 7)).encode().unwrap();
    registrar.handle_message(now, on, UserMessage::new(Ppid::ASAP, payload));
    dialled(&mut registrar);
    registrar.handle_connection(now, on, ConnectionEvent::Lost);
    let mut open = dialled(&mut registrar);
    assert_eq!(open.len(), 1);
    let end = now + SECOND * 20;
    while registrar.elements() > 0 && now < end {
        for connection in std::mem::take(&mut open) {
            let (local, peer) = (address(0), address(99));
            let established = ConnectionEvent::Established { local, peer, identity: None };
            registrar.handle_connection(now, connection, established);
            open.extend(dialled(&mut registrar));
            registrar.handle_connection(now, connection, ConnectionEvent::Closed);
            open.extend(dialled(&mut registrar));
        }
        now = registrar.poll_timeout().unwrap();
        registrar.handle_timeout(now);
        open.extend(dialled(&mut registrar));
    }
    assert_eq!(registrar.elements(), 0);
}

/// Tests that a report does not remove an element without an ASAP endpoint if it is sent to a
/// registrar other than the home registrar. Only the home registrar can send the element a
/// keep-alive.
#[test]
fn a_report_elsewhere_removes_nothing() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    world.run(SECOND);
    let on = world.connect(one);
    let mut unreachable = registration("Pool", 7);
    unreachable.pool_element.asap_transport = None;
    send_asap(&mut world, on, unreachable);
    let user = world.connect(two);
    let pool_handle = "Pool".parse().unwrap();
    let identifier = PoolElementId(7);
    send_asap(&mut world, user, EndpointUnreachable { pool_handle, identifier });
    world.run(SECOND);
    assert_eq!(world.homes(two), [(7, 1)]);
}

/// Tests that repeated reports do not cause a flood of keep-alives (RFC 5355 section 2.14.3).
#[test]
fn an_element_that_answers_is_asked_once_a_second_however_many_report_it() {
    let mut world = World::default();
    let registrar = world.registrar(Registrar::new(config(), 1));
    let element = world.connect(registrar);
    send_asap(&mut world, element, registration("Pool", 7));
    take_asap(&mut world, element);
    let pool_handle = resolution().pool_handle;
    let identifier = PoolElementId(7);
    let mut asked = Vec::new();
    for _ in 0..2 {
        for host in 50..70 {
            let user = world.connect_from(host, Ppid::ASAP, registrar);
            let report = EndpointUnreachable { pool_handle: pool_handle.clone(), identifier };
            send_asap(&mut world, user, report);
            let bodies = take_asap(&mut world, element);
            let keep_alive = |body: &&Body| matches!(body, Body::EndpointKeepAlive(_));
            asked.push(bodies.iter().filter(keep_alive).count());
            for _ in bodies {
                let pool_handle = pool_handle.clone();
                send_asap(&mut world, element, EndpointKeepAliveAck { pool_handle, identifier });
            }
        }
        world.run(Duration::from_millis(1100));
        take_asap(&mut world, element);
    }
    assert_eq!(asked.iter().sum::<usize>(), 2, "{asked:?}");
}

/// Tests that a registrar that receives a report sends the element a keep-alive, even if the home
/// of the element is another registrar. After the answer, the registrar offers the element again in
/// turn.
#[test]
fn an_element_of_another_registrar_that_was_reported_but_answers_is_offered_again() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    world.run(SECOND);
    world.member(7, &[one]);
    world.member(8, &[one]);
    world.run(SECOND);
    let user = world.connect(two);
    let pool_handle = resolution().pool_handle;
    let identifier = PoolElementId(7);
    send_asap(&mut world, user, EndpointUnreachable { pool_handle, identifier });
    world.run(SECOND);
    let mut first = BTreeSet::new();
    for _ in 0..2 {
        send_asap(&mut world, user, resolution());
        match take_asap(&mut world, user).as_slice() {
            [Body::HandleResolutionResponse(response)] => match &response.result {
                Resolved::Pool { elements, .. } => first.insert(elements[0].identifier.0),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(first, BTreeSet::from([7, 8]));
}

#[test]
fn nobody_else_takes_an_element_that_was_dialled() {
    let mut world = World::default();
    let registrar = world.registrar(Registrar::new(config(), 1));
    let element = world.member(8, &[registrar]);
    world.run(SECOND);
    // The element's connection breaks and the element stays silent, so the registrar dials it.
    world.pause(element);
    world.disconnect(element);
    world.run(SECOND);
    let stranger = world.connect_from(77, Ppid::ASAP, registrar);
    let mut claim = registration("Pool", 8);
    claim.pool_element.user_transport = TransportAddress { port: 7, ..address(77) }.into();
    send_asap(&mut world, stranger, claim);
    match take_asap(&mut world, stranger).as_slice() {
        [Body::RegistrationResponse(response)] => assert!(response.reject),
        other => panic!("{other:?}"),
    }
}
