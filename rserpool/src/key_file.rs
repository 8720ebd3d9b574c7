//! Files of secret keys: one key a line, a number, a colon and 64 hexadecimal digits.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::private_file::{self, Unread};

/// Length of a key in bytes.
pub(crate) const KEY_LENGTH: usize = 32;

/// A key and its name in the file.
pub(crate) type NamedKey = (u32, Zeroizing<[u8; KEY_LENGTH]>);

/// Error of reading a file of keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("cannot read the key file")]
    Read(#[from] io::Error),
    /// Other users of the host can read the file.
    #[error("others can read the key file {0}: run `chmod 600 {0}`, or create a new key")]
    NotPrivate(PathBuf),
    /// A line is not a key.
    #[error(
        "line {line} of the key file is not a key: it wants to be NAME:KEY, a number and 64 hexadecimal digits"
    )]
    Line {
        /// Number of the line, from 1 on.
        line: usize,
    },
    /// Two keys have the same name.
    #[error("two keys have the name {0}")]
    Twice(u32),
    /// The name of a key is not allowed for its use.
    #[error("a key has the name {0}: SCTP-AUTH allows numbers from 1 to 65535")]
    Name(u32),
    /// There is no key.
    #[error("there is no key in the key file")]
    Empty,
}

/// Reads the keys of a file, see [`parse`].
pub(crate) fn read(path: &Path) -> Result<Vec<NamedKey>, KeyFileError> {
    let content = private_file::read(path).map_err(|error| match error {
        Unread::Io(error) => KeyFileError::Read(error),
        Unread::NotPrivate => KeyFileError::NotPrivate(path.to_owned()),
    })?;
    let text = std::str::from_utf8(&content);
    parse(text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?)
}

/// Reads keys from text. Empty lines and lines that begin with `#` are ignored.
pub(crate) fn parse(text: &str) -> Result<Vec<NamedKey>, KeyFileError> {
    let mut keys: Vec<NamedKey> = Vec::new();
    for (line, content) in (1..).zip(text.lines().map(str::trim)) {
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let (name, key) = parse_line(content).ok_or(KeyFileError::Line { line })?;
        if keys.iter().any(|(other, _)| *other == name) {
            return Err(KeyFileError::Twice(name));
        }
        keys.push((name, key));
    }
    if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(keys) }
}

fn parse_line(line: &str) -> Option<NamedKey> {
    let (name, digits) = line.split_once(':')?;
    let digits = digits.trim();
    if digits.len() != 2 * KEY_LENGTH || !digits.is_ascii() {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    for (byte, at) in key.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some((name.trim().parse().ok()?, key))
}
