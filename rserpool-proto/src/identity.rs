//! Authenticated identities, and patterns that select them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The authenticated identity of the other end of a connection: the names in its certificate, such
/// as `spiffe://example.org/calc` (a URI) or `calc.example.org` (a DNS name).
///
/// A party without a certificate, on a transport that allows that, has an identity without names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Identity(Arc<[Box<str>]>);

impl Identity {
    /// Creates an identity with these names.
    pub fn new<N: Into<Box<str>>>(names: impl IntoIterator<Item = N>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// Returns the names, URIs first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    /// Returns whether a name matches a pattern.
    #[must_use]
    pub fn matches(&self, pattern: &Pattern) -> bool {
        self.names().any(|name| pattern.matches(name.as_bytes()))
    }
}

impl fmt::Display for Identity {
    /// Writes the names, separated by commas. Characters that could disturb a terminal are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("anonymous");
        }
        for (index, name) in self.names().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            name.escape_debug().fmt(f)?;
        }
        Ok(())
    }
}

/// A pattern for names and pool handles, in which `*` stands for any number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// Error of parsing a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has from 1 to {} bytes", Pattern::MAX_LENGTH)]
#[allow(clippy::exhaustive_structs, reason = "it has no more to say")]
pub struct InvalidPattern;

impl Pattern {
    /// Maximum length in bytes. Not from the RFCs: bounds the time of a match.
    pub const MAX_LENGTH: usize = 1024;

    /// Returns the pattern that matches everything.
    #[must_use]
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Returns whether the pattern matches all of `name`.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let mut parts = self.0.as_bytes().split(|byte| *byte == b'*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        // The first occurrence of each part leaves the most for the following ones.
        for part in parts {
            let mut windows = rest.windows(part.len().max(1));
            let found = if part.is_empty() { Some(0) } else { windows.position(|it| it == part) };
            let Some(at) = found else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        match text.len() {
            1..=Self::MAX_LENGTH => Ok(Self(text.into())),
            _ => Err(InvalidPattern),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_bytes() {
        let matches = |pattern: &str, name: &str| {
            pattern.parse::<Pattern>().unwrap().matches(name.as_bytes())
        };
        assert!(matches("EchoPool", "EchoPool"));
        assert!(!matches("EchoPool", "EchoPool2"));
        assert!(!matches("EchoPool", "EchoPoo"));
        assert!(matches("*", "") && matches("*", "EchoPool"));
        assert!(matches("Echo*", "Echo") && matches("Echo*", "EchoPool"));
        assert!(!matches("Echo*", "MyEcho"));
        assert!(matches("*Pool", "EchoPool") && !matches("*Pool", "EchoPools"));
        assert!(matches("a*b*c", "abbc") && matches("a*b*c", "abc") && !matches("a*b*c", "acb"));
        assert!(matches("a**c", "ac") && matches("a**c", "abc"));
        assert!(!matches("ab*ba", "aba"), "a byte is not used twice");
        assert!(matches("*x*", "axb") && !matches("*x*", "ab"));
    }

    #[test]
    fn a_pattern_is_not_empty_and_not_endless() {
        assert_eq!("".parse::<Pattern>(), Err(InvalidPattern));
        assert!("*".repeat(Pattern::MAX_LENGTH).parse::<Pattern>().is_ok());
        assert_eq!("*".repeat(Pattern::MAX_LENGTH + 1).parse::<Pattern>(), Err(InvalidPattern));
    }

    #[test]
    fn an_identity_is_printed_without_control_characters() {
        let identity = Identity::new(["spiffe://example.org/a", "b\u{1b}[2J"]);
        assert_eq!(identity.to_string(), "spiffe://example.org/a, b\\u{1b}[2J");
        assert!(identity.matches(&"spiffe://*/a".parse().unwrap()));
        assert!(!identity.matches(&"c".parse().unwrap()));
        assert_eq!(Identity::default().to_string(), "anonymous");
    }
}
