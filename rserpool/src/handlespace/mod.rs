//! The handlespace: pools, their elements, and the selection among them.
//!
//! Elements live in one arena and are referred to by an [`ElementKey`]. Looking up a pool or
//! an element is O(1) expected; the rest costs what the pool's policy costs.

mod checksum;

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use rand::Rng;
use slab::Slab;

use crate::policy::{InvalidPolicy, Member, Policies, Selector};
use crate::wire::{
    PolicyType, PoolElement, PoolElementId, PoolHandle, RegistrarId, TransportProtocol,
    TransportUse, UserTransport,
};

pub use checksum::Checksum;

/// Where an element is in the arena. Valid until the element is removed, and reused then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementKey(usize);

/// All pools and elements that a registrar knows; `T` is what it keeps for each element.
#[derive(Debug)]
pub struct Handlespace<T> {
    policies: Policies,
    elements: Slab<Element<T>>,
    pools: Slab<Pool>,
    by_handle: HashMap<PoolHandle, usize>,
    by_identifier: HashMap<(usize, PoolElementId), ElementKey>,
    by_owner: HashMap<RegistrarId, Owned>,
    capacity: usize,
    selected: Vec<Member>,
}

/// A pool element and what its registrar keeps of it.
#[derive(Debug)]
pub struct Element<T> {
    pool: usize,
    member: Member,
    /// What the element said when it registered last.
    pub value: PoolElement,
    /// What the registrar keeps.
    pub state: T,
}

/// The elements of one handle. A pool exists as long as it has any.
#[derive(Debug)]
struct Pool {
    handle: PoolHandle,
    policy_type: PolicyType,
    selector: Box<dyn Selector>,
    members: Slab<ElementKey>,
}

/// The elements of one home registrar. There as long as there are any.
#[derive(Debug, Default)]
struct Owned {
    checksum: Checksum,
    elements: BTreeSet<ElementKey>,
}

/// Why the handlespace does not take an element. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The pool has another policy; one of its elements is `with`.
    #[error("the pool has another policy")]
    InconsistentPolicy {
        /// An element that is in the pool.
        with: ElementKey,
    },
    /// The pool has another transport protocol; one of its elements is `with`.
    #[error("the pool has another transport protocol")]
    InconsistentTransport {
        /// An element that is in the pool.
        with: ElementKey,
    },
    /// The pool's elements differ in whether they have a control channel.
    #[error("the pool differs in data and control configuration")]
    InconsistentDataControl,
    /// The policy cannot work with the element's parameters.
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
    /// The handlespace is full.
    #[error("the handlespace is full")]
    Full,
}

impl<T> Handlespace<T> {
    /// An empty handlespace for at most `capacity` elements.
    #[must_use]
    pub fn new(policies: Policies, capacity: usize) -> Self {
        Self {
            policies,
            elements: Slab::new(),
            pools: Slab::new(),
            by_handle: HashMap::new(),
            by_identifier: HashMap::new(),
            by_owner: HashMap::new(),
            capacity,
            selected: Vec::new(),
        }
    }

    /// The number of elements in all pools.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The element of that pool and identifier.
    #[must_use]
    pub fn find(&self, handle: &PoolHandle, identifier: PoolElementId) -> Option<ElementKey> {
        let pool = self.by_handle.get(handle)?;
        self.by_identifier.get(&(*pool, identifier)).copied()
    }

    /// Whether there is no such pool.
    #[must_use]
    pub fn is_unknown(&self, handle: &PoolHandle) -> bool {
        !self.by_handle.contains_key(handle)
    }

    /// The element at `key`, if there is one.
    #[must_use]
    pub fn get(&self, key: ElementKey) -> Option<&Element<T>> {
        self.elements.get(key.0)
    }

    /// The element at `key`, if there is one, to change what the registrar keeps of it.
    pub fn get_mut(&mut self, key: ElementKey) -> Option<&mut Element<T>> {
        self.elements.get_mut(key.0)
    }

    /// The pool of the element at `key`.
    #[must_use]
    pub fn handle_of(&self, key: ElementKey) -> Option<&PoolHandle> {
        self.get(key).map(|element| &self.pools[element.pool].handle)
    }

