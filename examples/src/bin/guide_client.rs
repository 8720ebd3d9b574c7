//! The client of the chapter `first_service` of the guide.

use std::time::Duration;

use rserpool::transport::Tcp;
use rserpool::{Network, PoolUser, RequestConfig};
use rserpool_tokio::TokioRuntime;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registrar = std::env::args().nth(1).unwrap_or("127.0.0.1:3863".to_owned());
    let network = Network::new(TokioRuntime::current(), Tcp::new());
    let user = PoolUser::new(&network, [registrar])?;
    let mut session = user.open_requests("CounterPool", RequestConfig::default()).await?;
    for _ in 0..100 {
        let count = session.request("count").await?;
        println!("{}", String::from_utf8_lossy(&count));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    session.close().await;
    Ok(())
}
