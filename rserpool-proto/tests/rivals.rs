//! Tests which pool stays if pools with the same handle and different policies were created on
//! different registrars.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use rserpool_proto::Registrar;
use rserpool_proto::registrar::RegistrarConfig;
use rserpool_proto::testing::by_hand::{registration, send_asap, send_enrp, take_asap, take_enrp};
use rserpool_proto::testing::world::{NodeId, World, address};
use rserpool_proto::wire::asap::Body;
use rserpool_proto::wire::enrp::{self, HandleUpdate, Presence, Route, UpdateAction};
use rserpool_proto::wire::parameter::PeChecksum;
use rserpool_proto::wire::{PoolElement, PoolElementId, Ppid, RegistrarId, ServerInformation};

const SECOND: Duration = Duration::from_secs(1);

/// The registrar under test. Its identifier is between those of its peers.
const OURS: RegistrarId = RegistrarId(50);

/// A registrar, and peers of it that the test simulates.
struct Scene {
    world: World,
    node: NodeId,
    peers: BTreeMap<u32, rserpool_proto::ConnectionId>,
    element: rserpool_proto::ConnectionId,
}

impl Scene {
    fn new(peers: &[u32]) -> Self {
        let mut world = World::default();
        let config = RegistrarConfig::default()
            .identifier(OURS)
            .enrp(address(0))
            .ready_after(Duration::ZERO);
        let node = world.registrar(Registrar::new(config, 1));
        let element = world.connect(node);
        let peers = peers.iter().map(|peer| {
            let on = world.connect_for(Ppid::ENRP, node);
            let route = Route { sender: RegistrarId(*peer), receiver: OURS };
            let transport = address(200);
            let server = Some(ServerInformation { registrar: route.sender, transport });
            let checksum = Some(PeChecksum(0xffff));
            send_enrp(&mut world, on, Presence { reply_required: false, route, checksum, server });
            let (more_to_send, reject, pools) = (false, false, Vec::new());
            let page = enrp::HandleTableResponse { more_to_send, reject, route, pools };
            send_enrp(&mut world, on, page);
            (*peer, on)
        });
        let peers = peers.collect();
        Self { world, node, peers, element }
    }

    /// Registers an element with the registrar under test, and returns whether it was accepted.
    fn register(&mut self, identifier: u32, policy: &str) -> bool {
        let mut registration = registration("Pool", identifier);
        registration.pool_element.policy = policy.parse().unwrap();
        send_asap(&mut self.world, self.element, registration);
        match take_asap(&mut self.world, self.element).as_slice() {
            [Body::RegistrationResponse(response)] => !response.reject,
            other => panic!("{other:?}"),
        }
    }

    /// Sends an update from the peer `home` about an element whose home registrar is that peer.
    fn tell(&mut self, home: u32, action: UpdateAction, identifier: u32, policy: &str) {
        let registration = registration("Pool", identifier);
        let update = HandleUpdate {
            takeover_suggested: false,
            route: Route { sender: RegistrarId(home), receiver: OURS },
            action,
            reserved: 0,
            pool_handle: registration.pool_handle,
            pool_element: PoolElement {
                home_registrar: RegistrarId(home),
                policy: policy.parse().unwrap(),
                ..registration.pool_element
            },
        };
        send_enrp(&mut self.world, self.peers[&home], update);
    }

    /// Returns the identifiers of the pool's elements, and their common policy.
    fn pool(&self) -> (Vec<u32>, String) {
        let registrar = self.world.with_registrar(self.node);
        let mut policies: Vec<_> =
            registrar.members().map(|(_, element)| element.policy.to_string()).collect();
        policies.dedup();
        assert!(policies.len() <= 1, "{policies:?}");
        let known = self.world.homes(self.node).into_iter().map(|(identifier, _)| identifier);
        (known.collect(), policies.pop().unwrap_or_default())
    }
}

