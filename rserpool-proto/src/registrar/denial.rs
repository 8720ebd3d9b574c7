//! Denials: requests and connections that the access rules do not permit.

use std::net::IpAddr;

use super::event::Denial;
use super::{Event, Registrar};
use crate::ConnectionId;
use crate::access::AccessRole;
use crate::wire::PoolHandle;

/// The number of requests and connections that were denied, for each role.
#[derive(Debug, Default)]
pub(super) struct Denials([u64; AccessRole::COUNT]);

impl Registrar {
    /// Returns the number of connections and requests that were denied since their sender does not
    /// have this role. A connection that neither an element nor a user may make counts for both. A host
    /// that is refused before a TLS handshake is not counted.
    #[must_use]
    pub fn denials(&self, role: AccessRole) -> u64 {
        self.denials.0[role as usize]
    }

    /// Counts and reports a denial.
    pub(super) fn deny(&mut self, denial: Denial) {
        self.denials.0[denial.role as usize] += 1;
        self.out.event(Event::Denied(denial));
    }

    /// Returns whether a client has a role in a pool, and counts a denial if not.
    pub(super) fn permits(
        &mut self,
        client: ConnectionId,
        role: AccessRole,
        pool: &PoolHandle,
    ) -> bool {
        let Some(client) = self.connections.get(&client) else { return false };
        let permitted = client.permissions.permit(role, Some(pool));
        if !permitted {
            let denial = client.denial(role, Some(pool));
            self.deny(denial);
        }
        permitted
    }

    /// Returns whether the rules allow a host to be a registrar, and counts a denial if not.
    pub(super) fn allows_registrar_at(&mut self, host: IpAddr) -> bool {
        let role = AccessRole::Registrar;
        let allowed = self.config.access.allows(role, host);
        if !allowed {
            self.deny(Denial { role, host, identity: None, pool: None });
        }
        allowed
    }
}
