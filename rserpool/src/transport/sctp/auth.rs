//! Authentication of chunks by shared keys (SCTP-AUTH, RFC 4895).

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rserpool_proto::Identity;
use socket2::Socket;
use zeroize::Zeroizing;

use super::options;
use crate::key_file::{self, KEY_LENGTH, KeyFileError, NamedKey};
use crate::sys::{self, AssociationId};

const CHUNK: i32 = 21;
const KEY: i32 = 23;
const ACTIVE_KEY: i32 = 24;
const DELETE_KEY: i32 = 25;

/// The types of the chunks that have to be authenticated: those that carry or skip data, and change
/// streams or addresses.
///
/// COOKIE ACK is among them, so that an end that dials does not take a peer without the key for one
/// that has it. Linux does not accept an authenticated COOKIE ECHO, so an end that accepts cannot
/// refuse such a peer in the same way. But the peer cannot answer a HEARTBEAT either, so that the
/// association fails a few seconds later.
const CHUNKS: [u8; 9] = [
    0,    // DATA
    5,    // HEARTBEAT ACK
    11,   // COOKIE ACK
    0x40, // I-DATA
    0x80, // ASCONF-ACK
    0x82, // RE-CONFIG
    0xc0, // FORWARD TSN
    0xc1, // ASCONF
    0xc2, // I-FORWARD-TSN
];

/// Name of the identity of the peer of an association, which has a key if anything arrives from it.
const IDENTITY: &str = "sctp-auth";

/// The keys that all ends of associations share (RFC 4895 section 6). The first key authenticates what
/// is sent; what is received may be authenticated by any of them.
///
/// To replace a key, add the new one behind the old one everywhere, then move it to the front
/// everywhere, and then remove the old one. Keys are read when an endpoint is opened.
#[derive(Clone)]
pub struct AuthKeys(Arc<[NamedKey]>);

impl fmt::Debug for AuthKeys {
    /// Formats the numbers of the keys, never the keys themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(number, _)| number)).finish()
    }
}

impl AuthKeys {
    /// Reads keys from text. Each line has a key: its number, from 1 to 65535, a colon, and 64
    /// hexadecimal digits. The number is sent with each authenticated chunk, so it has to be the same
    /// everywhere. Empty lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if a line is not a key, a number is not allowed or occurs twice, or there is
    /// no key.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        Self::new(key_file::parse(text)?)
    }

    /// Reads keys from a file, see [`Self::parse`].
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, if other users of the host can read it, or in the
    /// cases of [`Self::parse`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        Self::new(key_file::read(path.as_ref())?)
    }

    fn new(keys: Vec<NamedKey>) -> Result<Self, KeyFileError> {
        // Number 0 is that of the empty key, which everybody has.
        match keys.iter().find(|(number, _)| !(1..=u16::MAX.into()).contains(number)) {
            Some((number, _)) => Err(KeyFileError::Name(*number)),
            None => Ok(Self(keys.into())),
        }
    }

    /// Requires authentication by these keys for the associations of a socket.
    pub(super) fn require(&self, socket: &Socket) -> io::Result<()> {
        options::enable_authentication(socket)?;
        for chunk in CHUNKS {
            sys::set_option(socket, CHUNK, &[chunk])?;
        }
        // The association identifier 0 sets the keys of future associations.
        let association = [0; 4];
        for (number, key) in &*self.0 {
            let [number, length] = [number_of(*number), KEY_LENGTH as u16].map(u16::to_ne_bytes);
            let mut value = Zeroizing::new(Vec::with_capacity(8 + KEY_LENGTH));
            value.extend([&association[..], &number, &length, &key[..]].into_iter().flatten());
            sys::set_option(socket, KEY, &value)?;
        }
        let Some((first, _)) = self.0.first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let identify = |number: u16| [&association[..], &number.to_ne_bytes(), &[0; 2]].concat();
        sys::set_option(socket, ACTIVE_KEY, &identify(number_of(*first)))?;
        sys::set_option(socket, DELETE_KEY, &identify(0))
    }

    /// Returns the identity of the peer of an established association.
    ///
    /// # Errors
    ///
    /// Returns an error if the peer does not support authentication. The kernel does not require it
    /// then.
    pub(super) fn identify(
        &self,
        socket: &Socket,
        association: AssociationId,
    ) -> io::Result<Identity> {
        match options::is_authenticated(socket, association)? {
            true => Ok(Identity::new([IDENTITY])),
            false => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the peer does not use SCTP-AUTH",
            )),
        }
    }
}

fn number_of(name: u32) -> u16 {
    u16::try_from(name).expect("checked when the keys were read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_numbers_that_fit_the_protocol() {
        let line = |number: u32| format!("{number}:{}\n", "0f".repeat(32));
        let keys = AuthKeys::parse(&(line(2) + &line(65_535))).unwrap();
        assert_eq!(format!("{keys:?}"), "[2, 65535]");
        for number in [0, 65_536] {
            let error = AuthKeys::parse(&line(number)).unwrap_err();
            assert!(error.to_string().contains(&number.to_string()), "{error}");
        }
        assert!(matches!(AuthKeys::parse(""), Err(KeyFileError::Empty)));
        assert!(matches!(AuthKeys::parse(&line(1).repeat(2)), Err(KeyFileError::Twice(1))));
        assert!(matches!(AuthKeys::parse("1:0f"), Err(KeyFileError::Line { line: 1 })));
    }
}
