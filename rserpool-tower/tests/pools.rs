//! Tests with real HTTP and gRPC servers in pools, which are killed while clients use them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rserpool::cookie::{KeyRing, Seal};
use rserpool::transport::Tcp;
use rserpool::{
    Network, PoolElement, PoolElementId, PoolHandle, PoolUser, Registrar, RegistrarConfig,
    RequestConfig, ServiceConfig, TransportAddress,
};
use rserpool_tokio::TokioRuntime;
use rserpool_tower::{
    PoolConnector, PoolDiscover, PoolHttp, PoolService, PoolServiceError, RequestService, Resend,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tonic::transport::{Endpoint, Server};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::discover::Change;
use tower::{BoxError, Service, ServiceExt};

fn pool() -> PoolHandle {
    "WebPool".parse().unwrap()
}

fn network() -> Network {
    Network::new(TokioRuntime::current(), Tcp::new())
}

fn start_registrar(network: &Network) -> Registrar {
    let any = TransportAddress::tcp(([127, 0, 0, 1], 0).into());
    Registrar::start(network, [&any], RegistrarConfig::default()).unwrap()
}

fn new_user(network: &Network, registrar: &Registrar) -> PoolUser {
    PoolUser::new(network, [registrar.local_address().clone()]).unwrap()
}

/// A server in a process of its own.
struct Killable {
    identifier: PoolElementId,
    process: Child,
}

/// Time for which a server goes on serving after it has left the pool.
const GRACE: Duration = Duration::from_millis(400);

impl Killable {
    /// Kills the process with SIGKILL.
    fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// Makes the server leave the pool, and exit after [`GRACE`].
    fn leave(mut self) {
        drop(self.process.stdin.take());
        std::thread::spawn(move || {
            assert!(self.process.wait().unwrap().success());
        });
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a server of this kind, and waits until it has joined the pool.
async fn start(registrar: &Registrar, kind: &'static str) -> Killable {
    start_with(registrar, kind, "RoundRobin").await
}

/// Starts a server with this policy, and waits until it has joined the pool.
async fn start_with(registrar: &Registrar, kind: &'static str, policy: &'static str) -> Killable {
    let port = registrar.local_address().port;
    let started = tokio::task::spawn_blocking(move || {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server", "--ignored", "--nocapture"])
            .env("KIND", kind)
            .env("POLICY", policy)
            .env("REGISTRAR", port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let told = lines.find_map(|line| Some(line.unwrap().strip_prefix("joined as ")?.parse()));
        let identifier = PoolElementId(told.expect("it joins").unwrap());
        Killable { identifier, process }
    });
    started.await.unwrap()
}

/// Runs one server, in a child process that the tests start.
#[test]
#[ignore = "is a server, which the other tests start"]
fn server() {
    let Ok(kind) = std::env::var("KIND") else { return };
    let registrar: u16 = std::env::var("REGISTRAR").unwrap().parse().unwrap();
    let registrar = TransportAddress::tcp(([127, 0, 0, 1], registrar).into());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = network();
        let builder = PoolElement::builder(&network, pool(), [registrar]);
        let policy = std::env::var("POLICY").unwrap().parse().unwrap();
        let builder = builder
            .serving_at(TransportAddress::tcp(address))
            .configure(|config| config.policy(policy));
        let element = builder.listen(([127, 0, 0, 1], 0).into()).start().unwrap();
        println!("\njoined as {}", element.registered().await.unwrap().0);
        tokio::spawn(async move {
            let mut rest = Vec::new();
            tokio::io::stdin().read_to_end(&mut rest).await.unwrap();
            element.leave().await;
            tokio::time::sleep(GRACE).await;
            std::process::exit(0);
        });
        match kind.as_str() {
            "http" => http(listener).await,
            "grpc" => grpc(listener).await,
            "rude" => rude(listener).await,
            other => panic!("there is no {other}"),
        }
    });
}

/// An HTTP server that answers with its port.
async fn http(listener: TcpListener) {
    let port = listener.local_addr().unwrap().port();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let answer = service_fn(move |_: Request<hyper::body::Incoming>| async move {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(port.to_string()))))
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer),
        );
    }
}

async fn grpc(listener: TcpListener) {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::Serving).await;
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
}

/// A server that accepts requests and closes the connection without an answer.
async fn rude(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
    }
}

