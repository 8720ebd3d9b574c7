//! Scopes of addresses. On another host, an address of loopback or link-local scope denotes a
//! different endpoint, so it is not told to hosts outside its scope, over ASAP or ENRP.

use std::net::IpAddr;

use super::Registrar;
use crate::handlespace::ElementKey;
use crate::wire::parameter::PeChecksum;
use crate::wire::{PoolElement, RegistrarId, TransportAddress};

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

impl Registrar {
    /// Records the scope of the addresses of a new or changed element. Returns whether the scope is
    /// host or link, and this was not recorded before.
    pub(super) fn note_scope(&mut self, key: ElementKey, value: &PoolElement) -> bool {
        let scope = value.user_transport.address().map_or(Scope::Global, Scope::of_all);
        match scope {
            Scope::Global => {
                self.near.remove(&key);
                false
            }
            Scope::Host | Scope::Link => self.near.insert(key, scope).is_none(),
        }
    }

    /// Returns whether the address of an element may be told to a host.
    pub(super) fn leads_there(&self, key: ElementKey, host: IpAddr) -> bool {
        self.near.is_empty() || self.near.get(&key).is_none_or(|scope| *scope >= Scope::of(host))
    }

    /// Returns the checksum of the elements of this registrar that are told to a host.
    pub(super) fn checksum_for(&self, host: Option<IpAddr>) -> PeChecksum {
        let ours: RegistrarId = self.config.identifier;
        let mut checksum = self.handlespace.checksum(ours);
        let asker = host.map_or(Scope::Global, Scope::of);
        if asker == Scope::Host {
            return checksum.of_profile(self.config.compatibility);
        }
        for (key, _) in self.near.iter().filter(|(_, scope)| **scope < asker) {
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
