//! Extracts user messages from SCTP packets (RFC 9260 section 3).

use std::collections::{BTreeMap, HashMap, VecDeque};

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

/// Reassembles user messages. Fragments with consecutive transmission sequence numbers (TSNs) are
/// joined to runs.
#[derive(Debug, Default)]
pub(super) struct Reassembler {
    /// The runs, in the order in which they began.
    runs: BTreeMap<u64, Run>,
    by_first: HashMap<(Flow, u32), u64>,
    by_last: HashMap<(Flow, u32), u64>,
    began: u64,
    fragments: usize,
}

/// Consecutive fragments of one message.
#[derive(Debug)]
struct Run {
    flow: Flow,
    first: u32,
    last: u32,
    begins: bool,
    ends: bool,
    ppid: Ppid,
    parts: VecDeque<Bytes>,
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
        if self.by_first.contains_key(&(flow, tsn)) || self.by_last.contains_key(&(flow, tsn)) {
            // A retransmission.
            return None;
        }
        let (begins, ends) = (fragment.flags & BEGIN != 0, fragment.flags & END != 0);
        let mut run = Run {
            flow,
            first: tsn,
            last: tsn,
            begins,
            ends,
            ppid: fragment.ppid,
            parts: [fragment.data].into(),
        };
        self.fragments += 1;
        self.began += 1;
        let mut number = self.began;
        let before = self.by_last.get(&(flow, tsn.wrapping_sub(1))).copied();
        let goes_on = |number: &u64| self.runs.get(number).is_some_and(|run| !run.ends);
        if let Some(before) = before.filter(|before| !begins && goes_on(before))
            && let Some(previous) = self.take(before)
        {
            number = number.min(before);
            run = previous.join(run);
        }
        let after = self.by_first.get(&(flow, tsn.wrapping_add(1))).copied();
        let has_begun = |number: &u64| self.runs.get(number).is_some_and(|run| !run.begins);
        if let Some(after) = after.filter(|after| !ends && has_begun(after))
            && let Some(next) = self.take(after)
        {
            number = number.min(after);
            run = run.join(next);
        }
        if run.begins && run.ends {
            self.fragments -= run.parts.len();
            let data: Vec<u8> = run.parts.iter().flatten().copied().collect();
            return Some((run.ppid, data.into()));
        }
        self.by_first.insert((flow, run.first), number);
        self.by_last.insert((flow, run.last), number);
        self.runs.insert(number, run);
        while self.fragments > MAX_FRAGMENTS
            && let Some(oldest) = self.runs.keys().next().copied()
            && let Some(run) = self.take(oldest)
        {
            self.fragments -= run.parts.len();
        }
        None
    }

    fn take(&mut self, number: u64) -> Option<Run> {
        let run = self.runs.remove(&number)?;
        self.by_first.remove(&(run.flow, run.first));
        self.by_last.remove(&(run.flow, run.last));
        Some(run)
    }
}

impl Run {
    /// Joins a run to the one that follows it. Moves the parts of the shorter one.
    fn join(mut self, mut next: Self) -> Self {
        if self.parts.len() >= next.parts.len() {
            self.parts.append(&mut next.parts);
        } else {
            for part in std::mem::take(&mut self.parts).into_iter().rev() {
                next.parts.push_front(part);
            }
            self.parts = next.parts;
        }
        Self { last: next.last, ends: next.ends, ..self }
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
        let waiting = reassembler.runs.values().map(|run| run.parts.len()).sum::<usize>();
        assert_eq!(waiting, reassembler.fragments);
        assert_eq!(reassembler.runs.len(), reassembler.by_first.len());
        assert_eq!(reassembler.runs.len(), reassembler.by_last.len());
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

    /// A capture of nothing but middle fragments, in any order, takes a time in proportion to its
    /// length: this test took minutes when each fragment searched for the ends of its message.
    #[test]
    fn fragments_without_ends_are_bounded() {
        let mut packets: Vec<Bytes> =
            (0..60_000).map(|tsn| packet(&[(0, tsn, b"middle")])).collect();
        assert!(messages(&packets).is_empty());
        packets.reverse();
        assert!(messages(&packets).is_empty());
        packets.push(packet(&[(BEGIN, 70_000, b"be"), (END, 70_001, b"gin")]));
        assert_eq!(messages(&packets), ["begin"]);
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
