//! Runs a registrar, two servers and a client in one program. The server that the client uses
//! crashes, and the other server continues where the first one stopped.
//!
//! ```sh
//! cargo run -p rserpool-examples --bin failover -- --runtime smol
//! ```

use futures::channel::oneshot;
use futures::future::select;
use rserpool::{
    ElementEvent, ElementSession, Network, PoolElement, PoolElementId, PoolHandle, PoolUser, Ppid,
    Registrar, RegistrarConfig, SessionEvent, TransportAddress,
};

fn main() -> anyhow::Result<()> {
    rserpool_examples::run(failover)
}

async fn failover(network: Network) -> anyhow::Result<()> {
    let registrar = Registrar::start(&network, ["127.0.0.1:0"], RegistrarConfig::default())?;
    let at = registrar.local_address();

    let pool: PoolHandle = "SumPool".parse()?;
    let mut servers = Vec::new();
    for _ in 0..2 {
        servers.push(start_server(&network, &pool, at).await?);
    }

    let user = PoolUser::new(&network, [at.clone()])?;
    let mut session = user.open(pool).await?;
    for number in 1..=10_u64 {
        if number == 6 {
            let serving = session.element();
            println!("-- the server goes away");
            servers.retain(|(identifier, _)| Some(*identifier) != serving);
        }
        session.send(Ppid::NONE, number.to_be_bytes().to_vec()).await?;
        let sum = loop {
            match session.recv().await? {
                SessionEvent::Message(reply) => {
                    break u64::from_be_bytes(reply.payload[..].try_into()?);
                }
                SessionEvent::FailoverCompleted { from, to } => {
                    println!("-- {to} took over from {from}");
                    session.send(Ppid::NONE, number.to_be_bytes().to_vec()).await?;
                }
                _ => {}
            }
        };
        println!("1 + ... + {number} = {sum}");
        assert_eq!(sum, number * (number + 1) / 2);
    }
    session.close().await;
    Ok(())
}

/// Starts a server, which crashes when the returned value is dropped.
async fn start_server(
    network: &Network,
    pool: &PoolHandle,
    registrar: &TransportAddress,
) -> anyhow::Result<(PoolElementId, oneshot::Sender<()>)> {
    let mut element = PoolElement::start(network, pool, [registrar])?;
    let identifier = element.registered().await?;
    let (life, end) = oneshot::channel();
    network.runtime().spawn(Box::pin(async move {
        let serve = async {
            while let Ok(session) = element.accept().await {
                add_up(session).await;
            }
        };
        select(std::pin::pin!(serve), end).await;
    }));
    Ok((identifier, life))
}

/// Serves one session. Each request is a number, which is added to the session's sum; the reply is
/// the sum. The cookie contains the sum.
async fn add_up(mut session: ElementSession) {
    let mut sum = 0_u64;
    while let Ok(event) = session.recv().await {
        match event {
            ElementEvent::CookieEcho(cookie) => {
                sum = cookie[..].try_into().map_or(0, u64::from_be_bytes);
            }
            ElementEvent::Message(message) => {
                sum += message.payload[..].try_into().map_or(0, u64::from_be_bytes);
                let bytes = sum.to_be_bytes().to_vec();
                // The cookie is sent before the reply, so that the next server knows everything
                // that the client has seen.
                let told = session.send_cookie(bytes.clone()).await;
                if told.is_err() || session.send(Ppid::NONE, bytes).await.is_err() {
                    return;
                }
            }
            _ => {}
        }
    }
}