    /// The pools and how many elements each has, in no particular order.
    pub fn pools(&self) -> impl Iterator<Item = (&PoolHandle, usize)> {
        self.pools.iter().map(|(_, pool)| (&pool.handle, pool.members.len()))
    }

    /// Checks whether an element may join its pool or, if it is in it, have new values (RFC
    /// 5352 section 3.1).
    ///
    /// # Errors
    ///
    /// When the pool is not of its kind, or there is no room.
    pub fn check(&self, handle: &PoolHandle, value: &PoolElement) -> Result<(), Refused> {
        self.policies.validate(&value.policy)?;
        let Some(pool) = self.by_handle.get(handle) else {
            return self.check_room();
        };
        let (_, with) = self.pools[*pool].members.iter().next().expect("pools are not empty");
        let with = *with;
        let present = &self.elements[with.0].value;
        if present.policy.policy_type() != value.policy.policy_type() {
            return Err(Refused::InconsistentPolicy { with });
        }
        if !present.user_transport.same_kind(&value.user_transport) {
            return Err(Refused::InconsistentTransport { with });
        }
        if usage(&present.user_transport) != usage(&value.user_transport) {
            return Err(Refused::InconsistentDataControl);
        }
        match self.by_identifier.get(&(*pool, value.identifier)) {
            Some(_) => Ok(()),
            None => self.check_room(),
        }
    }

    /// Whether an element that does not fit its pool has the right to it nevertheless: pools of
    /// one handle that came to be apart, and not of one kind, become the one with the smaller
    /// policy number, transport protocol and transport use, in this order. False where there is
    /// no such pool, or the element fits, or its policy is not to be had.
    #[must_use]
    pub fn prevails(&self, handle: &PoolHandle, value: &PoolElement) -> bool {
        let Some(present) = self.members(handle).next() else { return false };
        self.policies.validate(&value.policy).is_ok()
            && kind(value) < kind(&self.elements[present.0].value)
    }

    /// The elements of a pool, in no particular order.
    pub fn members(&self, handle: &PoolHandle) -> impl Iterator<Item = ElementKey> {
        let pool = self.by_handle.get(handle).map(|pool| &self.pools[*pool]);
        pool.into_iter().flat_map(|pool| pool.members.iter().map(|(_, key)| *key))
    }

    fn check_room(&self) -> Result<(), Refused> {
        if self.elements.len() < self.capacity { Ok(()) } else { Err(Refused::Full) }
    }

    /// Adds an element.
    ///
    /// # Errors
    ///
    /// When [`Self::check`] refuses it.
    ///
    /// # Panics
    ///
    /// When the pool already has an element of that identifier: that is [`Self::update`]'s.
    pub fn insert(
        &mut self,
        handle: &PoolHandle,
        value: PoolElement,
        state: T,
    ) -> Result<ElementKey, Refused> {
        self.check(handle, &value)?;
        assert!(self.find(handle, value.identifier).is_none(), "an element of that identifier");
        let policy_type = value.policy.policy_type();
        let index = match self.by_handle.get(handle) {
            Some(index) => *index,
            None => {
                let handle = handle.detached();
                let selector = self.policies.new_selector(policy_type);
                let pool =
                    Pool { handle: handle.clone(), policy_type, selector, members: Slab::new() };
                let index = self.pools.insert(pool);
                self.by_handle.insert(handle, index);
                index
            }
        };
        let entry = self.elements.vacant_entry();
        let key = ElementKey(entry.key());
        let pool = &mut self.pools[index];
        let number = pool.members.insert(key);
        let member = Member(u32::try_from(number).expect("fewer than 2^32 elements in a pool"));
        pool.selector.insert(member, &value.policy);
        self.by_identifier.insert((index, value.identifier), key);
        own(&mut self.by_owner, key, handle, &value);
        entry.insert(Element { pool: index, member, value, state });
        Ok(key)
    }

