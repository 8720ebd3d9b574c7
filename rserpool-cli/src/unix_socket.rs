//! Unix sockets to listen on.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use tokio::net::{UnixListener, UnixStream};

/// A listening Unix socket, whose file is removed with it.
pub(crate) struct UnixSocket {
    // The file is removed before the socket is closed: another program that listens at the path would
    // lose its file otherwise.
    file: File,
    listener: UnixListener,
}

struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl UnixSocket {
    /// Listens at a path, to which all may connect who may write to the file: all those that the umask
    /// allows.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        Ok(Self { file: File(path.to_owned()), listener })
    }

    /// Listens at a path, to which the own user and group may connect.
    pub(crate) fn listen_for_group(path: &Path) -> io::Result<Self> {
        let before = rustix::process::umask(Mode::from(0o117));
        let socket = Self::listen(path);
        rustix::process::umask(before);
        socket
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.0
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

/// Removes a socket that a program left behind, which refuses connections.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
