//! Tests of what a registrar tells its operator, and of changes of its settings.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use rserpool_proto::access::{AccessRole, AccessRules, AddressRange, Grant, Pattern};
use rserpool_proto::registrar::{
    Limit, Limits, PeerCondition, RegistrarConfig, RegistrarStatus, RemovalReason,
};
use rserpool_proto::testing::by_hand::{registration, send_asap, take_asap};
use rserpool_proto::testing::world::{NodeId, World, address};
use rserpool_proto::wire::asap::{Body, EndpointUnreachable, HandleResolution};
use rserpool_proto::wire::{
    PolicyType, PoolElementId, PoolHandle, Ppid, RegistrarId, TransportProtocol,
};
use rserpool_proto::{ConnectionId, Identity, Registrar};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> RegistrarConfig {
    RegistrarConfig::default().identifier(RegistrarId(1)).ready_after(Duration::ZERO)
}

fn status(world: &World, node: NodeId) -> RegistrarStatus {
    world.with_registrar(node).status(world.now())
}

fn resolve(world: &mut World, on: ConnectionId, pool: &str) {
    let pool_handle = pool.parse().unwrap();
    send_asap(world, on, HandleResolution { subscribe: false, pool_handle, items: None });
    take_asap(world, on);
}

#[test]
fn the_status_says_what_there_is_and_what_happened() {
    let mut world = World::default();
    let node = world.registrar(Registrar::new(config(), 1));
    assert_eq!(status(&world, node).elements, 0);
    let element = world.member(7, &[node]);
    let on = world.connect(node);
    world.run(SECOND);
    resolve(&mut world, on, "Pool");
    resolve(&mut world, on, "Nobody");
    let report =
        EndpointUnreachable { pool_handle: "Pool".parse().unwrap(), identifier: PoolElementId(7) };
    send_asap(&mut world, on, report);
    world.run(SECOND * 20);

    let now = status(&world, node);
    assert_eq!(now.identifier, RegistrarId(1));
    assert!(now.joined && now.ready);
    assert_eq!((now.pools, now.elements, now.own_elements), (1, 1, 1));
    assert_eq!((now.connections, now.subscriptions), (2, 0));
    let counters = &now.counters;
    assert_eq!((counters.registrations, counters.refusals), (1, 0));
    assert_eq!((counters.resolutions, counters.failed_resolutions), (2, 1));
    assert_eq!(counters.reports, 1);
    assert!(counters.keep_alives >= 3, "{}", counters.keep_alives);
    assert_eq!(counters.keep_alives, counters.keep_alive_acks);

    let (pools, next) = world.with_registrar(node).pools(None, 10);
    assert_eq!(next, None);
    assert_eq!(pools.len(), 1);
    assert_eq!(pools[0].handle.to_string(), "Pool");
    assert_eq!(pools[0].policy, PolicyType::ROUND_ROBIN);
    assert_eq!((pools[0].elements, pools[0].transport), (1, Some(TransportProtocol::Tcp)));

    let (elements, next) = world.with_registrar(node).elements_after(world.now(), None, 10);
    assert_eq!(next, None);
    let it = &elements[0];
    assert_eq!((it.pool.to_string().as_str(), it.element.identifier.0), ("Pool", 7));
    assert_eq!(it.element.home_registrar, RegistrarId(1));
    let registered = it.registered.unwrap();
    assert!(registered > SECOND * 20 && registered <= SECOND * 21, "{registered:?}");
    assert!(it.heard.unwrap() < SECOND * 8, "{:?}", it.heard);
    assert!(!it.doubted && !it.asked && it.owner.is_none());

    world.kill(element);
    world.run(SECOND * 30);
    let now = status(&world, node);
    assert_eq!((now.pools, now.elements, now.own_elements), (0, 0, 0));
    let removals = RemovalReason::ALL.map(|reason| now.counters.removals(reason));
    assert_eq!(removals.iter().sum::<u64>(), 1);
}