    /// Gives the element at `key` new values.
    ///
    /// # Errors
    ///
    /// When [`Self::check`] refuses them.
    ///
    /// # Panics
    ///
    /// When there is no element at `key`, or it has another identifier.
    pub fn update(&mut self, key: ElementKey, value: PoolElement) -> Result<(), Refused> {
        self.check(&self.pools[self.elements[key.0].pool].handle, &value)?;
        let element = &mut self.elements[key.0];
        assert_eq!(element.value.identifier, value.identifier, "an update keeps the identifier");
        let pool = &mut self.pools[element.pool];
        pool.selector.update(element.member, &value.policy);
        if element.value.home_registrar != value.home_registrar {
            disown(&mut self.by_owner, key, &pool.handle, &element.value);
            own(&mut self.by_owner, key, &pool.handle, &value);
        }
        element.value = value;
        Ok(())
    }

    /// Gives the element at `key` another home registrar.
    ///
    /// # Panics
    ///
    /// When there is no element at `key`.
    pub fn set_home(&mut self, key: ElementKey, home: RegistrarId) {
        let element = &mut self.elements[key.0];
        let handle = &self.pools[element.pool].handle;
        disown(&mut self.by_owner, key, handle, &element.value);
        element.value.home_registrar = home;
        own(&mut self.by_owner, key, handle, &element.value);
    }

    /// The checksum of the elements whose home registrar is `home`. O(1).
    #[must_use]
    pub fn checksum(&self, home: RegistrarId) -> Checksum {
        self.by_owner.get(&home).map(|owned| owned.checksum).unwrap_or_default()
    }

    /// The elements whose home registrar is `home`, which come after `after` in the arena.
    pub fn owned_by(
        &self,
        home: RegistrarId,
        after: Option<ElementKey>,
    ) -> impl Iterator<Item = ElementKey> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let owned = self.by_owner.get(&home).into_iter();
        owned.flat_map(move |owned| owned.elements.range((after, Bound::Unbounded))).copied()
    }

    /// The elements which come after `after` in the arena. What is added meanwhile may come or
    /// not.
    pub fn all(&self, after: Option<ElementKey>) -> impl Iterator<Item = ElementKey> {
        let first = after.map_or(0, |key| key.0 + 1);
        (first..self.elements.capacity())
            .filter(|index| self.elements.contains(*index))
            .map(ElementKey)
    }

    /// Removes the element at `key`, and its pool if it was the last one.
    pub fn remove(&mut self, key: ElementKey) -> Option<(PoolHandle, Element<T>)> {
        let element = self.elements.try_remove(key.0)?;
        let pool = &mut self.pools[element.pool];
        pool.selector.remove(element.member);
        pool.members.remove(element.member.0 as usize);
        let handle = pool.handle.clone();
        self.by_identifier.remove(&(element.pool, element.value.identifier));
        disown(&mut self.by_owner, key, &handle, &element.value);
        if pool.members.is_empty() {
            self.pools.remove(element.pool);
            self.by_handle.remove(&handle);
        }
        Some((handle, element))
    }

    /// Selects up to `count` elements of a pool by its policy, the first to try first. `None`
    /// where there is no such pool.
    pub fn select<'s>(
        &'s mut self,
        handle: &PoolHandle,
        count: usize,
        rng: &mut dyn Rng,
    ) -> Option<Selection<'s, T>> {
        let pool = &mut self.pools[*self.by_handle.get(handle)?];
        self.selected.clear();
        pool.selector.select(count, rng, &mut self.selected);
        let (pool, elements) = (&*pool, &self.elements);
        Some(Selection { pool, elements, selected: &self.selected })
    }
}

/// What a selection chose.
#[derive(Debug)]
pub struct Selection<'s, T> {
    pool: &'s Pool,
    elements: &'s Slab<Element<T>>,
    selected: &'s [Member],
}

impl<'s, T> Selection<'s, T> {
    /// The policy of the pool.
    #[must_use]
    pub fn policy_type(&self) -> PolicyType {
        self.pool.policy_type
    }

    /// The chosen elements, in order.
    pub fn elements(&self) -> impl ExactSizeIterator<Item = &'s Element<T>> + use<'_, 's, T> {
        self.selected.iter().map(|Member(member)| {
            let key = self.pool.members[*member as usize];
            &self.elements[key.0]
        })
    }
}

fn own(
    by_owner: &mut HashMap<RegistrarId, Owned>,
    key: ElementKey,
    handle: &PoolHandle,
    value: &PoolElement,
) {
    let owned = by_owner.entry(value.home_registrar).or_default();
    owned.elements.insert(key);
    owned.checksum.add(handle, value.identifier);
}

