use std::future::Future;

use rserpool::Network;
use rserpool::transport::Tcp;
use rserpool_tokio::TokioRuntime;

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(test);
}

rserpool::contract_suite!(block_on, Network::new(TokioRuntime::current(), Tcp::new()));
