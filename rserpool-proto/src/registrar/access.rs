//! Rules on the hosts that may use a registrar (RFC 5355: answers to threats without TLS).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::{Event, Registrar};

/// A range of addresses, such as `10.0.0.0/8` or `2001:db8::/32`. A single address is a range, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange(IpNet);

/// Error of parsing an [`AddressRange`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot parse {0:?} as a range of addresses, such as 10.0.0.0/8 or 2001:db8::1")]
pub struct InvalidAddressRange(String);

impl AddressRange {
    /// Returns whether the range contains an address. An IPv4 address in IPv6 form is the IPv4
    /// address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

impl FromStr for AddressRange {
    type Err = InvalidAddressRange;

    fn from_str(text: &str) -> Result<Self, InvalidAddressRange> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(address.into()),
            Err(_) => text.parse().map(Self).map_err(|_| InvalidAddressRange(text.to_owned())),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Role in which a host uses a registrar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "RSerPool has no other roles")]
pub enum AccessRole {
    /// Another registrar, which replicates the handlespace.
    Peer,
    /// A pool element, which registers.
    Element,
    /// A pool user, which resolves pool handles, subscribes to pools and reports elements.
    User,
}

impl AccessRole {
    const COUNT: usize = 3;
}

impl fmt::Display for AccessRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "peer",
            Self::Element => "element",
            Self::User => "user",
        })
    }
}

/// The hosts that may use a registrar, for each role. Default: all hosts may do everything.
///
/// A host that may be neither an element nor a user cannot connect over ASAP, and one that may not
/// be a peer cannot connect over ENRP: its connections are closed before a message is read. Requests
/// of other hosts beyond their role are refused with the cause "rejected due to security
/// considerations" (RFC 5354 section 3.12.11).
///
/// The rules are as good as the network's protection against false source addresses. Over SCTP, a
/// host is known by the address from which it made the association.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessRules {
    allowed: [Option<Vec<AddressRange>>; AccessRole::COUNT],
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

    /// Returns whether a host has a role.
    #[must_use]
    pub fn allows(&self, role: AccessRole, host: IpAddr) -> bool {
        let ranges = self.allowed[role as usize].as_ref();
        ranges.is_none_or(|ranges| ranges.iter().any(|range| range.contains(host)))
    }
}

/// The number of requests and connections that were denied, for each role.
#[derive(Debug, Default)]
pub(super) struct Denials([u64; AccessRole::COUNT]);

impl Registrar {
    /// Returns the number of connections and requests of hosts without this role that were denied.
    /// A connection that neither an element nor a user may make counts for both.
    #[must_use]
    pub fn denials(&self, role: AccessRole) -> u64 {
        self.denials.0[role as usize]
    }

    /// Returns whether the rules allow a host one of these roles, and counts a denial if not.
    pub(super) fn grants(&mut self, host: IpAddr, roles: &[AccessRole]) -> bool {
        let granted = roles.iter().any(|role| self.config.access.allows(*role, host));
        if !granted {
            for role in roles {
                self.denials.0[*role as usize] += 1;
                self.out.event(Event::Denied(*role, host));
            }
        }
        granted
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

    #[test]
    fn ranges_are_parsed_and_printed() {
        assert!(range("10.0.0.0/8").contains(address("10.255.0.1")));
        assert!(!range("10.0.0.0/8").contains(address("11.0.0.1")));
        assert!(range("10.0.0.0/8").contains(address("::ffff:10.0.0.1")));
        assert!(range("::ffff:10.0.0.1").contains(address("10.0.0.1")));
        assert!(range("2001:db8::/32").contains(address("2001:db8::7")));
        assert!(range("192.0.2.1").contains(address("192.0.2.1")));
        assert!(!range("192.0.2.1").contains(address("192.0.2.2")));
        assert_eq!(range("192.0.2.1").to_string(), "192.0.2.1/32");
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "host", "10.0.0.0/8 "] {
            let error = wrong.parse::<AddressRange>().unwrap_err();
            assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
        }
    }

    #[test]
    fn a_role_without_ranges_is_everybodys() {
        let rules = AccessRules::default();
        assert!(rules.allows(AccessRole::Peer, address("192.0.2.1")));
        let rules = rules.allow(AccessRole::Peer, [range("10.0.0.0/8")]);
        assert!(!rules.allows(AccessRole::Peer, address("192.0.2.1")));
        assert!(rules.allows(AccessRole::User, address("192.0.2.1")));
        let rules = rules.allow(AccessRole::Peer, [range("192.0.2.0/24")]);
        assert!(rules.allows(AccessRole::Peer, address("192.0.2.1")));
        assert!(rules.allows(AccessRole::Peer, address("10.0.0.1")));
        let nobody = rules.allow(AccessRole::User, []);
        assert!(!nobody.allows(AccessRole::User, address("192.0.2.1")));
    }
}
