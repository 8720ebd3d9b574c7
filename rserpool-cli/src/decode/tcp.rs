//! Extracts ASAP and ENRP messages from TCP streams: those of registrars, and the control messages of
//! sessions.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use rserpool::Ppid;
use rserpool::proto::wire::{Bytes, asap, enrp};

/// Length of the shortest message, and of the header of a frame in a session, in bytes.
const MESSAGE_HEADER: usize = 4;
const FRAME_HEADER: usize = 8;

/// Maximum length of a frame in a session, in bytes.
const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Maximum number of streams. Beyond it, the one that was silent for longest is forgotten.
const MAX_STREAMS: usize = 4096;

/// Maximum number of bytes of all streams that wait for a lost segment or for the rest of a message.
/// Beyond it, the stream that was silent for longest is forgotten.
const MAX_WAITING: usize = 64 * 1024 * 1024;

/// Memory that a waiting segment takes besides its bytes.
const OVERHEAD: usize = 64;

/// A segment of a TCP connection.
pub(super) struct Segment<'p> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) number: u32,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
    pub(super) payload: &'p [u8],
}

/// Puts segments in order, and finds the messages in them.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: HashMap<Direction, Stream>,
    /// The streams by the time of their last segment.
    by_age: BTreeMap<u64, Direction>,
    /// The number of segments so far.
    time: u64,
    /// The memory that the streams take.
    memory: usize,
    /// Streams of which a part is missing in the capture.
    broken: u64,
}

/// The source and the destination of a stream.
type Direction = (SocketAddr, SocketAddr);

/// One direction of a connection.
#[derive(Debug)]
struct Stream {
    /// The number of the next byte, of which the lower half is the sequence number of TCP.
    next: u64,
    /// Bytes in order that were not read yet.
    bytes: Vec<u8>,
    /// Segments behind a gap, by the number of their first byte.
    waiting: BTreeMap<u64, Vec<u8>>,
    waiting_memory: usize,
    content: Content,
    /// True if the end of the connection was seen. Segments that come after it are repetitions.
    ended: bool,
    last: u64,
}

/// The content of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Unknown,
    Messages(Ppid),
    Session,
    /// Something else.
    Other,
}

impl Streams {
    /// Handles a segment. Calls `found` with each message that it completes.
    pub(super) fn segment(&mut self, segment: &Segment<'_>, mut found: impl FnMut(Ppid, Bytes)) {
        self.time += 1;
        let key = (segment.source, segment.destination);
        let first = segment.number.wrapping_add(u32::from(segment.is_first));
        let is_new = |stream: &Stream| segment.is_first && stream.begins_elsewhere(first);
        if self.streams.get(&key).is_some_and(is_new) {
            self.forget(&key);
        }
        if !self.streams.contains_key(&key) {
            if segment.payload.is_empty() && !segment.is_first {
                return;
            }
            if self.streams.len() >= MAX_STREAMS {
                self.forget_oldest();
            }
            self.streams.insert(key, Stream::new(first));
        }
        let Some(stream) = self.streams.get_mut(&key) else { return };
        self.by_age.remove(&std::mem::replace(&mut stream.last, self.time));
        self.by_age.insert(self.time, key);
        let before = stream.memory();
        if stream.content != Content::Other && !stream.ended {
            stream.insert(first, segment.payload);
            stream.read(&mut found);
        }
        stream.ended |= segment.is_last;
        self.memory = self.memory - before + stream.memory();
        while self.memory > MAX_WAITING && !self.streams.is_empty() {
            self.forget_oldest();
        }
    }

    /// Returns the number of streams of which a part is missing.
    pub(super) fn finish(mut self) -> u64 {
        while !self.streams.is_empty() {
            self.forget_oldest();
        }
        self.broken
    }

    fn forget_oldest(&mut self) {
        if let Some((_, oldest)) = self.by_age.pop_first() {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &Direction) {
        if let Some(stream) = self.streams.remove(key) {
            self.by_age.remove(&stream.last);
            self.memory -= stream.memory();
            self.broken += u64::from(stream.is_broken());
        }
    }
}

impl Stream {
    fn new(next: u32) -> Self {
        Self {
            // Far from 0, so that repetitions of earlier bytes have numbers, too.
            next: (1 << 32) | u64::from(next),
            bytes: Vec::new(),
            waiting: BTreeMap::new(),
            waiting_memory: 0,
            content: Content::Unknown,
            ended: false,
            last: 0,
        }
    }

    fn memory(&self) -> usize {
        self.bytes.len() + self.waiting_memory
    }

    /// Returns whether a connection that begins at this sequence number is another one.
    fn begins_elsewhere(&self, first: u32) -> bool {
        self.ended || self.number(first) + (1 << 20) < self.next || self.number(first) > self.next
    }

    /// Returns whether something behind the part that was read is missing: the rest of a message, or
    /// the segment before others.
    fn is_broken(&self) -> bool {
        let in_message = match self.content {
            Content::Unknown => self.bytes.len() >= FRAME_HEADER,
            Content::Messages(_) | Content::Session => !self.bytes.is_empty(),
            Content::Other => false,
        };
        in_message || !self.waiting.is_empty()
    }

