//! Runs the contract suite on smol.

use rserpool::Network;
use rserpool::contract::tls_over as tls;
use rserpool::transport::{Memory, Tcp, Tls, Transport};
use rserpool_smol::SmolRuntime;

fn tls_over(inner: impl Transport) -> Tls {
    tls(inner, rustls::crypto::ring::default_provider())
}

mod tcp {
    use super::*;
    rserpool::contract_suite!(smol::block_on, Network::new(SmolRuntime::new(), Tcp::new()));
}

mod tls {
    use super::*;
    rserpool::contract_suite!(
        smol::block_on,
        Network::new(SmolRuntime::new(), tls_over(Tcp::new()))
    );
    rserpool::contract_suite! {
        cases: [] smol::block_on, Network::new(SmolRuntime::new(), tls_over(Tcp::new())),
        both_ends_are_identified,
        handshakes_fail_alone,
        a_crowd_of_clients_is_accepted,
    }
}

mod memory {
    use super::*;
    rserpool::contract_suite!(smol::block_on, Network::new(SmolRuntime::new(), Memory::new()));
}

#[cfg(target_os = "linux")]
mod sctp {
    use super::*;
    use rserpool::transport::Sctp;
    rserpool::contract_suite!(
        [#[ignore = "needs a kernel with SCTP, see tests/interop"]]
        smol::block_on,
        Network::new(SmolRuntime::new(), Sctp::new())
    );
    rserpool::contract_suite!(
        paths: [#[ignore = "needs a kernel with SCTP, see tests/interop"]]
        smol::block_on,
        Network::new(SmolRuntime::new(), Sctp::new())
    );
    rserpool::contract_suite!(
        sctp_auth: [#[ignore = "needs a kernel with SCTP, see tests/interop"]]
        smol::block_on,
        Network::new(SmolRuntime::new(), Sctp::new())
    );
}