fn disown(
    by_owner: &mut HashMap<RegistrarId, Owned>,
    key: ElementKey,
    handle: &PoolHandle,
    value: &PoolElement,
) {
    if let Some(owned) = by_owner.get_mut(&value.home_registrar) {
        owned.elements.remove(&key);
        owned.checksum.subtract(handle, value.identifier);
        if owned.elements.is_empty() {
            by_owner.remove(&value.home_registrar);
        }
    }
}

/// What all elements of a pool have in common (RFC 5352 section 3.1).
fn kind(element: &PoolElement) -> (PolicyType, Option<(TransportProtocol, TransportUse)>) {
    let address = element.user_transport.address();
    let transport = address.map(|address| {
        // The service code of DCCP makes no difference.
        let dccp = matches!(address.protocol, TransportProtocol::Dccp { .. });
        let any = TransportProtocol::Dccp { service_code: 0 };
        (if dccp { any } else { address.protocol }, address.usage)
    });
    (element.policy.policy_type(), transport)
}

fn usage(transport: &UserTransport) -> Option<TransportUse> {
    transport.address().map(|address| address.usage)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::wire::{PolicyParameters, RegistrarId, RegistrationLife, TransportAddress};

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
        let rng = &mut StdRng::seed_from_u64(1);
        let selection = space.select(&handle(pool), count, rng);
        selection.unwrap().elements().map(|element| element.value.identifier.0).collect()
    }

    #[test]
    fn a_pool_lives_as_long_as_its_elements() {
        let mut space = Handlespace::new(Policies::default(), 10);
        let a = space.insert(&handle("A"), element(1, "RoundRobin"), ()).unwrap();
        let b = space.insert(&handle("A"), element(2, "RoundRobin"), ()).unwrap();
        space.insert(&handle("B"), element(1, "LeastUsed:5"), ()).unwrap();
        assert_eq!(space.find(&handle("A"), PoolElementId(2)), Some(b));
        assert_eq!(chosen(&mut space, "A", 5), [1, 2]);
        assert_eq!(chosen(&mut space, "A", 1), [2]);
        assert_eq!(space.remove(a).unwrap().0, handle("A"));
        assert!(space.remove(a).is_none());
        assert_eq!(chosen(&mut space, "A", 5), [2]);
        space.remove(b);
        let rng = &mut StdRng::seed_from_u64(1);
        assert!(space.select(&handle("A"), 1, rng).is_none());
        assert_eq!((space.len(), space.pools().count()), (1, 1));
    }

    #[test]
    fn a_pool_has_one_policy_and_one_kind_of_transport() {
        let mut space = Handlespace::new(Policies::default(), 2);
        let with = space.insert(&handle("A"), element(1, "RoundRobin"), ()).unwrap();
        let refused = |value: &PoolElement| space.check(&handle("A"), value).unwrap_err();
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
        let a = space.insert(&handle("A"), element(1, "RoundRobin"), ()).unwrap();
        let b = space.insert(&handle("B"), element(1, "RoundRobin"), ()).unwrap();
        let owned = |space: &Handlespace<()>, home| space.owned_by(home, None).collect::<Vec<_>>();
        let both = space.checksum(one);
        assert_eq!(owned(&space, one), [a, b]);
        assert_eq!(space.owned_by(one, Some(a)).collect::<Vec<_>>(), [b]);
        space.set_home(a, two);
        let moved = PoolElement { home_registrar: two, ..element(1, "RoundRobin") };
        space.update(b, moved).unwrap();
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
        let first = space.insert(&handle("A"), element(1, "LeastUsed:1"), ()).unwrap();
        assert!(space.update(first, element(1, "RoundRobin")).is_err());
        space.insert(&handle("A"), element(2, "LeastUsed:2"), ()).unwrap();
        assert_eq!(chosen(&mut space, "A", 2), [1, 2]);
        space.update(first, element(1, "LeastUsed:3")).unwrap();
        assert_eq!(chosen(&mut space, "A", 2), [2, 1]);
        assert_eq!(space.check(&handle("C"), &element(1, "RoundRobin")), Err(Refused::Full));
        assert_eq!(space.check(&handle("A"), &element(1, "LeastUsed")), Ok(()));
    }
}
