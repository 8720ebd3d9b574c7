//! Scopes of addresses, and the selection among the elements that a host may be told about.

use std::net::IpAddr;

use crate::policy::{Member, Policies, Selector};
use crate::wire::{PolicyParameters, PolicyType, PoolElement};

/// Range within which an address denotes the same endpoint, the smallest first. Outside of it, the
/// address denotes a different endpoint, so an element with that address is not told there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::exhaustive_enums, reason = "the scopes of IP addresses")]
pub enum Scope {
    /// Nowhere: the element is drained, so it is told to nobody.
    Empty,
    /// One host: loopback addresses.
    Host,
    /// One link: link-local addresses.
    Link,
    /// All other addresses.
    Global,
}

impl Scope {
    /// Returns the scope of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let (loopback, link) = match address.to_canonical() {
            IpAddr::V4(address) => (address.is_loopback(), address.is_link_local()),
            IpAddr::V6(address) => (address.is_loopback(), address.is_unicast_link_local()),
        };
        match (loopback, link) {
            (true, _) => Self::Host,
            (_, true) => Self::Link,
            _ => Self::Global,
        }
    }

    /// Returns the widest scope of the addresses of an element.
    #[must_use]
    pub fn of_element(element: &PoolElement) -> Self {
        let addresses = element.user_transport.address().into_iter();
        let addresses = addresses.flat_map(|address| address.addresses.iter().copied());
        addresses.map(Self::of).max().unwrap_or(Self::Global)
    }
}

/// The scopes of hosts that are served by another selector than that of the pool, if some elements
/// are hidden from them.
const WIDER: [Scope; 2] = [Scope::Link, Scope::Global];

/// The selectors of a pool for hosts of wider scope than some of its elements. Each has the elements
/// that are told to hosts of that scope, so the policy holds among these.
#[derive(Debug)]
pub(super) struct Views {
    /// The scopes of the members, indexed by member number; missing ones are global.
    scopes: Vec<Scope>,
    /// The number of members whose scope is empty. The selector of the pool does not have them.
    drained: usize,
    views: [View; 2],
}

#[derive(Debug)]
struct View {
    scope: Scope,
    selector: Box<dyn Selector>,
    hidden: usize,
}

impl Views {
    /// Creates the selectors of a pool whose elements are all global.
    pub(super) fn new(
        policies: &Policies,
        policy: PolicyType,
        members: impl Iterator<Item = (Member, PolicyParameters)>,
    ) -> Self {
        let view = |scope| View { scope, selector: policies.new_selector(policy), hidden: 0 };
        let mut views = Self { scopes: Vec::new(), drained: 0, views: WIDER.map(view) };
        for (member, parameters) in members {
            views.insert(member, &parameters);
        }
        views
    }

    pub(super) fn scope(&self, member: Member) -> Scope {
        self.scopes.get(member.0 as usize).copied().unwrap_or(Scope::Global)
    }

    /// Returns the number of elements that are not told to hosts of a scope.
    pub(super) fn hidden(&self, from: Scope) -> usize {
        let view = self.views.iter().find(|view| view.scope == from);
        view.map_or(self.drained, |view| view.hidden)
    }

    /// Adds an element, which is global.
    pub(super) fn insert(&mut self, member: Member, parameters: &PolicyParameters) {
        for view in &mut self.views {
            view.selector.insert(member, parameters);
        }
    }

    pub(super) fn update(&mut self, member: Member, parameters: &PolicyParameters) {
        let scope = self.scope(member);
        for view in self.views.iter_mut().filter(|view| view.scope <= scope) {
            view.selector.update(member, parameters);
        }
    }

    pub(super) fn remove(&mut self, member: Member) {
        let scope = self.scope(member);
        for view in &mut self.views {
            match view.scope <= scope {
                true => view.selector.remove(member),
                false => view.hidden -= 1,
            }
        }
        self.note(member, Scope::Global);
    }

    /// Changes the scope of an element, whose current `parameters` are needed if it is shown to more
    /// hosts then.
    pub(super) fn set_scope(&mut self, member: Member, new: Scope, parameters: &PolicyParameters) {
        let old = self.scope(member);
        for view in &mut self.views {
            match (view.scope <= old, view.scope <= new) {
                (false, true) => {
                    view.selector.insert(member, parameters);
                    view.hidden -= 1;
                }
                (true, false) => {
                    view.selector.remove(member);
                    view.hidden += 1;
                }
                (true, true) | (false, false) => {}
            }
        }
        self.note(member, new);
    }

    fn note(&mut self, member: Member, scope: Scope) {
        self.drained -= usize::from(self.scope(member) == Scope::Empty);
        self.drained += usize::from(scope == Scope::Empty);
        let index = member.0 as usize;
        if index >= self.scopes.len() && scope != Scope::Global {
            self.scopes.resize(index + 1, Scope::Global);
        }
        if let Some(noted) = self.scopes.get_mut(index) {
            *noted = scope;
        }
    }

    /// Returns the selector for hosts of a scope; `None` if that of the pool serves them.
    pub(super) fn selector(&self, from: Scope) -> Option<&dyn Selector> {
        let view = self.views.iter().find(|view| view.serves(from));
        view.map(|view| &*view.selector)
    }

    /// Behaves like [`Self::selector`], for selections.
    pub(super) fn selector_mut(&mut self, from: Scope) -> Option<&mut Box<dyn Selector>> {
        let view = self.views.iter_mut().find(|view| view.serves(from));
        view.map(|view| &mut view.selector)
    }
}

impl View {
    fn serves(&self, from: Scope) -> bool {
        self.scope == from && self.hidden > 0
    }
}