#[test]
fn peers_are_listed_with_their_condition() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    world.member(7, &[two]);
    world.run(SECOND * 10);
    let now = status(&world, one);
    assert_eq!((now.elements, now.own_elements, now.peers.len()), (1, 0, 1));
    let peer = &now.peers[0];
    assert_eq!((peer.identifier, peer.condition), (RegistrarId(2), PeerCondition::Alive));
    assert_eq!((peer.connected, peer.elements), (true, 1));
    assert!(peer.heard < SECOND * 4 && peer.address.is_some(), "{peer:?}");
    assert!(now.counters.enrp_messages > 0);
    world.pause(two);
    let mut seen = Vec::new();
    for _ in 0..100 {
        world.run(SECOND / 10);
        let condition = status(&world, one).peers.first().map(|peer| peer.condition);
        if seen.last() != Some(&condition) {
            seen.push(condition);
        }
    }
    let (alive, suspected) = (Some(PeerCondition::Alive), Some(PeerCondition::Suspected));
    assert_eq!(seen, [alive, suspected, Some(PeerCondition::TakenOver), None]);
    assert_eq!(status(&world, one).counters.takeovers, 1);
    assert_eq!(status(&world, one).own_elements, 1);
}

/// Pages of any size contain each pool and each element once.
#[test]
fn pages_contain_everything_once() {
    let mut world = World::default();
    let node = world.registrar(Registrar::new(config(), 1));
    let on = world.connect(node);
    for identifier in 1..=60 {
        send_asap(&mut world, on, registration(&format!("Pool{}", identifier % 7), identifier));
    }
    let answers = take_asap(&mut world, on);
    assert!(
        answers.iter().all(|body| matches!(body, Body::RegistrationResponse(it) if !it.reject))
    );
    let (registrar, now) = (world.with_registrar(node), world.now());
    for limit in [1, 2, 7, 59, 60, 61] {
        let (mut handles, mut after) = (Vec::new(), None);
        loop {
            let (pools, next) = registrar.pools(after, limit);
            assert!(pools.len() <= limit);
            handles.extend(pools.into_iter().map(|pool| (pool.handle, pool.elements)));
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(handles.len(), 7);
        assert_eq!(handles.iter().map(|(_, elements)| elements).sum::<usize>(), 60);

        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (elements, next) = registrar.elements_after(now, after, limit);
            assert!(elements.len() <= limit);
            all.extend(elements.into_iter().map(|it| it.element.identifier.0));
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(all.iter().copied().collect::<BTreeSet<_>>(), (1..=60).collect());
        assert_eq!(all.len(), 60);
    }
    let handle: PoolHandle = "Pool3".parse().unwrap();
    let keys = registrar.members_of(&handle, None, usize::MAX);
    assert_eq!(keys.len(), 9);
    assert_eq!(registrar.members_of(&handle, None, 4), keys[..4]);
    assert_eq!(registrar.members_of(&handle, Some(keys[3]), 9), keys[4..]);
    assert_eq!(registrar.pools(Some(u32::MAX), 9), (Vec::new(), None));
    let elements = registrar.elements_at(now, &handle, &keys[..5]);
    assert!(elements.len() == 5 && elements.iter().all(|it| it.element.identifier.0 % 7 == 3));
    assert!(registrar.elements_at(now, &"Pool4".parse().unwrap(), &keys).is_empty());
}

#[test]
fn changed_limits_and_rules_apply_at_once() {
    let mut world = World::default();
    let node = world.registrar(Registrar::new(config(), 1));
    let member = world.member(7, &[node]);
    let on = world.connect(node);
    world.run(SECOND);
    let change = |world: &mut World, config: RegistrarConfig| {
        world.with_registrar_mut(node, |registrar, now| registrar.reconfigure(now, config));
    };
    change(
        &mut world,
        config().identifier(RegistrarId(9)).limits(Limits::default().resolutions(1)),
    );
    assert_eq!(status(&world, node).identifier, RegistrarId(1));
    for _ in 0..3 {
        resolve(&mut world, on, "Pool");
    }
    assert_eq!(status(&world, node).counters.limit_hits(Limit::Resolutions), 2);
    assert_eq!(status(&world, node).elements, 1);

    // The host of the element may not have elements any more; its users stay.
    let nowhere: AddressRange = "192.0.2.0/24".parse().unwrap();
    let rules = AccessRules::default().allow(AccessRole::Element, [nowhere]);
    change(&mut world, config().access(rules.clone()));
    world.run(SECOND);
    assert_eq!(status(&world, node).elements, 0);
    assert_eq!(status(&world, node).counters.removals(RemovalReason::Denied), 1);
    assert!(world.is_open(on));
    change(&mut world, config().access(rules.allow(AccessRole::User, [nowhere])));
    world.run(SECOND);
    assert!(!world.is_open(on));

    change(&mut world, config());
    world.run(SECOND * 40);
    assert_eq!(status(&world, node).elements, 1);
    let _ = member;
}

/// Two registrars and an element of the second one, all with identities, and the rules of the first.
fn identified() -> (World, [NodeId; 3], AccessRules) {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[one]);
    let element = world.member(7, &[two]);
    for (host, role) in ["registrar", "registrar", "element:*", "user:*"].iter().enumerate() {
        let name = format!("rserpool:{role}");
        world.identities.insert(address(host).host(), Identity::new([name.as_str()]));
    }
    let rules = AccessRules::default().require_identity();
    change_rules(&mut world, one, &rules);
    world.run(SECOND * 8);
    assert_eq!(status(&world, one).elements, 1);
    (world, [one, two, element], rules)
}

