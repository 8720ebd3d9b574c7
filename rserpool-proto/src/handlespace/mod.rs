//! The handlespace: pools, their elements, the selection among them, and their expiry.
//!
//! Elements are stored in one arena, in the encoding that registrars and pool users receive, and
//! are referred to by an [`ElementKey`]. Looking up a pool or an element is O(1) expected, as are
//! changes of an element's home registrar and lifetime. The cost of all other operations depends on
//! the pool's policy.

mod checksum;
mod index;
mod lifetimes;
mod owners;
mod pool;
mod scope;
mod selection;
mod trial;

use std::hash::BuildHasher;
use std::ops::Bound;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use roaring::RoaringBitmap;
use slab::Slab;

use crate::policy::{InvalidPolicy, Member, Policies, RandomSource, Wanted};
use crate::wire::{
    ElementTooLarge, EncodedElement, PolicyType, PoolElement, PoolElementId, PoolHandle,
    RegistrarId,
};
use index::{Hashes, Index};
use lifetimes::Lifetimes;
use owners::Owners;
use pool::Pool;
use scope::Views;

pub use checksum::Checksum;
pub use pool::PoolKind;
pub use scope::Scope;
pub use selection::Selection;
pub use trial::Trial;

type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// The maximum number of elements of any handlespace: the positions in the arena have 31 bits.
const MAX_CAPACITY: usize = i32::MAX as usize;

/// The position of an element in the arena. It is valid until the element is removed, and is reused
/// after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementKey(u32);

impl ElementKey {
    fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the key of a position, at which there may be no element.
    #[must_use]
    pub fn from_position(position: u32) -> Self {
        Self(position)
    }

    /// Returns the position in the arena.
    #[must_use]
    pub fn position(self) -> u32 {
        self.0
    }
}

/// All pools and elements that a registrar knows; `T` is the registrar's state for each element.
#[derive(Debug)]
pub struct Handlespace<T> {
    policies: Policies,
    elements: Slab<Element<T>>,
    /// The occupied positions of the arena, so that iteration skips the vacant ones.
    present: RoaringBitmap,
    pools: Slab<Pool>,
    /// Pools by the hashes of their handles.
    by_handle: Index<Hashes>,
    hasher: RandomState,
    owners: Owners,
    lifetimes: Lifetimes,
    capacity: usize,
    selected: Vec<Member>,
    scratch: Vec<u8>,
}

/// A pool element and the registrar's state for it.
#[derive(Debug)]
pub struct Element<T> {
    pool: u32,
    member: Member,
    value: EncodedElement,
    /// The registrar's own state for the element.
    pub state: T,
}

impl<T> Element<T> {
    /// Returns the element as it registered last, with its home registrar.
    #[must_use]
    pub fn value(&self) -> PoolElement {
        self.value.decode()
    }

    /// Returns the element in its encoding.
    #[must_use]
    pub fn encoded(&self) -> &EncodedElement {
        &self.value
    }

    /// Returns the identifier of the element in its pool.
    #[must_use]
    pub fn identifier(&self) -> PoolElementId {
        self.value.identifier()
    }

    /// Returns the home registrar of the element.
    #[must_use]
    pub fn home_registrar(&self) -> RegistrarId {
        self.value.home_registrar()
    }
}

/// Error of adding or updating an element. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The element's policy differs from that of the pool, which contains the element `with`.
    #[error("the pool has another policy")]
    InconsistentPolicy {
        /// An element of the pool with which the refused element is inconsistent.
        with: ElementKey,
    },
    /// The element's transport protocol differs from that of the pool, which contains the element
    /// `with`.
    #[error("the pool has another transport protocol")]
    InconsistentTransport {
        /// An element of the pool with which the refused element is inconsistent.
        with: ElementKey,
    },
    /// The element has a control channel and the elements of the pool have none, or the reverse.
    #[error("the pool has another control channel configuration")]
    InconsistentDataControl,
    /// The policy cannot work with the element's parameters.
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
    /// The element and its handle are too large.
    #[error(transparent)]
    TooLarge(#[from] ElementTooLarge),
    /// The identifier is zero, which means "none" (RFC 5354 section 3.14).
    #[error("the pool element's identifier is zero")]
    NoIdentifier,
    /// The handlespace is full.
    #[error("the handlespace is full")]
    Full,
}

