//! Kills real registrar processes while elements are registered, and reports what users and
//! subscribers of the pools observed.
#![allow(clippy::disallowed_methods, reason = "it measures real processes")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use futures::StreamExt;
use rserpool::transport::Tcp;
use rserpool::{Network, PoolChange, PoolElement, PoolUser};
use rserpool_proto::wire::parameter::ItemCount;
use rserpool_proto::wire::{PoolElementId, PoolHandle, TransportAddress, asap};
use rserpool_tokio::TokioRuntime;

/// Number of elements in a pool.
const POOL_SIZE: usize = 8;
/// Number of elements in a process, each of which has two descriptors.
const PROCESS_SIZE: usize = 4000;

/// Kills registrars by SIGKILL, restarts them, and observes the pools all the time
#[derive(Debug, Parser)]
struct Arguments {
    /// Path of the `rserpool` command
    #[arg(long, default_value = "target/release/rserpool")]
    rserpool: PathBuf,
    #[arg(long, default_value_t = 3)]
    registrars: usize,
    /// Number of elements, eight in each pool, each with a connection of its own
    #[arg(long, default_value_t = 8)]
    elements: usize,
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Time that a registrar is down, and time that it then runs before the next one is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pause: f64,
    /// Only runs elements: from this number on, at these registrars
    #[arg(long, hide = true)]
    from: Option<usize>,
    #[arg(long, hide = true)]
    at: Vec<SocketAddr>,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    let _guard = runtime.enter();
    let network = Network::new(TokioRuntime::current(), Tcp::new());
    if let Some(from) = arguments.from {
        return runtime.block_on(run_elements(&network, from, &arguments));
    }
    let mut cluster = Cluster::start(&arguments)?;
    let watched = Arc::new(AtomicU32::new(0));
    runtime.spawn(watch(network, cluster.addresses(), Arc::clone(&watched)));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut lookers = Vec::new();
    for at in cluster.addresses() {
        let (seen, elements) = (Arc::clone(&seen), arguments.elements);
        lookers.push(thread::spawn(move || look(at, elements, &seen)));
    }
    let everybody = |seen: &Mutex<Seen>| seen.lock().expect("no panic").complete.len();
    let begin = Instant::now();
    while everybody(&seen) < arguments.registrars {
        assert!(begin.elapsed() < Duration::from_secs(120), "not all registrars have all elements");
        thread::sleep(Duration::from_millis(100));
    }
    seen.lock().expect("no panic").clear();
    let joined = watched.swap(0, Ordering::Relaxed);
    println!("{} elements there, the watcher heard of {joined} changes", arguments.elements);
    let pause = Duration::from_secs_f64(arguments.pause);
    for kill in 0..arguments.kills {
        let victim = kill % arguments.registrars;
        cluster.kill(victim)?;
        if arguments.registrars > 1 {
            thread::sleep(pause);
        }
        cluster.revive(victim)?;
        thread::sleep(pause);
    }
    let removed = cluster.removed()?;
    let seen = seen.lock().expect("no panic");
    println!(
        "{} kills: {removed} elements removed, {} left for the watcher, {} answers without a pool, \
         {} elements missing in {} answers",
        arguments.kills,
        watched.load(Ordering::Relaxed),
        seen.unknown,
        seen.missing_elements.len(),
        seen.missing,
    );
    println!(
        "longest time without an element at one registrar that answered: {:.0} ms, of {} answers; \
         longest time between two answers of one: {:.0} ms",
        seen.longest.as_secs_f64() * 1000.0,
        seen.answers,
        seen.slowest.as_secs_f64() * 1000.0,
    );
    Ok(())
}

/// Statistics of the answers.
#[derive(Debug, Default)]
struct Seen {
    answers: u64,
    /// Number of answers that there is no such pool. `missing` is the number of elements that were
    /// missing in an answer.
    unknown: u64,
    missing: u64,
    missing_elements: BTreeSet<usize>,
    longest: Duration,
    slowest: Duration,
    /// The registrars that have returned all elements.
    complete: BTreeSet<SocketAddr>,
}

