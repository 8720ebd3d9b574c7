//! Runs the contract suite on mio.
#![cfg(unix)]

use futures::executor::block_on;
use rserpool::Network;
use rserpool::transport::{Memory, Tcp};
use rserpool_mio::MioRuntime;

fn runtime() -> MioRuntime {
    MioRuntime::start().expect("a thread")
}

mod tcp {
    use super::*;
    rserpool::contract_suite!(block_on, Network::new(runtime(), Tcp::new()));
}

mod memory {
    use super::*;
    rserpool::contract_suite!(block_on, Network::new(runtime(), Memory::new()));
}
