//! `rserpool proxy`.

mod choice;
mod copy;
mod header;
mod listen;
mod stdio;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use rserpool::{PoolHandle, ResolveOptions};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::options::{self, RegistrarOption, TransportOption};
use choice::Servers;
use listen::{Address, Client, Listener, prepare};

/// Time without an answer of a registrar after which that is printed. A registrar that has just started
/// takes up to 5 s to answer that there is no such pool.
const SILENCE: Duration = Duration::from_secs(6);

/// Pause in accepting connections after accepting failed, which is for want of descriptors or memory
/// most of the time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Time between two log lines that say that no server accepts.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Let any client use a pool: each connection goes to a server that the pool's policy selects
///
/// The servers are those that accept TCP connections, such as the ones of `rserpool register`. A
/// server that does not accept is reported to the registrar, and the connection goes to the next.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File with settings, in the format TOML: the names of options and their values, and those of
    /// the arguments without an option, as in `pool = "Web"`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Handle of the pool
    #[arg(value_name = "POOL", value_parser = options::pool_handle)]
    pool: PoolHandle,
    /// Address to accept clients on: IP:PORT, or unix:PATH
    #[arg(long, value_name = "ADDR", required_unless_present = "stdio")]
    listen: Option<Address>,
    /// Serve one client: standard input and output
    #[arg(long, conflicts_with = "listen")]
    stdio: bool,
    /// Tell the servers the address of the client, before its bytes
    #[arg(long, value_name = "VERSION")]
    proxy_protocol: Option<ProxyProtocol>,
    /// Maximum number of clients at a time; further ones wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    max: u32,
    /// Time without a byte in either direction after which a connection is reset [default: none]
    #[arg(long, value_name = "SECONDS", value_parser = options::some_seconds)]
    idle: Option<Duration>,
    /// Time within which a server has to accept a connection; then the next is tried
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = options::seconds)]
    connect_timeout: Duration,
    /// Time for which a client waits if no server accepts; then it is disconnected
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = options::seconds)]
    patience: Duration,
    /// Time for which the registrar's answer is used for further clients. While it is, this program
    /// applies the policy
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = options::seconds)]
    cache: Duration,
    #[command(flatten)]
    registrar: RegistrarOption,
    #[command(flatten)]
    transport: TransportOption,
    /// Time, in seconds, that connections may take to finish after Ctrl-C or SIGTERM
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = options::seconds)]
    grace: Duration,
    /// Print the address as JSON
    #[arg(long)]
    json: bool,
    /// Exit when standard input closes
    #[arg(long, hide = true, conflicts_with = "stdio")]
    until_eof: bool,
}

/// Version of the PROXY protocol, by which proxies tell servers the address of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProxyProtocol {
    /// Version 2, which is binary
    V2,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    let user = arguments.registrar.user(&network, &arguments.transport, |config| config).await?;
    let names = arguments.registrar.names(&network, &arguments.transport).await;
    let hunt = arguments.registrar.hunt(names.addresses());
    let (asker, pool) = (user.clone(), arguments.pool.clone());
    tokio::spawn(async move {
        let resolved = asker.resolve(pool, ResolveOptions::default());
        if timeout(SILENCE, resolved).await.is_err() {
            options::notify_no_registrar(&hunt);
        }
    });
    let servers = Servers::new(user, arguments.pool.clone(), arguments.cache);
    let proxy = Arc::new(Proxy {
        servers,
        arguments,
        clients: AtomicUsize::new(0),
        complained: Mutex::default(),
    });
    let Some(address) = &proxy.arguments.listen else {
        proxy.serve(Client::Stdio(stdio::Stdio::new())).await?;
        return Ok(ExitCode::SUCCESS);
    };
    let listener = address.listen().await.with_context(|| format!("--listen {address}"))?;
    let (pool, at) = (&proxy.arguments.pool, listener.local());
    if proxy.arguments.json {
        announce!("{}", json!({ "pool": pool, "listen": at }));
    } else {
        announce!("clients of {pool} connect to {at}; Ctrl-C ends");
    }
    let end = options::wait_for_end(proxy.arguments.until_eof);
    let tasks = tokio::select! {
        never = accept(&proxy, &listener) => match never {},
        () = end => {
            drop(listener);
            proxy.clients.load(Ordering::Relaxed)
        }
    };
    if tasks > 0 {
        tracing::info!(clients = tasks, "waiting for clients to finish");
    }
    let finished = async {
        while proxy.clients.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(proxy.arguments.grace, finished).await.is_err() {
        let left = proxy.clients.load(Ordering::Relaxed);
        notify!("{left} connections were cut off");
    }
    Ok(ExitCode::SUCCESS)
}

async fn accept(proxy: &Arc<Proxy>, listener: &Listener) -> std::convert::Infallible {
    let room = Arc::new(Semaphore::new(proxy.arguments.max as usize));
    loop {
        // The semaphore is never closed.
        let permit = Arc::clone(&room).acquire_owned().await.ok();
        match listener.accept().await {
            Ok(client) => {
                let proxy = Arc::clone(proxy);
                proxy.clients.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    if let Err(error) = proxy.serve(client).await {
                        tracing::info!(pool = %proxy.arguments.pool, "{error:#}");
                    }
                    proxy.clients.fetch_sub(1, Ordering::Relaxed);
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Proxy {
    servers: Servers,
    arguments: Arguments,
    /// Number of clients that are being served.
    clients: AtomicUsize,
    /// Time of the last log line that said that no server accepts.
    complained: Mutex<Option<Instant>>,
}

impl Proxy {
    /// Logs that no server accepts, from time to time.
    fn complain(&self) {
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            *last = Some(Instant::now());
            tracing::warn!(pool = %self.arguments.pool, "no server accepts connections");
        }
    }

    /// Connects a client to a server, and passes bytes on until both have finished.
    ///
    /// # Errors
    ///
    /// Returns an error if no server accepts in time, or a connection breaks.
    async fn serve(&self, mut client: Client) -> anyhow::Result<()> {
        let Arguments { pool, patience, connect_timeout, .. } = &self.arguments;
        // Several servers are tried, also if the first ones do not answer.
        let connect = self.servers.connect((*connect_timeout).min(*patience / 3));
        let Ok((mut server, element)) = timeout(*patience, connect).await else {
            client.reset_at_end();
            self.complain();
            bail!("no server of {pool} accepts: client disconnected");
        };
        prepare(&server);
        if self.arguments.proxy_protocol.is_some() {
            let header = header::version_2(client.ends());
            server.write_all(&header).await.context("the server is gone")?;
        }
        tracing::debug!(client = %client, %element, "connected");
        let copied = copy::both_ways(&mut client, &mut server, self.arguments.idle).await;
        let (up, down) = copied
            .inspect_err(|_| {
                // Neither end takes what it has received for the whole.
                client.reset_at_end();
                listen::reset_at_end(&server);
            })
            .with_context(|| format!("connection with {element} broke"))?;
        tracing::debug!(client = %client, %element, up, down, "finished");
        Ok(())
    }
}
