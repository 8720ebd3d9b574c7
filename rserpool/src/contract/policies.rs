//! Tests that the registrar's selection of elements takes effect for each way of using a pool.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use rserpool_proto::user::ResolveOptions;
use rserpool_proto::wire::{
    PolicyParameters, PolicyType, PoolElementId, PoolHandle, Ppid, TransportAddress, UserMessage,
};

use super::any_address;
use super::service::{new_user, start_registrar};
use crate::cookie::{KeyRing, Seal};
use crate::{
    ElementEvent, InvalidState, MessengerEvent, Network, PoolElement, RequestConfig, Service,
    ServiceConfig,
};

/// Number of selections for each way of using a pool: a multiple of the sum of the weights 1, 2
/// and 3.
const TIMES: usize = 60;

struct Echo;

impl Service for Echo {
    async fn handle(&mut self, body: Bytes) -> Bytes {
        body
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> {
        Ok(())
    }
}

fn handle(name: &str) -> PoolHandle {
    name.parse().expect("a handle")
}

/// Starts three elements of the pool, whose weights 1, 2 and 3 equal their identifiers.
async fn start(network: &Network, at: &TransportAddress, pool: &str) -> Vec<PoolElement> {
    let mut elements = Vec::new();
    for weight in 1..=3 {
        let policy = PolicyParameters::new(PolicyType::WEIGHTED_ROUND_ROBIN, &[weight]);
        let builder = PoolElement::builder(network, handle(pool), [at.clone()])
            .configure(|config| config.identifier(PoolElementId(weight)).policy(policy))
            .listen(([127, 0, 0, 1], 0).into());
        let element = builder.start().expect("a free port");
        element.registered().await.expect("the registrar takes it");
        elements.push(element);
    }
    elements
}

fn assert_weighted(chosen: &[PoolElementId], way: &str) {
    let mut counts = BTreeMap::<_, usize>::new();
    for PoolElementId(identifier) in chosen {
        *counts.entry(*identifier).or_default() += 1;
    }
    let expected = BTreeMap::from([(1, TIMES / 6), (2, TIMES / 3), (3, TIMES / 2)]);
    assert_eq!(counts, expected, "{way}");
}

/// Checks weighted round robin for resolutions, sessions, messages and requests.
pub async fn weights_hold_however_a_pool_is_used(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let user = new_user(&network, &at);
    for mut element in start(&network, &at, "Weighted").await {
        let runtime = network.runtime().clone();
        network.runtime().spawn(Box::pin(async move {
            while let Ok(mut session) = element.accept().await {
                runtime.spawn(Box::pin(async move {
                    while let Ok(event) = session.recv().await {
                        if let ElementEvent::Message(message) = event {
                            let _ = session.send(message.ppid, message.payload).await;
                        }
                    }
                }));
            }
        }));
    }
    for max_age in [Duration::ZERO, Duration::from_secs(600)] {
        let options = ResolveOptions::default().max_age(max_age);
        let mut first = Vec::new();
        for _ in 0..TIMES {
            let found = user.resolve(handle("Weighted"), options.clone()).await;
            first.push(found.expect("it is there")[0].identifier);
        }
        assert_weighted(&first, &format!("resolutions, {max_age:?}"));
    }
    let mut chosen = Vec::new();
    for _ in 0..TIMES {
        let session = user.open(handle("Weighted")).await.expect("it is there");
        chosen.extend(session.element());
        session.close().await;
    }
    assert_weighted(&chosen, "sessions");

    let mut messenger = user.messenger(handle("Weighted")).expect("a dialler");
    let mut chosen = Vec::new();
    for _ in 0..TIMES {
        let message = UserMessage::new(Ppid(7), b"there".as_slice());
        chosen.push(messenger.send(message).await.expect("it is there"));
        let (_, answer) = messenger.recv().await;
        assert!(matches!(answer, MessengerEvent::Message(it) if it.payload == "there"));
    }
    assert_weighted(&chosen, "messages");

    let (seal, mut stops) = (KeyRing::generate(), Vec::new());
    for element in start(&network, &at, "Requests").await {
        let config = ServiceConfig::new(Seal::new(handle("Requests"), seal.clone()));
        let (stop, stopping) = oneshot::channel::<()>();
        stops.push(stop);
        network.runtime().spawn(Box::pin(async move {
            element.serve(config, || Echo, stopping, Duration::from_secs(2)).await;
        }));
    }
    let mut chosen = Vec::new();
    for _ in 0..TIMES {
        let opened = user.open_requests(handle("Requests"), RequestConfig::default()).await;
        let mut session = opened.expect("it is there");
        assert_eq!(session.request(b"there".as_slice()).await.expect("it lives"), "there");
        chosen.extend(session.element());
        session.close().await;
    }
    assert_weighted(&chosen, "requests");
}