async fn body(response: Response<hyper::body::Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn request() -> Request<Full<Bytes>> {
    Request::get("http://WebPool/").body(Full::default()).unwrap()
}

#[tokio::test]
async fn hyper_goes_on_with_another_server_when_its_own_is_killed() {
    let network = network();
    let registrar = start_registrar(&network);
    let mut servers = vec![start(&registrar, "http").await, start(&registrar, "http").await];
    let connector = PoolConnector::new(new_user(&network, &registrar), pool());
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    for _ in 0..4 {
        assert!(client.request(request()).await.unwrap().status().is_success());
        servers.remove(0).kill();
        servers.push(start(&registrar, "http").await);
        // The request in progress may fail when its server is killed; the next request finds
        // another server.
        let mut tries = 0;
        while client.request(request()).await.is_err() {
            tries += 1;
            assert!(tries < 3, "nobody serves");
        }
    }
}

#[tokio::test]
async fn tonic_goes_on_with_another_server_when_its_own_is_killed() {
    let network = network();
    let registrar = start_registrar(&network);
    let mut servers = vec![start(&registrar, "grpc").await, start(&registrar, "grpc").await];
    let connector = PoolConnector::new(new_user(&network, &registrar), pool());
    let channel = Endpoint::from_static("http://WebPool").connect_with_connector_lazy(connector);
    let mut client = HealthClient::new(channel);
    for _ in 0..4 {
        let request = || HealthCheckRequest { service: String::new() };
        assert_eq!(client.check(request()).await.unwrap().into_inner().status, 1);
        servers.remove(0).kill();
        servers.push(start(&registrar, "grpc").await);
        let mut tries = 0;
        while client.check(request()).await.is_err() {
            tries += 1;
            assert!(tries < 5, "nobody serves");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Makes a service that sends requests to an address.
fn to_address(
    address: SocketAddr,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<hyper::body::Incoming>,
    Error = hyper_util::client::legacy::Error,
    Future: Send,
> + Clone
+ Send
+ 'static {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    tower::service_fn(move |mut request: Request<Full<Bytes>>| {
        *request.uri_mut() = format!("http://{address}/").parse().unwrap();
        client.request(request)
    })
}

#[tokio::test]
async fn each_request_follows_the_policy_and_none_fails_when_a_server_is_killed() {
    let network = network();
    let registrar = start_registrar(&network);
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(start(&registrar, "http").await);
    }
    let make = tower::service_fn(|address| async move { Ok::<_, Infallible>(to_address(address)) });
    let user = new_user(&network, &registrar);
    let mut service = PoolService::new(user, pool(), make).resend(Resend::All);
    let mut answered = Vec::new();
    for number in 0..60 {
        let response = service.ready().await.unwrap().call(request()).await.unwrap();
        answered.push(body(response).await);
        if number == 30 {
            servers.pop().unwrap().kill();
        }
    }
    let different = |answers: &[String]| answers.iter().collect::<BTreeSet<_>>().len();
    assert_eq!(different(&answered[..6]), 3, "round robin");
    assert_eq!(different(&answered[40..]), 2);
}

/// Number of kills and of departures, and the time between two of them.
fn disturbances() -> (u32, Duration) {
    let number = std::env::var("DISTURBANCES").map_or(4, |number| number.parse().unwrap());
    (number, Duration::from_millis(600))
}

/// Kills servers and makes others leave the pool, in turn, and replaces each. Then sets `over`.
async fn disturb(registrar: &Registrar, kind: &'static str, over: &AtomicBool) {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(start(registrar, kind).await);
    }
    let (number, interval) = disturbances();
    for disturbance in 0..2 * number {
        tokio::time::sleep(interval).await;
        let server = servers.remove(0);
        match disturbance % 2 {
            0 => server.kill(),
            _ => server.leave(),
        }
        servers.push(start(registrar, kind).await);
    }
    tokio::time::sleep(interval).await;
    over.store(true, Relaxed);
}

/// Sends 200 requests a second until `over` is set. A request may fail only if it was sent to a
/// server that was then killed. Returns the number of requests, and the number of those that
/// failed.
async fn load<F>(over: &AtomicBool, request: impl Fn() -> F) -> (usize, usize)
where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let mut requests = Vec::new();
    let mut interval = tokio::time::interval(Duration::from_millis(5));
    while !over.load(Relaxed) {
        interval.tick().await;
        requests.push(tokio::spawn(request()));
    }
    let (sent, mut failed) = (requests.len(), 0);
    for request in requests {
        if let Err(error) = request.await.unwrap() {
            let mut next: Option<&(dyn Error + 'static)> = Some(&*error);
            let mut texts = Vec::new();
            let mut was_sent = false;
            while let Some(error) = next {
                texts.push(error.to_string());
                was_sent |= matches!(
                    error.downcast_ref::<PoolServiceError>(),
                    Some(PoolServiceError::Failed(_))
                );
                next = error.source();
            }
            assert!(was_sent, "{texts:?}");
            failed += 1;
        }
    }
    (sent, failed)
}

