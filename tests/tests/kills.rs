//! Requests to real server processes that are killed by SIGKILL, or by a request.
//!
//! The tests are short. `KILLS=1000 REQUESTS=10000 cargo test -p rserpool-tests --release --test kills
//! -- --nocapture` runs them at length, and prints what happened.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::future::{Future, pending};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join, join_all, try_join_all};
use rand::RngExt;
use rserpool::cookie::{KeyRing, Seal};
use rserpool::transport::Tcp;
use rserpool::{
    InvalidState, Network, PoolElement, PoolUser, Registrar, RegistrarConfig, RequestClient,
    RequestConfig, RequestError, RequestFailure, Service, ServiceConfig, SessionConfig,
    TransportAddress,
};
use rserpool_smol::SmolRuntime;
use rserpool_tokio::TokioRuntime;

const POOL: &str = "TallyPool";

/// Number of servers that run at a time.
const SERVERS: usize = 4;

/// Number of tasks that send requests.
const TASKS: u32 = 64;

/// A request that crashes the server that executes it.
const POISON: u32 = u32::MAX;

/// Service that counts requests. It replies with the number of requests of the same task so far,
/// and with the number of requests of all tasks.
struct Tally([u32; TASKS as usize]);

impl Service for Tally {
    async fn handle(&mut self, request: Bytes) -> Bytes {
        let task = u32::from_be_bytes(request[..].try_into().unwrap());
        if task == POISON {
            std::process::abort();
        }
        let count = &mut self.0[task as usize];
        *count += 1;
        let counts = [*count, self.0.iter().sum()];
        counts.map(u32::to_be_bytes).concat().into()
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(self.0.map(u32::to_be_bytes).concat())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        for (count, bytes) in self.0.iter_mut().zip(state.chunks(4)) {
            *count = u32::from_be_bytes(bytes.try_into()?);
        }
        Ok(())
    }
}

/// Runs one server, in a child process that the tests start.
#[test]
#[ignore = "is a server, which the other tests start"]
fn server() {
    let (Ok(registrar), Ok(keys)) = (std::env::var("REGISTRAR"), std::env::var("KEYS")) else {
        return;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let network = Network::new(TokioRuntime::current(), Tcp::new());
        let element = PoolElement::start(&network, POOL, [registrar.as_str()]).unwrap();
        println!("\njoined as {}", element.registered().await.unwrap());
        let seal = Seal::new(POOL.parse().unwrap(), KeyRing::parse(&keys).unwrap());
        let config = ServiceConfig::new(seal);
        element.serve(config, || Tally([0; TASKS as usize]), pending::<()>(), Duration::ZERO).await;
    });
}

/// A server in a process of its own, which is killed when this is dropped.
struct Server(Child);

impl Server {
    fn start(registrar: &TransportAddress, keys: &str) -> Self {
        let registrar = registrar.socket_addresses().next().unwrap().to_string();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server", "--ignored", "--nocapture"])
            .env("KEYS", keys)
            .env("REGISTRAR", registrar)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("joined as")), "it does not join");
        Self(process)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The servers. `SERVERS` of them run at a time: each server that exits is replaced.
