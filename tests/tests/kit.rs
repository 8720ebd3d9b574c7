//! Tests of the module `rserpool::testing`, with which programs test their services.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use rserpool::cookie::{KeyRing, Seal};
use rserpool::testing::{TestPool, TestServer};
use rserpool::transport::SendError;
use rserpool::{
    ElementEvent, InvalidState, Network, PoolElement, Ppid, RefusalReason, RequestConfig,
    RequestError, RequestFailure, RequestOptions, ResolveOptions, Service, ServiceConfig, Session,
    SessionConfig, SessionEvent,
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
        if request == "hang" {
            pending::<()>().await;
        }
        request
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> {
        Ok(())
    }
}

/// Returns a server of [`Echo`].
fn serve_echo(ring: &KeyRing) -> impl FnOnce(PoolElement) -> BoxFuture<'static, ()> + use<> {
    let config = ServiceConfig::new(Seal::new(POOL.parse().unwrap(), ring.clone()));
    move |element| {
        Box::pin(async move {
            element.serve(config, || Echo, pending::<()>(), Duration::ZERO).await;
        })
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
        servers.push(pool.server(serve_echo(&ring)).await);
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

/// Serves echoes in tasks that the kit does not know.
async fn echo_in_tasks(mut element: PoolElement) {
    while let Ok(mut session) = element.accept().await {
        tokio::spawn(async move {
            while let Ok(event) = session.recv().await {
                if let ElementEvent::Message(message) = event {
                    let _ = session.send(message.ppid, message.payload).await;
                }
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_in_tasks_of_their_own_are_killed_and_paused_with_their_server() {
    for (disturb, within) in [(TestServer::kill as fn(&_), 1), (TestServer::pause, 4)] {
        let pool = TestPool::start(TokioRuntime::current(), POOL);
        let servers = [pool.server(echo_in_tasks).await, pool.server(echo_in_tasks).await];
        let mut session = pool.user().open(POOL).await.unwrap();
        ask(&mut session).await;
        let serving = session.element();
        let server = servers.iter().find(|server| Some(server.identifier()) == serving);
        disturb(server.unwrap());
        let begin = pool.network().runtime().now();
        ask(&mut session).await;
        assert_ne!(session.element(), serving);
        let time = pool.network().runtime().now() - begin;
        assert!(time < Duration::from_secs(within), "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_servers_all_hang_ends_with_an_error() {
    for servers in [1, 2] {
        let pool = TestPool::start(TokioRuntime::current(), POOL);
        let ring = KeyRing::generate();
        let mut paused = Vec::new();
        for _ in 0..servers {
            paused.push(pool.server(serve_echo(&ring)).await);
        }
        let client = pool.user().request_client(POOL, RequestConfig::default()).await.unwrap();
        client.request("before").await.unwrap();
        paused.iter().for_each(TestServer::pause);
        let begin = pool.network().runtime().now();
        let error = client.request("while they are paused").await.unwrap_err();
        let time = pool.network().runtime().now() - begin;
        assert!(matches!(error, RequestError::Session(_)), "{error:?}");
        assert!(time < Duration::from_secs(90), "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_past_its_deadline_does_not_hold_up_the_next_server() {
    let pool = TestPool::start(TokioRuntime::current(), POOL);
    let ring = KeyRing::generate();
    let _servers = [pool.server(serve_echo(&ring)).await, pool.server(serve_echo(&ring)).await];
    let client = pool.user().request_client(POOL, RequestConfig::default()).await.unwrap();
    let options = RequestOptions::default().deadline(Duration::from_secs(1));
    let late = client.request_with("hang", options).await;
    assert_eq!(late, Err(RequestError::Failed(RequestFailure::DeadlinePassed)));
    client.fail_over().await;
    assert_eq!(client.request("next").await.unwrap(), "next");
}

/// A service whose state cannot be saved after the request "spoil".
#[derive(Default)]
struct Spoiled(bool);

impl Service for Spoiled {
    async fn handle(&mut self, request: Bytes) -> Bytes {
        self.0 |= request == "spoil";
        request
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        if self.0 { Err(InvalidState::new("spoiled")) } else { Ok(Vec::new()) }
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> {
        self.0 = false;
        Ok(())
    }
}

/// With several requests for each checkpoint, the state is found to be spoiled only later.
#[tokio::test(start_paused = true)]
async fn a_state_that_an_earlier_request_spoiled_ends_the_session_with_the_reason() {
    let pool = TestPool::start(TokioRuntime::current(), POOL);
    let ring = KeyRing::generate();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let seal = Seal::new(POOL.parse().unwrap(), ring.clone());
        let config = ServiceConfig::new(seal).checkpoint_every(3);
        let serve = async |element: PoolElement| {
            element.serve(config, Spoiled::default, pending::<()>(), Duration::ZERO).await;
        };
        servers.push(pool.server(serve).await);
    }
    let client = pool.user().request_client(POOL, RequestConfig::default()).await.unwrap();
    for request in ["one", "spoil"] {
        assert_eq!(client.request(request).await.unwrap(), request);
    }
    let refused = client.request("three").await;
    assert_eq!(refused, Err(RequestError::Refused(RefusalReason::StateRejected)));
}

#[tokio::test(start_paused = true)]
async fn messages_in_memory_are_as_long_as_over_other_transports() {
    let pool = TestPool::start(TokioRuntime::current(), POOL);
    let _server = pool.server(serve_echo(&KeyRing::generate())).await;
    let client = pool.user().request_client(POOL, RequestConfig::default()).await.unwrap();
    let long = client.request(vec![0; 1024 * 1024]).await;
    assert!(matches!(long, Err(RequestError::Request(SendError::TooLong { .. }))), "{long:?}");
    assert_eq!(client.request("short").await.unwrap(), "short");
}

#[tokio::test(start_paused = true)]
async fn settings_may_be_longer_than_any_clock_goes() {
    let pool = TestPool::start(TokioRuntime::current(), POOL);
    let _server = pool.server(echo).await;
    let config = SessionConfig::default()
        .heartbeat(Duration::MAX)
        .connect_timeout(Duration::MAX)
        .retry_delay(Duration::MAX)
        .max_age(Duration::MAX)
        .give_up_after(Duration::MAX);
    let mut session = pool.user().open_with(POOL, config).await.unwrap();
    ask(&mut session).await;
    let network = pool.network();
    assert_eq!(network.timeout(Duration::MAX, async { 1 }).await, Ok(1));
    let sleep = network.timeout(Duration::from_secs(1), network.sleep(Duration::MAX));
    assert!(sleep.await.is_err());
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
