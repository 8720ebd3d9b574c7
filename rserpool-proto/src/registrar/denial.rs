//! Denials: requests and connections that the access rules do not permit.

use std::net::IpAddr;

use super::event::Denial;
use super::{Event, Registrar};
use crate::ConnectionId;
use crate::access::AccessRole;
use crate::wire::PoolHandle;

impl Registrar {
    pub(super) fn deny(&mut self, denial: Denial) {
        self.out.event(Event::Denied(denial));
    }

    /// Returns whether a client has a role in a pool, and reports a denial if not.
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

    /// Returns whether the rules allow a host to be a registrar, and reports a denial if not.
    pub(super) fn allows_registrar_at(&mut self, host: IpAddr) -> bool {
        let role = AccessRole::Registrar;
        let allowed = self.config.access.allows(role, host);
        if !allowed {
            self.deny(Denial { role, host, identity: None, pool: None });
        }
        allowed
    }
}
