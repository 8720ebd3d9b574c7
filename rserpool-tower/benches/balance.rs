//! Compares the balancing of requests by a pool's policy with that of tower's `p2c`.
//!
//! Starts three HTTP servers in this process. One of them takes three times as long for a request
//! as the others. Requests arrive at random times (Poisson), at 60 % of the total capacity of the
//! servers. Each way of balancing has its own pool and its own servers, and all are measured in
//! turn in each round. Prints the times from a request's arrival to its response, over all rounds.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::{self, Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rserpool::transport::Tcp;
use rserpool::{
    ElementControl, Network, PolicyParameters, PoolElement, PoolUser, Registrar, RegistrarConfig,
    TransportAddress,
};
use rserpool_tokio::TokioRuntime;
use rserpool_tower::{PoolDiscover, PoolHttp};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::Discover;
use tower::load::{CompleteOnResponse, Load, PeakEwmaDiscover, PendingRequestsDiscover};
use tower::util::BoxService;
use tower::{Service, ServiceExt};

/// Requests that a server works on at a time; the others wait.
const SLOTS: usize = 8;
/// Mean time for a request, for each server.
const MEAN: [Duration; 3] =
    [Duration::from_millis(8), Duration::from_millis(8), Duration::from_millis(24)];
const UTILISATION: f64 = 0.6;

type BoxError = Box<dyn Error + Send + Sync>;
type Call = Arc<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// Draws a time from an exponential distribution.
fn exponential(rng: &mut StdRng, mean: f64) -> Duration {
    Duration::from_secs_f64(-mean * (1.0 - rng.random::<f64>()).ln())
}

/// A server that answers each request after a random time. Its load is the number of its requests
/// in relation to its slots, and is above 1 while requests wait for a slot.
struct Server {
    mean: Duration,
    slots: Semaphore,
    present: AtomicUsize,
    control: Option<ElementControl>,
}

impl Server {
    async fn handle(&self) -> Response<Full<Bytes>> {
        self.present.fetch_add(1, Relaxed);
        self.report().await;
        {
            let _slot = self.slots.acquire().await.expect("it is never closed");
            let time = exponential(&mut rand::make_rng(), self.mean.as_secs_f64());
            sleep(time).await;
        }
        self.present.fetch_sub(1, Relaxed);
        self.report().await;
        Response::new(Full::default())
    }

    /// Reports the load to the pool. The reported load is 1.0 at four times as many requests as
    /// slots.
    async fn report(&self) {
        if let Some(control) = &self.control {
            let load = self.present.load(Relaxed) as f64 / (4 * SLOTS) as f64;
            let _ = control.set_load(load.min(1.0)).await;
        }
    }
}