impl<T> Handlespace<T> {
    /// Creates an empty handlespace for at most `capacity` elements, and never more than 2^31 - 1.
    #[must_use]
    pub fn new(policies: Policies, capacity: usize) -> Self {
        Self {
            policies,
            elements: Slab::new(),
            present: RoaringBitmap::new(),
            pools: Slab::new(),
            by_handle: Index::default(),
            hasher: RandomState::default(),
            owners: Owners::default(),
            lifetimes: Lifetimes::default(),
            capacity: capacity.min(MAX_CAPACITY),
            selected: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Returns the number of elements in all pools.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Returns whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Returns the key of the element `identifier` of the pool `handle`, if there is one.
    #[must_use]
    pub fn find(&self, handle: &PoolHandle, identifier: PoolElementId) -> Option<ElementKey> {
        self.pool(handle)?.find(identifier)
    }

    fn pool(&self, handle: &PoolHandle) -> Option<&Pool> {
        self.index_of(handle).map(|index| &self.pools[index as usize])
    }

    fn index_of(&self, handle: &PoolHandle) -> Option<u32> {
        let is_it = |index: u32| self.pools[index as usize].handle() == handle;
        self.by_handle.get(self.hash(handle), is_it)
    }

    fn hash(&self, handle: &PoolHandle) -> u32 {
        self.hasher.hash_one(handle) as u32
    }

    /// Returns whether there is no such pool.
    #[must_use]
    pub fn is_unknown(&self, handle: &PoolHandle) -> bool {
        self.index_of(handle).is_none()
    }

    /// Returns the element at `key`, if there is one.
    #[must_use]
    pub fn get(&self, key: ElementKey) -> Option<&Element<T>> {
        self.elements.get(key.index())
    }

    /// Returns the element at `key`, if there is one, to change the registrar's state for it.
    pub fn get_mut(&mut self, key: ElementKey) -> Option<&mut Element<T>> {
        self.elements.get_mut(key.index())
    }

    /// Returns the handle of the pool to which the element at `key` belongs.
    #[must_use]
    pub fn handle_of(&self, key: ElementKey) -> Option<&PoolHandle> {
        self.get(key).map(|element| self.pools[element.pool as usize].handle())
    }

    /// Sets the maximum number of elements, see [`Self::new`]. If there are more, they stay.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.min(MAX_CAPACITY);
    }

    /// Returns the number of pools.
    #[must_use]
    pub fn pool_count(&self) -> usize {
        self.pools.len()
    }

    /// Returns the pools in the order of their arena, beginning after the position `after`, with
    /// their positions. Pools that are added between two calls may be missed.
    pub fn pools(&self, after: Option<u32>) -> impl Iterator<Item = (u32, &PoolHandle)> {
        let first = after.map_or(0, |after| after as usize + 1);
        (first..self.pools.capacity())
            .filter_map(|position| Some((small(position), self.pools.get(position)?.handle())))
    }

    /// Returns the properties that all elements of a pool share, or `None` if there is no such
    /// pool.
    #[must_use]
    pub fn kind(&self, handle: &PoolHandle) -> Option<PoolKind> {
        self.pool(handle).map(Pool::kind)
    }

    /// Returns the number of elements of a pool; 0 if there is no such pool.
    #[must_use]
    pub fn pool_size(&self, handle: &PoolHandle) -> usize {
        self.pool(handle).map_or(0, Pool::len)
    }

    /// Returns the policy of a pool, or `None` if there is no such pool.
    #[must_use]
    pub fn policy_type(&self, handle: &PoolHandle) -> Option<PolicyType> {
        self.pool(handle).map(|pool| pool.kind().policy_type())
    }

    /// Returns the elements of a pool, in no particular order.
    pub fn members(&self, handle: &PoolHandle) -> impl Iterator<Item = ElementKey> {
        self.pool(handle).into_iter().flat_map(Pool::members)
    }

    /// Returns the elements of a pool that a host of the scope `from` may be told about, in no
    /// particular order.
    pub fn members_for(
        &self,
        handle: &PoolHandle,
        from: Scope,
    ) -> impl Iterator<Item = ElementKey> {
        self.pool(handle).into_iter().flat_map(move |pool| pool.members_for(from))
    }

    /// Returns the scope of the element at `key`: that of [`Self::set_scope`], or
    /// [`Scope::Global`].
    #[must_use]
    pub fn scope(&self, key: ElementKey) -> Scope {
        let element = self.elements.get(key.index());
        element.map_or(Scope::Global, |it| self.pools[it.pool as usize].scope(it.member))
    }

    /// Sets the scope of the element at `key`, if there is one. The element is not selected for hosts
    /// of a wider scope. The first element of a pool whose scope is not global costs a time in
    /// proportion to the size of the pool.
    pub fn set_scope(&mut self, key: ElementKey, scope: Scope) {
        let Some(element) = self.elements.get(key.index()) else { return };
        let pool = &mut self.pools[element.pool as usize];
        if scope == pool.scope(element.member) {
            return;
        }
        if !pool.has_views() {
            let elements = &self.elements;
            let members = pool.members().filter_map(|key| elements.get(key.index()));
            let members = members.map(|it| (it.member, it.value.decode().policy));
            let views = Views::new(&self.policies, pool.kind().policy_type(), members);
            pool.set_views(views);
        }
        pool.set_scope(element.member, scope, &element.value.decode().policy);
    }

    /// Adds an element. It does not expire unless [`Self::set_lifetime`] is called (RFC 5352
    /// section 3.1).
    ///
    /// # Errors
    ///
    /// Returns an error if the element does not have the [`PoolKind`] of its pool, if the element
    /// is not valid or too large, or if the handlespace is full. Nothing was changed.
    ///
    /// # Panics
    ///
    /// Panics if the pool already has an element of that identifier: use [`Self::update`] then.
    pub fn insert(
        &mut self,
        handle: &PoolHandle,
        value: &PoolElement,
        state: T,
    ) -> Result<ElementKey, Refused> {
        let encoded = self.could_take(handle, value)?;
        let index = match self.index_of(handle) {
            Some(index) => {
                self.pools[index as usize].check(value)?;
                index
            }
            None => self.new_pool(handle, value),
        };
        let entry = self.elements.vacant_entry();
        let key = ElementKey(small(entry.key()));
        let pool = &mut self.pools[index as usize];
        let member = pool.insert(key, value);
        self.owners.add(key, pool.handle(), value.home_registrar, value.identifier);
        entry.insert(Element { pool: index, member, value: encoded, state });
        self.present.insert(key.0);
        Ok(key)
    }

    /// Checks whether an element is valid and there is room for it, and encodes it as it would be
    /// stored. Does not check whether the element has the [`PoolKind`] of its pool.
    ///
    /// # Errors
    ///
    /// Returns an error if the element is not valid or too large, or if the handlespace is full.
    pub fn could_take(
        &self,
        handle: &PoolHandle,
        value: &PoolElement,
    ) -> Result<EncodedElement, Refused> {
        self.policies.validate(&value.policy)?;
        if value.identifier == PoolElementId(0) {
            return Err(Refused::NoIdentifier);
        }
        if self.elements.len() >= self.capacity {
            return Err(Refused::Full);
        }
        Ok(EncodedElement::new(handle, value)?)
    }

    fn new_pool(&mut self, handle: &PoolHandle, value: &PoolElement) -> u32 {
        let selector = self.policies.new_selector(value.policy.policy_type());
        let pool = Pool::new(handle.clone(), PoolKind::of(value), selector);
        let index = small(self.pools.insert(pool));
        self.by_handle.insert(self.hash(handle), index, |_| false);
        index
    }

    /// Replaces the values of the element at `key`. Returns whether pool users see a difference.
    ///
    /// # Errors
    ///
    /// Returns an error if the values do not have the [`PoolKind`] of the pool, or if they are not
    /// valid or too large. Nothing was changed.
    ///
    /// # Panics
    ///
    /// Panics if there is no element at `key`, or if the identifier in `value` is not that of the
    /// element.
    pub fn update(&mut self, key: ElementKey, value: &PoolElement) -> Result<bool, Refused> {
        self.policies.validate(&value.policy)?;
        let element = &mut self.elements[key.index()];
        assert_eq!(
            element.identifier(),
            value.identifier,
            "an update must not change the identifier"
        );
        let pool = &mut self.pools[element.pool as usize];
        pool.check(value)?;
        let (old, new) = (element.home_registrar(), value.home_registrar);
        let differs = element.value.assign(pool.handle(), value, &mut self.scratch)?;
        pool.update(element.member, value);
        if old != new {
            self.owners.remove(key, pool.handle(), old, value.identifier);
            self.owners.add(key, pool.handle(), new, value.identifier);
        }
        Ok(differs)
    }

    /// Sets the home registrar of the element at `key`.
    ///
    /// # Panics
    ///
    /// Panics if there is no element at `key`.
    pub fn set_home(&mut self, key: ElementKey, home: RegistrarId) {
        let element = &mut self.elements[key.index()];
        let (handle, identifier) =
            (self.pools[element.pool as usize].handle(), element.identifier());
        self.owners.remove(key, handle, element.home_registrar(), identifier);
        element.value.set_home_registrar(home);
        self.owners.add(key, handle, home, identifier);
    }

    /// Sets the lifetime of the element at `key`, if there is one: the element expires `lifetime`
    /// after `now`, or never if `lifetime` is `None`.
    pub fn set_lifetime(&mut self, key: ElementKey, now: Instant, lifetime: Option<Duration>) {
        match lifetime {
            Some(lifetime) if self.elements.contains(key.index()) => {
                self.lifetimes.set(key, now, lifetime);
            }
            _ => self.cancel_lifetime(key),
        }
    }

    /// Cancels the expiry of the element at `key`.
    pub fn cancel_lifetime(&mut self, key: ElementKey) {
        self.lifetimes.cancel(key);
    }

    /// Returns an element whose lifetime is over at `now`, or was over up to 34 ms before. The
    /// element stays in the handlespace, without a lifetime.
    pub fn pop_expired(&mut self, now: Instant) -> Option<ElementKey> {
        self.lifetimes.pop(now)
    }

    /// Returns the next time at which [`Self::pop_expired`] may return an element.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.lifetimes.next()
    }