/// Wraps an error that occurred after the beginning of the response was received.
fn failed(error: impl Into<BoxError>) -> PoolServiceError {
    PoolServiceError::Failed(error.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn http_requests_fail_only_at_servers_that_were_killed_meanwhile() {
    let network = network();
    let registrar = start_registrar(&network);
    let _first = start(&registrar, "http").await;
    let client = PoolHttp::new(new_user(&network, &registrar), pool());
    let over = AtomicBool::new(false);
    let request = || {
        let client = client.clone();
        async move {
            // A streaming body, which is not `Clone`.
            let frames = futures::stream::iter([Ok::<_, Infallible>(hyper::body::Frame::data(
                Bytes::from_static(b"content"),
            ))]);
            let request = Request::post("/count").body(StreamBody::new(frames)).unwrap();
            let response = client.oneshot(request).await?;
            assert!(response.status().is_success());
            response.into_body().collect().await.map_err(failed)?;
            Ok(())
        }
    };
    let (_, (sent, failed)) =
        tokio::join!(disturb(&registrar, "http", &over), load(&over, request));
    println!("{sent} HTTP requests, {failed} failed at servers that were killed");
    assert!(failed <= disturbances().0 as usize, "{failed} of {sent} failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_kept_connections_fail_only_when_their_servers_end() {
    let network = network();
    let registrar = start_registrar(&network);
    let _first = start(&registrar, "http").await;
    let connector = PoolConnector::new(new_user(&network, &registrar), pool());
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let over = AtomicBool::new(false);
    let request = || {
        let response = client.request(request());
        async move {
            let response = match response.await {
                Err(error) if !error.is_connect() => return Err(failed(error).into()),
                response => response?,
            };
            response.into_body().collect().await.map_err(failed)?;
            Ok(())
        }
    };
    let (_, (sent, failed)) =
        tokio::join!(disturb(&registrar, "http", &over), load(&over, request));
    println!("{sent} HTTP requests over a connector, {failed} failed at servers that ended");
    // A server that ends, killed or not, takes with it the requests on all connections to it.
    assert!(failed * 20 <= sent, "{failed} of {sent} failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_calls_fail_only_at_servers_that_were_killed_meanwhile() {
    let network = network();
    let registrar = start_registrar(&network);
    let _first = start(&registrar, "grpc").await;
    let client = PoolHttp::new(new_user(&network, &registrar), pool()).http2();
    let over = AtomicBool::new(false);
    let request = || {
        let mut client = HealthClient::new(client.clone());
        async move {
            let request = HealthCheckRequest { service: String::new() };
            let response = client.check(request.clone()).await?;
            assert_eq!(response.into_inner().status, 1);
            // A call whose response is a stream.
            let mut stream = client.watch(request).await?.into_inner();
            let first = stream.message().await.map_err(failed)?;
            assert_eq!(first.unwrap().status, 1);
            Ok(())
        }
    };
    let (_, (sent, failed)) =
        tokio::join!(disturb(&registrar, "grpc", &over), load(&over, request));
    println!("{sent} gRPC calls, {failed} failed at servers that were killed");
    assert!(failed <= 2 * disturbances().0 as usize, "{failed} of {sent} failed");
}

#[tokio::test]
async fn a_client_is_not_ready_beyond_its_limit() {
    use futures::FutureExt;
    let network = network();
    let registrar = start_registrar(&network);
    let _server = start(&registrar, "http").await;
    let client = PoolHttp::new(new_user(&network, &registrar), pool()).limit(1);
    let (mut one, mut two) = (client.clone(), client);
    let response = one.ready().await.unwrap().call(request());
    assert!(two.ready().now_or_never().is_none());
    assert!(response.await.unwrap().status().is_success());
    assert!(two.ready().await.unwrap().call(request()).await.unwrap().status().is_success());
}

/// Service that counts.
#[derive(Default)]
struct Counter(u64);

impl rserpool::Service for Counter {
    async fn handle(&mut self, _: Bytes) -> Bytes {
        self.0 += 1;
        self.0.to_string().into()
    }

    fn save(&self) -> Result<Vec<u8>, rserpool::InvalidState> {
        Ok(self.0.to_be_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), rserpool::InvalidState> {
        self.0 = u64::from_be_bytes(state.try_into()?);
        Ok(())
    }
}

#[tokio::test]
async fn a_replicated_service_is_a_service_of_tower() {
    let network = network();
    let registrar = start_registrar(&network);
    let element = PoolElement::start(&network, pool(), registrar.local_addresses()).unwrap();
    element.registered().await.unwrap();
    let config = ServiceConfig::new(Seal::new(pool(), KeyRing::generate()));
    let grace = Duration::ZERO;
    tokio::spawn(element.serve(config, Counter::default, std::future::pending::<()>(), grace));
    let user = new_user(&network, &registrar);
    let client = user.request_client(pool(), RequestConfig::default()).await.unwrap();
    let mut service = RequestService::new(client);
    let mut replies = Vec::new();
    for _ in 0..100 {
        replies.push(service.ready().await.unwrap().call(Bytes::new()));
    }
    let replies = futures::future::try_join_all(replies).await.unwrap();
    let expected: Vec<_> = (1..=100).map(|number| Bytes::from(number.to_string())).collect();
    assert_eq!(replies, expected, "in the order of the calls");
}

#[tokio::test]
async fn requests_go_to_servers_as_often_as_their_weights_say() {
    let network = network();
    let registrar = start_registrar(&network);
    let mut servers = Vec::new();
    for policy in ["WeightedRoundRobin:1", "WeightedRoundRobin:2", "WeightedRoundRobin:3"] {
        servers.push(start_with(&registrar, "http", policy).await);
    }
    let make = tower::service_fn(|address| async move { Ok::<_, Infallible>(to_address(address)) });
    let mut service = PoolService::new(new_user(&network, &registrar), pool(), make);
    let mut counts = BTreeMap::<_, u32>::new();
    for _ in 0..60 {
        let response = service.ready().await.unwrap().call(request()).await.unwrap();
        *counts.entry(body(response).await).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [10, 20, 30]);
}

#[tokio::test]
async fn a_request_is_not_sent_twice_unless_it_may() {
    let network = network();
    let registrar = start_registrar(&network);
    let _servers = [start(&registrar, "rude").await, start(&registrar, "rude").await];
    let make = tower::service_fn(|address| async move { Ok::<_, Infallible>(to_address(address)) });
    let user = new_user(&network, &registrar);
    let service = PoolService::new(user, pool(), make);
    let error = service.oneshot(request()).await.unwrap_err();
    assert!(error.to_string().starts_with("the request failed"), "{error}");
}

#[cfg(feature = "tonic")]
#[tokio::test]
async fn balancers_hear_of_servers_that_come_and_go() {
    let network = network();
    let registrar = start_registrar(&network);
    let mut servers = vec![start(&registrar, "grpc").await];
    let user = new_user(&network, &registrar);
    let subscription = user.subscribe(pool()).await.expect("the user runs");
    let mut client =
        HealthClient::new(rserpool_tower::balance_channel(subscription, |endpoint| endpoint));
    for _ in 0..3 {
        let request = HealthCheckRequest { service: String::new() };
        assert_eq!(client.check(request).await.unwrap().into_inner().status, 1);
        servers.push(start(&registrar, "grpc").await);
        let first = servers.remove(0);
        let gone = first.identifier;
        first.kill();
        // Waits until the registrar has noticed the crash and removed the element.
        let others = || user.resolve(pool(), Default::default());
        while others().await.unwrap().iter().any(|element| element.identifier == gone) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn requests_may_be_given_up_wherever_they_wait() {
    use futures::{FutureExt, StreamExt};
    let network = network();
    let registrar = start_registrar(&network);
    let servers = [start(&registrar, "http").await, start(&registrar, "http").await];
    let make = tower::service_fn(|address| async move { Ok::<_, Infallible>(to_address(address)) });
    let user = new_user(&network, &registrar);
    let service = PoolService::new(user.clone(), pool(), make).max_age(Duration::ZERO);
    let connector = PoolConnector::new(user.clone(), pool());
    let new_changes = || async {
        PoolDiscover::new(
            user.subscribe(pool()).await.expect("the user runs"),
            |address: SocketAddr| address,
        )
    };
    for polls in 0..40 {
        let mut request = Box::pin(service.clone().oneshot(request()).fuse());
        let connecting = connector.clone().oneshot("http://WebPool/".parse().unwrap());
        let mut connecting = Box::pin(connecting.fuse());
        let mut changes = new_changes().await;
        let mut change = changes.next();
        for _ in 0..polls % 8 {
            let _ = (futures::poll!(request.as_mut()), futures::poll!(connecting.as_mut()));
            let _ = futures::poll!(&mut change);
            tokio::time::sleep(Duration::from_millis(u64::from(polls / 8 % 2 == 1))).await;
        }
    }
    let mut answered = BTreeSet::new();
    for _ in 0..2 {
        answered.insert(body(service.clone().oneshot(request()).await.unwrap()).await);
    }
    assert_eq!(answered.len(), 2, "both serve, and neither was reported");
    connector.clone().oneshot("http://WebPool/".parse().unwrap()).await.unwrap();
    let mut changes = new_changes().await;
    let mut there = BTreeSet::new();
    while there.len() < servers.len() {
        match changes.next().await {
            Some(Ok(Change::Insert(element, _))) => there.insert(element),
            other => panic!("{other:?}"),
        };
    }
}
