//! A pool of the handlespace.

use super::index::{Hashed, Index};
use super::scope::{Scope, Views};
use super::{ElementKey, Refused, small};
use crate::policy::{Member, RandomSource, Selector, Wanted};
use crate::wire::{
    PolicyParameters, PolicyType, PoolElement, PoolElementId, PoolHandle, TransportProtocol,
    TransportUse,
};

/// The elements with the same pool handle. A pool exists as long as it has elements.
#[derive(Debug)]
pub(super) struct Pool {
    handle: PoolHandle,
    kind: PoolKind,
    selector: Box<dyn Selector>,
    /// The scopes of the elements, and the selectors for hosts that are not told about all elements;
    /// `None` as long as all are.
    views: Option<Box<Views>>,
    by_identifier: Index<Hashed>,
    /// The keys of the members, indexed by member number; `None` where there is no member.
    keys: Vec<Option<Key>>,
    /// The numbers of members that were removed, for reuse.
    vacant: Vec<Member>,
}

/// An element's key plus 1, so that an `Option` of it takes no additional memory.
type Key = std::num::NonZeroU32;

/// The properties that all elements of a pool share: the policy, the transport protocol, and the
/// presence of a control channel (RFC 5352 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolKind(PolicyType, Option<(TransportProtocol, TransportUse)>);

impl PoolKind {
    /// Returns the kind of pool that accepts the element.
    #[must_use]
    pub fn of(element: &PoolElement) -> Self {
        let transport = element.user_transport.address().map(|address| {
            // All service codes of DCCP count as the same.
            let dccp = matches!(address.protocol, TransportProtocol::Dccp { .. });
            let any = TransportProtocol::Dccp { service_code: 0 };
            (if dccp { any } else { address.protocol }, address.usage)
        });
        Self(element.policy.policy_type(), transport)
    }

    /// Returns the policy.
    #[must_use]
    pub fn policy_type(self) -> PolicyType {
        self.0
    }

    /// Returns the transport protocol of the elements; `None` if they have a kind of address that
    /// this implementation does not know.
    #[must_use]
    pub fn protocol(self) -> Option<TransportProtocol> {
        self.1.map(|(protocol, _)| protocol)
    }
}

impl Pool {
    pub(super) fn new(handle: PoolHandle, kind: PoolKind, selector: Box<dyn Selector>) -> Self {
        let (by_identifier, keys, vacant) = Default::default();
        Self { handle, kind, selector, views: None, by_identifier, keys, vacant }
    }

    pub(super) fn handle(&self) -> &PoolHandle {
        &self.handle
    }

    pub(super) fn kind(&self) -> PoolKind {
        self.kind
    }

    pub(super) fn len(&self) -> usize {
        self.by_identifier.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn find(&self, identifier: PoolElementId) -> Option<ElementKey> {
        self.by_identifier.get(identifier.0, |_| true).map(ElementKey)
    }

    /// Returns the key of a member.
    pub(super) fn key(&self, member: Member) -> ElementKey {
        ElementKey(self.keys[member.0 as usize].expect("the member is in the pool").get() - 1)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = ElementKey> {
        self.keys.iter().flatten().map(|key| ElementKey(key.get() - 1))
    }

    /// Returns the elements that a host of this scope may be told about, in no particular order.
    pub(super) fn members_for(&self, from: Scope) -> impl Iterator<Item = ElementKey> {
        let visible = self.numbered().filter(move |(member, _)| self.scope(*member) >= from);
        visible.map(|(_, key)| key)
    }

    /// Returns the members in the order of their numbers, with their keys.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (Member, ElementKey)> {
        let numbered = (0..).map(Member).zip(&self.keys);
        numbered.filter_map(|(member, key)| Some((member, ElementKey((*key)?.get() - 1))))
    }

    /// Returns a copy of the selector for hosts of this scope, with its state; `None` if its policy
    /// does not allow that.
    pub(super) fn fork(&self, from: Scope) -> Option<Box<dyn Selector>> {
        let view = self.views.as_ref().and_then(|views| views.selector(from));
        view.unwrap_or(&*self.selector).fork()
    }

    pub(super) fn scope(&self, member: Member) -> Scope {
        self.views.as_ref().map_or(Scope::Global, |views| views.scope(member))
    }

    /// Returns the number of elements that a host of this scope may be told about.
    pub(super) fn len_for(&self, from: Scope) -> usize {
        self.len() - self.views.as_ref().map_or(0, |views| views.hidden(from))
    }

    pub(super) fn has_views(&self) -> bool {
        self.views.is_some()
    }

    pub(super) fn set_views(&mut self, views: Views) {
        self.views = Some(Box::new(views));
    }

    /// Changes the scope of a member of a pool with views.
    pub(super) fn set_scope(
        &mut self,
        member: Member,
        scope: Scope,
        parameters: &PolicyParameters,
    ) {
        let old = self.scope(member);
        match (old, scope) {
            (Scope::Empty, Scope::Empty) => {}
            (Scope::Empty, _) => self.selector.insert(member, parameters),
            (_, Scope::Empty) => self.selector.remove(member),
            _ => {}
        }
        if let Some(views) = &mut self.views {
            views.set_scope(member, scope, parameters);
        }
    }

    /// Returns an error if an element is not of the pool's kind.
    pub(super) fn check(&self, value: &PoolElement) -> Result<(), Refused> {
        let kind = PoolKind::of(value);
        if kind == self.kind {
            return Ok(());
        }
        let with = self.members().next().expect("pools are not empty");
        Err(if kind.policy_type() != self.kind.policy_type() {
            Refused::InconsistentPolicy { with }
        } else if kind.protocol() != self.kind.protocol() {
            Refused::InconsistentTransport { with }
        } else {
            Refused::InconsistentDataControl
        })
    }

    /// Adds an element that the pool does not have.
    pub(super) fn insert(&mut self, key: ElementKey, value: &PoolElement) -> Member {
        let member = self.vacant.pop().unwrap_or_else(|| {
            self.keys.push(None);
            Member(small(self.keys.len() - 1))
        });
        self.keys[member.0 as usize] = Key::new(key.0 + 1);
        let new = self.by_identifier.insert(value.identifier.0, key.0, |_| true);
        assert!(new, "the pool already has an element of that identifier");
        self.selector.insert(member, &value.policy);
        if let Some(views) = &mut self.views {
            views.insert(member, &value.policy);
        }
        member
    }

    pub(super) fn update(&mut self, member: Member, value: &PoolElement) {
        if self.scope(member) != Scope::Empty {
            self.selector.update(member, &value.policy);
        }
        if let Some(views) = &mut self.views {
            views.update(member, &value.policy);
        }
    }

    pub(super) fn remove(&mut self, member: Member, identifier: PoolElementId) {
        if self.scope(member) != Scope::Empty {
            self.selector.remove(member);
        }
        if let Some(views) = &mut self.views {
            views.remove(member);
        }
        self.by_identifier.remove(identifier.0, |_| true);
        self.keys[member.0 as usize] = None;
        self.vacant.push(member);
    }

    pub(super) fn select(
        &mut self,
        from: Scope,
        wanted: Wanted<'_>,
        rng: &mut RandomSource,
        selected: &mut Vec<Member>,
    ) {
        let view = self.views.as_mut().and_then(|views| views.selector_mut(from));
        view.unwrap_or(&mut self.selector).select(wanted, rng, selected);
    }
}
