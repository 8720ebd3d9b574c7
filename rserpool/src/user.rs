//! A pool user.

use std::collections::HashMap;
use std::io;
use std::time::Instant;

use futures::channel::{mpsc, oneshot};
use futures::sink::SinkExt;
use rserpool_proto::session::{SessionConfig, SessionError};
use rserpool_proto::user::{Event, RequestId, ResolveError, ResolveOptions, User, UserConfig};
use rserpool_proto::wire::{PoolElement, PoolElementId, PoolHandle, Ppid, TransportAddress};
use rserpool_proto::{HuntConfig, Machine};

use crate::log::{ANYBODY, note_limited, warn_limited};
use crate::messenger::Messenger;
use crate::service::requests::{RequestConfig, RequestSession};
use crate::session::Session;
use crate::subscription::{Subscriber, Subscription};
use crate::task::{Role, Task};
use crate::{ASAP, Network, Stopped, random_seed};

/// A pool user: it resolves pool handles and opens sessions. Clones share one connection to
/// the registrar and one cache.
#[derive(Debug, Clone)]
pub struct PoolUser {
    network: Network,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Resolve(PoolHandle, ResolveOptions, oneshot::Sender<Resolution>),
    Report(PoolHandle, PoolElementId),
    Purge(PoolHandle),
    Subscribe(PoolHandle, Subscriber),
}

/// What a resolution comes to.
pub(crate) type Resolution = Result<Vec<PoolElement>, ResolveError>;

struct UserRole {
    machine: User,
    waiting: HashMap<RequestId, oneshot::Sender<Resolution>>,
    subscribers: HashMap<PoolHandle, Vec<Subscriber>>,
    lost: bool,
    finished: bool,
}

impl PoolUser {
    /// A pool user who looks for its registrar at these addresses.
    ///
    /// # Errors
    ///
    /// When the transport cannot be used at all.
    pub fn new(
        network: &Network,
        registrars: impl IntoIterator<Item = TransportAddress>,
    ) -> io::Result<Self> {
        Self::with_config(network, HuntConfig::new(registrars), UserConfig::default())
    }

    /// Returns a pool user with settings of its own, which looks for its registrar as `hunt` says.
    ///
    /// # Errors
    ///
    /// When the transport cannot be used at all.
    pub fn with_config(
        network: &Network,
        hunt: HuntConfig,
        config: UserConfig,
    ) -> io::Result<Self> {
        let announcements = network.announcements(&hunt);
        let endpoint = network.dialler(ASAP)?;
        let role = UserRole {
            machine: User::new(hunt, config, random_seed()),
            waiting: HashMap::new(),
            subscribers: HashMap::new(),
            lost: false,
            finished: false,
        };
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
        handle: PoolHandle,
        options: ResolveOptions,
    ) -> Result<Vec<PoolElement>, ResolveError> {
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
    /// # Cancel safety
    ///
    /// A dropped future leaves nothing behind.
    pub async fn subscribe(&self, handle: PoolHandle) -> Subscription {
        let (subscriber, subscription) = Subscription::new();
        // Without the user's task, the stream ends.
        let _ = self.commands.clone().send(Command::Subscribe(handle, subscriber)).await;
        subscription
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
    pub async fn open(&self, handle: PoolHandle) -> Result<Session, SessionError> {
        self.open_with(handle, SessionConfig::default()).await
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
        handle: PoolHandle,
        config: SessionConfig,
    ) -> Result<Session, SessionError> {
        let mut session = Session::new(&self.network, self.commands.clone(), handle, config)?;
        session.connected().await?;
        Ok(session)
    }

    /// Sends messages to a pool without a session, each for itself (RFC 5352 section 6.5).
    ///
    /// # Errors
    ///
    /// When the transport cannot be used at all.
    pub fn messenger(&self, handle: PoolHandle) -> io::Result<Messenger> {
        Messenger::new(&self.network, self.clone(), handle)
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
        handle: PoolHandle,
        config: RequestConfig,
    ) -> Result<RequestSession, SessionError> {
        let session = self.open_with(handle, config.session.clone()).await?;
        Ok(RequestSession::new(session, config))
    }
}

impl UserRole {
    fn tell(&mut self, handle: &PoolHandle, elements: &[PoolElement]) {
        let Some(subscribers) = self.subscribers.get_mut(handle) else { return };
        subscribers.retain(Subscriber::is_there);
        for subscriber in subscribers.iter() {
            subscriber.tell(elements);
        }
        if subscribers.is_empty() {
            self.subscribers.remove(handle);
            self.machine.unsubscribe(handle);
        }
    }
}

impl Role for UserRole {
    type Machine = User;
    type Command = Command;

    const NAME: &'static str = "pool user";

    fn machine(&mut self) -> &mut User {
        &mut self.machine
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Resolve(handle, options, answer) => {
                let request = self.machine.resolve(now, handle, &options);
                self.waiting.insert(request, answer);
            }
            Command::Report(handle, identifier) => {
                self.machine.report_unreachable(now, handle, identifier);
            }
            Command::Purge(handle) => self.machine.purge(&handle),
            Command::Subscribe(handle, subscriber) => {
                // The first one begins; another is told of what there is by beginning again.
                self.machine.unsubscribe(&handle);
                if let Err(error) = self.machine.subscribe(now, handle.clone()) {
                    // Without a subscriber, the stream ends.
                    return tracing::warn!(pool = %handle, %error, "not subscribed");
                }
                self.subscribers.entry(handle).or_default().push(subscriber);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: <User as Machine>::Event) {
        match event {
            Event::Resolved { request, result } => {
                if let Some(answer) = self.waiting.remove(&request) {
                    let _ = answer.send(result);
                }
            }
            Event::PoolChanged { handle, elements } => self.tell(&handle, &elements),
            Event::RegistrarFound(registrar) => {
                if std::mem::take(&mut self.lost) {
                    note_limited!(now, ANYBODY, "registrar found again", %registrar);
                } else {
                    tracing::info!(%registrar, "registrar found");
                }
            }
            Event::RegistrarLost => {
                warn_limited!(now, ANYBODY, "registrar lost; looking for another");
                self.lost = true;
            }
            Event::RegistrarError(error) => {
                warn_limited!(now, ANYBODY, "the registrar reports an error", %error);
            }
            Event::Misbehaved(reason) => {
                warn_limited!(now, ANYBODY, "a message is not ASAP", reason);
            }
            Event::NoRegistrar => tracing::debug!("no registrar found yet"),
        }
    }

    fn handle_abandoned(&mut self, _: Instant) {
        self.finished = true;
    }

    fn is_finished(&self) -> bool {
        self.finished
    }
}
