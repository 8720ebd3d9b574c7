//! Connections of the benchmark, each of which sends a registrar one request after another.

use std::future::poll_fn;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rserpool::proto::wire::asap::{
    Body, EndpointKeepAlive, EndpointKeepAliveAck, HandleResolution, Message, Registration,
    Resolved,
};
use rserpool::proto::wire::parameter::ItemCount;
use rserpool::proto::wire::{Bytes, PoolElement, RegistrationLife, TransportUse};
use rserpool::transport::{Connection, Event, Purpose};
use rserpool::{
    Network, PolicyParameters, PoolElementId, PoolHandle, Ppid, RegistrarId, TransportAddress,
    UserMessage,
};

/// Lifetime of the registrations: long if the registrar reads it in seconds (the RFC's unit), and
/// long enough if it reads it in milliseconds, as rsplib does.
const LIFE: RegistrationLife = RegistrationLife(300_000);

/// Time that a registrar may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the registrar.
#[derive(Debug)]
pub(super) struct Client {
    connection: Box<dyn Connection>,
    local: TransportAddress,
}

impl Client {
    pub(super) async fn connect(
        network: &Network,
        registrar: &TransportAddress,
    ) -> anyhow::Result<Self> {
        let mut endpoint = network.dialler(Purpose::Protocol(Ppid::ASAP))?;
        let mut connection = endpoint.connect(registrar);
        match poll_fn(|cx| connection.poll_event(cx)).await {
            Event::Established { local, .. } => Ok(Self { connection, local }),
            Event::Lost(error) => {
                Err(error).with_context(|| format!("no registrar at {registrar}"))
            }
            other => bail!("unexpected: {other:?}"),
        }
    }

    /// Sends a request to register an element at the local address.
    pub(super) fn register(
        &mut self,
        pool_handle: &PoolHandle,
        identifier: u32,
        policy: &PolicyParameters,
    ) -> anyhow::Result<()> {
        let user =
            TransportAddress { usage: TransportUse::DATA_PLUS_CONTROL, ..self.local.clone() };
        self.send(Registration {
            pool_handle: pool_handle.clone(),
            pool_element: PoolElement {
                identifier: PoolElementId(identifier),
                home_registrar: RegistrarId(0),
                registration_life: LIFE,
                user_transport: user.into(),
                policy: policy.clone(),
                asap_transport: Some(self.local.clone()),
            },
        })
    }

    /// Sends a request for the elements of a pool.
    pub(super) fn resolve(&mut self, pool_handle: &PoolHandle, items: u32) -> anyhow::Result<()> {
        let items = Some(ItemCount(items));
        self.send(HandleResolution { items, ..HandleResolution::new(pool_handle.clone()) })
    }

    /// Waits for the answer to the oldest request.
    pub(super) async fn answered(&mut self) -> anyhow::Result<()> {
        loop {
            match self.answer().await? {
                Body::RegistrationResponse(response) => {
                    let error = response.error.unwrap_or_default();
                    ensure!(!response.reject, "a registration was refused: {error}");
                    return Ok(());
                }
                Body::HandleResolutionResponse(response) => {
                    if let Resolved::Error(error) = response.result {
                        bail!("a resolution was refused: {error}");
                    }
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, message: impl Into<Message>) -> anyhow::Result<()> {
        let payload: Bytes = message.into().encode()?;
        Ok(self.connection.send(UserMessage::new(Ppid::ASAP, payload))?)
    }

    /// Returns the next message that is not a keep-alive. Answers keep-alives meanwhile.
    async fn answer(&mut self) -> anyhow::Result<Body> {
        loop {
            let event = poll_fn(|cx| self.connection.poll_event(cx));
            let event = tokio::time::timeout(PATIENCE, event).await;
            let message = match event.context("the registrar does not answer")? {
                Event::Message(message) => message,
                Event::Closed => bail!("the registrar closed the connection"),
                Event::Lost(error) => return Err(error).context("the connection broke"),
                other => bail!("unexpected: {other:?}"),
            };
            match Message::decode(&message.payload)?.body {
                Body::EndpointKeepAlive(EndpointKeepAlive {
                    pool_handle,
                    identifier: Some(identifier),
                    ..
                }) => self.send(EndpointKeepAliveAck { pool_handle, identifier })?,
                Body::EndpointKeepAlive(_) => {}
                body => return Ok(body),
            }
        }
    }
}
