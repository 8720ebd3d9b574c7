//! Runs the contract suite on smol.

use rserpool::Network;
use rserpool::transport::{Memory, Tcp};
use rserpool_smol::SmolRuntime;

mod tcp {
    use super::*;
    rserpool::contract_suite!(smol::block_on, Network::new(SmolRuntime::new(), Tcp::new()));
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
}
