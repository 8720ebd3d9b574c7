//! Tests of what a registrar selects for whom, and of what it tells about its answers.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use rserpool_proto::policy::{
    InvalidPolicy, Member, Policies, RandomSource, SelectionPolicy, Selector, Wanted,
};
use rserpool_proto::registrar::RegistrarConfig;
use rserpool_proto::testing::by_hand::{registration, send_asap, take_asap};
use rserpool_proto::testing::world::{Event, NodeId, World, address};
use rserpool_proto::user::{ResolveOptions, UserConfig};
use rserpool_proto::wire::asap::{Body, HandleResolution, HandleResolutionResponse, Resolved};
use rserpool_proto::wire::parameter::ItemCount;
use rserpool_proto::wire::{PolicyParameters, PolicyType, Ppid, RegistrarId};
use rserpool_proto::{Compatibility, ConnectionId, HuntConfig, Identity, Registrar, User, user};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> RegistrarConfig {
    RegistrarConfig::default().identifier(RegistrarId(1)).ready_after(Duration::ZERO)
}

/// Registers an element with each of these policies. Returns a connection to the registrar.
fn pool(world: &mut World, node: NodeId, policies: &[PolicyParameters]) -> ConnectionId {
    let on = world.connect(node);
    for (identifier, policy) in (1..).zip(policies) {
        let mut registration = registration("Pool", identifier);
        registration.pool_element.policy = policy.clone();
        send_asap(world, on, registration);
    }
    world.run(SECOND);
    on
}

fn answer(world: &mut World, on: ConnectionId, items: u32) -> HandleResolutionResponse {
    take_asap(world, on);
    let items = Some(ItemCount(items));
    send_asap(
        world,
        on,
        HandleResolution { items, ..HandleResolution::new("Pool".parse().unwrap()) },
    );
    match take_asap(world, on).pop() {
        Some(Body::HandleResolutionResponse(response)) => response,
        other => panic!("{other:?}"),
    }
}

fn identifiers(response: HandleResolutionResponse) -> Vec<u32> {
    let Resolved::Pool { elements, .. } = response.result else { panic!("no elements") };
    elements.iter().map(|element| element.identifier.0).collect()
}

#[test]
fn as_many_elements_count_as_selected_as_the_operator_says() {
    let degrading = PolicyParameters::new(PolicyType::LEAST_USED_DEGRADATION, &[10, 10]);
    for (max_increment, compatibility, answers) in [
        (None, Compatibility::All, [[1, 2, 3], [2, 3, 1], [3, 1, 2]]),
        (None, Compatibility::Rfc, [[1, 2, 3]; 3]),
        (Some(3), Compatibility::All, [[1, 2, 3]; 3]),
        (Some(1), Compatibility::Rfc, [[1, 2, 3], [2, 3, 1], [3, 1, 2]]),
    ] {
        let mut world = World::default();
        let config = config().compatibility(compatibility).max_increment(max_increment);
        let node = world.registrar(Registrar::new(config, 1));
        let on = pool(&mut world, node, &vec![degrading.clone(); 3]);
        let told: Vec<_> = (0..3).map(|_| identifiers(answer(&mut world, on, 3))).collect();
        assert_eq!(told, answers, "{max_increment:?}, {compatibility}");
    }
}

#[test]
fn an_answer_says_when_it_has_fewer_elements_than_it_should() {
    let round_robin = vec![PolicyParameters::round_robin(); 3];
    for (max_items, compatibility, items, partial) in [
        (2, Compatibility::All, 2, false),
        (2, Compatibility::All, 3, true),
        (2, Compatibility::All, u32::MAX, true),
        (2, Compatibility::Rsplib, 3, false),
        (2, Compatibility::Rfc, 3, false),
        (3, Compatibility::All, 32, false),
    ] {
        let mut world = World::default();
        let config = config().compatibility(compatibility).max_items(max_items);
        let node = world.registrar(Registrar::new(config, 1));
        let on = pool(&mut world, node, &round_robin);
        let told = answer(&mut world, on, items);
        assert_eq!(told.partial, partial, "{items} of at most {max_items}, {compatibility}");
        assert_eq!(identifiers(told).len(), max_items as usize);
    }
    // Handles, policies and addresses of a thousand elements do not fit into one message.
    let mut world = World::default();
    let node = world.registrar(Registrar::new(config().max_items(u32::MAX), 1));
    let on = pool(&mut world, node, &vec![PolicyParameters::round_robin(); 2000]);
    let told = answer(&mut world, on, u32::MAX);
    assert!(told.partial);
    assert!((1000..2000).contains(&identifiers(told).len()));
}

