//! Changes of the settings while the registrar runs.

use std::time::Instant;

use super::{Registrar, RegistrarConfig, RemovalReason};
use crate::ConnectionEvent;
use crate::access::AccessRole;

impl Registrar {
    /// Replaces the settings. The identifier, the policies, the compatibility profile, the ENRP
    /// address, and whether the registrar announces itself and sends its presence by multicast stay
    /// as they are.
    ///
    /// Timers that run keep their deadlines. Peers that were added are connected to at once; others
    /// stay until they are silent. Parties that the rules on access do not permit any more are
    /// disconnected, and elements that may not be in their pools are removed.
    pub fn reconfigure(&mut self, now: Instant, config: RegistrarConfig) {
        self.out.begin();
        let old = std::mem::replace(&mut self.config, config);
        self.config.identifier = old.identifier;
        self.config.policies = old.policies;
        self.config.compatibility = old.compatibility;
        self.config.enrp = old.enrp;
        self.config.announced = old.announced;
        self.config.multicast_presence = old.multicast_presence;
        self.handlespace.set_capacity(self.config.limits.elements);
        self.apply_rules(now);
        if self.config.enrp.is_some() {
            self.dial_peers(now);
        }
        self.conclude(now);
    }

    /// Applies changed rules on access to the connections that exist.
    fn apply_rules(&mut self, now: Instant) {
        let mut connections: Vec<_> = self.connections.keys().copied().collect();
        connections.sort_unstable();
        for connection in connections {
            let Some(client) = self.connections.get_mut(&connection) else { continue };
            client.permissions =
                self.config.access.permissions(client.host, client.identity.as_ref());
            let elements = client.elements.clone();
            let denied = elements.into_iter().filter(|key| {
                let pool = self.handlespace.handle_of(*key);
                let client = self.connections.get(&connection);
                client.is_some_and(|it| !it.permissions.permit(AccessRole::Element, pool))
            });
            for key in denied.collect::<Vec<_>>() {
                self.remove(key, RemovalReason::Denied);
            }
            let Some(client) = self.connections.get(&connection) else { continue };
            let roles = [AccessRole::Element, AccessRole::User];
            if !roles.iter().any(|role| client.permissions.permit(*role, None)) {
                self.take_connection_event(now, connection, ConnectionEvent::Lost);
                self.out.abort(connection);
            }
        }
        let links = self.peers.links.iter().filter(|(_, link)| {
            let (host, identity) = (link.address.host(), link.identity.as_ref());
            !self.config.access.permits(host, identity, AccessRole::Registrar, None)
        });
        let mut links: Vec<_> = links.map(|(connection, _)| *connection).collect();
        links.sort_unstable();
        for link in links {
            self.drop_connection(now, link);
        }
    }
}
