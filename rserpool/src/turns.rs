//! Fair scheduling of the connections that are to be polled.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use slab::Slab;

/// A queue of connections in which hosts take turns. A host with many connections or many messages
/// delays other hosts no longer than a host with a single connection does.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    hosts: Slab<Host>,
    by_address: HashMap<IpAddr, usize>,
    /// The hosts that have waiting connections.
    order: VecDeque<usize>,
}

#[derive(Debug)]
struct Host {
    address: IpAddr,
    connections: usize,
    waiting: VecDeque<usize>,
}

impl Turns {
    /// Registers another connection of the host at `address`. Returns the host's index, to pass to
    /// [`Self::push`].
    pub(crate) fn join(&mut self, address: IpAddr) -> usize {
        let index = *self.by_address.entry(address).or_insert_with(|| {
            self.hosts.insert(Host { address, connections: 0, waiting: VecDeque::new() })
        });
        self.hosts[index].connections += 1;
        index
    }

    /// Removes one connection of a host from the host's count.
    pub(crate) fn leave(&mut self, host: usize) {
        if let Some(its) = self.hosts.get_mut(host) {
            its.connections -= 1;
            self.forget_if_gone(host);
        }
    }

    /// Queues a connection that is to be polled.
    pub(crate) fn push(&mut self, host: usize, connection: usize) {
        // A waker may outlive its connection.
        let Some(its) = self.hosts.get_mut(host) else { return };
        if its.waiting.is_empty() {
            self.order.push_back(host);
        }
        its.waiting.push_back(connection);
    }

    /// Removes the connection that is to be polled next.
    pub(crate) fn pop(&mut self) -> Option<usize> {
        let host = self.order.pop_front()?;
        let its = &mut self.hosts[host];
        let connection = its.waiting.pop_front();
        if its.waiting.is_empty() {
            self.forget_if_gone(host);
        } else {
            self.order.push_back(host);
        }
        connection
    }

    fn forget_if_gone(&mut self, host: usize) {
        let its = &self.hosts[host];
        if its.connections == 0 && its.waiting.is_empty() {
            self.by_address.remove(&its.address);
            self.hosts.remove(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    #[test]
    fn hosts_take_turns_however_many_connections_they_have() {
        let mut turns = Turns::default();
        let busy = turns.join(address(1));
        for connection in 0..100 {
            assert_eq!(turns.join(address(1)), busy);
            turns.push(busy, connection);
        }
        let honest = turns.join(address(2));
        turns.push(honest, 1000);
        turns.push(honest, 1001);
        let served: Vec<_> = (0..5).filter_map(|_| turns.pop()).collect();
        assert_eq!(served, [0, 1000, 1, 1001, 2]);
        assert_eq!(std::iter::from_fn(|| turns.pop()).count(), 97);
    }

    #[test]
    fn nothing_is_kept_of_hosts_that_are_gone() {
        let mut turns = Turns::default();
        for host in 0..100 {
            let index = turns.join(address(host));
            turns.push(index, usize::from(host));
            turns.leave(index);
        }
        // Connections that were queued before are still returned.
        assert_eq!(std::iter::from_fn(|| turns.pop()).count(), 100);
        assert!(turns.hosts.is_empty() && turns.by_address.is_empty() && turns.order.is_empty());
        // A waker that outlives its connection does nothing.
        turns.push(7, 7);
        assert_eq!(turns.pop(), None);
        turns.leave(7);
    }
}
