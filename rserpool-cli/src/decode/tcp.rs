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

/// Maximum number of bytes of a stream that wait for a lost segment. Beyond it, the stream is
/// forgotten.
const MAX_WAITING: usize = 4 * 1024 * 1024;

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
    /// Streams of which a part is missing in the capture.
    pub(super) broken: u64,
}

/// The source and the destination of a stream.
type Direction = (SocketAddr, SocketAddr);

/// One direction of a connection.
#[derive(Debug)]
struct Stream {
    /// The number of the next byte.
    next: u32,
    /// Bytes in order that were not read yet.
    bytes: Vec<u8>,
    /// Segments behind a gap, by their distance from `next` when they came.
    waiting: BTreeMap<u32, Vec<u8>>,
    waiting_bytes: usize,
    content: Content,
    last: u64,
}

/// What a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Unknown,
    Messages(Ppid),
    Session,
    /// Something else, or a part is missing.
    Other,
}

impl Streams {
    /// Handles a segment. Calls `found` with each message that it completes.
    pub(super) fn segment(&mut self, segment: &Segment<'_>, mut found: impl FnMut(Ppid, Bytes)) {
        self.time += 1;
        let key = (segment.source, segment.destination);
        let first = segment.number.wrapping_add(u32::from(segment.is_first));
        if segment.is_first {
            self.forget(&key);
        }
        if !self.streams.contains_key(&key) {
            if segment.payload.is_empty() && !segment.is_first {
                return;
            }
            self.make_room();
            self.streams.insert(key, Stream::new(first));
        }
        let Some(stream) = self.streams.get_mut(&key) else { return };
        self.by_age.remove(&std::mem::replace(&mut stream.last, self.time));
        self.by_age.insert(self.time, key);
        if stream.content != Content::Other {
            let was_whole = stream.insert(first, segment.payload);
            stream.read(&mut found);
            if !was_whole {
                stream.give_up();
                self.broken += 1;
            }
        }
        if segment.is_last {
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &Direction) {
        if let Some(stream) = self.streams.remove(key) {
            self.by_age.remove(&stream.last);
        }
    }

    fn make_room(&mut self) {
        if self.streams.len() >= MAX_STREAMS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.streams.remove(&oldest);
        }
    }
}

impl Stream {
    fn new(next: u32) -> Self {
        Self {
            next,
            bytes: Vec::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            content: Content::Unknown,
            last: 0,
        }
    }

    /// Adds a segment. Returns false if too much waits for a part that is missing.
    fn insert(&mut self, number: u32, payload: &[u8]) -> bool {
        let ahead = number.wrapping_sub(self.next);
        // Numbers in the other half of the circle are before the next one: a retransmission.
        if ahead > u32::MAX / 2 {
            let known = number.wrapping_neg().wrapping_add(self.next) as usize;
            if let Some(new) = payload.get(known..) {
                self.append(new);
            }
        } else if ahead == 0 {
            self.append(payload);
        } else if !payload.is_empty() {
            let old = self.waiting.insert(number, payload.to_vec());
            self.waiting_bytes += payload.len();
            self.waiting_bytes -= old.map_or(0, |old| old.len());
            return self.waiting_bytes <= MAX_WAITING;
        }
        while let Some((number, payload)) = self.first_in_reach() {
            let known = self.next.wrapping_sub(number) as usize;
            if let Some(new) = payload.get(known..) {
                self.append(new);
            }
        }
        true
    }

    /// Takes a waiting segment that begins at or before the next byte.
    fn first_in_reach(&mut self) -> Option<(u32, Vec<u8>)> {
        let next = self.next;
        let reached = |number: &u32| next.wrapping_sub(*number) <= u32::MAX / 2;
        let number = self.waiting.keys().copied().find(|number| reached(number))?;
        let payload = self.waiting.remove(&number)?;
        self.waiting_bytes -= payload.len();
        Some((number, payload))
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.next = self.next.wrapping_add(bytes.len() as u32);
    }

    fn give_up(&mut self) {
        self.content = Content::Other;
        (self.bytes, self.waiting, self.waiting_bytes) = (Vec::new(), BTreeMap::new(), 0);
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
            self.give_up();
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

/// Returns what a stream has, by its beginning; `None` as long as that is too short to say.
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

    #[test]
    fn what_is_missing_is_counted_and_streams_are_bounded() {
        let mut streams = Streams::default();
        let destination = ([127, 0, 0, 1], 1).into();
        let long = vec![0; 64 * 1024];
        for number in 0..100_u32 {
            let source = ([127, 0, 0, 1], 2).into();
            let (number, is_first, is_last) = (number * 100_000, number == 0, false);
            let payload = if is_first { &[] } else { &long[..] };
            let segment = Segment { source, destination, number, is_first, is_last, payload };
            streams.segment(&segment, |_, _| panic!("no message"));
        }
        assert_eq!(streams.broken, 1);
        for port in 2..=u16::MAX {
            let source = ([127, 0, 0, 1], port).into();
            let (number, is_first, is_last) = (0, true, false);
            let segment = Segment { source, destination, number, is_first, is_last, payload: &[] };
            streams.segment(&segment, |_, _| panic!("no message"));
        }
        assert!(streams.streams.len() <= MAX_STREAMS);
    }
}
