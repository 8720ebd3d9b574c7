//! A pool element.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::Instant;

use futures::channel::{mpsc, oneshot};
use futures::future::{Either, select};
use futures::sink::SinkExt;
use futures::stream::StreamExt;
use rserpool_proto::access::AccessRole;
use rserpool_proto::element::{Departure, Element, ElementConfig, Event};
use rserpool_proto::wire::{
    OperationError, PolicyParameters, PoolElementId, Ppid, TransportAddress, TransportProtocol,
    TransportUse,
};
use rserpool_proto::{HuntConfig, Incompatible, Machine};

use crate::acceptor::{Acceptor, Sessions};
use crate::element_session::ElementSession;
use crate::element_state::{ElementWatch, StatePublisher};
use crate::keeper::Keeper;
use crate::log::{ANYBODY, note_limited, warn_limited};
use crate::task::{Ended, Role, Task};
use crate::transport::{Purpose, interfaces};
use crate::verify::{hosts_with, log_denial};
use crate::{
    ASAP, IntoAddress, IntoPoolHandle, ListenError, Network, StartError, Stopped, address,
    random_seed,
};

/// A member of a pool. It stays registered as long as this handle lives; [`Self::leave`]
/// deregisters it in good order.
///
/// ```
/// use rserpool::{ElementEvent, PoolElement};
/// # use rserpool::{Network, PoolUser, Ppid, Registrar, RegistrarConfig, SessionEvent};
/// # use rserpool::transport::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = Network::new(rserpool_tokio::TokioRuntime::current(), Memory::new());
/// # let registrar = Registrar::start(&network, ["192.0.2.1:3863"], RegistrarConfig::default())?;
/// let mut element = PoolElement::start(&network, "EchoPool", registrar.local_addresses())?;
/// element.registered().await?;
/// # let user = PoolUser::new(&network, registrar.local_addresses())?;
/// # let client = tokio::spawn(async move {
/// #     let mut session = user.open("EchoPool").await.expect("it is there");
/// #     session.send(Ppid::NONE, "hello").await.expect("it is up");
/// #     assert!(matches!(session.recv().await, Ok(SessionEvent::Connected(_))));
/// #     assert!(matches!(session.recv().await, Ok(SessionEvent::Message(_))));
/// #     session.close().await;
/// # });
/// let mut session = element.accept().await?;
/// while let Ok(event) = session.recv().await {
///     if let ElementEvent::Message(message) = event {
///         session.send(message.ppid, message.payload).await?;
///     }
/// }
/// # client.await?;
/// element.leave().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PoolElement {
    network: Network,
    commands: mpsc::Sender<Command>,
    ended: Ended,
    sessions: Sessions,
    keeper: Arc<Keeper>,
    watch: ElementWatch,
    user_transport: TransportAddress,
}

/// Handle that changes the settings of a pool element that runs.
#[derive(Debug, Clone)]
pub struct ElementControl {
    commands: mpsc::Sender<Command>,
}

impl ElementControl {
    /// Sets the policy and the element's policy values, and registers them.
    ///
    /// # Errors
    ///
    /// Returns an error if the element has left, or its task has stopped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the new values may or may not be registered.
    pub async fn set_policy(&self, policy: PolicyParameters) -> Result<(), Stopped> {
        self.commands.clone().send(Command::SetPolicy(policy)).await.map_err(|_| Stopped)
    }

    /// Replaces the configured registrars, for a program whose list of them changes. The connection
    /// to the current registrar is kept. A search that is running tries the new ones at once.
    ///
    /// # Errors
    ///
    /// Returns an error if the element has left, or its task has stopped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the registrars may or may not have been replaced.
    pub async fn set_registrars(
        &self,
        registrars: impl IntoIterator<Item = TransportAddress>,
    ) -> Result<(), Stopped> {
        let command = Command::SetRegistrars(registrars.into_iter().collect());
        self.commands.clone().send(command).await.map_err(|_| Stopped)
    }

    /// Sets the element's load, from 0.0 to 1.0, if its policy uses it. The registrar is updated at
    /// most every 100 ms, and always receives the last value.
    ///
    /// # Errors
    ///
    /// Returns an error if the element has left, or its task has stopped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the load may or may not be set.
    pub async fn set_load(&self, load: f64) -> Result<(), Stopped> {
        self.commands.clone().send(Command::SetLoad(load)).await.map_err(|_| Stopped)
    }
}

/// Configures and starts a [`PoolElement`]: holds an [`ElementConfig`] and the addresses to listen on.
#[derive(Debug)]
pub struct PoolElementBuilder {
    network: Network,
    config: Result<ElementConfig, StartError>,
    listen: Option<SocketAddr>,
    also_at: Vec<IpAddr>,
    serving_at: Option<TransportAddress>,
}

