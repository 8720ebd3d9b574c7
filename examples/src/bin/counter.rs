//! A counter that survives crashes of its servers, with no code for failover. The service defines
//! its state; the framework moves it from one server to the next, so that each request counts
//! exactly once.
//!
//! ```sh
//! cargo run -p rserpool-examples --bin counter -- --runtime smol
//! ```

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use rserpool::cookie::{KeyRing, Seal};
use rserpool::testing::{TestPool, TestServer};
use rserpool::{InvalidState, PoolElement, RequestConfig, RequestEvent, Service, ServiceConfig};

const POOL: &str = "CounterPool";

/// A service whose state is a count.
#[derive(Debug, Default)]
struct Counter(u64);

impl Service for Counter {
    async fn handle(&mut self, _request: Bytes) -> Bytes {
        self.0 += 1;
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(self.0.to_be_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        self.0 = u64::from_be_bytes(state.try_into()?);
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    rserpool_examples::run_with_pool(POOL.parse()?, counter)
}

async fn counter(pool: TestPool) -> anyhow::Result<()> {
    const REQUESTS: u64 = 2000;
    // Servers in separate processes would read the keys from a file: `rserpool keys` makes one.
    let keys = KeyRing::generate();
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(start_server(&pool, &keys).await?);
    }

    let mut session = pool.user().open_requests(POOL, RequestConfig::default()).await?;
    let (mut sent, mut answered) = (0, 0);
    while answered < REQUESTS {
        // Several requests are in progress at a time.
        while sent < REQUESTS && session.submit("count").is_ok() {
            sent += 1;
        }
        match session.event().await? {
            RequestEvent::Reply { body, .. } => {
                answered += 1;
                assert_eq!(body[..], u64::to_be_bytes(answered), "each counts once");
                if answered % 400 == 100 {
                    let serving = session.element();
                    if let Some(at) = servers.iter().position(|it| Some(it.identifier()) == serving)
                    {
                        println!("the count is {answered}, and the server dies");
                        servers.remove(at).kill();
                    }
                    servers.push(start_server(&pool, &keys).await?);
                }
            }
            RequestEvent::FailoverCompleted { from, to } => {
                println!("{to} goes on for {from}");
            }
            _ => {}
        }
    }
    session.close().await;
    println!("{REQUESTS} requests, and the count is {answered}");
    Ok(())
}

/// Starts a registered server that serves sessions of [`Counter`].
async fn start_server(pool: &TestPool, keys: &KeyRing) -> anyhow::Result<TestServer> {
    let config = ServiceConfig::new(Seal::new(POOL.parse()?, keys.clone()));
    let serve = async |element: PoolElement| {
        element.serve(config, Counter::default, pending::<()>(), Duration::ZERO).await;
    };
    Ok(pool.server(serve).await)
}
