//! Identifiers, pool handles and registration lifetimes.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use smallvec::SmallVec;

macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#010x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

identifier! {
    /// The identifier of a pool element, unique within its pool (RFC 5354 section 3.14). The
    /// element draws it at random when it starts; zero means "none".
    PoolElementId
}

identifier! {
    /// The identifier of a registrar, which the RFCs call ENRP server (RFC 5353 section 3.2.1).
    /// Zero means "undetermined" in a pool element parameter and "everyone" in a presence.
    RegistrarId
}

/// The name of a pool: one or more bytes, not necessarily text (RFC 5354 section 3.9). A handle of
/// at most 24 bytes, which is usual, is stored inline.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolHandle(SmallVec<[u8; 24]>);

impl PoolHandle {
    /// The maximum length of a handle in bytes. Not from the RFCs, which set no limit (rsplib's is
    /// 32 bytes): it leaves room for a pool element in the same message.
    pub const MAX_LENGTH: usize = 4096;

    /// Creates a pool handle of `bytes`.
    ///
    /// # Errors
    ///
    /// Returns an error if `bytes` is empty or longer than [`Self::MAX_LENGTH`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, InvalidPoolHandle> {
        let bytes = bytes.as_ref();
        match bytes.len() {
            0 => Err(InvalidPoolHandle::Empty),
            length if length > Self::MAX_LENGTH => Err(InvalidPoolHandle::TooLong { length }),
            _ => Ok(Self(SmallVec::from_slice(bytes))),
        }
    }

    /// Returns an empty handle, which is not valid, as a placeholder that decoding overwrites.
    #[inline]
    pub(super) fn nameless() -> Self {
        Self(SmallVec::new())
    }

    /// Returns the bytes of the handle.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Returns whether a character can be printed without effects on the text around it. Control
/// characters and the invisible ones that change the direction or the look of text cannot.
#[must_use]
pub fn is_printable(character: char) -> bool {
    let is_invisible = matches!(
        character,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    );
    !character.is_control() && !is_invisible
}

/// Returns the text with the characters escaped that cannot be printed, see [`is_printable`].
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match is_printable(character) {
            true => escaped.push(character),
            false => escaped.extend(character.escape_default()),
        }
    }
    escaped
}

impl fmt::Display for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if text.chars().all(is_printable) => f.write_str(text),
            _ => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

impl fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolHandle(\"{self}\")")
    }
}

impl std::str::FromStr for PoolHandle {
    type Err = InvalidPoolHandle;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl From<&Self> for PoolHandle {
    fn from(handle: &Self) -> Self {
        handle.clone()
    }
}

macro_rules! pool_handle_from {
    ($($bytes:ty),*) => {
        $(impl TryFrom<$bytes> for PoolHandle {
            type Error = InvalidPoolHandle;

            fn try_from(bytes: $bytes) -> Result<Self, Self::Error> {
                Self::new(bytes)
            }
        })*
    };
}

pool_handle_from!(&str, String, &String, &[u8], Vec<u8>);

/// Lets functions that accept any type convertible into a [`PoolHandle`] also accept a
/// [`PoolHandle`] itself, whose conversion cannot fail.
impl From<Infallible> for InvalidPoolHandle {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Error of [`PoolHandle::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPoolHandle {
    /// The handle has no bytes.
    #[error("cannot use the pool handle: it is empty")]
    Empty,
    /// The handle is longer than [`PoolHandle::MAX_LENGTH`].
    #[error(
        "cannot use the pool handle: {length} bytes exceed the limit of {}",
        PoolHandle::MAX_LENGTH
    )]
    TooLong {
        /// The length of the rejected handle in bytes.
        length: usize,
    },
}

/// The time for which a registration is valid, in seconds; -1 means without limit (RFC 5354 section
/// 3.10).
///
/// rsplib fills this field with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegistrationLife(pub i32);

impl RegistrationLife {
    /// A registration that does not expire.
    pub const INFINITE: Self = Self(-1);

    /// Converts `duration` to whole seconds, rounded up.
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
        Self(i32::try_from(seconds).unwrap_or(i32::MAX))
    }

    /// Returns the lifetime; `None` if it is infinite.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_printed_without_what_disturbs_a_terminal() {
        let printed = |handle: &str| handle.parse::<PoolHandle>().unwrap().to_string();
        assert_eq!(printed("Echo Pool \u{fc}"), "Echo Pool \u{fc}");
        for disturbing in ["\u{1b}[2J", "a\u{202e}b", "a\u{200b}b", "a\u{2066}b", "\u{feff}a"] {
            assert!(printed(disturbing).is_ascii(), "{disturbing:?}");
            assert!(printed(disturbing).chars().all(is_printable), "{disturbing:?}");
        }
    }
}
