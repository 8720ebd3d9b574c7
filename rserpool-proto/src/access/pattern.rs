//! Patterns for names and pool handles.

use std::fmt;
use std::str::FromStr;

/// A pattern for the names in certificates or for pool handles, in which `*` stands for any number
/// of characters: `Echo*`, `spiffe://example.org/calc/*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// Error of parsing a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has from 1 to {} bytes", Pattern::MAX_LENGTH)]
#[allow(clippy::exhaustive_structs, reason = "there is no other error")]
pub struct InvalidPattern;

impl Pattern {
    /// Maximum length in bytes. Not from the RFCs: bounds the time of a match.
    pub const MAX_LENGTH: usize = 1024;

    /// Returns the pattern that matches everything, `*`.
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
        for part in parts.filter(|part| !part.is_empty()) {
            let found = rest.windows(part.len()).position(|window| window == part);
            let Some(at) = found else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
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
        assert!(Pattern::any().matches(b"\xff"));
    }

    #[test]
    fn a_pattern_is_not_empty_and_not_endless() {
        assert_eq!("".parse::<Pattern>(), Err(InvalidPattern));
        assert!("*".repeat(Pattern::MAX_LENGTH).parse::<Pattern>().is_ok());
        assert_eq!("*".repeat(Pattern::MAX_LENGTH + 1).parse::<Pattern>(), Err(InvalidPattern));
    }
}
