//! What the examples share: each runs on tokio or on smol, as `--runtime` says.

use std::future::Future;

use clap::{Parser, ValueEnum};
use rserpool::driver::Network;
use rserpool::transport::Tcp;
use rserpool_smol::SmolRuntime;
use rserpool_tokio::TokioRuntime;

#[derive(Debug, Parser)]
struct Arguments {
    /// The runtime to run on
    #[arg(long, default_value = "tokio")]
    runtime: Choice,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    Tokio,
    Smol,
}

/// Runs `program` on the runtime that the command line names, over TCP.
///
/// # Errors
///
/// What the program returns, or why there is no runtime.
pub fn run<P, F>(program: P) -> anyhow::Result<()>
where
    P: FnOnce(Network) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    match Arguments::parse().runtime {
        Choice::Tokio => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let network = Network::new(TokioRuntime::new(runtime.handle().clone()), Tcp::new());
            runtime.block_on(program(network))
        }
        Choice::Smol => smol::block_on(program(Network::new(SmolRuntime::new(), Tcp::new()))),
    }
}
