//! Owners of elements: the parties that registered them, and the number that each may register.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use super::Registrar;
use super::membership::{Origin, Watch};
use super::shares::Limit;
use crate::handlespace::ElementKey;
use crate::wire::PoolHandle;
use crate::{ConnectionId, Identity};

/// The maximum number of elements of a party that are asked at a time whether they are alive.
const MAX_ASKED: usize = 16;

/// The elements of this registrar that each party registered.
#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<Identity, Owned>);

#[derive(Debug, Default)]
struct Owned {
    pools: BTreeMap<PoolHandle, BTreeSet<ElementKey>>,
    /// The number of elements in all pools.
    elements: usize,
}

impl Owners {
    fn add(&mut self, pool: &PoolHandle, key: ElementKey, owner: Identity) {
        let owned = self.0.entry(owner).or_default();
        if owned.pools.entry(pool.clone()).or_default().insert(key) {
            owned.elements += 1;
        }
    }

    pub(super) fn remove(&mut self, pool: &PoolHandle, key: ElementKey, owner: Identity) {
        let Entry::Occupied(mut owned) = self.0.entry(owner) else { return };
        let Owned { pools, elements } = owned.get_mut();
        let Some(keys) = pools.get_mut(pool) else { return };
        if keys.remove(&key) {
            *elements -= 1;
        }
        if keys.is_empty() {
            pools.remove(pool);
        }
        if pools.is_empty() {
            owned.remove();
        }
    }
}

impl Registrar {
    /// Returns whether the grants of a client allow it another element in this pool, or the element
    /// `present` is its own already. If not, asks the client's elements whether they are alive: they
    /// may be those of a program that crashed with its host, and that this one replaces.
    pub(super) fn owns_fewer(
        &mut self,
        now: Instant,
        client: ConnectionId,
        present: Option<ElementKey>,
        handle: &PoolHandle,
    ) -> bool {
        let Some(client) = self.connections.get(&client) else { return false };
        let Some((max, pattern)) = client.permissions.max_elements(handle) else { return true };
        let owner = present.and_then(|key| self.handlespace.get(key)?.state.charge.owner.as_ref());
        if owner.is_some() && owner == client.party.as_ref() {
            return true;
        }
        let owned = client.party.as_ref().and_then(|owner| self.owners.0.get(owner));
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let Some(owned) = owned.filter(|owned| owned.elements >= max) else { return max > 0 };
        let pools = owned.pools.iter().filter(|(pool, _)| pattern.matches(pool.as_bytes()));
        let (mut count, mut asked) = (0, Vec::new());
        for (_, keys) in pools {
            count += keys.len();
            asked.extend(keys.iter().take(MAX_ASKED - asked.len()));
            if count >= max {
                break;
            }
        }
        if count < max {
            return true;
        }
        self.hit(Limit::Elements, client.host);
        for key in asked {
            self.ask_owner(now, key);
        }
        false
    }

    /// Counts an element for the party at the other end of its connection, if this registrar is its
    /// home and the connection is established. An element of another registrar counts for nobody.
    pub(super) fn note_owner(&mut self, key: ElementKey) {
        let Some(element) = self.handlespace.get(key) else { return };
        let Some((host, _)) = element.state.charge.host else { return };
        let owner = match &element.state.watch {
            Watch::Home(_) => {
                let client = element.state.connection.and_then(|id| self.connections.get(&id));
                match client.filter(|client| client.origin != Origin::Connecting) {
                    Some(client) => client.party.clone(),
                    None => return,
                }
            }
            Watch::Elsewhere(_) => None,
        };
        self.recharge(key, host, owner);
    }

    /// Counts an element for another owner.
    pub(super) fn change_owner(
        &mut self,
        key: ElementKey,
        from: Option<Identity>,
        to: Option<Identity>,
    ) {
        let Some(pool) = self.handlespace.handle_of(key) else { return };
        if let Some(owner) = from {
            self.owners.remove(pool, key, owner);
        }
        if let Some(owner) = to {
            self.owners.add(pool, key, owner);
        }
    }
}