#[test]
fn the_pool_with_more_elements_stays_and_those_of_the_other_are_told() {
    let mut scene = Scene::new(&[1, 99]);
    for identifier in 1..=2 {
        assert!(scene.register(identifier, "RoundRobin"));
    }
    // A pool of one element does not replace a pool of two, whatever the numbers of their policies
    // and the identifiers of their registrars.
    for policy in ["Random", "LeastUsed:0"] {
        scene.tell(99, UpdateAction::Add, 11, policy);
        assert_eq!(scene.pool(), (vec![1, 2], "RoundRobin".to_owned()));
    }
    scene.tell(1, UpdateAction::Add, 12, "LeastUsed:0");
    scene.tell(1, UpdateAction::Add, 13, "LeastUsed:0");
    assert_eq!(scene.pool(), (vec![11, 12, 13], "LeastUsed:0".to_owned()));
    let told = take_asap(&mut scene.world, scene.element);
    let removed = |body: &Body| matches!(body, Body::DeregistrationResponse(_));
    assert_eq!(told.iter().filter(|body| removed(body)).count(), 2, "{told:?}");
    let told: Vec<_> = scene.peers.values().map(|on| take_enrp(&mut scene.world, *on)).collect();
    for told in told {
        let deleted = told.iter().filter(|body| {
            matches!(body, enrp::Body::HandleUpdate(its) if its.action == UpdateAction::Delete)
        });
        assert_eq!(deleted.count(), 2, "{told:?}");
    }
    // The elements of the new pool cannot register here until those of the old pool are removed.
    assert!(!scene.register(1, "RoundRobin"));
    for (home, identifier) in [(99, 11), (1, 12), (1, 13)] {
        scene.tell(home, UpdateAction::Delete, identifier, "LeastUsed:0");
    }
    assert!(scene.register(1, "RoundRobin"));
    assert_eq!(scene.pool(), (vec![1], "RoundRobin".to_owned()));
}

#[test]
fn of_equal_pools_that_of_the_largest_home_registrar_stays() {
    for (home, stays) in [(1, true), (99, false)] {
        let mut scene = Scene::new(&[home]);
        assert!(scene.register(1, "RoundRobin"));
        scene.tell(home, UpdateAction::Add, 11, "Random");
        let right = if stays { (vec![1], "RoundRobin") } else { (vec![11], "Random") };
        assert_eq!(scene.pool(), (right.0, right.1.to_owned()));
    }
}

/// Tests three pools with one handle: when the current one becomes empty, the larger one of the
/// other two replaces it.
#[test]
fn what_was_kept_beside_a_pool_takes_its_place() {
    let mut scene = Scene::new(&[1, 99]);
    for identifier in 1..=3 {
        assert!(scene.register(identifier, "RoundRobin"));
    }
    scene.tell(1, UpdateAction::Add, 11, "Random");
    scene.tell(1, UpdateAction::Add, 12, "Random");
    scene.tell(99, UpdateAction::Add, 21, "LeastUsed:0");
    // Element 13 does not fit the pool, and is kept beside it. Its registrar deletes it there, so
    // the element does not appear later.
    scene.tell(1, UpdateAction::Add, 13, "Random");
    scene.tell(1, UpdateAction::Delete, 13, "Random");
    assert_eq!(scene.pool(), (vec![1, 2, 3], "RoundRobin".to_owned()));
    for identifier in 1..=3 {
        let deregistration = rserpool_proto::wire::asap::Deregistration {
            pool_handle: "Pool".parse().unwrap(),
            identifier: PoolElementId(identifier),
        };
        send_asap(&mut scene.world, scene.element, deregistration);
    }
    scene.world.run(SECOND / 10);
    assert_eq!(scene.pool(), (vec![11, 12], "Random".to_owned()));
    for identifier in 11..=12 {
        scene.tell(1, UpdateAction::Delete, identifier, "Random");
    }
    assert_eq!(scene.pool(), (vec![21], "LeastUsed:0".to_owned()));
}

/// Tests that elements of a peer whose policy differs from that of their pool use a bounded amount
/// of memory, however many of them the peer announces.
#[test]
fn so_many_are_kept_beside_a_pool_and_no_more() {
    let mut scene = Scene::new(&[1]);
    for identifier in 1..=3 {
        assert!(scene.register(identifier, "RoundRobin"));
    }
    // Each element has another policy, so that none of them forms the larger pool.
    for identifier in 0..6000 {
        let policy = format!("0x{:x}", 0xc000_0000_u32 + identifier);
        scene.tell(1, UpdateAction::Add, 1000 + identifier, &policy);
    }
    assert_eq!(scene.pool(), (vec![1, 2, 3], "RoundRobin".to_owned()));
    assert_eq!(scene.world.with_registrar(scene.node).footprint().rivals, 4096);
}
