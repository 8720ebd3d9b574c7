//! System calls of SCTP for which no crate has a safe interface. This is all of the project's
//! `unsafe` code except for one line in the tokio adapter. The functions take and return bytes,
//! which [`transport::sctp`](crate::transport::sctp) interprets in safe code.
#![allow(unsafe_code, reason = "this is where it is")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, c_void, socklen_t};
use socket2::Socket;

/// The SCTP protocol number, which is also the level of its socket options.
pub(crate) const IPPROTO_SCTP: c_int = libc::IPPROTO_SCTP;

const SCTP_SOCKOPT_PEELOFF: c_int = 102;
const SCTP_SOCKOPT_CONNECTX3: c_int = 111;

/// Identifier of an association of a one-to-many socket.
pub(crate) type AssociationId = i32;

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets an SCTP option.
pub(crate) fn set_option(socket: &Socket, option: c_int, value: &[u8]) -> io::Result<()> {
    let length = socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for `length` bytes during the call, and the kernel only reads it.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), IPPROTO_SCTP, option, value.as_ptr().cast(), length)
    })
}

/// Gets an SCTP option. `value` holds the kernel's input before the call and its output after it.
/// Returns the output's length in bytes.
pub(crate) fn get_option(socket: &Socket, option: c_int, value: &mut [u8]) -> io::Result<usize> {
    let mut length = socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for `length` bytes during the call, and the kernel writes no more
    // than that.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            IPPROTO_SCTP,
            option,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    Ok(usize::try_from(length).unwrap_or(usize::MAX).min(value.len()))
}

/// The argument of `SCTP_SOCKOPT_CONNECTX3`, `struct sctp_getaddrs_old`.
#[repr(C)]
struct ConnectArgument {
    association: AssociationId,
    length: c_int,
    addresses: *const c_void,
}

const _: () = assert!(size_of::<ConnectArgument>() == 8 + size_of::<*const c_void>());

/// Begins an association with the peer that has these `addresses`, which are packed socket
/// addresses. Returns `None` if the kernel did not return the association's identifier.
pub(crate) fn connect(socket: &Socket, addresses: &[u8]) -> io::Result<Option<AssociationId>> {
    let mut argument = ConnectArgument {
        association: 0,
        length: c_int::try_from(addresses.len()).map_err(io::Error::other)?,
        addresses: addresses.as_ptr().cast(),
    };
    let size = size_of::<ConnectArgument>();
    let mut length = socklen_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the argument and the addresses that it points to are valid during the call; the
    // kernel reads both and writes the association into the argument.
    let result = check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            IPPROTO_SCTP,
            SCTP_SOCKOPT_CONNECTX3,
            (&raw mut argument).cast(),
            &raw mut length,
        )
    });
    match result {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok((argument.association != 0).then_some(argument.association)),
    }
}

/// Moves one association of a one-to-many socket, with the data received for it, to a socket of its
/// own. The new socket is blocking.
pub(crate) fn peel_off(socket: &Socket, association: AssociationId) -> io::Result<Socket> {
    // struct sctp_peeloff_arg_t: the association, and the descriptor.
    let mut argument = [0; 8];
    argument[..4].copy_from_slice(&association.to_ne_bytes());
    get_option(socket, SCTP_SOCKOPT_PEELOFF, &mut argument)?;
    let descriptor = c_int::from_ne_bytes([argument[4], argument[5], argument[6], argument[7]]);
    if descriptor < 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(Socket::from(descriptor))
}

/// Result of `recvmsg` besides the data.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    /// The number of bytes of data.
    pub(crate) length: usize,
    /// The number of bytes of control data.
    pub(crate) control: usize,
    /// True if the data end a message.
    pub(crate) end_of_record: bool,
    /// True if the data are a notification.
    pub(crate) notification: bool,
}

/// Maximum number of pieces received at a time; [`PIECE_SIZE`] is the maximum size of each. A
/// message may have more than one piece.
pub(crate) const BATCH: usize = 4;
pub(crate) const PIECE_SIZE: usize = 16 * 1024;

/// Buffers for the pieces (messages, parts of them and notifications) that one call receives.
#[derive(Debug)]
pub(crate) struct ReceiveBuffers {
    pub(crate) data: Box<[[u8; PIECE_SIZE]; BATCH]>,
    pub(crate) control: [ControlBuffer; BATCH],
    pub(crate) received: [Received; BATCH],
}

/// Control data, aligned as the kernel requires.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct ControlBuffer(pub(crate) [u8; 128]);

impl ReceiveBuffers {
    pub(crate) fn new() -> Self {
        Self {
            data: vec![[0; PIECE_SIZE]; BATCH].try_into().expect("as many as that"),
            control: [ControlBuffer([0; 128]); BATCH],
            received: [Received::default(); BATCH],
        }
    }
}

/// Receives up to `limit` pieces (messages, parts of them, and notifications), but at most
/// [`BATCH`]. Returns the number of pieces, which is below this maximum only if there were no more.
pub(crate) fn receive(
    socket: &Socket,
    buffers: &mut ReceiveBuffers,
    limit: usize,
) -> io::Result<usize> {
    let mut slices = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
    // SAFETY: all zeros is a valid `mmsghdr`, one without any buffers.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for index in 0..BATCH {
        let data = &mut buffers.data[index];
        slices[index] = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
        let header = &mut headers[index].msg_hdr;
        header.msg_iov = &raw mut slices[index];
        header.msg_iovlen = 1;
        header.msg_control = buffers.control[index].0.as_mut_ptr().cast();
        header.msg_controllen = buffers.control[index].0.len();
    }
    let limit = limit.min(BATCH);
    let count = libc::c_uint::try_from(limit).unwrap_or(1);
    // SAFETY: each header points to a buffer for data and one for control data with their
    // lengths; they are distinct, valid, and not used otherwise during the call.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    for (received, header) in buffers.received.iter_mut().zip(&headers).take(count) {
        let flags = header.msg_hdr.msg_flags;
        *received = Received {
            length: usize::try_from(header.msg_len).unwrap_or(PIECE_SIZE).min(PIECE_SIZE),
            control: header.msg_hdr.msg_controllen.min(size_of::<ControlBuffer>()),
            end_of_record: flags & libc::MSG_EOR != 0,
            notification: flags & libc::MSG_NOTIFICATION != 0,
        };
    }
    Ok(count.min(limit))
}
