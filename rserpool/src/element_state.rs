//! The observable state of a pool element.

use std::time::Instant;

use rserpool_proto::element::{Departure, Element, Event};
use rserpool_proto::wire::{PoolElementId, TransportAddress};

use crate::watch::{Publisher, Watch};
use crate::{JoinError, Stopped};

/// State of a pool element's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElementState {
    /// The element is not a member of its pool. It looks for a registrar, waits for an answer, or
    /// was refused.
    #[non_exhaustive]
    Joining {
        /// The time at which the element started, or lost its registration.
        since: Instant,
        /// The last refusal since then, if there was one.
        refusal: Option<JoinError>,
    },
    /// The element is a member of its pool.
    #[non_exhaustive]
    Registered {
        /// The time since which it is a member.
        since: Instant,
        /// Identifier of the element.
        identifier: PoolElementId,
        /// Address of the home registrar.
        registrar: TransportAddress,
    },
    /// The element left its pool, or its task has stopped. This is the last state.
    Left(Departure),
}

/// Observes the registration of a [`PoolElement`](crate::PoolElement), also while the element
/// serves: for instance for a readiness check.
///
/// ```
/// use rserpool::{ElementState, PoolElement};
/// # use rserpool::{Network, Registrar, RegistrarConfig, transport::Memory};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = Network::new(rserpool_tokio::TokioRuntime::current(), Memory::new());
/// # let registrar = Registrar::start(&network, ["192.0.2.1:3863"], RegistrarConfig::default())?;
/// let element = PoolElement::start(&network, "EchoPool", registrar.local_addresses())?;
/// let mut watch = element.watch();
/// tokio::spawn(async move {
///     while let Ok(state) = watch.changed().await {
///         match state {
///             ElementState::Registered { registrar, .. } => println!("ready, at {registrar}"),
///             state => println!("not ready: {state:?}"),
///         }
///     }
/// });
/// # element.registered().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ElementWatch(Watch<ElementState>);

impl ElementWatch {
    /// Returns the present state.
    #[must_use]
    pub fn state(&self) -> ElementState {
        self.0.get()
    }

    /// Waits for a state that this handle has not returned yet. The first call returns the present
    /// state. States that were replaced meanwhile are skipped.
    ///
    /// # Errors
    ///
    /// Returns an error after [`ElementState::Left`], which is the last state.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no state is lost.
    pub async fn changed(&mut self) -> Result<ElementState, Stopped> {
        self.0.changed().await.ok_or(Stopped)
    }
}

/// Derives the observable state from the events of the machine.
pub(crate) struct StatePublisher(Publisher<ElementState>);

impl StatePublisher {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Publisher::new(ElementState::Joining { since: now, refusal: None }))
    }

    pub(crate) fn watch(&self) -> ElementWatch {
        ElementWatch(self.0.watch())
    }

    /// Publishes the state after `event`, if it has changed.
    pub(crate) fn update(&self, now: Instant, machine: &Element, event: &Event) {
        let before = self.0.get();
        let after = match (event, machine.home()) {
            (Event::Deregistered(departure), _) => ElementState::Left(*departure),
            (_, Some(registrar)) if machine.is_registered() => ElementState::Registered {
                since: match before {
                    ElementState::Registered { since, .. } => since,
                    ElementState::Joining { .. } | ElementState::Left(_) => now,
                },
                identifier: machine.identifier(),
                registrar: registrar.clone(),
            },
            _ => {
                let (since, last) = match &before {
                    ElementState::Joining { since, refusal } => (*since, refusal.clone()),
                    ElementState::Registered { .. } | ElementState::Left(_) => (now, None),
                };
                ElementState::Joining { since, refusal: refusal(event).or(last) }
            }
        };
        if after != before {
            self.0.set(after);
        }
    }
}

impl Drop for StatePublisher {
    fn drop(&mut self) {
        if !matches!(self.0.get(), ElementState::Left(_)) {
            self.0.set(ElementState::Left(Departure::Unconfirmed));
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "no other event is a refusal")]
fn refusal(event: &Event) -> Option<JoinError> {
    match event {
        Event::Rejected(error) | Event::Refused(error) => Some(JoinError::Rejected(error.clone())),
        Event::Incompatible(error) => Some(error.clone().into()),
        _ => None,
    }
}