    /// Returns the checksum of the elements whose home registrar is `home`, in O(1).
    #[must_use]
    pub fn checksum(&self, home: RegistrarId) -> Checksum {
        self.owners.checksum(home)
    }

    /// Returns the elements whose home registrar is `home`, in the order of the arena, beginning
    /// after `after`.
    pub fn owned_by(
        &self,
        home: RegistrarId,
        after: Option<ElementKey>,
    ) -> impl Iterator<Item = ElementKey> {
        self.owners.owned_by(home, after)
    }

    /// Returns the number of elements whose home registrar is `home`.
    #[must_use]
    pub fn count_owned_by(&self, home: RegistrarId) -> usize {
        self.owners.count(home)
    }

    /// Returns all elements in the order of the arena, beginning after `after`. Elements that are
    /// added between two calls may be missed.
    pub fn all(&self, after: Option<ElementKey>) -> impl Iterator<Item = ElementKey> {
        let after = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.0));
        self.present.range((after, Bound::Unbounded)).map(ElementKey)
    }

    /// Removes the element at `key`, and its pool if this was the pool's last element.
    pub fn remove(&mut self, key: ElementKey) -> Option<(PoolHandle, Element<T>)> {
        let element = self.elements.try_remove(key.index())?;
        self.present.remove(key.0);
        let (home, identifier) = (element.home_registrar(), element.identifier());
        let pool = &mut self.pools[element.pool as usize];
        pool.remove(element.member, identifier);
        self.lifetimes.cancel(key);
        self.owners.remove(key, pool.handle(), home, identifier);
        let handle = pool.handle().clone();
        if pool.is_empty() {
            self.pools.remove(element.pool as usize);
            self.by_handle.remove(self.hash(&handle), |index| index == element.pool);
        }
        Some((handle, element))
    }

    /// Returns whether most of the arena's memory is for elements that were removed.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.elements.capacity() > 4096 && self.elements.len() < self.elements.capacity() / 4
    }

    /// Releases unused memory, such as the part of the arena behind its last element.
    pub fn shrink(&mut self) {
        self.elements.shrink_to_fit();
        self.pools.shrink_to_fit();
        self.by_handle.shrink();
        self.lifetimes.shrink(self.elements.capacity());
    }

    /// Returns a copy of the state of a pool's policy, on which the selections for hosts of the scope
    /// `from` can be tried; `None` if there is no such pool, or if its policy does not allow that.
    #[must_use]
    pub fn trial(&self, handle: &PoolHandle, from: Scope) -> Option<Trial> {
        self.pool(handle).and_then(|pool| Trial::new(pool, from))
    }

    /// Selects up to as many elements of a pool as `wanted` asks for, by the pool's policy, in the
    /// order in which to try them. Returns `None` if there is no such pool.
    pub fn select<'s>(
        &'s mut self,
        handle: &PoolHandle,
        wanted: Wanted<'_>,
        rng: &mut RandomSource,
    ) -> Option<Selection<'s, T>> {
        self.select_for(handle, Scope::Host, wanted, rng)
    }

    /// Behaves like [`Self::select`], among the elements that a host of the scope `from` may be told
    /// about.
    pub fn select_for<'s>(
        &'s mut self,
        handle: &PoolHandle,
        from: Scope,
        wanted: Wanted<'_>,
        rng: &mut RandomSource,
    ) -> Option<Selection<'s, T>> {
        let index = self.index_of(handle)?;
        let pool = &mut self.pools[index as usize];
        self.selected.clear();
        pool.select(from, wanted, rng, &mut self.selected);
        let (pool, elements) = (&*pool, &self.elements);
        let offered = pool.len_for(from);
        Some(Selection { pool, elements, selected: &self.selected, offered })
    }
}

