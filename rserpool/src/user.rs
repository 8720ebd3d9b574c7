//! A pool user.

use futures::channel::{mpsc, oneshot};
use futures::sink::SinkExt;
use rserpool_proto::HuntConfig;
use rserpool_proto::session::{SessionConfig, SessionError};
use rserpool_proto::user::{ResolveError, ResolveOptions, User, UserConfig};
use rserpool_proto::wire::{PoolElement, PoolElementId, PoolHandle, Ppid};

use crate::messenger::Messenger;
use crate::service::requests::{RequestConfig, RequestSession};
use crate::session::Session;
use crate::subscription::Subscription;
use crate::task::Task;
use crate::user_task::{Command, UserRole};
use crate::{
    ASAP, IntoAddress, IntoPoolHandle, Network, StartError, Stopped, address, random_seed,
};

/// A pool user: it resolves pool handles and opens sessions. Clones share one connection to
/// the registrar and one cache.
#[derive(Debug, Clone)]
pub struct PoolUser {
    network: Network,
    commands: mpsc::Sender<Command>,
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
        Self::with_config(network, HuntConfig::new(registrars), UserConfig::default())
    }

    /// Starts a pool user that looks for its registrar as `hunt` says.
    ///
    /// # Errors
    ///
    /// Returns an error if the transport cannot be used at all.
    pub fn with_config(
        network: &Network,
        hunt: HuntConfig,
        config: UserConfig,
    ) -> Result<Self, StartError> {
        let announcements = network.announcements(&hunt);
        let endpoint = network.dialler(ASAP)?;
        let role = UserRole::new(User::new(hunt, config, random_seed()));
        let endpoints = vec![(Ppid::ASAP, endpoint)];
        let (commands, _) = Task::spawn(role, network, endpoints, announcements);
        Ok(Self { network: network.clone(), commands })
    }

    /// The elements of a pool, in the order in which to try them.
    ///
    /// # Errors
    ///
    /// When there is no such pool, no registrar to ask, or the user's task has stopped.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost but the answer, which the cache keeps.
    pub async fn resolve(
        &self,
        pool: impl IntoPoolHandle,
        options: ResolveOptions,
    ) -> Result<Vec<PoolElement>, ResolveError> {
        let handle = pool.try_into().map_err(Into::into)?;
        let (answer, wait) = oneshot::channel();
        let command = Command::Resolve(handle, options, answer);
        self.commands.clone().send(command).await.map_err(|_| ResolveError::Stopped)?;
        wait.await.unwrap_or(Err(ResolveError::Stopped))
    }

    /// Tells the registrar that an element could not be reached, for programs that do so
    /// without a [`Session`] (RFC 5352 section 6.9.2).
    ///
    /// # Errors
    ///
    /// When the user's task has stopped.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has reported, or not.
    pub async fn report_unreachable(
        &self,
        handle: PoolHandle,
        identifier: PoolElementId,
    ) -> Result<(), Stopped> {
        let report = Command::Report(handle, identifier);
        self.commands.clone().send(report).await.map_err(|_| Stopped)
    }

    /// Forgets what is remembered of a pool: the next resolution asks a registrar (RFC 5352 section
    /// 6.4).
    ///
    /// # Errors
    ///
    /// When the user's task has stopped.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has had it forgotten, or not.
    pub async fn purge(&self, handle: PoolHandle) -> Result<(), Stopped> {
        self.commands.clone().send(Command::Purge(handle)).await.map_err(|_| Stopped)
    }

    /// The changes of a pool as they happen, from what is there now on (RFC 5352 section 2.2.5):
    /// also beyond the home registrar's death, and while there is no such pool.
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
        let (subscriber, subscription) = Subscription::new();
        let (answer, wait) = oneshot::channel();
        let command = Command::Subscribe(handle, subscriber, answer);
        self.commands.clone().send(command).await.map_err(|_| ResolveError::Stopped)?;
        wait.await.unwrap_or(Err(ResolveError::Stopped)).map(|()| subscription)
    }

    /// Opens a session with a pool, and waits until an element serves it.
    ///
    /// # Errors
    ///
    /// When there is no such pool, no registrar to ask, or no element that accepts the
    /// session.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves no session behind.
    pub async fn open(&self, pool: impl IntoPoolHandle) -> Result<Session, SessionError> {
        self.open_with(pool, SessionConfig::default()).await
    }

    /// Opens a session with settings of its own.
    ///
    /// # Errors
    ///
    /// As with [`Self::open`].
    ///
    /// # Cancel safety
    ///
    /// As with [`Self::open`].
    pub async fn open_with(
        &self,
        pool: impl IntoPoolHandle,
        config: SessionConfig,
    ) -> Result<Session, SessionError> {
        let handle = pool.try_into().map_err(|error| ResolveError::from(error.into()))?;
        let mut session = Session::new(&self.network, self.commands.clone(), handle, config)?;
        session.connected().await?;
        Ok(session)
    }

    /// Sends messages to a pool without a session, each for itself (RFC 5352 section 6.5).
    ///
    /// # Errors
    ///
    /// Returns an error if the pool handle is not valid, or the transport cannot be used at all.
    pub fn messenger(&self, pool: impl IntoPoolHandle) -> Result<Messenger, StartError> {
        let handle = pool.try_into().map_err(Into::into)?;
        Ok(Messenger::new(&self.network, self.clone(), handle)?)
    }

    /// Opens a session of requests and replies with a pool of [`Service`](super::Service)s, and
    /// waits until one serves it.
    ///
    /// # Errors
    ///
    /// As with [`Self::open`].
    ///
    /// # Cancel safety
    ///
    /// As with [`Self::open`].
    pub async fn open_requests(
        &self,
        pool: impl IntoPoolHandle,
        config: RequestConfig,
    ) -> Result<RequestSession, SessionError> {
        let session = self.open_with(pool, config.session.clone()).await?;
        Ok(RequestSession::new(session, config))
    }
}
