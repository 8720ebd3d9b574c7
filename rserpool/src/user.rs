//! A pool user.

use std::sync::Arc;

use futures::channel::{mpsc, oneshot};
use futures::sink::SinkExt;
use rserpool_proto::HuntConfig;
use rserpool_proto::access::AccessRules;
use rserpool_proto::session::{SessionConfig, SessionError};
use rserpool_proto::user::{ResolveError, ResolveOptions, User, UserConfig};
use rserpool_proto::wire::{PoolElement, PoolElementId, PoolHandle, Ppid, TransportAddress};

use crate::messenger::Messenger;
#[cfg(feature = "service")]
use crate::service::{
    client::RequestClient,
    requests::{RequestConfig, RequestSession},
};
use crate::session::Session;
use crate::subscription::Subscription;
use crate::task::Task;
use crate::user_task::{Answer, Command, UserRole};
use crate::{
    ASAP, IntoAddress, IntoPoolHandle, Network, StartError, Stopped, address, random_seed,
};

/// A pool user, which resolves pool handles and opens sessions. Clones share one connection to the
/// registrar and one cache.
///
/// ```
/// use rserpool::{PoolUser, ResolveOptions};
/// # use rserpool::{Network, PoolElement, Registrar, RegistrarConfig};
/// # use rserpool::transport::Memory;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = Network::new(rserpool_tokio::TokioRuntime::current(), Memory::new());
/// # let registrar = Registrar::start(&network, ["192.0.2.1:3863"], RegistrarConfig::default())?;
/// # let mut element = PoolElement::start(&network, "EchoPool", registrar.local_addresses())?;
/// # element.registered().await?;
/// # tokio::spawn(async move {
/// #     while let Ok(mut session) = element.accept().await {
/// #         tokio::spawn(async move {
/// #             while let Ok(event) = session.recv().await {
/// #                 if let rserpool::ElementEvent::Message(message) = event {
/// #                     let _ = session.send(message.ppid, message.payload).await;
/// #                 }
/// #             }
/// #         });
/// #     }
/// # });
/// let user = PoolUser::new(&network, registrar.local_addresses())?;
/// let elements = user.resolve("EchoPool", ResolveOptions::default()).await?;
/// println!("try {} first", elements[0].user_transport);
///
/// let session = user.open("EchoPool").await?;
/// assert_eq!(session.element(), Some(elements[0].identifier));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PoolUser {
    network: Network,
    commands: mpsc::Sender<Command>,
    /// The rules on the elements that are believed.
    rules: Arc<AccessRules>,
}

impl PoolUser {
    /// Starts a pool user with the default configuration, which looks for its registrar at
    /// `registrars`.
    ///
    /// # Errors
    ///
    /// Returns an error if an address is not valid, or the transport cannot be used at all.
    pub fn new(
        network: &Network,
        registrars: impl IntoIterator<Item: IntoAddress>,
    ) -> Result<Self, StartError> {
        let registrars = address::all(registrars, network.protocol())?;
        Self::with_config(network, UserConfig::new(HuntConfig::new(registrars)))
    }

    /// Starts a pool user with the given settings.
    ///
    /// # Errors
    ///
    /// Returns an error if the transport cannot be used at all.
    pub fn with_config(network: &Network, config: UserConfig) -> Result<Self, StartError> {
        let rules = Arc::new(config.hunt_config().access_rules().clone());
        let announcements = network.announcements(config.hunt_config());
        let endpoint = network.dialler(ASAP)?;
        let role = UserRole::new(User::new(config, random_seed()));
        let endpoints = vec![(Ppid::ASAP, endpoint)];
        let (commands, _) = Task::spawn(role, network, endpoints, announcements);
        Ok(Self { network: network.clone(), commands, rules })
    }

    /// Resolves a pool handle. Returns the elements in the order in which to try them.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such pool, no registrar answers, or the user's task has
    /// stopped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the resolution goes on, and the cache keeps the answer.
    pub async fn resolve(
        &self,
        pool: impl IntoPoolHandle,
        options: ResolveOptions,
    ) -> Result<Vec<PoolElement>, ResolveError> {
        let handle = pool.try_into().map_err(Into::into)?;
        Ok(self.ask(handle, options).await?.elements)
    }

    pub(crate) async fn ask(
        &self,
        handle: PoolHandle,
        options: ResolveOptions,
    ) -> Result<Answer, ResolveError> {
        let (answer, wait) = oneshot::channel();
        let command = Command::Resolve(handle, options, answer);
        self.commands.clone().send(command).await.map_err(|_| ResolveError::Stopped)?;
        wait.await.unwrap_or(Err(ResolveError::Stopped))
    }