/// Converts an index of the arena or of the pools, which both have fewer than 2^32 entries.
fn small(index: usize) -> u32 {
    u32::try_from(index).expect("the arena has fewer than 2^32 entries")
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::wire::{PolicyParameters, RegistrationLife, TransportAddress, TransportUse};

    fn element(identifier: u32, policy: &str) -> PoolElement {
        PoolElement {
            identifier: PoolElementId(identifier),
            home_registrar: RegistrarId(1),
            registration_life: RegistrationLife(60),
            user_transport: TransportAddress::tcp("127.0.0.1:80".parse().unwrap()).into(),
            policy: policy.parse().unwrap(),
            asap_transport: None,
        }
    }

    fn handle(text: &str) -> PoolHandle {
        text.parse().unwrap()
    }

    fn chosen(space: &mut Handlespace<()>, pool: &str, count: usize) -> Vec<u32> {
        let rng = &mut RandomSource::from_seed(1);
        let selection = space.select(&handle(pool), Wanted::items(count), rng);
        selection.unwrap().elements().map(|(_, element)| element.identifier().0).collect()
    }

    #[test]
    fn a_pool_lives_as_long_as_its_elements() {
        let mut space = Handlespace::new(Policies::default(), 10);
        let a = space.insert(&handle("A"), &element(1, "RoundRobin"), ()).unwrap();
        let b = space.insert(&handle("A"), &element(2, "RoundRobin"), ()).unwrap();
        space.insert(&handle("B"), &element(1, "LeastUsed:5"), ()).unwrap();
        assert_eq!(space.find(&handle("A"), PoolElementId(2)), Some(b));
        assert_eq!(chosen(&mut space, "A", 5), [1, 2]);
        assert_eq!(chosen(&mut space, "A", 1), [2]);
        assert_eq!(space.remove(a).unwrap().0, handle("A"));
        assert!(space.remove(a).is_none());
        assert_eq!(chosen(&mut space, "A", 5), [2]);
        space.remove(b);
        let rng = &mut RandomSource::from_seed(1);
        assert!(space.select(&handle("A"), Wanted::items(1), rng).is_none());
        assert_eq!((space.len(), space.pool_count()), (1, 1));
    }

    #[test]
    fn a_pool_has_one_policy_and_one_kind_of_transport() {
        let mut space = Handlespace::new(Policies::default(), 2);
        let with = space.insert(&handle("A"), &element(1, "RoundRobin"), ()).unwrap();
        let mut refused = |value: &PoolElement| space.insert(&handle("A"), value, ()).unwrap_err();
        assert_eq!(refused(&element(2, "LeastUsed")), Refused::InconsistentPolicy { with });
        let mut other = element(2, "RoundRobin");
        let address = TransportAddress::sctp("127.0.0.1:80".parse().unwrap());
        other.user_transport = address.into();
        assert_eq!(refused(&other), Refused::InconsistentTransport { with });
        let address = TransportAddress::tcp("127.0.0.1:80".parse().unwrap());
        other.user_transport = address.with_usage(TransportUse::DATA_PLUS_CONTROL).into();
        assert_eq!(refused(&other), Refused::InconsistentDataControl);
        other.policy = PolicyParameters::new(PolicyType::LEAST_USED, &[]);
        assert!(matches!(refused(&other), Refused::Policy(_)));
    }

    #[test]
    fn elements_are_known_by_their_owners() {
        let mut space = Handlespace::new(Policies::default(), 10);
        let (one, two) = (RegistrarId(1), RegistrarId(2));
        let a = space.insert(&handle("A"), &element(1, "RoundRobin"), ()).unwrap();
        let b = space.insert(&handle("B"), &element(1, "RoundRobin"), ()).unwrap();
        let owned = |space: &Handlespace<()>, home| space.owned_by(home, None).collect::<Vec<_>>();
        let both = space.checksum(one);
        assert_eq!(owned(&space, one), [a, b]);
        assert_eq!(space.owned_by(one, Some(a)).collect::<Vec<_>>(), [b]);
        space.set_home(a, two);
        let moved = PoolElement { home_registrar: two, ..element(1, "RoundRobin") };
        space.update(b, &moved).unwrap();
        assert_eq!((owned(&space, one), owned(&space, two)), (vec![], vec![a, b]));
        assert_eq!((space.checksum(one), space.checksum(two)), (Checksum::default(), both));
        space.remove(a);
        assert_eq!(space.all(None).collect::<Vec<_>>(), [b]);
        assert_eq!(space.all(Some(b)).count(), 0);
        space.remove(b);
        assert_eq!(space.checksum(two), Checksum::default());
    }

    #[test]
    fn registering_again_keeps_the_kind_of_the_pool() {
        let mut space = Handlespace::new(Policies::default(), 2);
        let first = space.insert(&handle("A"), &element(1, "LeastUsed:1"), ()).unwrap();
        assert!(space.update(first, &element(1, "RoundRobin")).is_err());
        space.insert(&handle("A"), &element(2, "LeastUsed:2"), ()).unwrap();
        assert_eq!(chosen(&mut space, "A", 2), [1, 2]);
        space.update(first, &element(1, "LeastUsed:3")).unwrap();
        assert_eq!(chosen(&mut space, "A", 2), [2, 1]);
        assert_eq!(space.insert(&handle("C"), &element(1, "RoundRobin"), ()), Err(Refused::Full));
        let mut large = element(1, "LeastUsed:3");
        large.policy = PolicyParameters::from_bytes(PolicyType::LEAST_USED, &[0; 4096]);
        assert!(matches!(space.update(first, &large), Err(Refused::TooLarge(_))));
        assert_eq!(space.update(first, &element(1, "LeastUsed:3")), Ok(false));
        assert_eq!(space.update(first, &element(1, "LeastUsed:4")), Ok(true));
        assert_eq!(
            space.insert(&handle("A"), &element(0, "LeastUsed:3"), ()),
            Err(Refused::NoIdentifier)
        );
    }
}
