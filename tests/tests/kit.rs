//! Tests of the module `rserpool::testing`, with which programs test their services.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rserpool::cookie::{KeyRing, Seal};
use rserpool::testing::{TestPool, TestServer};
use rserpool::{
    ElementEvent, InvalidState, Network, PoolElement, Ppid, RequestConfig, ResolveOptions, Service,
    ServiceConfig, Session, SessionEvent,
};
use rserpool_smol::SmolRuntime;
use rserpool_tokio::TokioRuntime;

const POOL: &str = "EchoPool";

async fn echo(mut element: PoolElement) {
    while let Ok(mut session) = element.accept().await {
        while let Ok(event) = session.recv().await {
            if let ElementEvent::Message(message) = event {
                let _ = session.send(message.ppid, message.payload).await;
            }
        }
    }
}

async fn ask(session: &mut Session) {
    session.send(Ppid::NONE, "hello").await.unwrap();
    loop {
        match session.recv().await.unwrap() {
            SessionEvent::Message(reply) => break assert_eq!(reply.payload, "hello"),
            SessionEvent::FailoverCompleted { .. } => {
                session.send(Ppid::NONE, "hello").await.unwrap();
            }
            _ => {}
        }
    }
}

async fn is_there(pool: &TestPool, server: &TestServer) -> bool {
    let elements = pool.user().resolve(POOL, ResolveOptions::default()).await.unwrap();
    elements.iter().any(|element| element.identifier == server.identifier())
}

/// Disturbs the server of a session three times, by calling `disturb`. Returns the times after
/// which the session continued.
async fn go_on(pool: &TestPool, disturb: impl Fn(&TestServer)) -> Vec<Duration> {
    let network: &Network = pool.network();
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(pool.server(echo).await);
    }
    let mut session = pool.user().open(POOL).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..3 {
        ask(&mut session).await;
        let serving = session.element();
        let at = servers.iter().position(|server| Some(server.identifier()) == serving).unwrap();
        let server = servers.remove(at);
        disturb(&server);
        let begin = network.runtime().now();
        ask(&mut session).await;
        times.push(network.runtime().now() - begin);
        assert_ne!(session.element(), serving);
        // The registrar also detects the failure, and removes the server.
        network.sleep(Duration::from_secs(15)).await;
        assert!(!is_there(pool, &server).await);
    }
    times
}

#[tokio::test(start_paused = true)]
async fn a_killed_server_is_left_at_once() {
    let pool = TestPool::start(TokioRuntime::current(), POOL);
    let times = go_on(&pool, TestServer::kill).await;
    assert!(times.iter().all(|time| *time < Duration::from_millis(200)), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_paused_server_is_left_in_time() {
    let pool = TestPool::start(TokioRuntime::current(), POOL);
    let times = go_on(&pool, TestServer::pause).await;
    assert!(times.iter().all(|time| *time < Duration::from_secs(3)), "{times:?}");
}

struct Echo;

impl Service for Echo {
    async fn handle(&mut self, request: Bytes) -> Bytes {
        request
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> {
        Ok(())
    }
}

/// Tests clients that only wait for their replies. Only the session's timer can then detect that
/// the server is paused.
#[tokio::test(start_paused = true)]
async fn requests_to_a_paused_server_go_on_in_time() {
    let pool = TestPool::start(TokioRuntime::current(), POOL);
    let network = pool.network();
    let ring = KeyRing::generate();
    let mut servers = Vec::new();
    for _ in 0..3 {
        let config = ServiceConfig::new(Seal::new(POOL.parse().unwrap(), ring.clone()));
        let serve = async move |element: PoolElement| {
            element.serve(config, || Echo, pending::<()>(), Duration::ZERO).await;
        };
        servers.push(pool.server(serve).await);
    }
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(pool.user().request_client(POOL, RequestConfig::default()).await.unwrap());
    }
    for client in &clients {
        client.request("before").await.unwrap();
    }
    // The clients are idle for different times before the server is paused.
    network.sleep(Duration::from_millis(700)).await;
    servers[0].pause();
    let requests = clients.iter().zip(0..).map(async |(client, index)| {
        network.sleep(Duration::from_millis(index * 37)).await;
        let begin = network.runtime().now();
        client.request("while it is paused").await.unwrap();
        network.runtime().now() - begin
    });
    let times = join_all(requests).await;
    assert!(times.iter().any(|time| *time > Duration::from_secs(1)), "{times:?}");
    assert!(times.iter().all(|time| *time < Duration::from_secs(3)), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_cut_off_is_left_in_time() {
    let pool = TestPool::start(TokioRuntime::current(), POOL);
    let times = go_on(&pool, TestServer::cut_off).await;
    assert!(times.iter().all(|time| *time < Duration::from_secs(3)), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_back_serves_again() {
    let pool = TestPool::start(TokioRuntime::current(), POOL);
    let server = pool.server(echo).await;
    let mut session = pool.user().open(POOL).await.unwrap();
    ask(&mut session).await;
    for disturb in [TestServer::pause, TestServer::cut_off] {
        disturb(&server);
        pool.network().sleep(Duration::from_millis(500)).await;
        server.resume();
        server.reconnect();
        ask(&mut session).await;
    }
    server.pause();
    pool.network().sleep(Duration::from_secs(20)).await;
    server.resume();
    pool.network().sleep(Duration::from_secs(5)).await;
    assert!(is_there(&pool, &server).await, "it registers again");
    ask(&mut session).await;
}

#[test]
fn it_runs_on_any_runtime() {
    smol::block_on(async {
        let pool = TestPool::start(SmolRuntime::new(), POOL);
        let server = pool.server(echo).await;
        let _other = pool.server(echo).await;
        let mut session = pool.user().open(POOL).await.unwrap();
        ask(&mut session).await;
        server.kill();
        ask(&mut session).await;
    });
}
