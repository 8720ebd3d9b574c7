//! Identities, and the rules on who may do what (RFC 5355).

mod address;
mod grant;
mod identity;
mod pattern;

use std::fmt;
use std::net::IpAddr;

use crate::wire::{PoolHandle, RegistrarId};

pub use address::{AddressRange, InvalidAddressRange};
pub use grant::{Grant, InvalidGrant};
pub use identity::Identity;
pub use pattern::{InvalidPattern, Pattern};

/// Role of a program in RSerPool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "RSerPool has no other roles")]
pub enum AccessRole {
    /// A registrar, which keeps the handlespace and replicates it.
    Registrar,
    /// A pool element, which registers and serves users.
    Element,
    /// A pool user, which resolves pool handles, subscribes to pools, reports elements, and opens
    /// sessions.
    User,
}

impl AccessRole {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Registrar, Self::Element, Self::User];
}

impl fmt::Display for AccessRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registrar => "registrar",
            Self::Element => "element",
            Self::User => "user",
        })
    }
}

/// Rules on the roles of other programs, by their addresses and by the names in their certificates.
/// Default: everybody whom the transport lets in has the roles that its certificate grants, or all
/// roles if it grants none.
///
/// A program has a role if the rules allow its address the role and grant its identity the role:
///
/// - [`allow`](Self::allow) limits a role to ranges of addresses. That is as good as the network's
///   protection against false source addresses. Over SCTP, a host is known by the address from
///   which it made the association.
/// - [`grant`](Self::grant) gives a role to identities, by a pattern for the names in their
///   certificates. Rules that grant anything are complete: who is granted nothing has no role.
/// - Rules without a grant give each identity the roles that its certificate grants by URIs of the
///   scheme `rserpool`, see [`Grant`]. A certificate without such URIs has all roles, one
///   without any URI or DNS name has none. A party without a certificate, on a transport with TLS
///   that allows that, is a user of all pools.
///
/// A registrar refuses requests beyond the role of their sender with the cause "rejected due to
/// security considerations" (RFC 5354 section 3.12.11). It closes connections of those that may
/// neither register nor resolve before it reads a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessRules {
    allowed: [Option<Vec<AddressRange>>; AccessRole::ALL.len()],
    grants: Vec<(Pattern, Grant)>,
    requires_identity: bool,
}

impl AccessRules {
    /// Allows the hosts of these ranges a role, and all other hosts no longer. Further calls for the
    /// same role add ranges.
    #[must_use]
    pub fn allow(
        mut self,
        role: AccessRole,
        ranges: impl IntoIterator<Item = AddressRange>,
    ) -> Self {
        self.allowed[role as usize].get_or_insert_default().extend(ranges);
        self
    }

    /// Grants a role to the identities that have a name which matches `name`. The identity of a
    /// party without a certificate has the name `anonymous`.
    ///
    /// Once anything is granted, certificates grant nothing by themselves, and parties that the
    /// transport does not authenticate have no role.
    #[must_use]
    pub fn grant(mut self, name: Pattern, grant: Grant) -> Self {
        self.grants.push((name, grant));
        self
    }

    /// Denies all roles to parties that the transport does not authenticate (RFC 5355 section 2.15).
    /// Default: they have all roles that their address is allowed, unless anything is granted.
    #[must_use]
    pub fn require_identity(mut self) -> Self {
        self.requires_identity = true;
        self
    }

    /// Returns whether a host may have a role, as far as addresses are concerned.
    #[must_use]
    pub fn allows(&self, role: AccessRole, host: IpAddr) -> bool {
        let ranges = self.allowed[role as usize].as_ref();
        ranges.is_none_or(|ranges| ranges.iter().any(|range| range.contains(host)))
    }

    /// Returns whether a party at `host` has a role, in this pool if one is given. `identity` is
    /// `None` on a transport that does not authenticate.
    #[must_use]
    pub fn permits(
        &self,
        host: IpAddr,
        identity: Option<&Identity>,
        role: AccessRole,
        pool: Option<&PoolHandle>,
    ) -> bool {
        self.permissions(host, identity).permit(role, pool)
    }

