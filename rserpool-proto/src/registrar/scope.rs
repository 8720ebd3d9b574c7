//! Elements that are not told to all hosts, over ASAP or ENRP: those whose addresses have host or link
//! scope, and those that are drained.

use std::collections::BTreeSet;
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
        let drained = self.drained.contains(&key);
        self.handlespace.set_scope(key, if drained { Scope::Empty } else { scope });
        match scope {
            Scope::Global => {
                self.near.remove(&key);
                false
            }
            Scope::Empty | Scope::Host | Scope::Link => self.near.insert(key),
        }
    }

    /// Returns whether an element may be told to a host; `None` stands for this one.
    pub(super) fn may_tell(&self, key: ElementKey, host: Option<IpAddr>) -> bool {
        let to = host.map_or(Scope::Host, Scope::of);
        (self.near.is_empty() && self.drained.is_empty()) || self.handlespace.scope(key) >= to
    }

    /// Returns the checksum of the elements of this registrar that are told to a host.
    pub(super) fn checksum_for(&self, host: Option<IpAddr>) -> PeChecksum {
        let ours: RegistrarId = self.config.identifier;
        let mut checksum = self.handlespace.checksum(ours);
        let asker = host.map_or(Scope::Global, Scope::of);
        let near: &[_] = if asker == Scope::Host { &[] } else { &[&self.near] };
        let hidden: BTreeSet<_> = near.iter().copied().chain([&self.drained]).flatten().collect();
        for key in hidden.into_iter().filter(|key| self.handlespace.scope(**key) < asker) {
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
