//! Tests of the observable state of pool elements.

use rserpool_proto::wire::{PolicyParameters, TransportAddress};

use super::service::{pool, start_registrar};
use super::{any_address, pause};
use crate::{
    Departure, ElementState, ElementWatch, JoinError, Network, PoolElement, Registrar,
    RegistrarConfig, Stopped,
};

fn start_element(
    network: &Network,
    at: &TransportAddress,
    policy: PolicyParameters,
) -> PoolElement {
    let builder = PoolElement::builder(network, pool(), [at]);
    let builder = builder.listen(([127, 0, 0, 1], 0).into());
    builder.configure(|config| config.policy(policy)).start().expect("a free port")
}

async fn registered(watch: &mut ElementWatch) -> ElementState {
    loop {
        match watch.changed().await.expect("it runs") {
            ElementState::Joining { .. } => {}
            state => break state,
        }
    }
}

/// Checks that the watch of an element reports the registration with its time and registrar, the
/// loss of the registration, a refusal with its reason, and the departure.
pub async fn the_state_of_an_element_is_observed(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let element = start_element(&network, &at, PolicyParameters::round_robin());
    let mut watch = element.watch();
    let state = registered(&mut watch).await;
    assert_eq!(state, watch.state());
    let ElementState::Registered { since, identifier, registrar: home } = state else {
        panic!("{state:?}");
    };
    assert_eq!(identifier, element.registered().await.expect("it is"));
    assert_eq!(home, at);

    // Another policy than the pool's is refused.
    let other = start_element(&network, &at, PolicyParameters::least_used(0));
    let mut refused = other.watch();
    loop {
        let state = refused.changed().await.expect("it runs");
        let ElementState::Joining { refusal, .. } = state else { panic!("{state:?}") };
        if let Some(refusal) = refusal {
            assert!(matches!(refusal, JoinError::Rejected(_)), "{refusal}");
            break;
        }
    }
    drop(other);
    while let Ok(state) = refused.changed().await {
        assert_eq!(state, refused.state());
    }
    assert_eq!(refused.state(), ElementState::Left(Departure::NotRegistered));

    // The element's task reads its clock once for all that it does at a time.
    pause(&network, 20).await;
    registrar.shutdown().await.expect("it runs");
    let state = watch.changed().await.expect("it runs");
    assert!(matches!(state, ElementState::Joining { refusal: None, .. }), "{state:?}");
    // The old registrar may still be closing its port.
    let _registrar = loop {
        match Registrar::start(&network, [&at], RegistrarConfig::default()) {
            Ok(registrar) => break registrar,
            Err(_) => pause(&network, 10).await,
        }
    };
    let state = registered(&mut watch).await;
    assert!(
        matches!(state, ElementState::Registered { since: again, .. } if again > since),
        "{state:?}"
    );
    assert_eq!(element.leave().await, Departure::Confirmed);
    assert_eq!(watch.changed().await, Ok(ElementState::Left(Departure::Confirmed)));
    assert_eq!(watch.changed().await, Err(Stopped));
}