    /// Returns the number of a byte by its sequence number, which is that of the nearest one.
    fn number(&self, sequence: u32) -> u64 {
        let ahead = sequence.wrapping_sub(self.next as u32).cast_signed();
        self.next.wrapping_add_signed(i64::from(ahead))
    }

    fn insert(&mut self, sequence: u32, payload: &[u8]) {
        let number = self.number(sequence);
        if number > self.next {
            if !payload.is_empty() {
                let old = self.waiting.insert(number, payload.to_vec());
                self.waiting_memory += payload.len() + OVERHEAD;
                self.waiting_memory -= old.map_or(0, |old| old.len() + OVERHEAD);
            }
            return;
        }
        self.append(number, payload);
        while let Some(entry) = self.waiting.first_entry()
            && *entry.key() <= self.next
        {
            let (number, payload) = entry.remove_entry();
            self.waiting_memory -= payload.len() + OVERHEAD;
            self.append(number, &payload);
        }
    }

    /// Appends what is new of bytes that begin at or before the next one.
    fn append(&mut self, number: u64, bytes: &[u8]) {
        let known = usize::try_from(self.next - number).unwrap_or(usize::MAX);
        if let Some(new) = bytes.get(known..) {
            self.bytes.extend_from_slice(new);
            self.next += new.len() as u64;
        }
    }

    fn read(&mut self, found: &mut impl FnMut(Ppid, Bytes)) {
        if self.content == Content::Unknown {
            match content_of(&self.bytes) {
                Some(content) => self.content = content,
                None => return,
            }
        }
        let mut read = 0;
        while let Some((length, ppid, message)) = self.content.next(&self.bytes[read..]) {
            read += length;
            if ppid == Ppid::ASAP || ppid == Ppid::ENRP {
                found(ppid, Bytes::copy_from_slice(message));
            }
        }
        self.bytes.drain(..read);
        if self.content == Content::Other || self.bytes.len() > MAX_FRAME + FRAME_HEADER {
            self.content = Content::Other;
            (self.bytes, self.waiting, self.waiting_memory) = (Vec::new(), BTreeMap::new(), 0);
        }
    }
}

impl Content {
    /// Returns the length of the next message with its frame, its protocol, and its bytes, if it is
    /// there.
    fn next(self, bytes: &[u8]) -> Option<(usize, Ppid, &[u8])> {
        match self {
            Self::Unknown | Self::Other => None,
            Self::Messages(ppid) => {
                let length = message_length(bytes)?;
                let message = bytes.get(..length)?;
                Some((length, ppid, message))
            }
            Self::Session => {
                let (length, ppid) = frame_header(bytes)?;
                let whole = FRAME_HEADER + length;
                let payload = bytes.get(FRAME_HEADER..whole)?;
                // Without data, it is the end of the session.
                let ppid = if length == 0 { Ppid::NONE } else { ppid };
                Some((whole, ppid, payload))
            }
        }
    }
}

/// Returns the length of a message of ASAP or ENRP with its padding.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let [_, _, high, low] = *bytes.first_chunk::<MESSAGE_HEADER>()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    // With a length that is too short, nothing says where the next message begins.
    Some(if length < MESSAGE_HEADER { bytes.len() } else { length.next_multiple_of(4) })
}

fn frame_header(bytes: &[u8]) -> Option<(usize, Ppid)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (ppid, _) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    Some((length, Ppid(u32::from_be_bytes(*ppid))))
}