/// Tests that a user which selects several times from an answer takes the weights into account only
/// if the registrar has not done that by leaving out elements.
#[test]
fn weights_count_once_whatever_number_of_elements_a_registrar_returns() {
    let weights = [1, 100, 10_000];
    let weighted = |weight| PolicyParameters::new(PolicyType::WEIGHTED_RANDOM, &[weight]);
    for (max_items, equal) in [(2, true), (128, false)] {
        let mut world = World::default();
        let config = config().max_items(max_items).enrp(address(0));
        let node = world.registrar(Registrar::new(config, 1));
        pool(&mut world, node, &weights.map(weighted));
        let user = User::new(UserConfig::new(HuntConfig::new([address(0)])), 1);
        let user = world.user(user);
        let options = ResolveOptions::default().max_age(SECOND * 3600);
        let mut first: BTreeMap<u32, usize> = BTreeMap::new();
        for _ in 0..1000 {
            let handle = "Pool".parse().unwrap();
            world.with_user(user, |user, now| user.resolve(now, handle, &options));
            world.run(SECOND / 1000);
            for event in world.take_events(user) {
                if let Event::User(user::Event::Resolved { result, .. }) = event {
                    *first.entry(result.unwrap()[0].identifier.0).or_default() += 1;
                }
            }
        }
        let most = first.values().copied().max().unwrap();
        assert_eq!(first.values().sum::<usize>(), 1000);
        assert_eq!((400..600).contains(&most), equal, "{first:?}");
    }
}

/// Selects the elements whose number is that of the asking host or, for those with an identity, of
/// its name.
#[derive(Debug)]
struct ByAsker;

#[derive(Debug, Default)]
struct Elements(BTreeMap<Member, u32>);

impl SelectionPolicy for ByAsker {
    fn policy_type(&self) -> PolicyType {
        PolicyType(0x8000_0007)
    }

    fn validate(&self, _: &PolicyParameters) -> Result<(), InvalidPolicy> {
        Ok(())
    }

    fn new_selector(self: std::sync::Arc<Self>) -> Box<dyn Selector> {
        Box::new(Elements::default())
    }
}

impl Selector for Elements {
    fn insert(&mut self, member: Member, parameters: &PolicyParameters) {
        self.0.insert(member, parameters.words()[0]);
    }

    fn update(&mut self, member: Member, parameters: &PolicyParameters) {
        self.insert(member, parameters);
    }

    fn remove(&mut self, member: Member) {
        self.0.remove(&member);
    }

    fn select(&mut self, wanted: Wanted<'_>, _: &mut RandomSource, selected: &mut Vec<Member>) {
        let asker = wanted.asker.unwrap();
        let name = asker.identity.and_then(|identity| identity.names().next()?.parse().ok());
        let number =
            name.or_else(|| (0..20).find(|host| address(*host as usize).host() == asker.address));
        let chosen = self.0.iter().filter(|(_, word)| Some(**word) == number);
        selected.extend(chosen.map(|(member, _)| *member).take(wanted.items));
    }
}

#[test]
fn a_policy_may_depend_on_who_asks() {
    let mut world = World::default();
    let policies = Policies::default().with(ByAsker);
    let node = world.registrar(Registrar::new(config().policies(policies), 1));
    let numbers = [7, 8, 9].map(|number| PolicyParameters::new(ByAsker.policy_type(), &[number]));
    pool(&mut world, node, &numbers);
    world.identities.insert(address(10).host(), Identity::new(["9"]));
    for (host, identifier) in [(7, 1), (8, 2), (10, 3)] {
        let on = world.connect_from(host, Ppid::ASAP, node);
        let told = answer(&mut world, on, 3);
        assert_eq!(identifiers(told), [identifier], "host {host}");
    }
}
