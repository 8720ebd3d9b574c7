//! An endpoint: one SCTP port.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rserpool_proto::wire::{TransportAddress, TransportProtocol};
use socket2::{Domain, MsgHdr, Socket, Type};

use super::connection::{SctpConnection, Style};
use super::dial::{Dial, DialState};
use super::notification::Notification;
use super::receiver::{Piece, Receiver};
use super::{Sctp, address, control, domain, options};
use crate::log::{ANYBODY, warn_limited};
use crate::runtime::{self, RegisteredSocket, Runtime};
use crate::sys::{self, AssociationId};
use crate::transport::{Connection, Endpoint, Purpose, is_shortage};

#[derive(Debug)]
pub(super) struct SctpEndpoint {
    sctp: Sctp,
    runtime: Arc<dyn Runtime>,
    purpose: Purpose,
    listener: Option<(Box<dyn RegisteredSocket>, TransportAddress)>,
    /// Associations of the listening socket that this endpoint initiated.
    dials: HashMap<AssociationId, Arc<Dial>>,
    receiver: Receiver,
}

impl SctpEndpoint {
    pub(super) fn new(
        sctp: Sctp,
        runtime: Arc<dyn Runtime>,
        purpose: Purpose,
        listener: Option<(Box<dyn RegisteredSocket>, TransportAddress)>,
    ) -> Self {
        Self {
            sctp,
            runtime,
            purpose,
            listener,
            dials: HashMap::new(),
            receiver: Receiver::one_by_one(),
        }
    }

    fn dial(&mut self, to: &TransportAddress) -> io::Result<SctpConnection> {
        if to.protocol != TransportProtocol::Sctp || to.addresses.is_empty() {
            let text = format!("{to} is not the address of an SCTP port");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        match &self.listener {
            Some((listener, local)) => {
                // An IPv4 socket does not accept IPv6 addresses.
                let mut addresses = to.addresses.clone();
                if domain(local) == Domain::IPV4 {
                    addresses.retain(|address| address.is_ipv4());
                }
                let packed = address::pack(&addresses, to.port);
                let association = sys::connect(listener.socket().get(), &packed)?
                    .ok_or_else(|| io::Error::other("an association without identifier"))?;
                let dial = Arc::new(Dial::new());
                // Replaces an abandoned dial that had the same identifier.
                self.dials.insert(association, Arc::clone(&dial));
                Ok(SctpConnection::dialling(
                    dial,
                    Arc::clone(&self.runtime),
                    self.purpose,
                    to.clone(),
                    &self.sctp,
                ))
            }
            None => {
                let socket = self.sctp.socket(domain(to), Type::STREAM)?;
                sys::connect(&socket, &address::pack(&to.addresses, to.port))?;
                let io = self.runtime.register(runtime::Socket::new(socket))?;
                Ok(SctpConnection::connecting(io, self.purpose, to.clone(), &self.sctp))
            }
        }
    }

    /// Handles an established association: returns a connection if the peer initiated it, or
    /// completes the dial if this endpoint did.
    fn handle_up(&mut self, association: AssociationId) -> Option<io::Result<Box<dyn Connection>>> {
        let (listener, _) = self.listener.as_ref()?;
        let peeled = sys::peel_off(listener.socket().get(), association).and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.set_cloexec(true)?;
            options::allow_address_changes(&socket);
            Ok(socket)
        });
        match (self.dials.remove(&association), peeled) {
            (Some(dial), Ok(socket)) => {
                // If the dialling connection was dropped, dropping the socket aborts the
                // association.
                if Arc::strong_count(&dial) > 1 {
                    dial.finish(DialState::Up(socket, association));
                }
                None
            }
            (Some(dial), Err(_)) => {
                self.abort(association);
                dial.finish(DialState::Failed);
                None
            }
            (None, Ok(socket)) => match self.accepted(socket, association) {
                Err(error) if !is_shortage(&error) => {
                    if error.kind() == io::ErrorKind::PermissionDenied {
                        let now = self.runtime.now();
                        warn_limited!(now, ANYBODY, "association refused", %error);
                    }
                    None
                }
                accepted => Some(accepted),
            },
            // The association was aborted before it could be accepted. That must not stop the
            // acceptance of others.
            (None, Err(error)) if !is_shortage(&error) => None,
            (None, Err(error)) => {
                self.abort(association);
                Some(Err(error))
            }
        }
    }

    fn accepted(
        &self,
        socket: Socket,
        association: AssociationId,
    ) -> io::Result<Box<dyn Connection>> {
        let io = self.runtime.register(runtime::Socket::new(socket))?;
        let style = Style::PeeledOff(association);
        Ok(Box::new(SctpConnection::accepted(io, style, self.purpose, &self.sctp)?))
    }

    fn abort(&self, association: AssociationId) {
        if let Some((listener, _)) = &self.listener {
            let control = control::of_end(control::ABORT, association);
            let nothing = [IoSlice::new(&[])];
            let message = MsgHdr::new().with_buffers(&nothing).with_control(&control);
            let _ = listener.socket().get().sendmsg(&message, libc::MSG_NOSIGNAL);
        }
    }
}

impl Endpoint for SctpEndpoint {
    fn local(&self) -> Option<&TransportAddress> {
        self.listener.as_ref().map(|(_, local)| local)
    }

    fn connect(&mut self, to: &TransportAddress) -> Box<dyn Connection> {
        Box::new(self.dial(to).unwrap_or_else(|error| {
            SctpConnection::failed(error, self.purpose, to.clone(), &self.sctp)
        }))
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        loop {
            let Some((listener, _)) = &mut self.listener else { return Poll::Pending };
            match ready!(self.receiver.poll(cx, &mut **listener))? {
                Piece::Notification(Some(Notification::Up(association))) => {
                    if let Some(accepted) = self.handle_up(association) {
                        return Poll::Ready(accepted);
                    }
                }
                Piece::Notification(Some(Notification::CannotStart(association))) => {
                    if let Some(dial) = self.dials.remove(&association) {
                        dial.finish(DialState::Failed);
                    }
                }
                // Ignore data of an association that is being aborted.
                Piece::Notification(_) | Piece::Data { .. } | Piece::End => {}
            }
        }
    }
}