fn change_rules(world: &mut World, node: NodeId, rules: &AccessRules) {
    let config = RegistrarConfig::default().ready_after(Duration::ZERO).access(rules.clone());
    world.with_registrar_mut(node, |registrar, now| registrar.reconfigure(now, config));
}

/// Connections that are being made have no identity yet.
#[test]
fn changed_rules_spare_what_is_not_verified_yet() {
    let (mut world, [one, two, element], rules) = identified();
    let everywhere: AddressRange = "0.0.0.0/0".parse().unwrap();
    // The registrar takes the element over, and is connecting to it.
    world.pause(element);
    world.kill(two);
    while status(&world, one).own_elements == 0 {
        world.run(SECOND / 100);
    }
    let rules = rules.allow(AccessRole::User, [everywhere]);
    change_rules(&mut world, one, &rules);
    assert_eq!(status(&world, one).elements, 1);
    world.resume(element);
    world.run(SECOND * 10);
    assert_eq!(status(&world, one).own_elements, 1);

    // It is connecting to a peer that does not answer yet.
    let three = world.join(3, &[]);
    world.pause(three);
    world.identities.insert(address(three).host(), Identity::new(["rserpool:registrar"]));
    let config =
        |rules: AccessRules| RegistrarConfig::default().access(rules).peers([address(three)]);
    world.with_registrar_mut(one, |registrar, now| {
        registrar.reconfigure(now, config(rules.clone()));
    });
    world.take_events(one);
    let rules = rules.allow(AccessRole::Element, [everywhere]);
    world.with_registrar_mut(one, |registrar, now| registrar.reconfigure(now, config(rules)));
    let events = world.take_events(one);
    assert!(!events.iter().any(|event| format!("{event:?}").contains("PeerSilent")), "{events:?}");
}

#[test]
fn a_subscription_ends_with_its_permission() {
    let (mut world, [one, ..], rules) = identified();
    let on = world.connect_from(3, Ppid::ASAP, one);
    let pool_handle: PoolHandle = "Pool".parse().unwrap();
    send_asap(&mut world, on, HandleResolution { subscribe: true, pool_handle, items: None });
    take_asap(&mut world, on);
    assert_eq!(status(&world, one).subscriptions, 1);
    let all = ["registrar", "element:*"].map(|grant| (Pattern::any(), grant.parse().unwrap()));
    let granted = |user: &str| {
        let grants = all.clone().into_iter().chain([(Pattern::any(), user.parse().unwrap())]);
        grants.fold(rules.clone(), |rules, (name, grant): (_, Grant)| rules.grant(name, grant))
    };
    change_rules(&mut world, one, &granted("user:Pool"));
    assert!(world.is_open(on) && status(&world, one).subscriptions == 1);
    change_rules(&mut world, one, &granted("user:Other"));
    world.run(SECOND);
    assert!(!world.is_open(on));
    assert_eq!((status(&world, one).subscriptions, status(&world, one).elements), (0, 1));
}

#[test]
fn peers_that_are_added_are_joined() {
    let mut world = World::default();
    let one = world.join(1, &[]);
    let two = world.join(2, &[]);
    world.member(7, &[two]);
    world.run(SECOND * 8);
    assert!(status(&world, one).peers.is_empty());
    let config = config().peers([address(two)]);
    world.with_registrar_mut(one, |registrar, now| registrar.reconfigure(now, config));
    world.run(SECOND * 2);
    assert_eq!(status(&world, one).peers.len(), 1);
    assert_eq!(status(&world, one).elements, 1);
}
