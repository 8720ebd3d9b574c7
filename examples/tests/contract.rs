//! Runs the contract suite on the runtime of the example.

use rserpool::Network;
use rserpool::transport::Tcp;
use rserpool_examples::own_runtime::ThreadPerTask;

rserpool::contract_suite!(async_io::block_on, Network::new(ThreadPerTask, Tcp::new()));
