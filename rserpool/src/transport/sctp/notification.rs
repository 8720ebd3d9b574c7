//! Notifications (RFC 6458 section 6.1), by which the kernel reports changes of an association.

use std::net::IpAddr;

use bytes::Bytes;
use rserpool_proto::wire::{Ppid, UserMessage};

use super::{address, control};
use crate::sys::AssociationId;

const ASSOCIATION_CHANGE: u16 = 0x8001;
const PEER_ADDRESS_CHANGE: u16 = 0x8002;
const SEND_FAILED: u16 = 0x8003;
const SHUTDOWN: u16 = 0x8005;
const PARTIAL_DELIVERY: u16 = 0x8006;
const AUTHENTICATION: u16 = 0x8008;

/// Offsets of fields of `struct sctp_paddr_change`: the address, which is a
/// `struct sockaddr_storage`, and the state, which follows it.
const PATH_ADDRESS: usize = 8;
const PATH_STATE: usize = PATH_ADDRESS + 128;

/// Offsets of fields of `struct sctp_send_failed`: those in its `struct sctp_sndrcvinfo`, and the
/// data, which comes last.
const FAILED_STREAM: usize = 12;
const FAILED_FLAGS: usize = 16;
const FAILED_PPID: usize = 20;
const FAILED_DATA: usize = 48;

/// A notification of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notification {
    /// An association with this identifier was established.
    Up(AssociationId),
    /// The peer restarted the association.
    Restart,
    /// The association broke.
    Lost,
    /// The association was shut down in good order.
    ShutdownComplete,
    /// The association could not be established.
    CannotStart(AssociationId),
    /// The state of a path changed.
    Path { address: IpAddr, change: PathChange },
    /// A message, or a part of it, could not be delivered.
    SendFailed(UserMessage),
    /// The peer shut down its sending direction.
    Shutdown,
    /// The rest of a partially delivered message will not arrive.
    PartialDeliveryAborted,
    /// The keys of authenticated chunks changed.
    Authentication,
    /// Another notification, which is not used here.
    Other(u16),
}

/// Change in the state of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathChange {
    Available,
    Unreachable,
    /// The peer added or removed the address (RFC 5061).
    AddedOrRemoved,
    /// The path was confirmed, made primary, or is being probed.
    Other,
}

/// Parses a notification. Returns `None` if it is too short.
pub(super) fn parse(bytes: &[u8]) -> Option<Notification> {
    let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    Some(match half(0)? {
        ASSOCIATION_CHANGE => {
            let association = word(16)?;
            match half(8)? {
                0 => Notification::Up(association),
                1 => Notification::Lost,
                2 => Notification::Restart,
                3 => Notification::ShutdownComplete,
                4 => Notification::CannotStart(association),
                _ => Notification::Other(ASSOCIATION_CHANGE),
            }
        }
        PEER_ADDRESS_CHANGE => {
            let (address, ..) = address::first(bytes.get(PATH_ADDRESS..PATH_STATE)?)?;
            let change = match word(PATH_STATE)? {
                0 => PathChange::Available,
                1 => PathChange::Unreachable,
                2 | 3 => PathChange::AddedOrRemoved,
                _ => PathChange::Other,
            };
            Notification::Path { address, change }
        }
        SEND_FAILED => {
            let ppid = Ppid(u32::from_be_bytes(*bytes.get(FAILED_PPID..)?.first_chunk()?));
            let payload = Bytes::copy_from_slice(bytes.get(FAILED_DATA..)?);
            Notification::SendFailed(UserMessage {
                stream: half(FAILED_STREAM)?,
                unordered: half(FAILED_FLAGS)? & control::UNORDERED != 0,
                ..UserMessage::new(ppid, payload)
            })
        }
        SHUTDOWN => Notification::Shutdown,
        PARTIAL_DELIVERY => Notification::PartialDeliveryAborted,
        AUTHENTICATION => Notification::Authentication,
        other => Notification::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn association_change(state: u16) -> Vec<u8> {
        let mut bytes = ASSOCIATION_CHANGE.to_ne_bytes().to_vec();
        bytes.extend(0_u16.to_ne_bytes());
        bytes.extend(20_u32.to_ne_bytes());
        bytes.extend(state.to_ne_bytes());
        bytes.extend([0; 6]);
        bytes.extend(42_i32.to_ne_bytes());
        bytes
    }

    #[test]
    fn changes_of_an_association() {
        assert_eq!(parse(&association_change(0)), Some(Notification::Up(42)));
        assert_eq!(parse(&association_change(1)), Some(Notification::Lost));
        assert_eq!(parse(&association_change(4)), Some(Notification::CannotStart(42)));
        let bytes = association_change(3);
        assert_eq!(parse(&bytes), Some(Notification::ShutdownComplete));
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), None);
        }
    }

    #[test]
    fn messages_that_were_given_up() {
        let mut bytes = SEND_FAILED.to_ne_bytes().to_vec();
        bytes.resize(FAILED_STREAM, 0);
        bytes.extend(3_u16.to_ne_bytes());
        bytes.resize(FAILED_FLAGS, 0);
        bytes.extend(control::UNORDERED.to_ne_bytes());
        bytes.resize(FAILED_PPID, 0);
        bytes.extend(33_u32.to_be_bytes());
        bytes.resize(FAILED_DATA, 0);
        assert_eq!(parse(&bytes[..FAILED_DATA - 1]), None);
        bytes.extend(b"ping");
        let message = UserMessage {
            stream: 3,
            unordered: true,
            ..UserMessage::new(Ppid(33), b"ping".as_slice())
        };
        assert_eq!(parse(&bytes), Some(Notification::SendFailed(message)));
    }

    #[test]
    fn changes_of_a_path() {
        let mut bytes = PEER_ADDRESS_CHANGE.to_ne_bytes().to_vec();
        bytes.resize(PATH_ADDRESS, 0);
        bytes.extend(address::pack(&["10.0.0.1".parse().unwrap()], 1));
        bytes.resize(PATH_STATE, 0);
        let (address, changes) = (
            "10.0.0.1".parse().unwrap(),
            [
                PathChange::Available,
                PathChange::Unreachable,
                PathChange::AddedOrRemoved,
                PathChange::AddedOrRemoved,
                PathChange::Other,
            ],
        );
        for (state, change) in (0_i32..).zip(changes) {
            bytes.truncate(PATH_STATE);
            bytes.extend(state.to_ne_bytes());
            assert_eq!(parse(&bytes), Some(Notification::Path { address, change }));
        }
        assert_eq!(parse(&bytes[..PATH_STATE + 3]), None);
    }
}