/// Returns the content of a stream by its beginning; `None` as long as that is too short to say.
fn content_of(bytes: &[u8]) -> Option<Content> {
    let (length, ppid) = frame_header(bytes)?;
    // A session begins with a message of its control channel.
    if ppid == Ppid::ASAP && (MESSAGE_HEADER..=usize::from(u16::MAX)).contains(&length) {
        return Some(Content::Session);
    }
    let length = message_length(bytes)?;
    let possible = matches!(bytes.first(), Some(1..=0x10)) && length >= FRAME_HEADER;
    if !possible {
        return Some(Content::Other);
    }
    let message = Bytes::copy_from_slice(bytes.get(..length)?);
    let asap = asap::Message::decode(&message).map(|message| message.body);
    let enrp = enrp::Message::decode(&message).map(|message| message.body);
    Some(match (asap, enrp) {
        (Ok(body), _) if !matches!(body, asap::Body::Unknown(_)) => Content::Messages(Ppid::ASAP),
        (_, Ok(body)) if !matches!(body, enrp::Body::Unknown(_)) => Content::Messages(Ppid::ENRP),
        _ => Content::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOLUTION: &[u8] = b"\x05\0\0\x10\0\x09\0\x0cEchoPool";
    const PRESENCE: &[u8] = b"\x01\0\0\x14\0\0\0\x01\0\0\0\0\0\x0f\0\x06\xff\xff\0\0";

    fn messages(segments: &[(u32, bool, &[u8])]) -> Vec<(Ppid, Bytes)> {
        let mut streams = Streams::default();
        let mut all = Vec::new();
        for (number, is_first, payload) in segments {
            let [source, destination] = [1, 2].map(|port| ([127, 0, 0, 1], port).into());
            let (number, is_first, is_last) = (*number, *is_first, false);
            let segment = Segment { source, destination, number, is_first, is_last, payload };
            streams.segment(&segment, |ppid, message| all.push((ppid, message)));
        }
        all
    }

    #[test]
    fn segments_come_in_any_order_several_times_and_in_pieces() {
        let twice = [RESOLUTION, RESOLUTION].concat();
        let start = u32::MAX - 5;
        let at = |offset: u32| start.wrapping_add(1).wrapping_add(offset);
        let expected = vec![(Ppid::ASAP, Bytes::from_static(RESOLUTION)); 2];
        let part = |from: usize, to: usize| &twice[from..to];
        for order in [
            vec![(start, true, part(0, 0)), (at(0), false, part(0, 32))],
            vec![
                (at(0), false, part(0, 3)),
                (at(3), false, part(3, 17)),
                (at(17), false, part(17, 32)),
            ],
            vec![
                (start, true, part(0, 0)),
                (at(20), false, part(20, 32)),
                (at(5), false, part(5, 9)),
                (at(0), false, part(0, 7)),
                (at(0), false, part(0, 7)),
                (at(7), false, part(7, 25)),
            ],
        ] {
            assert_eq!(messages(&order), expected, "{order:?}");
        }
    }

    #[test]
    fn the_content_is_told_by_its_beginning() {
        let of = |bytes: &[u8]| messages(&[(7, false, bytes)]);
        assert_eq!(of(PRESENCE), [(Ppid::ENRP, Bytes::from_static(PRESENCE))]);
        assert!(of(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").is_empty());
        // A session has messages of its control channel among the data.
        let frame = |ppid: u8, payload: &[u8]| {
            [&[0, 0, 0, payload.len() as u8, 0, 0, 0, ppid], payload].concat()
        };
        let cookie = b"\x0b\0\0\x0c\0\x0d\0\x08abcd";
        let session =
            [frame(11, cookie), frame(0, b"data"), frame(11, cookie), frame(11, b"")].concat();
        assert_eq!(of(&session), vec![(Ppid::ASAP, Bytes::from_static(cookie)); 2]);
    }

    fn segment(port: u16, number: u32, payload: &[u8]) -> Segment<'_> {
        let [source, destination] = [port, 1].map(|port| ([127, 0, 0, 1], port).into());
        let is_first = payload.is_empty();
        Segment { source, destination, number, is_first, is_last: false, payload }
    }

    #[test]
    fn what_is_missing_is_counted() {
        let missing = |segments: &[Segment<'_>]| {
            let (mut streams, mut count) = (Streams::default(), 0);
            for segment in segments {
                streams.segment(segment, |_, _| count += 1);
            }
            (count, streams.finish())
        };
        let whole = || [segment(2, 0, b""), segment(2, 1, RESOLUTION)];
        let end = || Segment { is_last: true, ..segment(2, 17, b"x") };
        assert_eq!(missing(&whole()), (1, 0));
        // A message that ends early, and a gap.
        assert_eq!(missing(&[segment(2, 0, b""), segment(2, 1, &RESOLUTION[..9])]), (0, 1));
        let [first, second] = whole();
        assert_eq!(missing(&[first, second, segment(2, 33, RESOLUTION)]), (1, 1));
        // A stream that ends is not begun again by a repetition of its last segment.
        let [first, second] = whole();
        let last = || Segment { is_last: true, ..segment(2, 1, RESOLUTION) };
        assert_eq!(missing(&[first, last(), last(), second]), (1, 0));
        // Other traffic may end where it likes.
        let text = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!(missing(&[segment(2, 0, b""), segment(2, 1, text), end()]), (0, 0));
    }

    /// The time is in proportion to the number of segments: with a search for each, this took minutes.
    #[test]
    fn memory_and_time_are_bounded() {
        let mut streams = Streams::default();
        let long = vec![0; 64 * 1024];
        for port in 2..1000 {
            streams.segment(&segment(port, 0, b""), |_, _| panic!("no message"));
            for number in 1..10_u32 {
                streams
                    .segment(&segment(port, number * 100_000, &long), |_, _| panic!("no message"));
            }
            assert!(streams.memory <= MAX_WAITING);
        }
        let waiting = streams.streams.values().map(Stream::memory).sum::<usize>();
        assert_eq!((waiting, streams.streams.len()), (streams.memory, streams.by_age.len()));
        let mut streams = Streams::default();
        streams.segment(&segment(2, 0, b""), |_, _| panic!("no message"));
        for number in 0..100_000_u32 {
            streams.segment(&segment(2, 200_000 + 2 * number, b"x"), |_, _| panic!("no message"));
        }
        for number in 1..100_000_u32 {
            streams.segment(&segment(2, number, b"\x01"), |_, _| {});
        }
        for port in 2..=u16::MAX {
            streams.segment(&segment(port, 0, b""), |_, _| panic!("no message"));
        }
        assert!(streams.streams.len() <= MAX_STREAMS);
    }
}
