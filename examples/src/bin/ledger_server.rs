//! A server of a ledger. Start several, and `ledger_client`. Both can be killed at any time.
//!
//! ```sh
//! rserpool keys --out ledger.keys
//! cargo run -p rserpool-examples --bin ledger_server -- 127.0.0.1:3863
//! ```

use std::time::Duration;

use rserpool::cookie::{KeyRing, Seal};
use rserpool::transport::Tcp;
use rserpool::{Network, PoolElement, ServiceConfig, Typed};
use rserpool_examples::ledger::Ledger;
use rserpool_tokio::TokioRuntime;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let registrar = std::env::args().nth(1).unwrap_or("127.0.0.1:3863".to_owned());
    let seal = Seal::new("LedgerPool".parse()?, KeyRing::from_file("ledger.keys")?);
    let network = Network::new(TokioRuntime::current(), Tcp::new());
    let element = PoolElement::start(&network, "LedgerPool", [registrar])?;
    println!("registered as {}", element.registered().await?);
    let mut terminated = signal(SignalKind::terminate())?;
    let (config, grace) = (ServiceConfig::new(seal), Duration::from_secs(5));
    element.serve(config, Typed::<Ledger>::default, terminated.recv(), grace).await;
    Ok(())
}
