//! Measures the cost of sessions: their memory while they are idle, and their echoes over loopback
//! TCP, compared with a bare echo with a length in front of each message on the same runtime.
//!
//!     cargo bench -p rserpool-tests --bench sessions [-- --quick]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

mod echo;
mod memory;
mod requests;

use std::sync::Arc;

use rserpool::transport::{Memory, Tcp, Transport};
use rserpool::{Network, PoolElement, PoolUser, Registrar};
use rserpool_proto::registrar::RegistrarConfig;
use rserpool_proto::wire::{PoolHandle, TransportAddress};
use rserpool_smol::SmolRuntime;
use rserpool_tokio::TokioRuntime;

pub fn pool() -> PoolHandle {
    "BenchPool".parse().unwrap()
}

/// Starts a registrar, an element of the pool that does not serve sessions yet, and a user.
pub async fn start(network: &Network) -> (Registrar, PoolElement, PoolUser) {
    let any = TransportAddress::new(network.protocol(), ([127, 0, 0, 1], 0).into());
    let config = RegistrarConfig::default();
    let registrar = Registrar::start(network, [&any], config).unwrap();
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(network, pool(), [at.clone()]);
    let element = builder.listen(([127, 0, 0, 1], 0).into()).start().unwrap();
    element.registered().await.unwrap();
    (registrar, element, PoolUser::new(network, [at]).unwrap())
}

fn tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let sessions = if quick { 10_000 } else { 100_000 };
    let runtime = tokio();
    let network = Network::new(TokioRuntime::new(runtime.handle().clone()), Memory::new());
    runtime.block_on(memory::measure(&network, sessions));

    let rounds = if quick { 3 } else { 9 };
    println!("\nA request over loopback TCP, one at a time, medians");
    println!("{:8}{:>12}{:>12}{:>8}", "runtime", "session", "client", "ratio");
    let several = ::tokio::runtime::Runtime::new().unwrap();
    let requests = if quick { 2000 } else { 20_000 };
    for (name, runtime) in [("1 thread", tokio()), ("2 threads", several)] {
        let network = Network::new(TokioRuntime::new(runtime.handle().clone()), Tcp::new());
        let (session, client, ratio) =
            runtime.block_on(requests::measure(&network, rounds, requests));
        println!("{name:8}{session:>12.1?}{client:>12.1?}{ratio:>8.2}");
    }
    println!("\nEchoes a second over loopback TCP, one at a time on one connection, medians");
    println!("{:8}{:>8}{:>12}{:>12}{:>8}", "runtime", "bytes", "session", "bare", "ratio");
    for size in [16, 1024, 16_384] {
        let runtime = tokio();
        let handle = runtime.handle().clone();
        let network = Network::new(TokioRuntime::new(handle), Tcp::new());
        let measured = runtime.block_on(async {
            echo::compare(&network, rounds, size, echo::tokio_server, echo::tokio_client).await
        });
        echo::print("tokio", size, measured);
        let executor = Arc::new(smol::Executor::new());
        let transport: Arc<dyn Transport> = Arc::new(Tcp::new());
        let smol = SmolRuntime::with_executor(Arc::clone(&executor));
        let network = Network::shared(Arc::new(smol), transport);
        let measured = smol::block_on(executor.run(async {
            echo::compare(&network, rounds, size, echo::smol_server, echo::smol_client).await
        }));
        echo::print("smol", size, measured);
    }
}