#[derive(Debug)]
enum Command {
    Registered(oneshot::Sender<Result<PoolElementId, JoinError>>),
    SetPolicy(PolicyParameters),
    SetLoad(f64),
    SetRegistrars(Vec<TransportAddress>),
    /// The handle was dropped, so no program serves sessions. The element leaves the pool, so that
    /// no pool user is sent to it.
    Abandon,
    Leave(oneshot::Sender<Departure>),
}

/// Error of a registration: the reason why an element is not in its pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The registrar refused the registration.
    #[error("the registrar refused the registration: {0}")]
    Rejected(OperationError),
    /// The compatibility profile forbids the pool handle or the policy; nothing was sent.
    #[error(transparent)]
    Incompatible(#[from] Incompatible),
    /// The element left, or its runtime has stopped.
    #[error("the pool element has left")]
    Left,
}

struct ElementRole {
    machine: Element,
    /// The error of a rejected registration that no retry would change.
    rejected: Option<JoinError>,
    waiting: Vec<oneshot::Sender<Result<PoolElementId, JoinError>>>,
    leaving: Option<oneshot::Sender<Departure>>,
    state: StatePublisher,
    /// True if the loss of the registrar was logged, and no new one was found since.
    lost: bool,
    finished: bool,
}

impl PoolElement {
    /// Starts a member of `pool` with the default configuration, which looks for its registrar at
    /// `registrars`.
    ///
    /// # Errors
    ///
    /// Returns an error if the pool handle or an address is not valid, or if there is no address to
    /// listen on.
    pub fn start(
        network: &Network,
        pool: impl IntoPoolHandle,
        registrars: impl IntoIterator<Item: IntoAddress>,
    ) -> Result<Self, StartError> {
        Self::builder(network, pool, registrars).start()
    }

    /// Returns a builder of a member of `pool` that looks for its registrar at `registrars`.
    #[must_use]
    pub fn builder(
        network: &Network,
        pool: impl IntoPoolHandle,
        registrars: impl IntoIterator<Item: IntoAddress>,
    ) -> PoolElementBuilder {
        let config = || {
            let pool_handle = pool.try_into().map_err(Into::into)?;
            let hunt = HuntConfig::new(address::all(registrars, network.protocol())?);
            let anywhere = (Ipv4Addr::UNSPECIFIED, 0).into();
            let user_transport = TransportAddress::new(network.protocol(), anywhere);
            Ok(ElementConfig::new(pool_handle, user_transport, hunt))
        };
        PoolElementBuilder {
            network: network.clone(),
            config: config(),
            listen: None,
            also_at: Vec::new(),
            serving_at: None,
        }
    }

    #[cfg(feature = "service")]
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Returns the local address to which the socket for sessions is bound. The addresses that the
    /// element registers may be more specific.
    #[must_use]
    pub fn user_transport(&self) -> &TransportAddress {
        &self.user_transport
    }

    /// Waits until the element is registered, and returns its identifier.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar refuses the registration. As long as no registrar answers,
    /// the element waits for one.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the element still registers.
    pub async fn registered(&self) -> Result<PoolElementId, JoinError> {
        let (answer, wait) = oneshot::channel();
        let sent = self.commands.clone().send(Command::Registered(answer)).await;
        sent.map_err(|_| JoinError::Left)?;
        wait.await.unwrap_or(Err(JoinError::Left))
    }

    /// Returns a handle that changes the element's values, also while another task uses the
    /// element.
    #[must_use]
    pub fn control(&self) -> ElementControl {
        ElementControl { commands: self.commands.clone() }
    }

    /// Returns a handle that observes the registration, also while another task uses the element.
    #[must_use]
    pub fn watch(&self) -> ElementWatch {
        self.watch.clone()
    }

    /// Accepts the next session, which a pool user opens with this element or fails over to it.
    ///
    /// # Errors
    ///
    /// Returns an error if the element's task has stopped. Pool users are then no longer sent to
    /// the element.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no session is lost.
    pub async fn accept(&mut self) -> Result<ElementSession, Stopped> {
        let ended = &mut self.ended;
        match select(self.sessions.began.next(), ended).await {
            Either::Left((Some((connection, first)), _)) => {
                Ok(ElementSession::new(self.network.clone(), &self.keeper, connection, first))
            }
            Either::Left((None, _)) | Either::Right(_) => Err(Stopped),
        }
    }

