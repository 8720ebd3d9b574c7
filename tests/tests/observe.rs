//! Programs observe and reconfigure a registrar that runs.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use futures::StreamExt;
use rserpool::proto::registrar::{Event, RemovalReason};
use rserpool::transport::Memory;
use rserpool::{
    AccessRole, AccessRules, Network, PoolElement, PoolUser, Registrar, RegistrarConfig,
    RegistrarEvent,
};
use rserpool_tokio::TokioRuntime;

fn network() -> Network {
    Network::new(TokioRuntime::current(), Memory::new())
}

fn start(network: &Network) -> Registrar {
    Registrar::start(network, ["192.0.2.1:3863"], RegistrarConfig::default()).unwrap()
}

async fn join(network: &Network, registrar: &Registrar, pool: &str) -> PoolElement {
    let registrars = registrar.local_addresses().to_vec();
    let element = PoolElement::builder(network, pool, registrars).start().unwrap();
    element.registered().await.unwrap();
    element
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_has_the_pools_and_their_elements() {
    let network = network();
    let registrar = start(&network);
    assert!(!registrar.status().await.unwrap().ready);
    registrar.ready().await.unwrap();
    let mut elements = Vec::new();
    for pool in ["A", "B", "B", "C"] {
        elements.push(join(&network, &registrar, pool).await);
    }
    let snapshot = registrar.snapshot().await.unwrap();
    assert_eq!((snapshot.registrar.pools, snapshot.registrar.elements), (3, 4));
    assert!(snapshot.registrar.ready && snapshot.registrar.joined);
    let pools: Vec<_> = snapshot.pools.iter().map(|it| it.pool.handle.to_string()).collect();
    assert_eq!(pools, ["A", "B", "C"]);
    let sizes: Vec<_> = snapshot.pools.iter().map(|it| it.elements.len()).collect();
    assert_eq!(sizes, [1, 2, 1]);
    let first = &snapshot.pools[0];
    let identifier = elements[0].registered().await.unwrap();
    assert_eq!(first.elements[0].element.identifier, identifier);
    let of_pool = registrar.elements(&first.pool.handle).await.unwrap();
    assert_eq!(of_pool.len(), 1);
    assert!(registrar.elements(&"Nobody".parse().unwrap()).await.unwrap().is_empty());
    assert_eq!(snapshot.registrar.counters.registrations, 4);
}

#[tokio::test(start_paused = true)]
async fn events_are_told_as_they_happen_and_counted_if_nobody_takes_them() {
    let network = network();
    let registrar = start(&network);
    let (mut quick, mut slow) =
        (registrar.events().await.unwrap(), registrar.events().await.unwrap());
    let element = join(&network, &registrar, "A").await;
    let identifier = element.registered().await.unwrap();
    let Some(RegistrarEvent::Happened(Event::Registered(name, _))) = quick.next().await else {
        panic!("registered");
    };
    assert_eq!((name.pool_handle.to_string().as_str(), name.identifier), ("A", identifier));
    element.leave().await;
    loop {
        match quick.next().await.unwrap() {
            RegistrarEvent::Happened(Event::Removed(name, reason, _)) => {
                assert_eq!((name.identifier, reason), (identifier, RemovalReason::Deregistered));
                break;
            }
            RegistrarEvent::Happened(_) => {}
            missed @ RegistrarEvent::Missed(_) => panic!("{missed:?}"),
        }
    }
    drop(quick);

    // Many more than wait for an observer.
    let mut events: u64 = 2;
    for _ in 0..800 {
        join(&network, &registrar, "A").await.leave().await;
        events += 2;
    }
    let counters = registrar.status().await.unwrap().counters;
    let happened = counters.registrations + counters.removals(RemovalReason::Deregistered);
    assert_eq!(happened, events);
    let (mut taken, mut missed) = (0, 0);
    for _ in 0..1000 {
        assert!(matches!(slow.next().await, Some(RegistrarEvent::Happened(_))));
        taken += 1;
    }
    let last = join(&network, &registrar, "B").await;
    drop(registrar);
    while let Some(event) = slow.next().await {
        match event {
            RegistrarEvent::Happened(_) => taken += 1,
            RegistrarEvent::Missed(count) => missed += count,
        }
    }
    assert!(missed > 400, "{missed}");
    assert!(taken + missed >= events, "{taken} and {missed} of {events}");
    drop(last);
}

#[tokio::test(start_paused = true)]
async fn rules_are_changed_while_the_registrar_runs() {
    let network = network();
    let registrar = start(&network);
    let element = join(&network, &registrar, "A").await;
    let user = PoolUser::new(&network, registrar.local_addresses()).unwrap();
    assert_eq!(user.resolve("A", Default::default()).await.unwrap().len(), 1);
    let rules = AccessRules::default().allow(AccessRole::Element, []);
    registrar.reconfigure(RegistrarConfig::default().access(rules)).await.unwrap();
    assert_eq!(registrar.status().await.unwrap().elements, 0);
    registrar.reconfigure(RegistrarConfig::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(user.resolve("A", Default::default()).await.unwrap().len(), 1);
    drop(element);
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_the_registrar_stops_is_told_so() {
    let network = network();
    let registrar = start(&network);
    let mut events = registrar.events().await.unwrap();
    let ready = registrar.ready();
    let mut ready = Box::pin(ready);
    assert!(futures::poll!(&mut ready).is_pending());
    drop(ready);
    registrar.shutdown().await.unwrap();
    let rest: Vec<_> = events.by_ref().collect().await;
    assert_eq!(rest.last(), Some(&RegistrarEvent::Happened(Event::Left)));
}
