//! `rserpool bench registrar`.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures::future::try_join_all;
use rserpool::{Network, PolicyParameters, PoolHandle, TransportAddress};
use serde_json::json;

use super::cpu;
use super::load::Client;
use crate::options::{self, HostPort, TransportOption};
use crate::process::{Inherited, Place, RegistrarProcess};

/// Options of a registrar that refuses no load.
const NO_LIMITS: [&str; 6] =
    ["--max-resolutions", "0", "--max-registrations", "0", "--max-connections", "0"];

/// Send requests to a registrar as fast as it answers, and show the cost of an answer
///
/// Without --registrar, a registrar without limits is started for it. Each connection has one request
/// in progress unless --outstanding sets another number. The processor time of the registrar is shown
/// if it was started for it, or if it runs on this host and --pid gives its process.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Address of a registrar that runs. Its limits have to permit the load: see --max-resolutions,
    /// --max-registrations and --max-connections of `rserpool registrar`
    #[arg(long, value_name = "ADDR", value_parser = options::address)]
    registrar: Option<HostPort>,
    /// Operations to measure, one after another [default: both]
    #[arg(long, value_enum, default_values_t = [Operation::Resolve, Operation::Register])]
    operation: Vec<Operation>,
    /// Number of connections
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Number of requests in progress on each connection
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    outstanding: u32,
    /// Seconds to measure each operation
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Number of elements in the pool, shared among the connections; at least one for each
    #[arg(long, value_name = "N", default_value_t = 30)]
    elements: u32,
    /// Number of elements that a resolution asks for
    #[arg(long, value_name = "N", default_value_t = 3)]
    items: u32,
    /// Policy of the pool
    #[arg(long, value_name = "NAME[:VALUE...]", default_value = "RoundRobin")]
    policy: PolicyParameters,
    /// Process identifier of the registrar
    #[arg(long, value_name = "PID", requires = "registrar")]
    pid: Option<u32>,
    #[command(flatten)]
    transport: TransportOption,
    /// Print the figures as JSON, one line per operation
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// Resolutions of one pool
    Resolve,
    /// Renewals of registrations
    Register,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Register => "register",
        }
    }
}

/// A connection and its elements.
#[derive(Debug)]
struct Worker {
    client: Client,
    elements: Vec<u32>,
}

/// The time, the processor time and the latencies that an operation of the registrar took.
#[derive(Debug)]
struct Measured {
    operation: Operation,
    elapsed: Duration,
    cpu: Option<Duration>,
    latencies: Vec<Duration>,
}

pub(crate) async fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    // It ends with this function.
    let mut own = None;
    let at = match arguments.registrar {
        Some(at) => arguments.transport.asap(at),
        None => {
            let inherited = Inherited::new(&network, &arguments.transport);
            let registrar =
                RegistrarProcess::start(Place::default(), &[], &NO_LIMITS, &inherited).await?;
            arguments.pid = Some(registrar.id());
            own.insert(registrar).place.asap
        }
    };
    let address = TransportAddress::new(network.protocol(), at);
    let pool: PoolHandle = "BenchPool".parse()?;
    let mut workers = start(&network, &address, &pool, &arguments).await?;
    for operation in &arguments.operation {
        let measured = measure(*operation, &mut workers, &pool, &arguments).await?;
        measured.print(arguments.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(
    network: &Network,
    address: &TransportAddress,
    pool: &PoolHandle,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Worker>> {
    let mut workers = Vec::new();
    for number in 0..arguments.connections {
        let mut client = Client::connect(network, address).await?;
        let last = arguments.elements.max(arguments.connections);
        let step = arguments.connections as usize;
        let elements: Vec<_> = (number + 1..=last).step_by(step).collect();
        for element in &elements {
            client.register(pool, *element, &arguments.policy)?;
            client.answered().await?;
        }
        workers.push(Worker { client, elements });
    }
    Ok(workers)
}

#[allow(clippy::disallowed_methods, reason = "it is what is measured")]
async fn measure(
    operation: Operation,
    workers: &mut [Worker],
    pool: &PoolHandle,
    arguments: &Arguments,
) -> anyhow::Result<Measured> {
    let cpu_time = || arguments.pid.map(cpu::time).transpose();
    let (cpu_before, start) = (cpu_time()?, Instant::now());
    let end = start + Duration::from_secs(arguments.seconds);
    let asked = try_join_all(workers.iter_mut().map(async |Worker { client, elements }| {
        let mut elements = elements.iter().cycle();
        let mut ask = |client: &mut Client| match operation {
            Operation::Resolve => client.resolve(pool, arguments.items),
            Operation::Register => {
                client.register(pool, *elements.next().unwrap_or(&1), &arguments.policy)
            }
        };
        let mut latencies = Vec::new();
        let mut outstanding = VecDeque::new();
        for _ in 0..arguments.outstanding {
            ask(client)?;
            outstanding.push_back(Instant::now());
        }
        while let Some(asked) = outstanding.pop_front() {
            client.answered().await?;
            let now = Instant::now();
            latencies.push(now - asked);
            if now < end {
                ask(client)?;
                outstanding.push_back(now);
            }
        }
        anyhow::Ok(latencies)
    }))
    .await?;
    let (elapsed, cpu_after) = (start.elapsed(), cpu_time()?);
    let cpu = cpu_before.zip(cpu_after).map(|(before, after)| after.saturating_sub(before));
    let mut latencies: Vec<_> = asked.into_iter().flatten().collect();
    latencies.sort_unstable();
    Ok(Measured { operation, elapsed, cpu, latencies })
}

impl Measured {
    fn print(&self, as_json: bool) -> anyhow::Result<()> {
        let count = self.latencies.len();
        let quantile = |per_mille: usize| {
            let latency = self.latencies.get(count * per_mille / 1000).copied().unwrap_or_default();
            latency.as_secs_f64() * 1e6
        };
        let (median, p99, p999) = (quantile(500), quantile(990), quantile(999));
        let rate = count as f64 / self.elapsed.as_secs_f64();
        let cpu = self.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / count as f64);
        let name = self.operation.name();
        if as_json {
            out!(
                "{}",
                json!({ "operation": name, "count": count, "per_second": rate.round(),
                        "median_us": median.round(), "p99_us": p99.round(),
                        "p99_9_us": p999.round(), "cpu_us": cpu })
            );
        } else {
            let cpu = cpu.map(|cpu| format!("  {cpu:6.1} us of the registrar's processor each"));
            out!(
                "{name:8}  {count:8}  {rate:8.0}/s  median {median:6.0} us  99% {p99:6.0} us  99.9% {p999:6.0} us{}",
                cpu.unwrap_or_default()
            );
        }
        Ok(())
    }
}
