//! Scopes of addresses. On another host, an address of loopback or link-local scope denotes a
//! different endpoint, so it is not told to hosts outside its scope, over ASAP or ENRP.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Registrar;
use crate::handlespace::ElementKey;
use crate::wire::parameter::PeChecksum;
use crate::wire::{PoolElement, PoolHandle, RegistrarId, TransportAddress};

/// Range within which an address denotes the same endpoint, the smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    Host,
    Link,
    Global,
}

impl Scope {
    pub(super) fn of(address: IpAddr) -> Self {
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

    /// Returns the widest scope of the addresses of an endpoint.
    fn of_all(address: &TransportAddress) -> Self {
        address.addresses.iter().copied().map(Self::of).max().unwrap_or(Self::Global)
    }
}

/// The elements whose addresses have host or link scope. They are not told to hosts outside of that
/// scope.
#[derive(Debug, Default)]
pub(super) struct Near {
    scopes: BTreeMap<ElementKey, Scope>,
    /// The elements of each pool with host and with link scope.
    pools: BTreeMap<PoolHandle, [usize; 2]>,
}

impl Near {
    /// Records an element, and returns whether it was not recorded before.
    fn insert(&mut self, handle: &PoolHandle, key: ElementKey, scope: Scope) -> bool {
        let fresh = !self.remove(handle, key);
        self.scopes.insert(key, scope);
        let counts = self.pools.entry(handle.clone()).or_default();
        if let Some(count) = counts.get_mut(scope as usize) {
            *count += 1;
        }
        fresh
    }

    /// Forgets an element, and returns whether it was recorded.
    pub(super) fn remove(&mut self, handle: &PoolHandle, key: ElementKey) -> bool {
        let Some(scope) = self.scopes.remove(&key) else { return false };
        if let Some(counts) = self.pools.get_mut(handle) {
            if let Some(count) = counts.get_mut(scope as usize) {
                *count -= 1;
            }
            if *counts == [0, 0] {
                self.pools.remove(handle);
            }
        }
        true
    }

    /// Returns whether the address of an element may be told to a host of this scope.
    pub(super) fn leads_there(&self, key: ElementKey, asker: Scope) -> bool {
        self.scopes.is_empty() || self.scopes.get(&key).is_none_or(|scope| *scope >= asker)
    }

    /// Returns the number of elements of a pool that may not be told to a host of this scope.
    pub(super) fn hidden(&self, handle: &PoolHandle, asker: Scope) -> usize {
        let counts = self.pools.get(handle).into_iter().flatten();
        counts.take(asker as usize).sum()
    }
}

impl Registrar {
    /// Records the scope of the addresses of a new or changed element. Returns whether the scope is
    /// host or link, and this was not recorded before.
    pub(super) fn note_scope(
        &mut self,
        handle: &PoolHandle,
        key: ElementKey,
        value: &PoolElement,
    ) -> bool {
        let scope = value.user_transport.address().map_or(Scope::Global, Scope::of_all);
        match scope {
            Scope::Global => {
                self.near.remove(handle, key);
                false
            }
            Scope::Host | Scope::Link => self.near.insert(handle, key, scope),
        }
    }

    /// Returns whether the address of an element may be told to a host.
    pub(super) fn leads_there(&self, key: ElementKey, host: IpAddr) -> bool {
        self.near.leads_there(key, Scope::of(host))
    }

    /// Returns the checksum of the elements of this registrar that are told to a host.
    pub(super) fn checksum_for(&self, host: Option<IpAddr>) -> PeChecksum {
        let ours: RegistrarId = self.config.identifier;
        let mut checksum = self.handlespace.checksum(ours);
        let asker = host.map_or(Scope::Global, Scope::of);
        if asker == Scope::Host {
            return checksum.of_profile(self.config.compatibility);
        }
        for (key, _) in self.near.scopes.iter().filter(|(_, scope)| **scope < asker) {
            if let (Some(handle), Some(element)) =
                (self.handlespace.handle_of(*key), self.handlespace.get(*key))
                && element.home_registrar() == ours
            {
                checksum.subtract(handle, element.identifier());
            }
        }
        checksum.of_profile(self.config.compatibility)
    }
}
