//! Runs the contract suite on mio.
#![cfg(unix)]

use futures::executor::block_on;
use rserpool::Network;
use rserpool::contract::tls_over as tls;
use rserpool::transport::{Memory, Tcp, Tls, Transport};
use rserpool_mio::MioRuntime;

fn runtime() -> MioRuntime {
    MioRuntime::start().expect("a thread")
}

fn tls_over(inner: impl Transport) -> Tls {
    tls(inner, rustls::crypto::ring::default_provider())
}

mod tcp {
    use super::*;
    rserpool::contract_suite!(block_on, Network::new(runtime(), Tcp::new()));
}

mod tls {
    use super::*;
    rserpool::contract_suite!(block_on, Network::new(runtime(), tls_over(Tcp::new())));
    rserpool::contract_suite! {
        cases: [] block_on, Network::new(runtime(), tls_over(Tcp::new())),
        both_ends_are_identified,
        handshakes_fail_alone,
        a_crowd_of_clients_is_accepted,
    }
}

mod memory {
    use super::*;
    rserpool::contract_suite!(block_on, Network::new(runtime(), Memory::new()));
}