struct Servers {
    over: Arc<AtomicBool>,
    ended: Arc<AtomicU32>,
    kills: Arc<AtomicU32>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Starts the servers, and kills one of them `kills` times, every 20 to 100 ms.
    fn start(registrar: &TransportAddress, kills: u32) -> Self {
        let keys = KeyRing::new_line(1);
        let (over, ended, done) = (Arc::<AtomicBool>::default(), Arc::default(), Arc::default());
        let servers: Arc<Vec<Mutex<Server>>> =
            Arc::new((0..SERVERS).map(|_| Mutex::new(Server::start(registrar, &keys))).collect());
        let (registrar, shared) = (registrar.clone(), Arc::clone(&servers));
        let (stop, count): (_, Arc<AtomicU32>) = (Arc::clone(&over), Arc::clone(&ended));
        let replace = thread::spawn(move || {
            while !stop.load(Relaxed) {
                for server in shared.iter() {
                    if server.lock().unwrap().0.try_wait().unwrap().is_some() {
                        count.fetch_add(1, Relaxed);
                        let new = Server::start(&registrar, &keys);
                        *server.lock().unwrap() = new;
                    }
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        let (stop, killed): (_, Arc<AtomicU32>) = (Arc::clone(&over), Arc::clone(&done));
        let kill = thread::spawn(move || {
            while killed.load(Relaxed) < kills && !stop.load(Relaxed) {
                thread::sleep(Duration::from_millis(rand::rng().random_range(20..100)));
                let server = &servers[rand::rng().random_range(0..SERVERS)];
                let _ = server.lock().unwrap().0.kill();
                killed.fetch_add(1, Relaxed);
            }
        });
        Self { over, ended, kills: done, threads: vec![replace, kill] }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |number| number.parse().unwrap())
}

fn start_registrar(network: &Network) -> Registrar {
    Registrar::start(network, ["127.0.0.1:0"], RegistrarConfig::default()).unwrap()
}

fn request(task: u32) -> Bytes {
    task.to_be_bytes().to_vec().into()
}

/// Reads a reply of [`Tally`]: the number of requests of the task, and of all tasks.
fn counts(reply: &Bytes) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
    (number(0), number(4))
}

/// Sends the requests of a task until the servers were killed often enough. Checks that no request
/// is lost or executed twice. Returns the number of requests.
async fn send(client: RequestClient, task: u32, servers: &Servers, kills: u32) -> u32 {
    let mut sent = 0;
    let mut last = 0;
    while servers.kills.load(Relaxed) < kills {
        let (ours, all) = counts(&client.request(request(task)).await.unwrap());
        sent += 1;
        assert_eq!(ours, sent, "task {task}: executed once, and in order");
        assert!(all > last, "in order");
        last = all;
    }
    sent
}

async fn kill(network: Network, shared: bool) {
    let kills = number("KILLS", 12);
    let registrar = start_registrar(&network);
    let servers = Servers::start(registrar.local_address(), kills);
    let user = PoolUser::new(&network, registrar.local_addresses()).unwrap();
    let sent: u32 = if shared {
        let client = user.request_client(POOL, RequestConfig::default()).await.unwrap();
        let tasks = (0..TASKS).map(|task| send(client.clone(), task, &servers, kills));
        let sent = join_all(tasks).await.into_iter().sum();
        let all = counts(&client.request(request(0)).await.unwrap()).1;
        assert_eq!(all, sent + 1, "no request of another task is lost or executed twice");
        sent
    } else {
        let open = (0..TASKS).map(|_| user.request_client(POOL, RequestConfig::default()));
        let clients = try_join_all(open).await.unwrap();
        let tasks = clients.into_iter().zip(0..);
        let tasks = tasks.map(|(client, task)| send(client, task, &servers, kills));
        join_all(tasks).await.into_iter().sum()
    };
    println!(
        "{sent} requests, {} kills, sessions shared: {shared}: none lost or executed twice",
        servers.ended.load(Relaxed)
    );
}

/// Runs a test on tokio.
fn on_tokio<F: Future<Output = ()>>(test: impl FnOnce(Network) -> F) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let network = Network::new(TokioRuntime::new(runtime.handle().clone()), Tcp::new());
    runtime.block_on(test(network));
}

#[test]
fn clones_of_a_client_on_tokio() {
    on_tokio(|network| kill(network, true));
}

#[test]
fn sessions_of_their_own_on_tokio() {
    on_tokio(|network| kill(network, false));
}

#[test]
fn clones_of_a_client_on_smol() {
    smol::block_on(kill(Network::new(SmolRuntime::new(), Tcp::new()), true));
}

#[test]
fn sessions_of_their_own_on_smol() {
    smol::block_on(kill(Network::new(SmolRuntime::new(), Tcp::new()), false));
}

/// Stops one of three servers by SIGSTOP while tasks send requests in sessions of their own. Checks
/// that none is lost or executed twice, and prints the longest time that a request took.
async fn stop(network: Network, session: SessionConfig, settings: &str) {
    let registrar = start_registrar(&network);
    let keys = KeyRing::new_line(1);
    let servers: Vec<_> = (0..3).map(|_| Server::start(registrar.local_address(), &keys)).collect();
    let user = PoolUser::new(&network, registrar.local_addresses()).unwrap();
    let config = RequestConfig::default().session(session);
    let open = (0..TASKS).map(|_| user.request_client(POOL, config.clone()));
    let clients = try_join_all(open).await.unwrap();
    let is_stopped = AtomicBool::new(false);
    let requests = clients.into_iter().zip(0..).map(async |(client, task)| {
        let (mut sent, mut after, mut longest) = (0, 0, Duration::ZERO);
        while after < 20 {
            after += u32::from(is_stopped.load(Relaxed));
            let begun = network.runtime().now();
            sent += 1;
            assert_eq!(counts(&client.request(request(task)).await.unwrap()).0, sent);
            longest = longest.max(network.runtime().now() - begun);
            network.sleep(Duration::from_millis(5)).await;
        }
        longest
    });
    let stop = async {
        network.sleep(Duration::from_millis(300)).await;
        let process = servers[0].0.id().to_string();
        assert!(Command::new("kill").args(["-STOP", &process]).status().unwrap().success());
        is_stopped.store(true, Relaxed);
    };
    let (times, ()) = join(join_all(requests), stop).await;
    let longest = times.into_iter().max().unwrap();
    println!("longest request with a stopped server, {settings}: {longest:.1?}");
}

#[test]
fn a_server_that_is_stopped() {
    on_tokio(|network| stop(network, SessionConfig::default(), "defaults"));
    let fast = SessionConfig::default().heartbeat(Duration::from_millis(80));
    on_tokio(|network| stop(network, fast, "heartbeat 80 ms"));
}

#[test]
fn requests_that_abort_their_servers() {
    on_tokio(|network| async move {
        let requests = number("REQUESTS", 300);
        // Each poisonous request aborts three servers.
        let every = if requests < 1000 { 100 } else { 1000 };
        let registrar = start_registrar(&network);
        let servers = Servers::start(registrar.local_address(), 0);
        let user = PoolUser::new(&network, registrar.local_addresses()).unwrap();
        let client = user.request_client(POOL, RequestConfig::default()).await.unwrap();
        let (mut poisonous, mut expected) = (0, 0);
        let mut sent = Vec::new();
        for number in 0..requests {
            let is_poison = number % every == every / 2;
            sent.push((is_poison, client.request(request(if is_poison { POISON } else { 0 }))));
            if sent.len() < 20 && number + 1 < requests {
                continue;
            }
            let (kinds, replies): (Vec<_>, Vec<_>) = sent.drain(..).unzip();
            for (is_poison, reply) in kinds.into_iter().zip(join_all(replies).await) {
                match reply {
                    Err(RequestError::Failed(RequestFailure::Crashed { servers })) if is_poison => {
                        assert_eq!(servers, 3);
                        poisonous += 1;
                    }
                    reply => {
                        assert!(!is_poison, "{reply:?}");
                        expected += 1;
                        assert_eq!(counts(&reply.unwrap()).0, expected, "executed once");
                    }
                }
            }
        }
        println!("{expected} requests executed once, {poisonous} failed after three servers");
        assert_eq!(poisonous, requests / every);
        // The pool is whole again.
        while servers.ended.load(Relaxed) < 3 * poisonous {
            network.sleep(Duration::from_millis(20)).await;
        }
        // If replies to earlier requests were lost with the first server, its crash counts for the
        // oldest of these, and the poisonous request crashes one server more.
        let ended = servers.ended.load(Relaxed);
        assert!((3 * poisonous..=4 * poisonous).contains(&ended), "{ended} for {poisonous}");
        while user.resolve(POOL, Default::default()).await.unwrap().len() < 3 {
            network.sleep(Duration::from_millis(20)).await;
        }
    });
}
