//! Observation and control of a running registrar.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::channel::{mpsc, oneshot};
use futures::{SinkExt, Stream, StreamExt};
use rserpool_proto::handlespace::ElementKey;
use rserpool_proto::registrar::{
    ElementStatus, Event, Forecast, NotHome, PoolStatus, RegistrarConfig, RegistrarStatus,
};
use rserpool_proto::wire::{PoolElementId, PoolHandle};

use super::Registrar;
use super::role::{Command, RegistrarRole};
use crate::{Stopped, random_seed};

/// Number of elements or pools that the registrar reports at once, between messages of its clients.
const PAGE: usize = 256;

/// Maximum number of events that wait for an observer.
const MAX_WAITING: usize = 1024;

/// The state of a registrar with its pools and elements.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RegistrarSnapshot {
    /// The registrar as a whole.
    pub registrar: RegistrarStatus,
    /// The pools in the order of their handles.
    pub pools: Vec<PoolSnapshot>,
}

/// The state of a pool with its elements.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// The pool as a whole.
    pub pool: PoolStatus,
    /// The elements in the order of their identifiers.
    pub elements: Vec<ElementStatus>,
}

/// An item of [`RegistrarEvents`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "there is nothing else that a stream can have")]
pub enum RegistrarEvent {
    /// An event of the registrar.
    Happened(Event),
    /// Number of events that were left out, since the observer did not take its events fast enough.
    Missed(u64),
}

/// Stream of the events of a registrar, see [`Registrar::events`]. It ends when the registrar
/// has stopped. Dropping it ends the observation.
#[derive(Debug)]
pub struct RegistrarEvents(mpsc::Receiver<RegistrarEvent>);

impl Stream for RegistrarEvents {
    type Item = RegistrarEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RegistrarEvent>> {
        self.0.poll_next_unpin(cx)
    }
}

/// The observers of a registrar's events.
#[derive(Debug, Default)]
pub(super) struct Observers(Vec<Observer>);

#[derive(Debug)]
struct Observer {
    events: mpsc::Sender<RegistrarEvent>,
    missed: u64,
}

impl Observers {
    fn add(&mut self) -> RegistrarEvents {
        self.0.retain(|observer| !observer.events.is_closed());
        let (events, receiver) = mpsc::channel(MAX_WAITING);
        self.0.push(Observer { events, missed: 0 });
        RegistrarEvents(receiver)
    }

    /// Tells all observers, and forgets those that are gone.
    pub(super) fn tell(&mut self, event: &Event) {
        self.0.retain_mut(|observer| observer.tell(event));
    }
}

impl Observer {
    fn tell(&mut self, event: &Event) -> bool {
        if self.missed > 0 && self.events.try_send(RegistrarEvent::Missed(self.missed)).is_ok() {
            self.missed = 0;
        }
        let told = if self.missed > 0 {
            false
        } else {
            self.events.try_send(RegistrarEvent::Happened(event.clone())).is_ok()
        };
        self.missed += u64::from(!told);
        !self.events.is_closed()
    }
}

