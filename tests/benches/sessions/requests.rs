//! Requests over loopback TCP, one at a time: in a session, and by a client that tasks may share.

use std::future::pending;
use std::time::{Duration, Instant};

use rserpool::cookie::{KeyRing, Seal};
use rserpool::{Network, RequestConfig, ServiceConfig};
use rserpool_tests::counter::Counter;

use super::{pool, start};

/// Measures in turn how long a request takes in a session, and by a client. Returns the medians, and
/// the median of the ratios.
pub async fn measure(network: &Network, rounds: usize, requests: u32) -> (Duration, Duration, f64) {
    let (_registrar, element, user) = start(network).await;
    let config = ServiceConfig::new(Seal::new(pool(), KeyRing::generate()));
    let serve = element.serve(config, Counter::default, pending::<()>(), Duration::ZERO);
    network.runtime().spawn(Box::pin(async move {
        serve.await;
    }));
    let mut session = user.open_requests(pool(), RequestConfig::default()).await.unwrap();
    let client = user.request_client(pool(), RequestConfig::default()).await.unwrap();
    let (mut alone, mut shared, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begin = Instant::now();
        for _ in 0..requests {
            session.request("count").await.unwrap();
        }
        alone.push(begin.elapsed() / requests);
        let begin = Instant::now();
        for _ in 0..requests {
            client.request("count").await.unwrap();
        }
        shared.push(begin.elapsed() / requests);
        ratios.push(shared[shared.len() - 1].as_secs_f64() / alone[alone.len() - 1].as_secs_f64());
    }
    alone.sort_unstable();
    shared.sort_unstable();
    ratios.sort_unstable_by(f64::total_cmp);
    (alone[rounds / 2], shared[rounds / 2], ratios[rounds / 2])
}
