//! Verification of the other ends of connections by the access rules.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use rserpool_proto::Identity;
use rserpool_proto::access::{AccessRole, AccessRules};
use rserpool_proto::wire::PoolHandle;

use crate::log;
use crate::runtime::Runtime;
use crate::transport::{Connection, HostFilter};

/// Returns whether the other end of a connection has a role, in this pool if one is given. Logs a
/// denial.
pub(crate) fn has_role(
    now: Instant,
    rules: &AccessRules,
    role: AccessRole,
    pool: Option<&PoolHandle>,
    connection: &dyn Connection,
) -> bool {
    let (host, identity) = (connection.peer().host(), connection.identity());
    let permitted = rules.permits(host, identity.as_ref(), role, pool);
    if !permitted {
        log_denial(now, role, host, identity.as_ref(), pool);
    }
    permitted
}

/// Returns a filter for the hosts that have one of these roles, as far as addresses are concerned. It
/// logs denials.
pub(crate) fn hosts_with(
    rules: &Arc<RwLock<AccessRules>>,
    roles: &'static [AccessRole],
    runtime: &Arc<dyn Runtime>,
) -> HostFilter {
    let (rules, runtime) = (Arc::clone(rules), Arc::clone(runtime));
    Arc::new(move |host| {
        let rules = rules.read().unwrap_or_else(PoisonError::into_inner);
        let allowed = roles.iter().any(|role| rules.allows(*role, host));
        if !allowed {
            for role in roles {
                log_denial(runtime.now(), *role, host, None, None);
            }
        }
        allowed
    })
}

/// Logs that the rules do not permit a role to a party, a few times a minute for each role and host.
pub(crate) fn log_denial(
    now: Instant,
    role: AccessRole,
    host: IpAddr,
    identity: Option<&Identity>,
    pool: Option<&PoolHandle>,
) {
    let kind = match role {
        AccessRole::Registrar => "denied by the access rules: not a registrar",
        AccessRole::Element => "denied by the access rules: not an element",
        AccessRole::User => "denied by the access rules: not a user",
    };
    if let Some(left_out) = log::admit(now, kind, host) {
        let again = (left_out > 0).then_some(left_out);
        let (identity, pool) = (identity.map(ToString::to_string), pool.map(ToString::to_string));
        tracing::warn!(%host, identity, pool, again, "{kind}");
    }
}