impl Seen {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Resolves all pools at one registrar, again and again, until the program exits.
fn look(at: SocketAddr, elements: usize, seen: &Mutex<Seen>) {
    let pools = elements.div_ceil(POOL_SIZE);
    loop {
        // The registrar is down, or does not accept connections yet.
        let Ok(mut stream) = TcpStream::connect(at) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let _ = look_once(&mut stream, at, pools, elements, seen);
    }
}

/// Asks a registrar for all pools until the connection is lost.
fn look_once(
    stream: &mut TcpStream,
    at: SocketAddr,
    pools: usize,
    elements: usize,
    seen: &Mutex<Seen>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut absent: BTreeMap<usize, Instant> = BTreeMap::new();
    let mut told: BTreeSet<usize> = BTreeSet::new();
    loop {
        let mut complete = true;
        for first in (0..pools).step_by(64) {
            let batch = first..pools.min(first + 64);
            let begin = Instant::now();
            for pool in batch.clone() {
                let items = Some(ItemCount(u32::MAX));
                let request =
                    asap::HandleResolution { pool_handle: handle(pool), subscribe: false, items };
                stream.write_all(&asap::Message::from(request).encode().expect("short"))?;
            }
            for pool in batch {
                let answer = receive(stream)?;
                let now = Instant::now();
                let mut seen = seen.lock().expect("no panic");
                seen.answers += 1;
                seen.slowest = seen.slowest.max(now - begin);
                let present: BTreeSet<_> = match answer.result {
                    asap::Resolved::Pool { elements, .. } => {
                        elements.iter().map(|element| element.identifier).collect()
                    }
                    _ => {
                        seen.unknown += 1;
                        BTreeSet::new()
                    }
                };
                for number in pool * POOL_SIZE..elements.min((pool + 1) * POOL_SIZE) {
                    if present.contains(&identifier(number)) {
                        told.insert(number);
                        if let Some(since) = absent.remove(&number) {
                            seen.longest = seen.longest.max(now - since);
                        }
                    } else {
                        complete = false;
                        // A registrar that starts learns of the elements gradually.
                        if told.contains(&number) {
                            seen.missing += 1;
                            seen.missing_elements.insert(number);
                            let since = *absent.entry(number).or_insert(begin);
                            seen.longest = seen.longest.max(now - since);
                        }
                    }
                }
            }
        }
        if complete {
            seen.lock().expect("no panic").complete.insert(at);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn receive(stream: &mut TcpStream) -> io::Result<asap::HandleResolutionResponse> {
    let mut message = vec![0; 4];
    stream.read_exact(&mut message)?;
    let length = usize::from(u16::from_be_bytes([message[2], message[3]])).next_multiple_of(4);
    message.resize(length, 0);
    stream.read_exact(&mut message[4..])?;
    match asap::Message::decode(&message.into()).map(|message| message.body) {
        Ok(asap::Body::HandleResolutionResponse(response)) => Ok(response),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

fn handle(pool: usize) -> PoolHandle {
    format!("Pool{pool}").parse().expect("a pool handle")
}

fn identifier(number: usize) -> PoolElementId {
    PoolElementId(u32::try_from(number + 1).expect("not so many"))
}

/// Counts the elements of the first pool that are reported to have left.
async fn watch(network: Network, registrars: Vec<SocketAddr>, left: Arc<AtomicU32>) {
    let registrars = registrars.into_iter().map(TransportAddress::tcp);
    let user = PoolUser::new(&network, registrars).expect("TCP is there");
    let mut changes = user.subscribe(handle(0)).await.expect("the user runs");
    while let Some(change) = changes.next().await {
        if matches!(change, PoolChange::Left(_)) {
            left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn run_elements(network: &Network, from: usize, arguments: &Arguments) -> io::Result<()> {
    let to = arguments.elements.min(from + PROCESS_SIZE);
    let registrars: Vec<_> = arguments.at.iter().copied().map(TransportAddress::tcp).collect();
    let mut elements = Vec::new();
    for number in from..to {
        // Each element begins with another registrar, so that all registrars are home registrars.
        let mut registrars = registrars.clone();
        registrars.rotate_left(number % arguments.at.len());
        let element = PoolElement::builder(network, handle(number / POOL_SIZE), registrars)
            .configure(|config| config.identifier(identifier(number)))
            .listen(([127, 0, 0, 1], 0).into())
            .serving_at(TransportAddress::tcp(([127, 0, 0, 1], 9).into()))
            .start()
            .map_err(io::Error::other)?;
        elements.push(element);
    }
    // Waits until standard input closes.
    tokio::task::spawn_blocking(|| io::stdin().read(&mut [0]))
        .await
        .map_err(io::Error::other)??;
    Ok(())
}

/// The processes of the test.
struct Cluster<'a> {
    arguments: &'a Arguments,
    /// The addresses at which each registrar offers ASAP and ENRP.
    ports: Vec<(SocketAddr, SocketAddr)>,
    registrars: Vec<Child>,
    elements: Vec<Child>,
    logs: tempfile::TempDir,
}

impl<'a> Cluster<'a> {
    fn start(arguments: &'a Arguments) -> io::Result<Self> {
        // The ports are outside of the range of ephemeral ports, which may be in use when a
        // registrar is restarted.
        let free = (5000..30_000_u16)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .filter(|at| TcpListener::bind(at).is_ok());
        let free: Vec<_> = free.take(2 * arguments.registrars).collect();
        let ports = free.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let mut cluster = Self {
            arguments,
            ports,
            registrars: Vec::new(),
            elements: Vec::new(),
            logs: tempfile::tempdir()?,
        };
        for number in 0..arguments.registrars {
            let child = cluster.start_registrar(number)?;
            cluster.registrars.push(child);
        }
        for from in (0..arguments.elements).step_by(PROCESS_SIZE) {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--elements", &arguments.elements.to_string()]);
            command.args(["--from", &from.to_string()]);
            for (asap, _) in &cluster.ports {
                command.args(["--at", &asap.to_string()]);
            }
            cluster.elements.push(command.stdin(Stdio::piped()).spawn()?);
        }
        Ok(cluster)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(|(asap, _)| *asap).collect()
    }

    fn start_registrar(&self, number: usize) -> io::Result<Child> {
        let (asap, enrp) = self.ports[number];
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.logs.path().join(number.to_string()))?;
        let mut command = Command::new(&self.arguments.rserpool);
        command.args(["registrar", "--transport", "tcp", "--no-announce", "-v"]);
        command.args(["--asap", &asap.to_string(), "--enrp", &enrp.to_string()]);
        // All clients are on one host here, so the limits on one host are raised.
        for limit in ["connections", "elements", "registrations", "resolutions"] {
            command.args([&format!("--max-{limit}"), "1000000"]);
        }
        for (_, peer) in self.ports.iter().filter(|(its, _)| *its != asap) {
            command.args(["--peer", &peer.to_string()]);
        }
        command.stdout(Stdio::null()).stderr(log).spawn()
    }

    fn kill(&mut self, number: usize) -> io::Result<()> {
        self.registrars[number].kill()?;
        self.registrars[number].wait()?;
        Ok(())
    }

    fn revive(&mut self, number: usize) -> io::Result<()> {
        self.registrars[number] = self.start_registrar(number)?;
        Ok(())
    }

    /// Returns the number of elements that the registrars logged as removed.
    fn removed(&self) -> io::Result<usize> {
        let mut removed = 0;
        for number in 0..self.registrars.len() {
            let log = BufReader::new(File::open(self.logs.path().join(number.to_string()))?);
            for line in log.lines() {
                removed += usize::from(line?.contains(" removed "));
            }
        }
        Ok(removed)
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for child in self.elements.iter_mut().chain(&mut self.registrars) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
