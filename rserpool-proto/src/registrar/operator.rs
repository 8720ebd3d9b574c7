//! Orders of an operator about single elements, and the forecast of selections.

use std::time::Instant;

use super::{ElementName, ElementStatus, Event, PoolStatus, Registrar, RemovalReason};
use crate::handlespace::{Element, ElementKey, Scope, Trial};
use crate::policy::{RandomSource, Rank, Wanted};
use crate::wire::enrp::UpdateAction;
use crate::wire::{PoolElementId, PoolHandle, RegistrarId};

/// Number of selections of a forecast.
const SELECTIONS: usize = 1000;

/// Maximum number of elements of a pool of which there is a forecast, since the registrar does
/// nothing else meanwhile.
const MAX_FORECAST: usize = 1000;

/// Error of an order about an element: this registrar is not its home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotHome {
    /// There is no such element.
    #[error("there is no such element")]
    Unknown,
    /// Another registrar is the home of the element.
    #[error("the home of the element is registrar {0}")]
    Elsewhere(RegistrarId),
}

/// The next selections of a pool, if nothing registers and nobody else asks meanwhile.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Forecast {
    /// The pool.
    pub pool: PoolStatus,
    /// Number of elements of an answer.
    pub items: usize,
    /// Number of resolutions that were tried.
    pub resolutions: usize,
    /// The first elements of the next answers, in turn.
    pub next: Vec<PoolElementId>,
    /// The elements, in the order of their identifiers.
    pub elements: Vec<ElementForecast>,
}

/// An element in the next selections of its pool.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ElementForecast {
    /// State of the element.
    pub element: ElementStatus,
    /// Basis on which the policy selects the element; `None` if the element is drained, or the policy
    /// does not say.
    pub rank: Option<Rank>,
    /// Number of answers in which the element is the first, so that the user takes it.
    pub first: usize,
    /// Number of answers that contain the element.
    pub offered: usize,
}

impl Registrar {
    /// Drains an element, or ends that. A drained element stays registered, and its sessions go on,
    /// but users and other registrars are not told of it. It is drained until this is called again,
    /// or until the registrar is not its home any more. Returns whether that is a change.
    ///
    /// # Errors
    ///
    /// Returns an error if this registrar is not the home of the element.
    pub fn drain(
        &mut self,
        now: Instant,
        pool: &PoolHandle,
        identifier: PoolElementId,
        drained: bool,
    ) -> Result<bool, NotHome> {
        let key = self.own_element(pool, identifier)?;
        if self.drained.contains(&key) == drained {
            return Ok(false);
        }
        self.out.begin();
        if drained {
            let (told, update) =
                (self.told_of(key), self.encode_update(UpdateAction::Delete, false, key));
            if let Some(update) = update {
                self.send_update(told, &update);
            }
            self.drained.insert(key);
        } else {
            self.drained.remove(&key);
        }
        if let Some(value) = self.handlespace.get(key).map(Element::value) {
            self.note_scope(key, &value);
        }
        if !drained {
            self.announce_element(key);
        }
        self.subscriptions.note(pool);
        let name = ElementName { pool_handle: pool.clone(), identifier };
        self.out.event(if drained { Event::Drained(name) } else { Event::Undrained(name) });
        self.conclude(now);
        Ok(true)
    }

    /// Removes an element. If it is alive and connected, it registers again.
    ///
    /// # Errors
    ///
    /// Returns an error if this registrar is not the home of the element.
    pub fn deregister(
        &mut self,
        now: Instant,
        pool: &PoolHandle,
        identifier: PoolElementId,
    ) -> Result<(), NotHome> {
        let key = self.own_element(pool, identifier)?;
        self.out.begin();
        self.remove(key, RemovalReason::Ordered);
        self.conclude(now);
        Ok(())
    }

    fn own_element(
        &self,
        pool: &PoolHandle,
        identifier: PoolElementId,
    ) -> Result<ElementKey, NotHome> {
        let key = self.handlespace.find(pool, identifier).ok_or(NotHome::Unknown)?;
        match self.home_of(key) {
            Some(home) if home != self.config.identifier => Err(NotHome::Elsewhere(home)),
            _ => Ok(key),
        }
    }

    /// Tries the next resolutions of a pool by a user who reaches this registrar at its address,
    /// without an effect on the real ones. Returns `None` if there is no such pool, if it has more than
    /// 1,000 elements, or if its policy cannot be tried
    /// ([`Selector::fork`](crate::policy::Selector::fork)). Policies that draw at random will draw
    /// differently; the numbers are then those to expect.
    #[must_use]
    pub fn forecast(&self, now: Instant, handle: &PoolHandle, seed: u64) -> Option<Forecast> {
        let pool = self.pool(handle).filter(|pool| pool.elements <= MAX_FORECAST)?;
        let mut trial = self.handlespace.trial(handle, Scope::of(self.config.reached_at()))?;
        let keys = self.handlespace.members(handle);
        let mut elements: Vec<_> = keys
            .filter_map(|key| {
                let element = self.element_status(now, key)?;
                Some((
                    key,
                    ElementForecast { element, rank: trial.rank(key), first: 0, offered: 0 },
                ))
            })
            .collect();
        elements.sort_unstable_by_key(|(key, _)| *key);
        let items = self.config.default_items.min(self.config.max_items);
        let items = usize::try_from(items).unwrap_or(usize::MAX);
        let wanted = Wanted::items(items).max_increment(self.max_increment(pool.policy));
        let next = self.try_resolutions(&mut trial, wanted, seed, &mut elements);
        let mut elements: Vec<_> = elements.into_iter().map(|(_, element)| element).collect();
        elements.sort_unstable_by_key(|element| element.element.element.identifier);
        Some(Forecast { pool, items, resolutions: SELECTIONS, next, elements })
    }

    /// Counts the answers with each of the `elements`, which are sorted by key. Returns the first
    /// elements of the first answers.
    fn try_resolutions(
        &self,
        trial: &mut Trial,
        wanted: Wanted<'_>,
        seed: u64,
        elements: &mut [(ElementKey, ElementForecast)],
    ) -> Vec<PoolElementId> {
        let mut rng = RandomSource::from_seed(seed);
        let mut next = Vec::new();
        for _ in 0..SELECTIONS {
            let selected = trial.select(wanted, &mut rng);
            let is_doubted = |key: &ElementKey| {
                self.handlespace.get(*key).is_some_and(|it| it.state.is_doubted())
            };
            let first = selected.iter().find(|key| !is_doubted(key)).or(selected.first()).copied();
            for key in selected {
                let Ok(place) = elements.binary_search_by_key(&key, |(key, _)| *key) else {
                    continue;
                };
                elements[place].1.offered += 1;
                if first == Some(key) {
                    elements[place].1.first += 1;
                    if next.len() < 10 {
                        next.push(elements[place].1.element.element.identifier);
                    }
                }
            }
        }
        next
    }

    /// Returns whether users and other registrars are not told of an element, since it is drained.
    pub(super) fn is_drained(&self, key: ElementKey) -> bool {
        self.drained.contains(&key)
    }
}