/// Error of an order about an element: [`Registrar::drain`] and [`Registrar::deregister`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// The registrar is not the home of the element.
    #[error(transparent)]
    NotHome(#[from] NotHome),
    /// The registrar has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Observation and control. These methods return an error if the registrar has stopped. The futures
/// can be dropped at any time; only [`Registrar::reconfigure`], [`Registrar::drain`] and
/// [`Registrar::deregister`] may still have their effect then.
impl Registrar {
    /// Returns the state of the registrar, and what it has counted since it started.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn status(&self) -> Result<RegistrarStatus, Stopped> {
        self.ask(|role, now| role.machine.status(now)).await
    }

    /// Returns the pools, in no particular order.
    ///
    /// The registrar collects them in parts, between which it serves its clients. So pools that
    /// change meanwhile may be missed, or appear twice.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn pools(&self) -> Result<Vec<PoolStatus>, Stopped> {
        Ok(self.pools_after(None, usize::MAX).await?.0)
    }

    /// Returns up to `limit` pools, and where to go on if there may be more: the value of `after` for
    /// the next call. The order is not that of the handles. As with [`Self::pools`], what changes
    /// between two calls may be missed or appear twice.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn pools_after(
        &self,
        mut after: Option<u32>,
        limit: usize,
    ) -> Result<(Vec<PoolStatus>, Option<u32>), Stopped> {
        let mut pools = Vec::new();
        loop {
            let page = PAGE.min(limit - pools.len());
            let (more, next) = self.ask(move |role, _| role.machine.pools(after, page)).await?;
            pools.extend(more);
            if next.is_none() || pools.len() >= limit {
                return Ok((pools, next));
            }
            after = next;
        }
    }

    /// Returns the state of a pool; `None` if there is no such pool.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn pool(&self, handle: &PoolHandle) -> Result<Option<PoolStatus>, Stopped> {
        let handle = handle.clone();
        self.ask(move |role, _| role.machine.pool(&handle)).await
    }

    /// Returns the elements of a pool, in no particular order; none if there is no such pool. As with
    /// [`Self::pools`], what changes may be missed or appear twice.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn elements(&self, pool: &PoolHandle) -> Result<Vec<ElementStatus>, Stopped> {
        Ok(self.elements_after(pool, None, usize::MAX).await?.0)
    }

    /// Returns up to `limit` elements of a pool, and where to go on if there may be more: the value of
    /// `after` for the next call. As with [`Self::pools`], what changes between two calls may be
    /// missed or appear twice.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn elements_after(
        &self,
        pool: &PoolHandle,
        after: Option<u32>,
        limit: usize,
    ) -> Result<(Vec<ElementStatus>, Option<u32>), Stopped> {
        let (handle, after) = (pool.clone(), after.map(ElementKey::from_position));
        let members = self.ask(move |role, _| role.machine.members_of(&handle, after, limit));
        let keys = members.await?;
        let next = keys.last().filter(|_| keys.len() == limit).map(|key| key.position());
        let mut elements = Vec::with_capacity(keys.len());
        for keys in keys.chunks(PAGE) {
            let (pool, keys) = (pool.clone(), keys.to_vec());
            let page = self.ask(move |role, now| role.machine.elements_at(now, &pool, &keys));
            elements.extend(page.await?);
        }
        Ok((elements, next))
    }

    /// Returns the state of the registrar with all its pools and elements. As with [`Self::pools`],
    /// what changes may be missed.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn snapshot(&self) -> Result<RegistrarSnapshot, Stopped> {
        let registrar = self.status().await?;
        let pools = self.pools().await?.into_iter();
        let mut pools: BTreeMap<PoolHandle, PoolSnapshot> = pools
            .map(|pool| (pool.handle.clone(), PoolSnapshot { pool, elements: Vec::new() }))
            .collect();
        let mut after = None;
        loop {
            let page = self.ask(move |role, now| role.machine.elements_after(now, after, PAGE));
            let (elements, next) = page.await?;
            for element in elements {
                // An element of a pool that was created meanwhile is left out, like the pool.
                if let Some(pool) = pools.get_mut(&element.pool) {
                    pool.elements.push(element);
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        let mut pools: Vec<_> = pools.into_values().collect();
        for pool in &mut pools {
            pool.elements.sort_unstable_by_key(|element| element.element.identifier);
        }
        Ok(RegistrarSnapshot { registrar, pools })
    }

    /// Returns a stream of the events from now on. Up to 1,024 events wait to be taken; if there
    /// are more, they are left out and counted.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn events(&self) -> Result<RegistrarEvents, Stopped> {
        self.ask(|role, _| role.observers.add()).await
    }

    /// Waits until the registrar has joined the other registrars, and answers that unknown pools do
    /// not exist because elements have had time to register.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn ready(&self) -> Result<(), Stopped> {
        let is_ready = async || self.status().await.map(|status| status.joined && status.ready);
        if is_ready().await? {
            return Ok(());
        }
        let mut events = self.events().await?;
        while !is_ready().await? {
            loop {
                match events.next().await.ok_or(Stopped)? {
                    RegistrarEvent::Happened(Event::Joined { .. } | Event::Ready { .. })
                    | RegistrarEvent::Missed(_) => break,
                    RegistrarEvent::Happened(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Replaces the settings: limits, timers, peers, and the rules on access. The identifier, the
    /// policies, the compatibility profile, the addresses on which the registrar listens, and whether
    /// it uses multicast stay as they are.
    ///
    /// Peers that were added are connected to at once. Parties that the rules on access do not
    /// permit any more are disconnected, and elements that may not be in their pools are removed; those
    /// without a connection when they are asked next.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn reconfigure(&self, config: RegistrarConfig) -> Result<(), Stopped> {
        self.ask(|role, now| role.reconfigure(now, config)).await
    }

    /// Drains an element whose home is this registrar, or ends that. A drained element stays
    /// registered, and its sessions go on, but users and other registrars are not told of it, so it
    /// gets no new sessions. It is drained until this is called again, or until the registrar is not
    /// its home any more: the element or the registrar has ended, or the element registered at another
    /// one. Returns whether that is a change.
    ///
    /// # Errors
    ///
    /// Returns an error if this registrar is not the home of the element, or has stopped.
    pub async fn drain(
        &self,
        pool: &PoolHandle,
        element: PoolElementId,
        drained: bool,
    ) -> Result<bool, OrderError> {
        let pool = pool.clone();
        let order = self.ask(move |role, now| role.machine.drain(now, &pool, element, drained));
        Ok(order.await??)
    }

    /// Removes an element whose home is this registrar. An element that is alive and connected
    /// registers again: [drain](Self::drain) it to keep users away.
    ///
    /// # Errors
    ///
    /// Returns an error if this registrar is not the home of the element, or has stopped.
    pub async fn deregister(
        &self,
        pool: &PoolHandle,
        element: PoolElementId,
    ) -> Result<(), OrderError> {
        let pool = pool.clone();
        let order = self.ask(move |role, now| role.machine.deregister(now, &pool, element));
        Ok(order.await??)
    }

    /// Tries the next resolutions of a pool by a user who reaches this registrar at its address,
    /// without an effect on the real ones: which elements would be selected, and why. Policies that draw at random will draw
    /// differently; the numbers are then those to expect. Returns `None` if there is no such pool, if
    /// it has more than 1,000 elements, or if its policy cannot be tried.
    ///
    /// # Errors
    ///
    /// Returns an error if the registrar has stopped.
    pub async fn forecast(&self, pool: &PoolHandle) -> Result<Option<Forecast>, Stopped> {
        let (pool, seed) = (pool.clone(), random_seed());
        self.ask(move |role, now| role.machine.forecast(now, &pool, seed)).await
    }

    /// Lets the task answer a question, between two messages.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut RegistrarRole, Instant) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let command: Command = Box::new(move |role, now| {
            let _ = answer.send(question(role, now));
        });
        self.commands.clone().send(command).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}
