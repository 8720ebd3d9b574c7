//! Code that the examples share. Each example runs on tokio or on smol, as `--runtime` selects.

pub mod ledger;
pub mod own_runtime;
#[cfg(unix)]
pub mod unix_sockets;

/// Tests the program in the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

use std::future::Future;

use clap::{Parser, ValueEnum};
use rserpool::testing::TestPool;
use rserpool::transport::Tcp;
use rserpool::{Network, PoolHandle, Registrar, RegistrarConfig};
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

/// Runs `program` over TCP, on the runtime that the command line selects.
///
/// # Errors
///
/// Returns the program's error, or an error if the runtime cannot be started.
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

/// Runs `program` with an empty pool in a network of its own, on the runtime that the command line
/// selects. The servers that it starts in the pool can be killed.
///
/// # Errors
///
/// Returns the program's error, or an error if the runtime cannot be started.
pub fn run_with_pool<P, F>(pool: PoolHandle, program: P) -> anyhow::Result<()>
where
    P: FnOnce(TestPool) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    match Arguments::parse().runtime {
        Choice::Tokio => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let own = TokioRuntime::new(runtime.handle().clone());
            runtime.block_on(program(TestPool::start(own, pool)))
        }
        Choice::Smol => smol::block_on(program(TestPool::start(SmolRuntime::new(), pool))),
    }
}

/// Starts a registrar at any free port of this host.
///
/// # Errors
///
/// Returns an error if no port can be bound.
pub fn start_registrar(network: &Network) -> anyhow::Result<Registrar> {
    Ok(Registrar::start(network, ["127.0.0.1:0"], RegistrarConfig::default())?)
}
