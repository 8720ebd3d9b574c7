//! Files that only their owner may read, such as those with keys.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

/// Error of reading a private file.
#[derive(Debug)]
pub(crate) enum Unread {
    Io(io::Error),
    /// Other users of the host can read the file.
    #[cfg_attr(not(unix), allow(dead_code, reason = "only Unix has these permissions"))]
    NotPrivate,
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a file, unless other users of the host can read it, too (on Unix). The content is wiped
/// from memory when it is dropped.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let mut file = File::open(path)?;
    let data = file.metadata()?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&data.permissions()) & 0o077 != 0 {
        return Err(Unread::NotPrivate);
    }
    // With room for all of the file, the buffer does not move, which would leave a copy behind.
    let length = usize::try_from(data.len()).unwrap_or(0);
    let mut content = Zeroizing::new(Vec::with_capacity(length.saturating_add(1)));
    file.read_to_end(&mut content)?;
    Ok(content)
}
