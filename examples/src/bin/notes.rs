//! A key-value store whose data is stored by its clients. It uses the session API directly. The
//! server seals the session's data into a cookie before each reply. When the server crashes, the
//! client sends the cookie to the next one, and sends its unanswered commands again.
//!
//! ```sh
//! cargo run -p rserpool-examples --bin notes -- --runtime smol
//! ```

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rserpool::cookie::{KeyRing, Lineage, Seal};
use rserpool::testing::{TestPool, TestServer};
use rserpool::{ElementEvent, ElementSession, PoolElement, Ppid, Session, SessionEvent};

const POOL: &str = "NotesPool";

fn main() -> anyhow::Result<()> {
    rserpool_examples::run_with_pool(POOL.parse()?, notes)
}

async fn notes(pool: TestPool) -> anyhow::Result<()> {
    let keys = KeyRing::generate();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let seal = Seal::new(POOL.parse()?, keys.clone());
        servers.push(start_server(&pool, seal).await);
    }

    let mut session = pool.user().open(POOL).await?;
    for command in ["set bread 2", "set milk 1", "get bread", "die", "set milk 3", "get milk"] {
        if command == "die" {
            let serving = session.element();
            println!("-- the server dies");
            servers.retain(|server| Some(server.identifier()) != serving);
            continue;
        }
        println!("{command:12} -> {}", ask(&mut session, command).await?);
    }
    let bread = ask(&mut session, "get bread").await?;
    println!("get bread    -> {bread}, as the dead server was told");
    assert_eq!(bread, "2");
    session.close().await;
    Ok(())
}

/// Sends a command and returns its reply, from whichever server.
async fn ask(session: &mut Session, command: &'static str) -> anyhow::Result<String> {
    session.send(Ppid::NONE, command).await?;
    loop {
        match session.recv().await? {
            SessionEvent::Message(reply) => {
                return Ok(String::from_utf8_lossy(&reply.payload).into());
            }
            SessionEvent::FailoverCompleted { from, to } => {
                println!("-- {to} goes on for {from}");
                session.send(Ppid::NONE, command).await?;
            }
            _ => {}
        }
    }
}

/// Starts a server, which crashes when it is dropped.
async fn start_server(pool: &TestPool, seal: Seal) -> TestServer {
    let seal = Arc::new(seal);
    let serve = move |session, _| serve(session, Arc::clone(&seal));
    pool.server(async |element: PoolElement| {
        element.serve_sessions(serve, pending::<()>(), Duration::ZERO).await;
    })
    .await
}

/// Serves one session until the client closes it.
async fn serve(mut session: ElementSession, seal: Arc<Seal>) -> anyhow::Result<()> {
    let mut notes: BTreeMap<String, String> = BTreeMap::new();
    let mut lineage = Lineage::new();
    while let Ok(event) = session.recv().await {
        match event {
            ElementEvent::CookieEcho(cookie) => {
                // `open` refuses a cookie that is forged, too old, or of another pool.
                let opened = seal.open(now(), &cookie)?;
                let text = String::from_utf8(opened.state.to_vec())?;
                let pairs = text.lines().filter_map(|line| line.split_once('='));
                notes = pairs.map(|(key, value)| (key.into(), value.into())).collect();
                lineage = opened.lineage;
            }
            ElementEvent::Message(message) => {
                let reply = obey(&mut notes, &String::from_utf8_lossy(&message.payload));
                let state: String =
                    notes.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
                // The cookie is sent before the reply, so that the next server knows everything
                // that the client has seen.
                let cookie = seal.seal(now(), &mut lineage, b"", state.as_bytes())?;
                session.send_cookie(cookie).await?;
                session.send(Ppid::NONE, reply).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn obey(notes: &mut BTreeMap<String, String>, command: &str) -> Bytes {
    match command.split(' ').collect::<Vec<_>>()[..] {
        ["set", key, value] => {
            notes.insert(key.to_owned(), value.to_owned());
            Bytes::from_static(b"done")
        }
        ["get", key] => notes.get(key).cloned().unwrap_or_else(|| "nothing".to_owned()).into(),
        _ => Bytes::from_static(b"set KEY VALUE, or get KEY"),
    }
}

/// Returns the time of day, which servers on other hosts can compare with their own clocks.
#[allow(clippy::disallowed_methods, reason = "no runtime has it")]
fn now() -> SystemTime {
    SystemTime::now()
}
