//! Roles that are granted to an identity.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::{AccessRole, Pattern};
use crate::wire::{PoolHandle, RegistrarId};

/// Beginning of the URIs in certificates that grant roles.
const SCHEME: &str = "rserpool:";

/// The characters of a pattern that are percent-encoded in the text form of a grant: those that
/// cannot be in the path of a URI.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Grant of a role, limited to some pools or to one identifier.
///
/// The text form is one of the following. In a pattern for pool handles, `*` stands for any
/// characters, and characters that a URI cannot have are percent-encoded.
///
/// | text | meaning |
/// |---|---|
/// | `registrar` | a registrar |
/// | `registrar:0x1a2b3c4d` | the registrar with this identifier |
/// | `element` | an element of any pool |
/// | `element:Echo*` | an element of the pools that match the pattern |
/// | `element:Echo*?max=3` | the same, but at most 3 elements in these pools |
/// | `user` | a user of any pool |
/// | `user:Echo*` | a user of the pools that match the pattern |
///
/// A certificate can grant its holder roles by URIs, which have the scheme `rserpool` and the text
/// of a grant: `rserpool:element:Echo*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "RSerPool has no other roles")]
pub enum Grant {
    /// A registrar: replicates the handlespace with other registrars, and serves elements and users.
    Registrar {
        /// The identifier that the registrar has to use; `None` for any.
        identifier: Option<RegistrarId>,
    },
    /// A pool element: registers, and accepts sessions.
    Element {
        /// The handles of the pools.
        pools: Pattern,
        /// The maximum number of registered elements in these pools. Each registrar counts those
        /// whose home it is.
        max: Option<u32>,
    },
    /// A pool user: resolves pool handles, subscribes to pools, reports elements, and opens
    /// sessions.
    User {
        /// The handles of the pools.
        pools: Pattern,
    },
}

/// Error of parsing a [`Grant`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot parse {0:?} as a role: write registrar, registrar:0x1a2b3c4d, element, element:POOL, \
     element:POOL?max=N, user or user:POOL"
)]
pub struct InvalidGrant(String);

impl Grant {
    /// Returns the grant as a URI for a certificate.
    #[must_use]
    pub fn to_uri(&self) -> String {
        format!("{SCHEME}{self}")
    }

    /// Parses a name in a certificate. Returns `None` for a name that is not meant to grant a role.
    pub(super) fn from_uri(name: &str) -> Option<Result<Self, InvalidGrant>> {
        let scheme = name.get(..SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then(|| name[SCHEME.len()..].parse())
    }

    /// Returns the granted role.
    #[must_use]
    pub fn role(&self) -> AccessRole {
        match self {
            Self::Registrar { .. } => AccessRole::Registrar,
            Self::Element { .. } => AccessRole::Element,
            Self::User { .. } => AccessRole::User,
        }
    }

    /// Returns whether the grant includes this role, in this pool if one is given.
    pub(super) fn includes(&self, role: AccessRole, pool: Option<&PoolHandle>) -> bool {
        let pools = match self {
            Self::Registrar { .. } => None,
            Self::Element { pools, .. } | Self::User { pools } => Some(pools),
        };
        let matches = |pools: &Pattern| pool.is_none_or(|pool| pools.matches(pool.as_bytes()));
        self.role() == role && pools.is_none_or(matches)
    }
}

impl FromStr for Grant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        parse(text).ok_or_else(|| InvalidGrant(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Grant> {
    let (role, rest) = match text.split_once(':') {
        Some((role, rest)) => (role, Some(rest)),
        None => (text, None),
    };
    let pools = |text: Option<&str>| match text {
        Some(text) => percent_decode_str(text).decode_utf8().ok()?.parse().ok(),
        None => Some(Pattern::any()),
    };
    match role {
        "registrar" => {
            let identifier = match rest {
                Some(rest) => Some(rest.parse().ok().filter(|it| *it != RegistrarId(0))?),
                None => None,
            };
            Some(Grant::Registrar { identifier })
        }
        "element" => {
            let (pattern, max) = match rest.and_then(|rest| rest.split_once('?')) {
                Some((pattern, query)) => {
                    let digits = query.strip_prefix("max=").filter(|it| !it.starts_with('+'))?;
                    (Some(pattern), Some(digits.parse().ok()?))
                }
                None => (rest, None),
            };
            Some(Grant::Element { pools: pools(pattern)?, max })
        }
        "user" if rest.is_none_or(|rest| !rest.contains('?')) => {
            Some(Grant::User { pools: pools(rest)? })
        }
        _ => None,
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = |pools: &Pattern| utf8_percent_encode(pools.as_str(), ENCODED).to_string();
        match self {
            Self::Registrar { identifier: None } => f.write_str("registrar"),
            Self::Registrar { identifier: Some(identifier) } => write!(f, "registrar:{identifier}"),
            Self::Element { pools, max: None } => write!(f, "element:{}", encoded(pools)),
            Self::Element { pools, max: Some(max) } => {
                write!(f, "element:{}?max={max}", encoded(pools))
            }
            Self::User { pools } => write!(f, "user:{}", encoded(pools)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_parsed_and_printed() {
        let long = ["registrar", "registrar:0x1a2b3c4d", "element:*", "element:Echo*?max=3"];
        for text in long.into_iter().chain(["user:*", "user:a%20b%25%3F%C3%A9:/c"]) {
            let grant: Grant = text.parse().unwrap();
            assert_eq!(grant.to_string(), text);
            assert_eq!(Grant::from_uri(&grant.to_uri()), Some(Ok(grant)));
        }
        let any = Pattern::any();
        assert_eq!("element".parse(), Ok(Grant::Element { pools: any.clone(), max: None }));
        assert_eq!("user".parse(), Ok(Grant::User { pools: any }));
        let umlaut: Grant = "user:a%20b%25%3F%C3%A9:/c".parse().unwrap();
        assert!(umlaut.includes(AccessRole::User, Some(&"a b%?\u{e9}:/c".parse().unwrap())));
    }

    #[test]
    fn wrong_grants_are_refused() {
        for wrong in [
            "",
            "admin",
            "Registrar",
            "registrar:",
            "registrar:0x",
            "registrar:0x0",
            "registrar:0x123456789",
            "element:",
            "element:%FF",
            "element:a?",
            "element:a?max=",
            "element:a?max=-1",
            "element:a?max=+1",
            "element:a?min=1",
            "element:a?max=4294967296",
            "user:a?max=1",
            "user:",
        ] {
            let error = wrong.parse::<Grant>().unwrap_err();
            assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
            let uri = format!("rserpool:{wrong}");
            assert!(Grant::from_uri(&uri).unwrap().is_err(), "{uri}");
        }
        assert_eq!(Grant::from_uri("spiffe://example.org/element"), None);
        assert_eq!(Grant::from_uri("rserpoo"), None);
        assert!(Grant::from_uri("RSERPOOL:user").unwrap().is_ok());
    }

    #[test]
    fn a_grant_holds_for_its_role_and_pools_only() {
        let grant: Grant = "element:Echo*".parse().unwrap();
        let echo = "EchoPool".parse().unwrap();
        let other = "CalcPool".parse().unwrap();
        assert!(grant.includes(AccessRole::Element, Some(&echo)));
        assert!(grant.includes(AccessRole::Element, None));
        assert!(!grant.includes(AccessRole::Element, Some(&other)));
        assert!(!grant.includes(AccessRole::User, Some(&echo)));
        assert!(!grant.includes(AccessRole::Registrar, None));
    }
}
