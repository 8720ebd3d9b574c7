//! Ancillary data (RFC 6458 section 5): the stream and the payload protocol identifier of a
//! message.

use std::mem::size_of;

use rserpool_proto::wire::{Ppid, Reliability, UserMessage};

use crate::sys::{AssociationId, IPPROTO_SCTP};

const SNDINFO: i32 = 2;
const RCVINFO: i32 = 3;
const PRINFO: i32 = 5;
/// Length of `struct cmsghdr`: its length, its level and its type.
const HEADER: usize = size_of::<usize>() + 8;
/// Length of `struct sctp_sndinfo`: stream, flags, identifier, context, association.
const SNDINFO_LENGTH: usize = 16;
/// Length of `struct sctp_prinfo`: policy, padding, value.
const PRINFO_LENGTH: usize = 8;
/// The policies of partial reliability (RFC 7496 section 4.1).
const PR_NONE: u16 = 0;
const PR_LIFETIME: u16 = 0x10;
const PR_RETRANSMISSIONS: u16 = 0x20;

/// Flag: the message is not ordered.
pub(super) const UNORDERED: u16 = 1;
/// Flag: the association is to be aborted.
pub(super) const ABORT: u16 = 4;
/// Flag: the association is to be shut down in good order after all data is sent.
pub(super) const END: u16 = libc::MSG_FIN as u16;

/// Ancillary data of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MessageInfo {
    pub(super) stream: u16,
    pub(super) unordered: bool,
    pub(super) ppid: Ppid,
}

/// The ancillary data of a message to send.
pub(super) type SendControl = [u8; HEADER + SNDINFO_LENGTH + HEADER + PRINFO_LENGTH];

/// Makes the ancillary data of `message`. `association` matters only on one-to-many sockets.
pub(super) fn of_message(message: &UserMessage, association: AssociationId) -> SendControl {
    let flags = if message.unordered { UNORDERED } else { 0 };
    make(message.stream, flags, message.ppid, message.reliability, association)
}

/// Makes the ancillary data that close an association: [`ABORT`] or [`END`].
pub(super) fn of_end(flag: u16, association: AssociationId) -> SendControl {
    make(0, flag, Ppid::NONE, Reliability::Full, association)
}

fn make(
    stream: u16,
    flags: u16,
    ppid: Ppid,
    reliability: Reliability,
    association: AssociationId,
) -> SendControl {
    let mut control = [0; size_of::<SendControl>()];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        control[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&(HEADER + SNDINFO_LENGTH).to_ne_bytes());
    put(&IPPROTO_SCTP.to_ne_bytes());
    put(&SNDINFO.to_ne_bytes());
    put(&stream.to_ne_bytes());
    put(&flags.to_ne_bytes());
    // The kernel sends the identifier unchanged, so it is in network byte order.
    put(&ppid.0.to_be_bytes());
    put(&[0; 4]);
    put(&association.to_ne_bytes());
    let (policy, value) = match reliability {
        Reliability::Lifetime(lifetime) => {
            // The kernel takes zero for no limit.
            let milliseconds = lifetime.as_millis().max(1);
            (PR_LIFETIME, u32::try_from(milliseconds).unwrap_or(u32::MAX))
        }
        Reliability::Retransmissions(times) => (PR_RETRANSMISSIONS, times),
        Reliability::Full | _ => (PR_NONE, 0),
    };
    put(&(HEADER + PRINFO_LENGTH).to_ne_bytes());
    put(&IPPROTO_SCTP.to_ne_bytes());
    put(&PRINFO.to_ne_bytes());
    put(&policy.to_ne_bytes());
    put(&[0; 2]);
    put(&value.to_ne_bytes());
    control
}

/// Finds the information on a received message; skips other ancillary data.
pub(super) fn parse(mut control: &[u8]) -> Option<MessageInfo> {
    loop {
        let (length, rest) = control.split_first_chunk::<{ size_of::<usize>() }>()?;
        let length = usize::from_ne_bytes(*length);
        let (level, rest) = rest.split_first_chunk::<4>()?;
        let (kind, _) = rest.split_first_chunk::<4>()?;
        let data = control.get(HEADER..length)?;
        if (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind)) == (IPPROTO_SCTP, RCVINFO) {
            // The data is a struct sctp_rcvinfo: stream, sequence number, flags, (padding,)
            // identifier ...
            let half = |at: usize| Some(u16::from_ne_bytes(*data.get(at..)?.first_chunk()?));
            let ppid = Ppid(u32::from_be_bytes(*data.get(8..)?.first_chunk()?));
            return Some(MessageInfo {
                stream: half(0)?,
                unordered: half(4)? & UNORDERED != 0,
                ppid,
            });
        }
        // Advance by at least a header, so that the loop terminates.
        control = control.get(length.max(HEADER).next_multiple_of(size_of::<usize>())..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER + data.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn foreign_data_are_passed_over() {
        let mut data = 7_u16.to_ne_bytes().to_vec();
        data.extend([0, 0]);
        data.extend(UNORDERED.to_ne_bytes());
        data.extend([0, 0, 0, 0, 0, 11]);
        data.resize(28, 0);
        let wanted = item(IPPROTO_SCTP, RCVINFO, &data);
        let control = [item(1, 2, &[1; 12]), wanted.clone()].concat();
        let expected = MessageInfo { stream: 7, unordered: true, ppid: Ppid::ASAP };
        assert_eq!(parse(&control), Some(expected));
        assert_eq!(parse(&wanted[..wanted.len() - 8]), None, "cut off");
        assert_eq!(parse(&item(1, 2, &[1; 12])), None);
        assert_eq!(parse(&[0; 64]), None, "an item of no length");
        assert_eq!(parse(&[0xff; 64]), None, "an item longer than anything");
    }
}
