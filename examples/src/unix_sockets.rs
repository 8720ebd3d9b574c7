//! A transport over Unix sockets, for pools of processes on one host. The permissions of the socket
//! files control which processes may connect.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_io::Async;
use rserpool::TransportProtocol;
use rserpool::proto::wire::TransportAddress;
use rserpool::runtime::Runtime;
use rserpool::transport::{Connection, Endpoint, Purpose, StreamConnection, Transport};

/// Protocol of this transport in the addresses of elements. RFC 5354 numbers the protocols, and has
/// no number for Unix sockets. DCCP with an application's own service code is free for private use.
const PROTOCOL: TransportProtocol =
    TransportProtocol::Dccp { service_code: u32::from_be_bytes(*b"UNIX") };

/// Unix sockets in a folder, one file for each port.
#[derive(Debug, Clone)]
pub struct UnixSockets {
    folder: PathBuf,
}

impl UnixSockets {
    /// Returns the transport with sockets in this folder.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, address: &TransportAddress) -> PathBuf {
        self.folder.join(address.port.to_string())
    }

    /// Listens at an address. Port 0 stands for any free one.
    fn listen(&self, address: &TransportAddress) -> io::Result<(UnixListener, TransportAddress)> {
        let any = address.port == 0;
        let ports = if any { 1024..=u16::MAX } else { address.port..=address.port };
        for port in ports {
            let address = TransportAddress { port, protocol: PROTOCOL, ..address.clone() };
            let path = self.path(&address);
            if !any && path.exists() && UnixStream::connect(&path).is_err() {
                // No process listens on this socket any more.
                std::fs::remove_file(&path)?;
            }
            match UnixListener::bind(path) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return Ok((bound?, address)),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

impl Transport for UnixSockets {
    fn protocol(&self) -> TransportProtocol {
        PROTOCOL
    }

    fn open(
        &self,
        _: &Arc<dyn Runtime>,
        purpose: Purpose,
        listen: Option<&TransportAddress>,
    ) -> io::Result<Box<dyn Endpoint>> {
        let listener = match listen {
            None => None,
            Some(address) => {
                let (listener, local) = self.listen(address)?;
                Some((Async::new(listener)?, local))
            }
        };
        Ok(Box::new(UnixEndpoint { transport: self.clone(), purpose, listener }))
    }
}

#[derive(Debug)]
struct UnixEndpoint {
    transport: UnixSockets,
    purpose: Purpose,
    listener: Option<(Async<UnixListener>, TransportAddress)>,
}

impl Endpoint for UnixEndpoint {
    fn local(&self) -> Option<&TransportAddress> {
        self.listener.as_ref().map(|(_, local)| local)
    }

    fn connect(&mut self, to: &TransportAddress) -> Box<dyn Connection> {
        let path = self.transport.path(to);
        let local = TransportAddress { port: 0, ..to.clone() };
        // Closing the stream of smol also shuts the socket down, as in other runtimes.
        let connect = smol::net::unix::UnixStream::connect(path);
        Box::new(StreamConnection::connecting(self.purpose, local, to.clone(), connect))
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        let Some((listener, local)) = &self.listener else { return Poll::Pending };
        loop {
            match listener.get_ref().accept() {
                Ok((stream, _)) => {
                    let peer = TransportAddress { port: 0, ..local.clone() };
                    let stream = smol::net::unix::UnixStream::from(Async::new(stream)?);
                    let accepted = StreamConnection::accepted(self.purpose, peer, stream);
                    return Poll::Ready(Ok(Box::new(accepted)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(listener.poll_readable(cx))?;
        }
    }
}