    /// Reports to the registrar that an element could not be reached, for programs that connect
    /// without a [`Session`] (RFC 5352 section 6.9.2).
    ///
    /// # Errors
    ///
    /// Returns an error if the user's task has stopped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the report may or may not have been sent.
    pub async fn report_unreachable(
        &self,
        handle: PoolHandle,
        identifier: PoolElementId,
    ) -> Result<(), Stopped> {
        let report = Command::Report(handle, identifier);
        self.commands.clone().send(report).await.map_err(|_| Stopped)
    }

    /// Replaces the configured registrars, for a program whose list of them changes. The connection
    /// to the current registrar is kept. A search that is running tries the new ones at once.
    ///
    /// # Errors
    ///
    /// Returns an error if the user's task has stopped.
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

    /// Purges a pool from the cache, so that the next resolution asks a registrar (RFC 5352 section
    /// 6.4).
    ///
    /// # Errors
    ///
    /// Returns an error if the user's task has stopped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the pool may or may not have been purged.
    pub async fn purge(&self, handle: PoolHandle) -> Result<(), Stopped> {
        self.commands.clone().send(Command::Purge(handle)).await.map_err(|_| Stopped)
    }

    /// Subscribes to the changes of a pool, beginning with its current elements (RFC 5352 section
    /// 2.2.5). The subscription continues after the home registrar crashes, and while the pool does
    /// not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the pool handle is not valid, or if the user's task has stopped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, there is no subscription.
    pub async fn subscribe(&self, pool: impl IntoPoolHandle) -> Result<Subscription, ResolveError> {
        let handle = pool.try_into().map_err(Into::into)?;
        let (subscriber, subscription) = Subscription::new(self.clone());
        let (answer, wait) = oneshot::channel();
        let command = Command::Subscribe(handle, subscriber, answer);
        self.commands.clone().send(command).await.map_err(|_| ResolveError::Stopped)?;
        wait.await.unwrap_or(Err(ResolveError::Stopped)).map(|()| subscription)
    }

    /// Opens a session with a pool, and waits until an element serves it.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such pool, no registrar answers, or no element accepts the
    /// session.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no session remains.
    pub async fn open(&self, pool: impl IntoPoolHandle) -> Result<Session, SessionError> {
        self.open_with(pool, SessionConfig::default()).await
    }

    /// Opens a session with the given settings, and waits until an element serves it.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::open`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no session remains.
    pub async fn open_with(
        &self,
        pool: impl IntoPoolHandle,
        config: SessionConfig,
    ) -> Result<Session, SessionError> {
        let handle = pool.try_into().map_err(|error| ResolveError::from(error.into()))?;
        let rules = Arc::clone(&self.rules);
        let mut session =
            Session::new(&self.network, self.commands.clone(), (handle, rules), config)?;
        session.connected().await?;
        Ok(session)
    }

    /// Returns a messenger, which sends independent messages to a pool without a session (RFC 5352
    /// section 6.5).
    ///
    /// # Errors
    ///
    /// Returns an error if the pool handle is not valid, or the transport cannot be used at all.
    pub fn messenger(&self, pool: impl IntoPoolHandle) -> Result<Messenger, StartError> {
        let handle = pool.try_into().map_err(Into::into)?;
        let rules = Arc::clone(&self.rules);
        Ok(Messenger::new(&self.network, self.clone(), (handle, rules))?)
    }

    /// Opens a session of requests and replies with a pool of [`Service`](super::Service)s, and
    /// waits until a server accepts it.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::open`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no session remains.
    #[cfg(feature = "service")]
    pub async fn open_requests(
        &self,
        pool: impl IntoPoolHandle,
        config: RequestConfig,
    ) -> Result<RequestSession, SessionError> {
        let session = self.open_with(pool, config.session.clone()).await?;
        Ok(RequestSession::new(session, config))
    }

    /// Opens a session of requests and replies that many tasks can share, and waits until a server
    /// serves it.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::open`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no session remains.
    #[cfg(feature = "service")]
    pub async fn request_client(
        &self,
        pool: impl IntoPoolHandle,
        config: RequestConfig,
    ) -> Result<RequestClient, SessionError> {
        let session = self.open_requests(pool, config).await?;
        Ok(RequestClient::spawn(&self.network, session))
    }
}
