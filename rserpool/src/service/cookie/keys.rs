//! The keys that seal cookies.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::Rng;
use zeroize::Zeroizing;

use crate::key_file::{self, KEY_LENGTH, KeyFileError, NamedKey};

/// The keys that the servers of a pool share. The first key seals, all of them open. To replace a
/// key, add the new one behind the old one at all servers. Then move it to the front at all
/// servers, and remove the old one once the cookies that it sealed have expired.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<Key>,
}

/// A key that seals cookies.
#[derive(Clone)]
pub(super) struct Key {
    /// Name in the key file.
    name: u32,
    /// Number that identifies the key in cookies. It is derived from the key, so that two keys with
    /// the same name can be told apart.
    pub(super) fingerprint: u32,
    pub(super) cipher: XChaCha20Poly1305,
}

impl Key {
    fn new(name: u32, key: &[u8; KEY_LENGTH]) -> Self {
        let cipher = XChaCha20Poly1305::new(key.into());
        // The nonces of cookies are random, so that this one is used for nothing else.
        let (nonce, text) = (XNonce::default(), b"fingerprint");
        let tag = cipher
            .encrypt_inout_detached(&nonce, text, (&mut [][..]).into())
            .expect("far shorter than what one nonce is good for");
        let fingerprint = u32::from_be_bytes([tag[0], tag[1], tag[2], tag[3]]);
        Self { name, fingerprint, cipher }
    }
}

impl fmt::Debug for KeyRing {
    /// Formats the names of the keys, never the keys themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| key.name)).finish()
    }
}

impl KeyRing {
    /// Returns a ring of one key drawn at random, for servers that share a process.
    #[must_use]
    pub fn generate() -> Self {
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        rand::rng().fill_bytes(&mut *key);
        Self { keys: vec![Key::new(1, &key)] }
    }

    /// Reads a ring from text. Each line has a key: its name, a colon, and 64 hexadecimal digits.
    /// The name is a number for people; cookies carry a fingerprint of the key. Empty lines and
    /// lines that begin with `#` are ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if a line is not a key, a name occurs twice, or there is no key.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        Ok(Self::new(&key_file::parse(text)?))
    }

    /// Reads a ring from a file, see [`Self::parse`].
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, if other users of the host can read it (on Unix),
    /// or in the cases of [`Self::parse`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        Ok(Self::new(&key_file::read(path.as_ref())?))
    }

    fn new(keys: &[NamedKey]) -> Self {
        Self { keys: keys.iter().map(|(name, key)| Key::new(*name, key)).collect() }
    }

    /// Creates a key file with a key drawn at random, which only its owner can read.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be created, or exists already.
    pub fn create_file(path: impl AsRef<Path>, name: u32) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let line = Zeroizing::new(Self::new_line(name));
        options.open(path)?.write_all(line.as_bytes())
    }

    /// Returns the line of a key file with a key drawn at random.
    #[must_use]
    pub fn new_line(name: u32) -> String {
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        rand::rng().fill_bytes(&mut *key);
        let mut line = format!("{name}:");
        line.reserve_exact(2 * KEY_LENGTH + 1);
        for digit in key.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            line.extend(char::from_digit(digit.into(), 16));
        }
        line.push('\n');
        line
    }

    pub(super) fn first(&self) -> &Key {
        self.keys.first().expect("a ring has a key")
    }

    pub(super) fn get(&self, fingerprint: u32) -> Option<&Key> {
        self.keys.iter().find(|key| key.fingerprint == fingerprint)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pool.keys");
        KeyRing::create_file(&file, 7).unwrap();
        assert_eq!(format!("{:?}", KeyRing::from_file(&file).unwrap()), "[7]");
        assert!(KeyRing::create_file(&file, 8).is_err(), "the file exists");
        for mode in [0o644, 0o640, 0o604, 0o620] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = KeyRing::from_file(&file).unwrap_err();
            assert!(matches!(error, KeyFileError::NotPrivate(_)), "{mode:o}: {error}");
        }
    }
}