    /// Deregisters the element, and returns the outcome. Without a registrar's confirmation, the
    /// registration remains until it expires.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the element still leaves.
    pub async fn leave(mut self) -> Departure {
        let (answer, wait) = oneshot::channel();
        match self.commands.try_send(Command::Leave(answer)) {
            Ok(()) => wait.await.unwrap_or(Departure::Unconfirmed),
            Err(_) => Departure::Unconfirmed,
        }
    }
}

impl Drop for PoolElement {
    fn drop(&mut self) {
        // A new sender has room for one command.
        let _ = self.commands.clone().try_send(Command::Abandon);
    }
}

impl PoolElementBuilder {
    /// Sets the address on which to accept sessions, and connections from registrars. Default: any
    /// port of all addresses, in which case the element registers the address from which it reaches
    /// its registrar. Over TCP, if the configured registrars are all reached from one local
    /// address, the default is any port of that address.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Registers a server that accepts its own connections and does not use sessions, such as an
    /// HTTP server. [`PoolElement::accept`] accepts nothing then. Without IP addresses, or with
    /// unspecified ones, the element registers the address from which it reaches its registrar.
    #[must_use]
    pub fn serving_at(mut self, address: TransportAddress) -> Self {
        self.serving_at = Some(address);
        self
    }

    /// Adds an address on which to accept sessions, with the same port. Default: none. Only SCTP
    /// supports several addresses. If one fails, an association continues over another.
    #[must_use]
    pub fn also_at(mut self, address: IpAddr) -> Self {
        self.also_at.push(address);
        self
    }

    /// Changes the configuration of the element: its policy, identifier, timers and so on.
    ///
    /// ```
    /// # use rserpool::{HuntConfig, Network, PoolElement, PoolElementBuilder, PolicyParameters};
    /// # fn f(network: &Network) -> PoolElementBuilder {
    /// PoolElement::builder(network, "EchoPool", ["192.0.2.1:3863"])
    ///     .configure(|config| config.policy(PolicyParameters::least_used(0)))
    /// # }
    /// ```
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(ElementConfig) -> ElementConfig) -> Self {
        self.config = self.config.map(change);
        self
    }

    /// Starts the element: it accepts sessions and registers in the background.
    ///
    /// # Errors
    ///
    /// Returns an error if the pool handle or an address given to [`PoolElement::builder`] is not
    /// valid, or if an address cannot be listened on.
    pub fn start(self) -> Result<PoolElement, StartError> {
        let network = self.network;
        let config = self.config?;
        let listen = |at: SocketAddr| -> Result<_, ListenError> {
            let mut address = TransportAddress::new(network.protocol(), at);
            address.addresses.extend(self.also_at.iter().copied());
            let service = match &self.serving_at {
                None => network.listen(Purpose::Session, &address)?,
                Some(_) => network
                    .dialler(Purpose::Session)
                    .map_err(|error| ListenError { address: address.clone(), error })?,
            };
            let served = self.serving_at.as_ref().unwrap_or(&address);
            let user_transport = service.local().unwrap_or(served).clone();
            let asap = network.listen(ASAP, &TransportAddress { port: 0, ..address.clone() })?;
            Ok((service, user_transport, asap))
        };
        let listen_at = self.listen.or_else(|| facing(&network, config.hunt_config()));
        let (mut service, user_transport, mut asap) = match listen_at {
            Some(address) => listen(address)?,
            // All addresses of both IP versions, or of IPv4 where the host has no IPv6.
            None => listen((Ipv6Addr::UNSPECIFIED, 0).into())
                .or_else(|_| listen((Ipv4Addr::UNSPECIFIED, 0).into()))?,
        };
        let control = user_transport.clone().with_usage(TransportUse::DATA_PLUS_CONTROL);
        let registered = self.serving_at.clone().unwrap_or(control);
        let asap_transport = asap.local().unwrap_or(&user_transport).clone();
        let announcements = network.announcements(config.hunt_config());
        let rules = config.hunt_config().access_rules().clone();
        let shared = Arc::new(RwLock::new(rules.clone()));
        service.accept_only(hosts_with(&shared, &[AccessRole::User], network.runtime()));
        asap.accept_only(hosts_with(&shared, &[AccessRole::Registrar], network.runtime()));
        let config = config.user_transport(registered).asap_transport(asap_transport);
        let state = StatePublisher::new(network.now());
        let watch = state.watch();
        let machine = Element::new(config, random_seed());
        let pool = machine.pool_handle().clone();
        let role = ElementRole {
            machine,
            rejected: None,
            waiting: Vec::new(),
            leaving: None,
            state,
            lost: false,
            finished: false,
        };
        let (commands, ended) =
            Task::spawn(role, &network, vec![(Ppid::ASAP, asap)], announcements);
        Ok(PoolElement {
            commands,
            ended,
            sessions: Acceptor::spawn(&network, service, (pool, rules)),
            keeper: Arc::default(),
            network,
            watch,
            user_transport,
        })
    }
}

