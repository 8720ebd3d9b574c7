//! Requests of one client to a service, with and without TLS.

use std::future::pending;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rserpool::cookie::{KeyRing, Seal};
use rserpool::transport::{Tcp, Tls};
use rserpool::{
    Network, PoolElement, PoolHandle, PoolUser, Registrar, RegistrarConfig, RequestClient,
    RequestConfig, ServiceConfig,
};
use rserpool_tests::counter::Counter;
use rserpool_tokio::TokioRuntime;

use super::{Certificates, median};

/// Starts a registrar and a server, and returns them with a client of the server.
async fn start(network: &Network) -> (Registrar, PoolUser, RequestClient) {
    let pool: PoolHandle = "BenchPool".parse().unwrap();
    let registrar = Registrar::start(network, ["127.0.0.1:0"], RegistrarConfig::default()).unwrap();
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(network, pool.clone(), [at.clone()]);
    let element = builder.listen(([127, 0, 0, 1], 0).into()).start().unwrap();
    element.registered().await.unwrap();
    let config = ServiceConfig::new(Seal::new(pool.clone(), KeyRing::generate()));
    let serve = element.serve(config, Counter::default, pending::<()>(), Duration::ZERO);
    network.runtime().spawn(Box::pin(async move {
        serve.await;
    }));
    let user = PoolUser::new(network, [at]).unwrap();
    let client = user.request_client(pool, RequestConfig::default()).await.unwrap();
    (registrar, user, client)
}

async fn per_second(client: &RequestClient, requests: usize, outstanding: usize) -> f64 {
    let begin = Instant::now();
    let workers = (0..outstanding).map(async |_| {
        for _ in 0..requests / outstanding {
            client.request("count").await.unwrap();
        }
    });
    join_all(workers).await;
    requests as f64 / begin.elapsed().as_secs_f64()
}

/// Measures in turn the requests a second with TLS and without. Returns the medians, and the median
/// of the ratios.
pub fn measure(
    certificates: &Certificates,
    rounds: usize,
    requests: usize,
    outstanding: usize,
) -> (f64, f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tls = Tls::over(Tcp::new(), &certificates.config()).unwrap();
        let secured = start(&Network::new(TokioRuntime::current(), tls)).await;
        let plain = start(&Network::new(TokioRuntime::current(), Tcp::new())).await;
        let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            with.push(per_second(&secured.2, requests, outstanding).await);
            without.push(per_second(&plain.2, requests, outstanding).await);
            ratios.push(with[with.len() - 1] / without[without.len() - 1]);
        }
        (median(&mut with), median(&mut without), median(&mut ratios))
    })
}
