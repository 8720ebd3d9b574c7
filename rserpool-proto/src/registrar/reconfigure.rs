//! Changes of the settings while the registrar runs.

use std::time::Instant;

use super::membership::Origin;
use super::{Registrar, RegistrarConfig, RemovalReason};
use crate::ConnectionEvent;
use crate::access::AccessRole;
use crate::wire::ErrorCause;

impl Registrar {
    /// Replaces the settings. The identifier, the policies, the compatibility profile, the ENRP
    /// address, and whether the registrar announces itself and sends its presence by multicast stay
    /// as they are.
    ///
    /// Timers that run keep their deadlines. Peers that were added are connected to at once; others
    /// stay until they are silent. Parties that the rules on access do not permit any more are
    /// disconnected. Elements that may not be in their pools are removed; those without a connection
    /// when they are asked next.
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
        let configured = &self.config.peers;
        self.peers.silent.retain(|address| configured.contains(address));
        if self.config.access != old.access {
            self.apply_rules(now);
        }
        if self.config.enrp.is_some() {
            self.dial_peers(now);
        }
        self.conclude(now);
    }

    /// Applies changed rules on access to the connections that exist. Those that are being made have
    /// no identity yet; they are verified when they are established.
    fn apply_rules(&mut self, now: Instant) {
        let mut connections: Vec<_> = self.connections.keys().copied().collect();
        connections.sort_unstable();
        for connection in connections {
            let Some(client) = self.connections.get_mut(&connection) else { continue };
            if client.origin == Origin::Connecting {
                continue;
            }
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
            let permitted = |role, pool| client.permissions.permit(role, pool);
            let roles = [AccessRole::Element, AccessRole::User];
            // A user that may not have a subscription any more subscribes to the others again.
            let stays = roles.iter().any(|role| permitted(*role, None))
                && self
                    .subscriptions
                    .of(connection)
                    .all(|pool| permitted(AccessRole::User, Some(pool)));
            if !stays {
                self.take_connection_event(now, connection, ConnectionEvent::Lost);
                self.out.abort(connection);
            }
        }
        self.refuse_what_waits();
        let links = self.peers.links.iter().filter(|(_, link)| {
            let (host, identity) = (link.address.host(), link.identity.as_ref());
            link.established
                && !self.config.access.permits(host, identity, AccessRole::Registrar, None)
        });
        let mut links: Vec<_> = links.map(|(connection, _)| *connection).collect();
        links.sort_unstable();
        for link in links {
            self.drop_connection(now, link);
        }
    }

    /// Refuses the requests that wait and that the rules do not permit any more.
    fn refuse_what_waits(&mut self) {
        for (from, request) in std::mem::take(&mut self.deferred) {
            if self.permits(from, AccessRole::User, &request.pool_handle) {
                self.deferred.push((from, request));
            } else if self.connections.contains_key(&from) {
                self.refuse_resolution(from, request.pool_handle, ErrorCause::Security);
            }
        }
        let mut claimed: Vec<_> = self.claimants.keys().copied().collect();
        claimed.sort_unstable();
        for key in claimed {
            let (Some(claimant), Some(pool)) =
                (self.claimants.get(&key), self.handlespace.handle_of(key).cloned())
            else {
                continue;
            };
            if !self.permits(claimant.from, AccessRole::Element, &pool) {
                self.refuse_claimant(key);
            }
        }
    }
}
