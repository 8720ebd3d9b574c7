//! A client of the ledger with 16 clerks, each of which makes 100 transfers. If it is killed, start it
//! again: it stores the session's checkpoint in a file, and continues from that.
//!
//! ```sh
//! cargo run -p rserpool-examples --bin ledger_client -- 127.0.0.1:3863
//! ```

use std::fs;

use anyhow::Context;
use rserpool::transport::Tcp;
use rserpool::{Checkpoint, Network, PoolUser, RequestConfig, TypedClient};
use rserpool_examples::ledger::{Ledger, Request};
use rserpool_tokio::TokioRuntime;

const CLERKS: u32 = 16;
const TRANSFERS: u32 = 100;
const FILE: &str = "ledger.checkpoint";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let registrar = std::env::args().nth(1).unwrap_or("127.0.0.1:3863".to_owned());
    let network = Network::new(TokioRuntime::current(), Tcp::new());
    let user = PoolUser::new(&network, [registrar])?;
    let mut config = RequestConfig::default();
    if let Ok(stored) = fs::read(FILE) {
        config = config.resume(Checkpoint::from_bytes(stored)?);
    }
    let client = user.request_client("LedgerPool", config).await?;
    let ledger = TypedClient::<Ledger>::new(client);

    let done = ledger.request(&Request::Show).await?.transfers;
    let clerks = (0..CLERKS).map(|clerk| {
        let ledger = ledger.clone();
        let done = done.get(&clerk).copied().unwrap_or(0);
        tokio::spawn(async move {
            for number in done..TRANSFERS {
                let account = |number| format!("account {}", number % 10);
                let (from, to) = (account(number), account(number + 1 + clerk % 9));
                let amount = i64::from(number + 1);
                ledger.request(&Request::Transfer { clerk, from, to, amount }).await?;
                store(&ledger).await?;
            }
            anyhow::Ok(())
        })
    });
    for clerk in clerks.collect::<Vec<_>>() {
        clerk.await??;
    }
    let Ledger { balances, transfers } = ledger.request(&Request::Show).await?;
    let (number, sum): (u32, i64) = (transfers.values().sum(), balances.values().sum());
    println!("{number} transfers; the balances add up to {sum}");
    fs::remove_file(FILE)?;
    Ok(())
}

/// Stores the checkpoint. A new file replaces the old one atomically, so the file is always
/// complete.
async fn store(ledger: &TypedClient<Ledger>) -> anyhow::Result<()> {
    let checkpoint = ledger.inner().checkpoint().await.context("the client has stopped")?;
    let new = tempfile::NamedTempFile::new_in(".")?;
    fs::write(&new, checkpoint.to_bytes())?;
    new.persist(FILE)?;
    Ok(())
}
