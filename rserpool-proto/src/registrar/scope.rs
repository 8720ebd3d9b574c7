//! Elements whose addresses have host or link scope. They are not told to hosts outside of that scope,
//! over ASAP or ENRP.

use std::net::IpAddr;

use super::Registrar;
use crate::handlespace::{ElementKey, Scope};
use crate::wire::parameter::PeChecksum;
use crate::wire::{PoolElement, RegistrarId};

impl Registrar {
    /// Records the scope of the addresses of a new or changed element. Returns whether the scope is
    /// host or link, and was not before.
    pub(super) fn note_scope(&mut self, key: ElementKey, value: &PoolElement) -> bool {
        let scope = Scope::of_element(value);
        self.handlespace.set_scope(key, scope);
        match scope {
            Scope::Global => {
                self.near.remove(&key);
                false
            }
            Scope::Host | Scope::Link => self.near.insert(key),
        }
    }

    /// Returns whether the address of an element may be told to a host.
    pub(super) fn leads_there(&self, key: ElementKey, host: IpAddr) -> bool {
        self.near.is_empty() || self.handlespace.scope(key) >= Scope::of(host)
    }

    /// Returns the checksum of the elements of this registrar that are told to a host.
    pub(super) fn checksum_for(&self, host: Option<IpAddr>) -> PeChecksum {
        let ours: RegistrarId = self.config.identifier;
        let mut checksum = self.handlespace.checksum(ours);
        let asker = host.map_or(Scope::Global, Scope::of);
        if asker == Scope::Host {
            return checksum.of_profile(self.config.compatibility);
        }
        for key in self.near.iter().filter(|key| self.handlespace.scope(**key) < asker) {
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
