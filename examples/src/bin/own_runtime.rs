//! Two runtimes in one process. The servers run on a runtime that this package implements in about
//! a hundred lines (`examples/src/own_runtime.rs`). The registrar and the client run on the one
//! that `--runtime` selects.
//!
//! ```sh
//! cargo run -p rserpool-examples --bin own_runtime -- --runtime smol
//! ```

use rserpool::transport::Tcp;
use rserpool::{ElementEvent, Network, PoolElement, PoolHandle, PoolUser, Ppid, SessionEvent};
use rserpool_examples::own_runtime::ThreadPerTask;
use rserpool_examples::start_registrar;

fn main() -> anyhow::Result<()> {
    rserpool_examples::run(own_runtime)
}

async fn own_runtime(network: Network) -> anyhow::Result<()> {
    let registrar = start_registrar(&network)?;
    let at = registrar.local_address();
    let pool: PoolHandle = "EchoPool".parse()?;

    let ours = Network::new(ThreadPerTask, Tcp::new());
    let mut element = PoolElement::builder(&ours, pool.clone(), [at.clone()]).start()?;
    println!("{} joined the pool, on our own runtime", element.registered().await?);
    ours.runtime().spawn(Box::pin(async move {
        let Ok(mut session) = element.accept().await else { return };
        while let Ok(event) = session.recv().await {
            if let ElementEvent::Message(message) = event {
                let _ = session.send(message.ppid, message.payload).await;
            }
        }
    }));

    let user = PoolUser::new(&network, [at.clone()])?;
    let mut session = user.open(pool).await?;
    session.send(Ppid::NONE, "from one runtime to the other").await?;
    loop {
        if let SessionEvent::Message(reply) = session.recv().await? {
            println!("and back: {}", String::from_utf8_lossy(&reply.payload));
            break;
        }
    }
    session.close().await;
    Ok(())
}
