//! The background task of a pool user, which executes the commands of its handles.

use std::collections::HashMap;
use std::time::Instant;

use futures::channel::oneshot;
use rserpool_proto::Machine;
use rserpool_proto::access::AccessRole;
use rserpool_proto::user::{Event, RequestId, ResolveError, ResolveOptions, User};
use rserpool_proto::wire::{PoolElement, PoolElementId, PoolHandle, TransportAddress};

use crate::log::{ANYBODY, note_limited, warn_limited};
use crate::subscription::Subscriber;
use crate::task::Role;
use crate::verify::log_denial;

#[derive(Debug)]
pub(crate) enum Command {
    Resolve(PoolHandle, ResolveOptions, oneshot::Sender<Resolution>),
    Report(PoolHandle, PoolElementId),
    Purge(PoolHandle),
    SetRegistrars(Vec<TransportAddress>),
    Subscribe(PoolHandle, Subscriber, oneshot::Sender<Result<(), ResolveError>>),
}

/// Outcome of a resolution.
pub(crate) type Resolution = Result<Answer, ResolveError>;

/// The answer to a resolution.
pub(crate) struct Answer {
    /// The elements in the order in which to try them.
    pub(crate) elements: Vec<PoolElement>,
    /// True if the registrar has just returned all elements of the pool.
    pub(crate) complete: bool,
}

pub(crate) struct UserRole {
    machine: User,
    waiting: HashMap<RequestId, oneshot::Sender<Resolution>>,
    subscribers: HashMap<PoolHandle, Vec<Subscriber>>,
    lost: bool,
    finished: bool,
}

impl UserRole {
    pub(crate) fn new(machine: User) -> Self {
        let (waiting, subscribers) = (HashMap::new(), HashMap::new());
        Self { machine, waiting, subscribers, lost: false, finished: false }
    }

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
            Command::SetRegistrars(registrars) => self.machine.set_registrars(now, registrars),
            Command::Subscribe(handle, subscriber, answer) => {
                // The first subscriber begins the subscription. For a further subscriber, the
                // subscription is restarted, so that the registrar sends the current elements
                // again.
                self.machine.unsubscribe(&handle);
                if let Err(error) = self.machine.subscribe(now, handle.clone()) {
                    let _ = answer.send(Err(error.into()));
                    return;
                }
                let _ = answer.send(Ok(()));
                self.subscribers.entry(handle).or_default().push(subscriber);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: <User as Machine>::Event) {
        match event {
            Event::Resolved { request, result, complete } => {
                if let Some(answer) = self.waiting.remove(&request) {
                    let _ = answer.send(result.map(|elements| Answer { elements, complete }));
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
            Event::Denied { peer, identity } => {
                let role = AccessRole::Registrar;
                log_denial(now, role, peer.host(), identity.as_ref(), None);
            }
            Event::Misbehaved(reason) => {
                warn_limited!(now, ANYBODY, "malformed message from the registrar", reason);
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