/// Starts the three servers of a pool.
async fn start_servers(
    network: &Network,
    registrar: &Registrar,
    pool: &str,
    policies: &[PolicyParameters; 3],
) -> Result<Vec<PoolElement>, BoxError> {
    let mut elements = Vec::new();
    for (policy, mean) in policies.iter().zip(MEAN) {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let element = PoolElement::builder(network, pool, registrar.local_addresses())
            .serving_at(TransportAddress::tcp(listener.local_addr()?))
            .configure(|config| config.policy(policy.clone()))
            .start()?;
        element.registered().await?;
        let adapts = policy.with_load(0.0).is_some();
        let server = Arc::new(Server {
            mean,
            slots: Semaphore::new(SLOTS),
            present: AtomicUsize::new(0),
            control: adapts.then(|| element.control()),
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let server = Arc::clone(&server);
                let answer = service_fn(move |_: Request<Incoming>| {
                    let server = Arc::clone(&server);
                    async move { Ok::<_, Infallible>(server.handle().await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
        elements.push(element);
    }
    Ok(elements)
}

/// Consumes the response, so that its connection can be used again.
async fn finish(response: Response<Incoming>) -> Result<(), BoxError> {
    response.into_body().collect().await?;
    Ok(())
}

fn request() -> Request<Full<Bytes>> {
    Request::get("http://BenchPool/").body(Full::default()).expect("a request")
}

/// Balances by the policy of the pool.
fn by_policy(client: PoolHttp<Full<Bytes>>) -> Call {
    Arc::new(move || {
        let client = client.clone();
        Box::pin(async move { finish(client.oneshot(request()).await?).await })
    })
}

/// Balances by tower's `p2c` over services whose load `D` measures.
fn by_p2c<D, S>(discover: D) -> Call
where
    D: Discover<Service = S, Error = Infallible> + Unpin + Send + 'static,
    D::Key: std::hash::Hash + Clone + Send,
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>, Error = legacy::Error>,
    S: Load<Metric: std::fmt::Debug> + Send + 'static,
    S::Future: Send,
{
    let balance = Buffer::new(BoxService::new(Balance::new(discover)), 1024);
    Arc::new(move || {
        let balance = balance.clone();
        balance.oneshot(request()).and_then(finish).boxed()
    })
}

/// A client of one server.
fn client_of(
    address: SocketAddr,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<Incoming>,
    Error = legacy::Error,
    Future: Send,
> + Send {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    tower::service_fn(move |mut request: Request<Full<Bytes>>| {
        *request.uri_mut() = format!("http://{address}/").parse().expect("a URI");
        client.request(request)
    })
}

/// Sends requests for a time, and returns how long each took.
async fn load(call: &Call, lasting: Duration, rng: &mut StdRng) -> Vec<Duration> {
    let rate: f64 = MEAN.iter().map(|mean| SLOTS as f64 / mean.as_secs_f64()).sum();
    let interval = 1.0 / (rate * UTILISATION);
    let end = Instant::now() + lasting;
    let mut next = Instant::now();
    let mut requests = Vec::new();
    while next < end {
        sleep_until(next).await;
        let (call, arrived) = (Arc::clone(call), next);
        requests.push(tokio::spawn(async move {
            call().await.expect("no server fails");
            arrived.elapsed()
        }));
        next += exponential(rng, interval);
    }
    let mut times = Vec::new();
    for request in requests {
        times.push(request.await.expect("it does not panic"));
    }
    times
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let (rounds, lasting) =
        if quick { (1, Duration::from_secs(1)) } else { (5, Duration::from_secs(6)) };
    let network = Network::new(TokioRuntime::current(), Tcp::new());
    let registrar = Registrar::start(&network, ["127.0.0.1:0"], RegistrarConfig::default())?;
    let policies = |names: [&str; 3]| -> Result<[PolicyParameters; 3], BoxError> {
        Ok([names[0].parse()?, names[1].parse()?, names[2].parse()?])
    };
    let weights = ["WeightedRoundRobin:3", "WeightedRoundRobin:3", "WeightedRoundRobin:1"];
    // Each selection raises the load by 1/32, as each request raises the load that the server
    // reports.
    let degradation = "LeastUsedDegradation:0:0x08000000";
    let mut ways = Vec::new();
    let mut elements = Vec::new();
    for (name, policy) in [
        ("RoundRobin", ["RoundRobin"; 3]),
        ("WeightedRoundRobin", weights),
        ("LeastUsed", ["LeastUsed"; 3]),
        ("LeastUsedDegradation", [degradation; 3]),
        ("RandomizedLeastUsed", ["RandomizedLeastUsed"; 3]),
    ] {
        elements.extend(start_servers(&network, &registrar, name, &policies(policy)?).await?);
        let user = PoolUser::new(&network, registrar.local_addresses())?;
        ways.push((name, by_policy(PoolHttp::new(user, name.parse()?)), Vec::new()));
    }
    for name in ["p2c, requests under way", "p2c, peak EWMA"] {
        elements.extend(
            start_servers(&network, &registrar, name, &policies(["RoundRobin"; 3])?).await?,
        );
        let user = PoolUser::new(&network, registrar.local_addresses())?;
        let discover = PoolDiscover::new(user.subscribe(name).await?, client_of);
        let complete = CompleteOnResponse::default();
        let call = if name == "p2c, peak EWMA" {
            let (start, decay) = (Duration::from_millis(10), Duration::from_secs(5));
            by_p2c(PeakEwmaDiscover::new::<Request<Full<Bytes>>>(discover, start, decay, complete))
        } else {
            by_p2c(PendingRequestsDiscover::new(discover, complete))
        };
        ways.push((name, call, Vec::new()));
    }
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..rounds {
        for (_, call, times) in &mut ways {
            load(call, Duration::from_millis(500), &mut rng).await;
            times.extend(load(call, lasting, &mut rng).await);
        }
    }
    println!(
        "{:<28} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "balancing", "requests", "mean", "median", "p95", "p99"
    );
    for (name, _, mut times) in ways {
        times.sort();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let mean = times.iter().sum::<Duration>() / u32::try_from(times.len())?;
        let quantile = |share: f64| milliseconds(times[(times.len() as f64 * share) as usize]);
        println!(
            "{name:<28} {:>9} {:>5.1} ms {:>5.1} ms {:>5.1} ms {:>5.1} ms",
            times.len(),
            milliseconds(mean),
            quantile(0.5),
            quantile(0.95),
            quantile(0.99),
        );
    }
    drop(elements);
    Ok(())
}
