//! A counter that survives crashes of its servers without code for that. The service defines its
//! state; the framework moves it from one server to the next, so that each request counts exactly
//! once.
//!
//! ```sh
//! cargo run -p rserpool-examples --bin counter -- --runtime smol
//! ```

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use futures::future::AbortHandle;
use rserpool::cookie::{KeyRing, Seal};
use rserpool::{
    InvalidState, Network, PoolElement, PoolElementId, PoolHandle, PoolUser, RequestConfig,
    RequestEvent, Service, ServiceConfig, TransportAddress,
};
use rserpool_examples::{spawn_mortal, start_registrar};

/// A service whose state is a count.
#[derive(Debug, Default)]
struct Counter(u64);

impl Service for Counter {
    async fn handle(&mut self, _request: Bytes) -> Bytes {
        self.0 += 1;
        self.save().into()
    }

    fn save(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        self.0 = u64::from_be_bytes(state.try_into()?);
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    rserpool_examples::run(counter)
}

async fn counter(network: Network) -> anyhow::Result<()> {
    const REQUESTS: u64 = 2000;
    let registrar = start_registrar(&network)?;
    let at = registrar.local_address();
    let pool: PoolHandle = "CounterPool".parse()?;
    // Servers in separate processes would read the keys from a file: `rserpool keys` makes one.
    let keys = KeyRing::generate();
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(start_server(&network, &pool, at, &keys).await?);
    }

    let user = PoolUser::new(&network, [at.clone()])?;
    let mut session = user.open_requests(pool.clone(), RequestConfig::default()).await?;
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
                    if let Some(at) = servers.iter().position(|(it, _)| Some(*it) == serving) {
                        println!("the count is {answered}, and the server dies");
                        servers.remove(at).1.abort();
                    }
                    servers.push(start_server(&network, &pool, at, &keys).await?);
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
async fn start_server(
    network: &Network,
    pool: &PoolHandle,
    registrar: &TransportAddress,
    keys: &KeyRing,
) -> anyhow::Result<(PoolElementId, AbortHandle)> {
    let element = PoolElement::start(network, pool, [registrar])?;
    let identifier = element.registered().await?;
    let config = ServiceConfig::new(Seal::new(pool.clone(), keys.clone()));
    let serve = element.serve(config, Counter::default, pending::<()>(), Duration::ZERO);
    Ok((identifier, spawn_mortal(network, serve)))
}
