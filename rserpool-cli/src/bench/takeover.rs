//! `rserpool bench takeover`.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use rserpool::proto::wire::asap::{Body, EndpointKeepAliveAck, Message, Registration};
use rserpool::proto::wire::{PoolElement, RegistrationLife, TransportUse};
use rserpool::transport::{Connection, Endpoint, Event, Purpose};
use rserpool::{
    DumpError, Network, PolicyParameters, PoolElementId, PoolHandle, Ppid, RegistrarId,
    TransportAddress, UserMessage, dump,
};
use serde_json::json;

use crate::options::TransportOption;
use crate::process::{Inherited, Place, RegistrarProcess};

/// Maximum time for the other registrar to learn of all elements, and again to take them over.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kill a registrar, and measure how soon another takes over its elements
///
/// Starts two registrars, and registers elements with the first, all at one address. Kills it with
/// SIGKILL once the second knows them, too. An element counts as taken over when the new registrar
/// has notified it of the takeover.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Number of elements
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    elements: u32,
    /// Stop the registrar with SIGSTOP instead, so that only its silence shows the failure
    #[arg(long)]
    silent: bool,
    #[command(flatten)]
    transport: TransportOption,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let network = arguments.transport.network()?;
    let options = Inherited::new(&network, &arguments.transport);
    let mut first = RegistrarProcess::start(Place::default(), &[], &[], &options).await?;
    let peers = [first.place];
    let second = RegistrarProcess::start(Place::default(), &peers, &[], &options).await?;
    let mut host = ElementHost::start(&network)?;
    host.register(&network, first.place.asap, arguments.elements).await?;
    let enrp = TransportAddress::new(network.protocol(), second.place.enrp);
    host.wait_until_known(&network, &enrp, arguments.elements as usize).await?;
    #[allow(clippy::disallowed_methods, reason = "it is what is measured")]
    let begun = Instant::now();
    if arguments.silent {
        first.stop().await?;
    } else {
        first.kill().await?;
    }
    let (one, all) = host.wait_for_home(begun, arguments.elements as usize).await?;
    let milliseconds = |duration: Duration| (duration.as_secs_f64() * 1e5).round() / 100.0;
    let (one, all) = (milliseconds(one), milliseconds(all));
    let elements = arguments.elements;
    if arguments.json {
        out!("{}", json!({ "elements": elements, "first_ms": one, "all_ms": all }));
    } else {
        let what = if arguments.silent { "stopped" } else { "killed" };
        out!("{elements} elements: the first has a new home {one} ms, the last {all} ms after");
        out!("their registrar was {what}");
    }
    Ok(ExitCode::SUCCESS)
}

/// A simulated host with many elements, which answers all keep-alives.
#[derive(Debug)]
struct ElementHost {
    endpoint: Box<dyn Endpoint>,
    at: TransportAddress,
    connections: Vec<Box<dyn Connection>>,
    /// The elements that the new home registrar has notified of the takeover.
    adopted: BTreeSet<PoolElementId>,
    registered: usize,
}

fn pool() -> PoolHandle {
    "BenchPool".parse().expect("a pool handle")
}

impl ElementHost {
    fn start(network: &Network) -> anyhow::Result<Self> {
        let any = TransportAddress::new(network.protocol(), SocketAddr::from(([127, 0, 0, 1], 0)));
        let endpoint = network.listen(Purpose::Protocol(Ppid::ASAP), &any)?;
        let at = endpoint.local().context("no address")?.clone();
        let (connections, adopted) = (Vec::new(), BTreeSet::new());
        Ok(Self { endpoint, at, connections, adopted, registered: 0 })
    }