    pub(crate) fn permissions(&self, host: IpAddr, identity: Option<&Identity>) -> Permissions {
        Permissions {
            allowed: AccessRole::ALL.map(|role| self.allows(role, host)),
            granted: self.granted(identity),
        }
    }

    /// Returns the grants to an identity; `None` if it has all roles.
    fn granted(&self, identity: Option<&Identity>) -> Option<Box<[Grant]>> {
        if !self.grants.is_empty() {
            let names = identity.into_iter().flat_map(Identity::names_or_anonymous);
            let names: Vec<_> = names.collect();
            let grants = self
                .grants
                .iter()
                .filter(|(pattern, _)| names.iter().any(|name| pattern.matches(name.as_bytes())));
            return Some(grants.map(|(_, grant)| grant.clone()).collect());
        }
        let Some(identity) = identity else {
            return self.requires_identity.then(Box::default);
        };
        if identity.is_anonymous() {
            return Some([Grant::User { pools: Pattern::any() }].into());
        }
        // A URI of the scheme that cannot be parsed grants nothing, but the certificate is limited.
        let mut named = identity.names().filter_map(Grant::from_uri).peekable();
        named.peek()?;
        Some(named.filter_map(Result::ok).collect())
    }
}

/// Roles of one party.
#[derive(Debug, Clone)]
pub(crate) struct Permissions {
    /// For each role, whether it is allowed at the party's address.
    allowed: [bool; AccessRole::ALL.len()],
    /// Grants to the identity of the party; `None` if it has all roles.
    granted: Option<Box<[Grant]>>,
}

impl Permissions {
    /// Returns whether the party has a role, in this pool if one is given.
    pub(crate) fn permit(&self, role: AccessRole, pool: Option<&PoolHandle>) -> bool {
        let granted = self.granted.as_ref();
        self.allowed[role as usize]
            && granted.is_none_or(|grants| grants.iter().any(|grant| grant.includes(role, pool)))
    }

    /// Returns whether the party may act as the registrar with this identifier.
    pub(crate) fn permit_identifier(&self, identifier: RegistrarId) -> bool {
        let speaks_for = |grant: &Grant| match grant {
            Grant::Registrar { identifier: only } => only.is_none_or(|only| only == identifier),
            Grant::Element { .. } | Grant::User { .. } => false,
        };
        self.granted.as_ref().is_none_or(|grants| grants.iter().any(speaks_for))
    }

