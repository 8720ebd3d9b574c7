//! Extracts user messages from SCTP packets (RFC 9260 section 3).

use std::collections::{BTreeMap, VecDeque};

use rserpool::Ppid;
use rserpool::proto::wire::Bytes;

const COMMON_HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;
const DATA_HEADER: usize = 16;
const DATA: u8 = 0;
const BEGIN: u8 = 0x02;
const END: u8 = 0x01;

/// Maximum number of fragments that wait for the rest of their messages. Beyond it, the oldest are
/// dropped.
const MAX_FRAGMENTS: usize = 4096;

/// The ports of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) source: u16,
    pub(super) destination: u16,
}

/// One direction of one association.
type Flow = (u16, u16, u32);

/// Reassembles user messages.
#[derive(Debug, Default)]
pub(super) struct Reassembler {
    fragments: BTreeMap<(Flow, u32), Fragment>,
    order: VecDeque<(Flow, u32)>,
}

#[derive(Debug)]
struct Fragment {
    flags: u8,
    ppid: Ppid,
    data: Bytes,
}

/// Error of parsing a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("SCTP packet of {0} bytes is too short")]
    Short(usize),
    #[error("SCTP chunk with a length of {0} bytes is too short")]
    ShortChunk(usize),
    #[error("SCTP chunk of {needed} bytes of which {available} are there")]
    CutOff { needed: usize, available: usize },
}

impl Reassembler {
    /// Handles a packet. Calls `message` with each user message that the packet completes.
    pub(super) fn packet(
        &mut self,
        packet: &Bytes,
        mut message: impl FnMut(Ports, Ppid, Bytes),
    ) -> Result<(), Malformed> {
        let Some(header) = packet.first_chunk::<COMMON_HEADER>() else {
            return Err(Malformed::Short(packet.len()));
        };
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let ports = Ports { source: number(0), destination: number(2) };
        let tag = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let flow = (ports.source, ports.destination, tag);
        let mut rest = packet.slice(COMMON_HEADER..);
        while let Some(&[kind, flags, high, low]) = rest.first_chunk::<CHUNK_HEADER>() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length < CHUNK_HEADER || (kind == DATA && length < DATA_HEADER) {
                return Err(Malformed::ShortChunk(length));
            }
            if length > rest.len() {
                return Err(Malformed::CutOff { needed: length, available: rest.len() });
            }
            if kind == DATA {
                let word = |at: usize| {
                    u32::from_be_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]])
                };
                let (tsn, ppid) = (word(4), Ppid(word(12)));
                let data = rest.slice(DATA_HEADER..length);
                if let Some((ppid, data)) = self.data(flow, tsn, Fragment { flags, ppid, data }) {
                    message(ports, ppid, data);
                }
            }
            rest = rest.slice(length.next_multiple_of(4).min(rest.len())..);
        }
        Ok(())
    }

    /// Returns the user message that this fragment completes. The fragments of a message have
    /// consecutive transmission sequence numbers.
    fn data(&mut self, flow: Flow, tsn: u32, fragment: Fragment) -> Option<(Ppid, Bytes)> {
        if fragment.flags & (BEGIN | END) == BEGIN | END {
            return Some((fragment.ppid, fragment.data));
        }
        if self.fragments.insert((flow, tsn), fragment).is_none() {
            self.order.push_back((flow, tsn));
        }
        if self.order.len() > MAX_FRAGMENTS {
            let oldest = self.order.pop_front()?;
            self.fragments.remove(&oldest);
        }
        let first = self.run(flow, tsn, BEGIN, u32::wrapping_sub)?;
        let last = self.run(flow, tsn, END, u32::wrapping_add)?;
        let mut ppid = Ppid::NONE;
        let mut data = Vec::new();
        let mut tsn = first;
        loop {
            let fragment = self.fragments.remove(&(flow, tsn))?;
            if tsn == first {
                ppid = fragment.ppid;
            }
            data.extend_from_slice(&fragment.data);
            if tsn == last {
                break;
            }
            tsn = tsn.wrapping_add(1);
        }
        self.order.retain(|key| self.fragments.contains_key(key));
        Some((ppid, data.into()))
    }

    /// Steps through the fragments of one direction, from transmission sequence number `tsn` on, to
    /// the one that has `flag`. Returns the transmission sequence number of that one.
    fn run(&self, flow: Flow, tsn: u32, flag: u8, step: fn(u32, u32) -> u32) -> Option<u32> {
        let mut tsn = tsn;
        for _ in 0..=MAX_FRAGMENTS {
            if self.fragments.get(&(flow, tsn))?.flags & flag != 0 {
                return Some(tsn);
            }
            tsn = step(tsn, 1);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: &[(u8, u32, &[u8])]) -> Bytes {
        let mut packet = vec![0x0f, 0x17, 0x26, 0xad, 0, 0, 0, 9, 0, 0, 0, 0];
        for (flags, tsn, data) in chunks {
            packet.extend([DATA, *flags]);
            packet.extend(((DATA_HEADER + data.len()) as u16).to_be_bytes());
            packet.extend(tsn.to_be_bytes());
            packet.extend([0, 0, 0, 0, 0, 0, 0, 11]);
            packet.extend(*data);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet.into()
    }

    fn messages(packets: &[Bytes]) -> Vec<Bytes> {
        let mut found = Vec::new();
        let mut reassembler = Reassembler::default();
        for packet in packets {
            let ports = Ports { source: 3863, destination: 9901 };
            let result = reassembler.packet(packet, |from, ppid, data| {
                assert_eq!((from, ppid), (ports, Ppid::ASAP));
                found.push(data);
            });
            result.unwrap();
        }
        assert!(reassembler.order.len() == reassembler.fragments.len());
        found
    }

    #[test]
    fn several_messages_in_a_packet_and_messages_over_several_packets() {
        let whole = BEGIN | END;
        assert_eq!(
            messages(&[packet(&[(whole, 1, b"one"), (whole, 2, b"two!")])]),
            ["one", "two!"]
        );
        let last = u32::MAX;
        let parts = [
            packet(&[(END, 1, b"d"), (BEGIN, last, b"ab")]),
            packet(&[(BEGIN, 2, b"lost")]),
            packet(&[(0, 0, b"c"), (whole, 3, b"e")]),
        ];
        assert_eq!(messages(&parts), ["abcd", "e"]);
    }

    #[test]
    fn what_is_cut_off_is_said() {
        let mut reassembler = Reassembler::default();
        let bytes = packet(&[(BEGIN | END, 1, b"data")]);
        let mut cut = |length: usize| {
            reassembler.packet(&bytes.slice(..length), |_, _, _| panic!("no message")).unwrap_err()
        };
        assert_eq!(cut(11), Malformed::Short(11));
        assert_eq!(cut(31), Malformed::CutOff { needed: 20, available: 19 });
    }
}