    /// Registers all elements, several at a time.
    async fn register(
        &mut self,
        network: &Network,
        registrar: SocketAddr,
        elements: u32,
    ) -> anyhow::Result<()> {
        let address = TransportAddress::new(network.protocol(), registrar);
        let connection = self.endpoint.connect(&address);
        self.connections.push(connection);
        ensure!(self.step().await?, "no registrar");
        let user = TransportAddress { usage: TransportUse::DATA_PLUS_CONTROL, ..self.at.clone() };
        let mut sent = 0;
        while self.registered < elements as usize {
            while sent < elements && sent < self.registered as u32 + 256 {
                sent += 1;
                let registration = Registration {
                    pool_handle: pool(),
                    pool_element: PoolElement {
                        identifier: PoolElementId(sent),
                        home_registrar: RegistrarId(0),
                        registration_life: RegistrationLife(300_000),
                        user_transport: user.clone().into(),
                        policy: PolicyParameters::round_robin(),
                        asap_transport: Some(self.at.clone()),
                    },
                };
                let payload = Message::from(registration).encode()?;
                self.connections[0].send(UserMessage::new(Ppid::ASAP, payload))?;
            }
            self.step().await?;
        }
        Ok(())
    }

    /// Waits until the registrar that offers ENRP at `enrp` knows all elements.
    async fn wait_until_known(
        &mut self,
        network: &Network,
        enrp: &TransportAddress,
        elements: usize,
    ) -> anyhow::Result<()> {
        let known = async {
            loop {
                match dump(network, enrp, Duration::from_secs(5)).await {
                    Ok(dump) => {
                        let known: usize = dump.pools.iter().map(|pool| pool.elements.len()).sum();
                        if known == elements {
                            return anyhow::Ok(());
                        }
                    }
                    // The registrar has not joined the first one yet.
                    Err(DumpError::Rejected(_)) => {}
                    Err(error) => return Err(error.into()),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            known = tokio::time::timeout(PATIENCE, known) => known.context("not known")?,
            error = self.run() => Err(error),
        }
    }

    /// Returns the times until the first element had its new home registrar, and until all had.
    async fn wait_for_home(
        &mut self,
        begun: Instant,
        elements: usize,
    ) -> anyhow::Result<(Duration, Duration)> {
        let mut first = None;
        let adopted = async {
            while self.adopted.len() < elements {
                self.step().await?;
                if !self.adopted.is_empty() {
                    first.get_or_insert_with(|| begun.elapsed());
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, adopted).await.context("not taken over")??;
        Ok((first.unwrap_or_default(), begun.elapsed()))
    }

    async fn run(&mut self) -> anyhow::Error {
        loop {
            if let Err(error) = self.step().await {
                return error;
            }
        }
    }

    /// Handles one event, and answers keep-alives. Returns true if a connection was established.
    async fn step(&mut self) -> anyhow::Result<bool> {
        poll_fn(|cx| {
            while let Poll::Ready(accepted) = self.endpoint.poll_accept(cx) {
                self.connections.push(accepted?);
            }
            for index in (0..self.connections.len()).rev() {
                let Poll::Ready(event) = self.connections[index].poll_event(cx) else { continue };
                // Poll again: an answer that is queued below is written when its connection is
                // polled.
                cx.waker().wake_by_ref();
                let established = matches!(event, Event::Established { .. });
                match event {
                    Event::Message(message) => {
                        if let Some(answer) = self.take(&message)? {
                            self.connections[index].send(answer)?;
                        }
                    }
                    Event::Closed | Event::Lost(_) => drop(self.connections.remove(index)),
                    _ => {}
                }
                return Poll::Ready(Ok(established));
            }
            Poll::Pending
        })
        .await
    }

    fn take(&mut self, message: &UserMessage) -> anyhow::Result<Option<UserMessage>> {
        match Message::decode(&message.payload)?.body {
            Body::RegistrationResponse(response) => {
                ensure!(!response.reject, "a registration was refused");
                self.registered += 1;
                Ok(None)
            }
            Body::EndpointKeepAlive(keep_alive) => {
                let identifier = keep_alive.identifier.context("no identifier")?;
                if keep_alive.home {
                    self.adopted.insert(identifier);
                }
                let pool_handle = keep_alive.pool_handle;
                let ack = Message::from(EndpointKeepAliveAck { pool_handle, identifier });
                Ok(Some(UserMessage::new(Ppid::ASAP, ack.encode()?)))
            }
            _ => Ok(None),
        }
    }
}
