//! Connections to elements that the registrar is making, and elements that wait for one. Only a
//! limited number of connections is made at a time, and the elements of one host cannot block those
//! of others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;

use crate::ConnectionId;
use crate::handlespace::ElementKey;
use crate::wire::TransportAddress;

/// The maximum number of connections to elements that are being made at a time, in total and to one
/// host. Not from the RFCs.
const MAX: usize = 256;
const MAX_OF_HOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Dials {
    /// The connections that are being made, by destination.
    made: HashMap<TransportAddress, ConnectionId>,
    of_host: HashMap<IpAddr, usize>,
    waiting: BTreeMap<IpAddr, BTreeSet<ElementKey>>,
    waits_at: HashMap<ElementKey, IpAddr>,
    /// The host of the element that was dialled last. The host after it, in the order of addresses,
    /// is served next.
    last: Option<IpAddr>,
}

impl Dials {
    pub(super) fn to(&self, address: &TransportAddress) -> Option<ConnectionId> {
        self.made.get(address).copied()
    }

    pub(super) fn has_room(&self, host: IpAddr) -> bool {
        self.made.len() < MAX && self.of_host.get(&host).is_none_or(|count| *count < MAX_OF_HOST)
    }

    pub(super) fn begin(&mut self, address: TransportAddress, connection: ConnectionId) {
        let host = address.host();
        if self.made.insert(address, connection).is_none() {
            *self.of_host.entry(host).or_default() += 1;
        }
    }

    /// Removes a connection that is no longer being made, because it is established or has failed.
    pub(super) fn end(&mut self, address: &TransportAddress) {
        if self.made.remove(address).is_none() {
            return;
        }
        let host = address.host();
        if let Some(count) = self.of_host.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.of_host.remove(&host);
            }
        }
    }

    /// Queues an element at `host` until a connection can be made.
    pub(super) fn wait(&mut self, host: IpAddr, key: ElementKey) {
        self.forget(key);
        self.waits_at.insert(key, host);
        self.waiting.entry(host).or_default().insert(key);
    }

    /// Removes an element from the queue.
    pub(super) fn forget(&mut self, key: ElementKey) {
        if let Some(host) = self.waits_at.remove(&key)
            && let Some(keys) = self.waiting.get_mut(&host)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.waiting.remove(&host);
            }
        }
    }

    /// Removes and returns the next element to dial; the hosts take turns.
    pub(super) fn pop(&mut self) -> Option<ElementKey> {
        if self.made.len() >= MAX {
            return None;
        }
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let hosts = self.waiting.range((after, Bound::Unbounded)).chain(self.waiting.iter());
        let (host, key) = hosts
            .filter(|(host, _)| self.has_room(**host))
            .find_map(|(host, keys)| Some((*host, *keys.first()?)))?;
        self.last = Some(host);
        self.forget(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlespace::Handlespace;
    use crate::policy::Policies;
    use crate::wire::{PoolElement, PoolElementId, RegistrarId, RegistrationLife};

    fn keys(count: u32) -> Vec<ElementKey> {
        let mut handlespace = Handlespace::new(Policies::default(), 1000);
        let address: TransportAddress = TransportAddress::tcp(([10, 0, 0, 1], 7).into());
        (1..=count)
            .map(|identifier| {
                let element = PoolElement {
                    identifier: PoolElementId(identifier),
                    home_registrar: RegistrarId(1),
                    registration_life: RegistrationLife(60),
                    user_transport: address.clone().into(),
                    policy: crate::wire::PolicyParameters::round_robin(),
                    asap_transport: None,
                };
                handlespace.insert(&"Pool".parse().unwrap(), &element, ()).unwrap()
            })
            .collect()
    }

    #[test]
    fn a_host_of_black_holes_does_not_keep_others_waiting() {
        let address = |host: u8, port: u16| TransportAddress::tcp(([10, 0, 0, host], port).into());
        let host = |host: u8| IpAddr::from([10, 0, 0, host]);
        let keys = keys(1000);
        let mut dials = Dials::default();
        for port in 1..=64 {
            assert!(dials.has_room(host(1)));
            dials.begin(address(1, port), ConnectionId(port.into()));
        }
        assert!(!dials.has_room(host(1)));
        for key in &keys[..900] {
            dials.wait(host(1), *key);
        }
        dials.wait(host(2), keys[900]);
        dials.wait(host(2), keys[901]);
        dials.wait(host(3), keys[902]);
        dials.forget(keys[901]);
        let mut turns = vec![dials.pop(), dials.pop()];
        turns.sort_unstable();
        assert_eq!(turns, [Some(keys[900]), Some(keys[902])]);
        assert_eq!(dials.pop(), None, "no connection to the first host came to an end");
        dials.end(&address(1, 7));
        assert!(keys[..900].contains(&dials.pop().unwrap()));
    }
}
