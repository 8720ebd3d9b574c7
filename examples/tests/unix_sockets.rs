//! Runs the contract suite over the example's Unix sockets.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

use rserpool::Network;
use rserpool_examples::unix_sockets::UnixSockets;

/// Returns a network whose sockets are in a folder of their own.
fn network(runtime: impl rserpool::runtime::Runtime) -> Network {
    Network::new(runtime, UnixSockets::new(tempfile::tempdir().unwrap().keep()))
}

mod smol_ {
    rserpool::contract_suite!(smol::block_on, super::network(rserpool_smol::SmolRuntime::new()));
}

mod tokio_ {
    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Runtime::new().unwrap().block_on(future)
    }

    rserpool::contract_suite!(block_on, super::network(rserpool_tokio::TokioRuntime::current()));
}
