//! The server of the chapter `first_service` of the guide.

use std::time::Duration;

use rserpool::cookie::{KeyRing, Seal};
use rserpool::transport::Tcp;
use rserpool::{Bytes, InvalidState, Network, PoolElement, Service, ServiceConfig};
use rserpool_tokio::TokioRuntime;
use tokio::signal::unix::{SignalKind, signal};

/// Counts the requests of a session.
#[derive(Default)]
struct Counter(u64);

impl Service for Counter {
    async fn handle(&mut self, _request: Bytes) -> Bytes {
        self.0 += 1;
        self.0.to_string().into()
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(self.0.to_be_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        self.0 = u64::from_be_bytes(state.try_into()?);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registrar = std::env::args().nth(1).unwrap_or("127.0.0.1:3863".to_owned());
    let seal = Seal::new("CounterPool".parse()?, KeyRing::from_file("counter.keys")?);

    let network = Network::new(TokioRuntime::current(), Tcp::new());
    let element = PoolElement::start(&network, "CounterPool", [registrar])?;
    println!("registered as {}", element.registered().await?);

    let mut terminated = signal(SignalKind::terminate())?;
    let grace = Duration::from_secs(5);
    element.serve(ServiceConfig::new(seal), Counter::default, terminated.recv(), grace).await;
    Ok(())
}
