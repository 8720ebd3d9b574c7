//! `rserpool ping`.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use futures::future::join_all;
use rserpool::proto::wire::PoolElement;
use rserpool::transport::{Event, Purpose};
use rserpool::{Network, PoolElementId, PoolHandle, ResolveOptions, TransportProtocol};
use serde_json::{Value, json};

use super::resolve::explain_resolve;
use crate::options::{self, RegistrarOption, TransportOption};
use crate::table;

/// Measure how long the registrar takes to resolve a pool, and its servers to accept a connection
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Handle of the pool
    #[arg(value_name = "POOL", value_parser = options::pool_handle)]
    pool: PoolHandle,
    /// Number of rounds
    #[arg(long, value_name = "N", default_value = "3",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Seconds between two rounds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = options::some_seconds)]
    every: Duration,
    /// Seconds that a server has to accept a connection
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = options::some_seconds)]
    timeout: Duration,
    /// Maximum number of servers
    #[arg(long, value_name = "N", default_value = "64",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    items: u32,
    #[command(flatten)]
    registrar: RegistrarOption,
    #[command(flatten)]
    transport: TransportOption,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The times of all rounds of the registrar or a server.
#[derive(Debug, Default)]
struct Times {
    address: String,
    took: Vec<Duration>,
    failed: u32,
    /// The last failure.
    error: Option<String>,
}

impl Times {
    fn note(&mut self, result: anyhow::Result<Duration>) {
        match result {
            Ok(took) => self.took.push(took),
            Err(error) => {
                self.failed += 1;
                self.error = Some(format!("{error:#}"));
            }
        }
        self.took.sort_unstable();
    }

    fn milliseconds(&self, place: impl Fn(usize) -> usize) -> Option<f64> {
        let took = self.took.get(place(self.took.len().checked_sub(1)?))?;
        Some((took.as_secs_f64() * 1e6).round() / 1e3)
    }

    /// Returns the shortest time, the median and the longest time.
    fn summary(&self) -> [Option<f64>; 3] {
        [
            self.milliseconds(|_| 0),
            self.milliseconds(|last| last / 2),
            self.milliseconds(|last| last),
        ]
    }

    fn document(&self) -> Value {
        let [least, median, most] = self.summary();
        json!({
            "address": self.address,
            "answered": self.took.len(),
            "failed": self.failed,
            "least_milliseconds": least,
            "median_milliseconds": median,
            "most_milliseconds": most,
            "error": self.error,
        })
    }

    fn row(&self, name: String) -> Vec<String> {
        let time = |time: Option<f64>| time.map_or(String::new(), |time| format!("{time:.3} ms"));
        let [least, median, most] = self.summary().map(time);
        let failed = self.failed.to_string();
        let note = self.error.as_deref().map(table::printable).unwrap_or_default();
        vec![name, least, median, most, failed, self.address.clone(), note]
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    let user = arguments.registrar.user(&network, &arguments.transport, options::impatient).await?;
    let options = ResolveOptions::default().items(arguments.items);
    // The first request searches for a registrar, which is not measured.
    user.resolve(arguments.pool.clone(), options.clone()).await.map_err(explain_resolve)?;
    let mut registrar = Times::default();
    let mut servers: BTreeMap<PoolElementId, Times> = BTreeMap::new();
    for round in 0..arguments.count {
        if round > 0 {
            tokio::time::sleep(arguments.every).await;
        }
        let begin = now();
        let elements = user.resolve(arguments.pool.clone(), options.clone()).await;
        let took = now() - begin;
        let elements = elements.map_err(explain_resolve)?;
        registrar.note(Ok(took));
        let reached = elements.iter().map(|element| reach(&network, element, arguments.timeout));
        for (element, reached) in elements.iter().zip(join_all(reached).await) {
            let times = servers.entry(element.identifier).or_default();
            times.address = table::address(&serde_json::to_value(element)?);
            times.note(reached);
        }
    }
    let silent = servers.values().any(|times| times.took.is_empty());
    if arguments.json {
        let servers: Vec<_> = servers
            .iter()
            .map(|(identifier, times)| {
                let mut server = times.document();
                server["identifier"] = json!(identifier.to_string());
                server
            })
            .collect();
        out!("{}", json!({ "resolution": registrar.document(), "servers": servers }));
    } else {
        let rows = servers.iter().map(|(identifier, times)| times.row(identifier.to_string()));
        let rows: Vec<_> =
            [registrar.row("resolution".to_owned())].into_iter().chain(rows).collect();
        let head = ["", "LEAST", "MEDIAN", "MOST", "FAILED", "ADDRESS", ""];
        table::print(&head, &[1, 2, 3, 4], &rows)?;
    }
    Ok(if silent { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns the time until a server accepted a connection, which is closed again.
async fn reach(
    network: &Network,
    element: &PoolElement,
    limit: Duration,
) -> anyhow::Result<Duration> {
    let address = element.user_transport.address().context("an unknown kind of address")?;
    let begin = now();
    let connected = async {
        match address.protocol {
            TransportProtocol::Tcp => {
                let address = address.socket_addresses().next().context("no address")?;
                tokio::net::TcpStream::connect(address).await?;
            }
            protocol if network.protocol() == protocol => {
                let mut endpoint = network.dialler(Purpose::Session)?;
                let mut connection = endpoint.connect(address);
                match poll_fn(|cx| connection.poll_event(cx)).await {
                    Event::Established { .. } => poll_fn(|cx| connection.poll_close(cx)).await,
                    Event::Lost(error) => return Err(error.into()),
                    _ => bail!("refused"),
                }
            }
            protocol => bail!("{protocol} cannot be used here"),
        }
        Ok(now() - begin)
    };
    tokio::time::timeout(limit, connected).await.context("no connection in time")?
}

#[allow(clippy::disallowed_methods, reason = "the times are those of a person")]
fn now() -> Instant {
    Instant::now()
}
