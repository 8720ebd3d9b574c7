//! Uses a pool of HTTP servers. The servers use hyper, without code for pools; each is registered
//! with its address. The client uses hyper as well, and connects through the pool.
//!
//! ```sh
//! cargo run -p rserpool-examples --bin http -- --runtime smol
//! ```
//!
//! hyper itself always runs on tokio, even if the pool runs on another runtime.

use std::convert::Infallible;

use bytes::Bytes;
use futures::future::pending;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rserpool::{Network, PoolElement, PoolHandle, PoolUser, TransportAddress};
use rserpool_examples::start_registrar;
use rserpool_tower::PoolConnector;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// A tokio runtime. When it is dropped, it shuts down at once, with all of its tasks.
struct Tokio(Option<Runtime>);

impl Tokio {
    fn new() -> std::io::Result<Self> {
        Runtime::new().map(|runtime| Self(Some(runtime)))
    }

    fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0.as_ref().expect("it lives").spawn(task)
    }
}

impl Drop for Tokio {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn main() -> anyhow::Result<()> {
    rserpool_examples::run(http)
}

async fn http(network: Network) -> anyhow::Result<()> {
    let registrar = start_registrar(&network)?;
    let at = registrar.local_address();
    let pool: PoolHandle = "WebPool".parse()?;
    let mut servers = Vec::new();
    for name in ["one", "two", "three"] {
        servers.push(start_server(&network, &pool, at, name).await?);
    }

    let user = PoolUser::new(&network, [at.clone()])?;
    let connector = PoolConnector::new(user, pool);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let tokio = Tokio::new()?;
    let mut last = String::new();
    for number in 1..=9 {
        let request = Request::get("http://WebPool/").body(Full::default())?;
        let sending = client.request(request);
        let answer = tokio.spawn(async move {
            let body = sending.await?.into_body().collect().await?;
            anyhow::Ok(String::from_utf8(body.to_bytes().to_vec())?)
        });
        match answer.await? {
            Ok(answer) => {
                println!("request {number}: {answer}");
                last = answer;
            }
            Err(error) => println!("request {number}: {error:#}; the next finds another server"),
        }
        if number % 3 == 0
            && number < 9
            && let Some(at) = servers.iter().position(|(name, _)| last.ends_with(name))
        {
            println!("-- server {} dies", servers[at].0);
            drop(servers.remove(at));
        }
    }
    Ok(())
}

/// Starts an HTTP server that answers with its name. It has a runtime of its own, so dropping that
/// runtime stops the whole server.
async fn start_server(
    network: &Network,
    pool: &PoolHandle,
    registrar: &TransportAddress,
    name: &'static str,
) -> anyhow::Result<(&'static str, Tokio)> {
    let tokio = Tokio::new()?;
    let listener = tokio.spawn(TcpListener::bind("127.0.0.1:0")).await??;
    let address = TransportAddress::tcp(listener.local_addr()?);
    let element = PoolElement::builder(network, pool, [registrar]).serving_at(address).start()?;
    element.registered().await?;
    tokio.spawn(async move {
        // The element stays registered as long as the server runs.
        let _element = element;
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(move |_| async move {
                let text = format!("hello from {name}");
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::task::spawn(http.serve_connection(TokioIo::new(stream), answer));
        }
        pending::<()>().await;
    });
    Ok((name, tokio))
}
