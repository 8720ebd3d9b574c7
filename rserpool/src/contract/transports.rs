//! Tests of registrars, elements and users with several transports.

use std::sync::Arc;
use std::time::Duration;

use rserpool_proto::registrar::RegistrarConfig;
use rserpool_proto::user::ResolveOptions;
use rserpool_proto::wire::{PoolHandle, RegistrarId, TransportProtocol};

use super::any_address;
use super::pause;
use super::service::{new_user, next, start_counter, start_counter_of};
use crate::transport::{Memory, Tcp, Transport};
use crate::{Network, Registrar};

/// Checks that elements and users of all transports share one handlespace.
pub async fn a_registrar_offers_several_transports(network: Network) {
    let other: Arc<dyn Transport> = match network.protocol() {
        TransportProtocol::Tcp => Arc::new(Memory::new()),
        _ => Arc::new(Tcp::new()),
    };
    let elsewhere = Network::shared(network.runtime().clone(), other.clone());
    let both = network.clone().with_sessions_over(other);
    let config = RegistrarConfig::default().identifier(RegistrarId(1)).ready_after(Duration::ZERO);
    let addresses = [any_address(&network), any_address(&elsewhere)];
    let registrar = Registrar::start(&both, &addresses, config).expect("free ports");
    let [here, there] = registrar.local_addresses() else { panic!("two addresses") };
    assert_eq!((here.protocol, there.protocol), (network.protocol(), elsewhere.protocol()));
    let counters = [
        start_counter(&network, here).await,
        start_counter_of("Elsewhere", &elsewhere, there).await,
    ];
    for (network, at) in [(&network, here), (&elsewhere, there)] {
        let user = new_user(network, at);
        for (name, counter) in ["ContractPool", "Elsewhere"].iter().zip(&counters) {
            let handle: PoolHandle = name.parse().expect("a handle");
            let found = user.resolve(handle, ResolveOptions::default()).await.expect("it is there");
            assert_eq!(found[0].identifier, counter.identifier);
        }
    }
    // A user with both transports reaches a pool over either.
    let user = new_user(&both, here);
    for name in ["ContractPool", "Elsewhere"] {
        let mut session = user.open(name).await.expect("it is there");
        assert_eq!(next(&mut session).await.0, 1);
    }
    // The registrar monitors each element, and notices its crash, over the transport with which it
    // registered.
    for (counter, name) in counters.into_iter().zip(["ContractPool", "Elsewhere"]) {
        drop(counter.stop);
        let _ = counter.done.await;
        let handle: PoolHandle = name.parse().expect("a handle");
        while user.resolve(handle.clone(), ResolveOptions::default()).await.is_ok() {
            pause(&network, 10).await;
        }
    }
}