/// Returns the local address from which this host reaches the configured registrars. Returns `None`
/// if there are several such addresses, if registrars are discovered by multicast, or over SCTP,
/// which can use all addresses.
fn facing(network: &Network, hunt: &HuntConfig) -> Option<SocketAddr> {
    if network.protocol() == TransportProtocol::Sctp || hunt.listens() {
        return None;
    }
    let mut towards = hunt
        .registrars()
        .iter()
        .flat_map(TransportAddress::socket_addresses)
        .map(interfaces::towards);
    let first = towards.next()??;
    towards.all(|other| other == Some(first)).then_some(SocketAddr::new(first, 0))
}

impl ElementRole {
    fn reject(&mut self, error: JoinError) {
        if self.waiting.is_empty() {
            tracing::warn!(%error, "cannot join the pool");
        }
        self.answer(&Err(error.clone()));
        self.rejected = Some(error);
    }

    fn answer(&mut self, result: &Result<PoolElementId, JoinError>) {
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(result.clone());
        }
    }
}

impl Role for ElementRole {
    type Machine = Element;
    type Command = Command;

    const NAME: &'static str = "pool element";

    fn machine(&mut self) -> &mut Element {
        &mut self.machine
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Registered(answer) => {
                self.waiting.retain(|waiting| !waiting.is_canceled());
                self.waiting.push(answer);
                if self.machine.is_registered() {
                    self.answer(&Ok(self.machine.identifier()));
                } else if let Some(error) = self.rejected.clone() {
                    self.answer(&Err(error));
                }
            }
            Command::SetPolicy(policy) => {
                self.rejected = None;
                self.machine.set_policy(now, policy);
            }
            Command::SetLoad(load) => self.machine.set_load(now, load),
            Command::SetRegistrars(registrars) => self.machine.set_registrars(now, registrars),
            Command::Abandon => self.machine.deregister(now),
            Command::Leave(answer) => {
                self.leaving = Some(answer);
                self.machine.deregister(now);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: <Element as Machine>::Event) {
        self.state.update(now, &self.machine, &event);
        match event {
            Event::Registered { identifier, registrar } => {
                self.rejected = None;
                let pool = self.machine.pool_handle();
                if std::mem::take(&mut self.lost) {
                    note_limited!(now, ANYBODY, "registrar found; registered", %registrar);
                } else {
                    tracing::info!(%pool, %identifier, %registrar, "registered");
                }
                self.answer(&Ok(identifier));
            }
            Event::Rejected(error) => self.reject(JoinError::Rejected(error)),
            Event::Incompatible(error) if self.machine.is_registered() => {
                tracing::warn!(%error, "policy not changed");
            }
            Event::Incompatible(error) => self.reject(error.into()),
            Event::RegistrarLost => {
                warn_limited!(now, ANYBODY, "registrar lost; looking for another");
                self.lost = true;
            }
            Event::Refused(error) => {
                warn_limited!(now, ANYBODY, "refused by the registrar", %error);
            }
            Event::AddressesLeftOut(error) => {
                note_limited!(now, ANYBODY, "registered without some addresses", %error);
            }
            Event::HomeChanged(registrar) => tracing::info!(%registrar, "new home registrar"),
            Event::RegistrarError(error) => {
                warn_limited!(now, ANYBODY, "the registrar reports an error", %error);
            }
            Event::Denied { peer, identity } => {
                let role = AccessRole::Registrar;
                log_denial(now, role, peer.host(), identity.as_ref(), None);
            }
            Event::Misbehaved(reason) => {
                warn_limited!(now, ANYBODY, "malformed message from the registrar", reason);
            }
            Event::NoRegistrar => {
                warn_limited!(now, ANYBODY, "no registrar found yet; still looking");
                self.lost = true;
            }
            Event::Expired => {
                warn_limited!(now, ANYBODY, "removed by the registrar; registering again");
            }
            Event::Deregistered(departure) => {
                tracing::info!(?departure, "deregistered");
                self.answer(&Err(JoinError::Left));
                if let Some(leaving) = self.leaving.take() {
                    let _ = leaving.send(departure);
                }
                self.finished = true;
            }
        }
    }

    /// Deregisters the element after its handle was dropped: nobody serves sessions any more, so no
    /// pool user must be sent to it.
    fn handle_abandoned(&mut self, now: Instant) {
        self.machine.deregister(now);
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