    /// Returns the limit on the number of elements of this pool, with the pattern of the pools that
    /// count against it. Of several grants for the pool, the one with the highest limit counts.
    pub(crate) fn max_elements(&self, pool: &PoolHandle) -> Option<(u32, &Pattern)> {
        let for_pool = |grant: &&Grant| grant.includes(AccessRole::Element, Some(pool));
        let mut highest: Option<(u32, &Pattern)> = None;
        for grant in self.granted.iter().flatten().filter(for_pool) {
            let Grant::Element { pools, max } = grant else { continue };
            let max = (*max)?;
            if highest.is_none_or(|(before, _)| max > before) {
                highest = Some((max, pools));
            }
        }
        highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// Returns the roles that the rules give to an identity in the pool `pool`.
    fn roles(rules: &AccessRules, identity: Option<&Identity>, pool: &str) -> Vec<AccessRole> {
        let pool = pool.parse().unwrap();
        let permitted = |role: &AccessRole| rules.permits(HOST, identity, *role, Some(&pool));
        AccessRole::ALL.into_iter().filter(permitted).collect()
    }

    #[test]
    fn a_role_without_ranges_is_everybodys() {
        let rules = AccessRules::default();
        assert!(rules.allows(AccessRole::Registrar, address("192.0.2.1")));
        let rules = rules.allow(AccessRole::Registrar, [range("10.0.0.0/8")]);
        assert!(!rules.allows(AccessRole::Registrar, address("192.0.2.1")));
        assert!(rules.allows(AccessRole::User, address("192.0.2.1")));
        let rules = rules.allow(AccessRole::Registrar, [range("192.0.2.0/24")]);
        assert!(rules.allows(AccessRole::Registrar, address("192.0.2.1")));
        assert!(rules.allows(AccessRole::Registrar, address("10.0.0.1")));
        let nobody = rules.allow(AccessRole::User, []);
        assert!(!nobody.allows(AccessRole::User, address("192.0.2.1")));
    }

    #[test]
    fn certificates_grant_roles_unless_the_rules_do() {
        use AccessRole::{Element, Registrar, User};
        let plain = Identity::new(["spiffe://example.org/calc"]);
        let limited = Identity::new(["spiffe://example.org/calc", "rserpool:element:Calc*"]);
        let wrong = Identity::new(["rserpool:elephant"]);
        let anonymous = Identity::default();
        let rules = AccessRules::default();
        assert_eq!(roles(&rules, None, "CalcPool"), [Registrar, Element, User]);
        assert_eq!(roles(&rules, Some(&plain), "CalcPool"), [Registrar, Element, User]);
        assert_eq!(roles(&rules, Some(&limited), "CalcPool"), [Element]);
        assert_eq!(roles(&rules, Some(&limited), "EchoPool"), []);
        assert_eq!(roles(&rules, Some(&wrong), "CalcPool"), []);
        assert_eq!(roles(&rules, Some(&anonymous), "CalcPool"), [User]);
        let rules = rules.require_identity();
        assert_eq!(roles(&rules, None, "CalcPool"), []);
        assert_eq!(roles(&rules, Some(&plain), "CalcPool"), [Registrar, Element, User]);
        let grant = |name: &str, grant: &str| {
            AccessRules::default().grant(name.parse().unwrap(), grant.parse().unwrap())
        };
        let rules = grant("spiffe://example.org/*", "user:*");
        assert_eq!(roles(&rules, None, "CalcPool"), []);
        assert_eq!(roles(&rules, Some(&plain), "CalcPool"), [User]);
        assert_eq!(roles(&rules, Some(&limited), "CalcPool"), [User]);
        assert_eq!(roles(&rules, Some(&anonymous), "CalcPool"), []);
        let rules = grant("anonymous", "user:Calc*");
        assert_eq!(roles(&rules, Some(&anonymous), "CalcPool"), [User]);
        assert_eq!(roles(&rules, Some(&anonymous), "EchoPool"), []);
        let rules = grant("*", "registrar").allow(Registrar, [range("10.0.0.0/8")]);
        assert_eq!(roles(&rules, Some(&plain), "CalcPool"), [], "both rules have to hold");
    }

    #[test]
    fn a_certificate_can_name_the_identifier_of_a_registrar() {
        let permit = |name: &str, identifier| {
            let identity = Identity::new([name]);
            let permissions = AccessRules::default().permissions(HOST, Some(&identity));
            permissions.permit_identifier(RegistrarId(identifier))
        };
        assert!(permit("rserpool:registrar:0x7", 7));
        assert!(!permit("rserpool:registrar:0x7", 8));
        assert!(permit("rserpool:registrar", 8));
        assert!(!permit("rserpool:element", 8));
        assert!(permit("r1.example.org", 8));
    }

    #[test]
    fn the_highest_limit_on_elements_counts() {
        let max = |names: &[&str]| {
            let identity = Identity::new(names.iter().copied());
            let permissions = AccessRules::default().permissions(HOST, Some(&identity));
            let limit = permissions.max_elements(&"EchoPool".parse().unwrap());
            limit.map(|(max, pools)| (max, pools.to_string()))
        };
        let limit = |max, pools: &str| Some((max, pools.to_owned()));
        assert_eq!(max(&["a"]), None);
        assert_eq!(max(&["rserpool:element:Echo*?max=3"]), limit(3, "Echo*"));
        let both = ["rserpool:element:*?max=5", "rserpool:element:Echo*?max=3"];
        assert_eq!(max(&both), limit(5, "*"));
        let other = ["rserpool:element:Calc*?max=5", "rserpool:element:Echo*?max=3"];
        assert_eq!(max(&other), limit(3, "Echo*"));
        assert_eq!(max(&["rserpool:element:*", "rserpool:element:Echo*?max=3"]), None);
    }
}
