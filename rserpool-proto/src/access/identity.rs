//! Authenticated identities.

use std::fmt;
use std::sync::Arc;

use super::Grant;
use crate::wire::escape;

/// Name of a party without a certificate.
const ANONYMOUS: &str = "anonymous";

/// The authenticated identity of the other end of a connection: the names in its certificate, such
/// as `spiffe://example.org/calc` (a URI) or `calc.example.org` (a DNS name).
///
/// A party without a certificate, on a transport that allows that, has an identity without names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Identity(Arc<Vec<Box<str>>>);

impl Identity {
    /// Creates an identity with these names.
    pub fn new<N: Into<Box<str>>>(names: impl IntoIterator<Item = N>) -> Self {
        Self(Arc::new(names.into_iter().map(Into::into).collect()))
    }

    /// Returns the names, URIs first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// Returns whether the party has no certificate.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the identity without the names that grant roles: what stays the same when a certificate
    /// is renewed with other roles. Without any other name, returns the identity as it is.
    #[must_use]
    pub fn party(&self) -> Self {
        let names: Vec<_> = self.names().filter(|name| Grant::from_uri(name).is_none()).collect();
        if names.is_empty() || names.len() == self.0.len() {
            return self.clone();
        }
        Self::new(names)
    }

    /// Returns the names to which rules grant roles.
    pub(super) fn names_or_anonymous(&self) -> impl Iterator<Item = &str> {
        self.names().chain(self.is_anonymous().then_some(ANONYMOUS))
    }
}

impl fmt::Display for Identity {
    /// Writes the names, separated by commas. Characters that could disturb a terminal are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(ANONYMOUS);
        }
        for (index, name) in self.names().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            escape(name).fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_stays_the_same_with_other_roles() {
        let party = |names: &[&str]| Identity::new(names.iter().copied()).party();
        let plain = Identity::new(["spiffe://example.org/a"]);
        assert_eq!(party(&["spiffe://example.org/a"]), plain);
        assert_eq!(party(&["spiffe://example.org/a", "rserpool:user:*"]), plain);
        assert_ne!(party(&["spiffe://example.org/b", "rserpool:user:*"]), plain);
        assert_ne!(party(&["rserpool:user:*"]), party(&["rserpool:element:*"]));
        assert_eq!(party(&[]), Identity::default());
    }

    #[test]
    fn an_identity_is_printed_without_control_characters() {
        let identity = Identity::new(["spiffe://example.org/a", "b\u{1b}[2J"]);
        assert_eq!(identity.to_string(), "spiffe://example.org/a, b\\u{1b}[2J");
        assert_eq!(Identity::default().to_string(), "anonymous");
    }
}
