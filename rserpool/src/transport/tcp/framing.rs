//! Message boundaries on a byte stream.
//!
//! An ASAP or ENRP message has its length in its header, and is padded to a multiple of four
//! bytes (RFC 5354 section 4). A session carries the application's data as well, so each of
//! its messages has a frame:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |            Length of the payload, without padding             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                  Payload Protocol Identifier                  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! :                            Payload                            :
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! A frame with an empty payload and the identifier of ASAP is not a message: it closes the
//! session. A stream that ends without this frame was broken. So a pool user can tell a server that
//! crashed from one that closed the session.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rserpool_proto::wire::{Ppid, UserMessage, padded};

use super::outgoing::Outgoing;
use crate::transport::{Event, Purpose, SendError};

/// The length of a frame's header.
const HEADER: usize = 8;

/// The way in which messages are delimited on a connection.
#[derive(Debug, Clone, Copy)]
pub(in crate::transport) enum Framing {
    SelfDelimiting(Ppid),
    Session {
        max_message_size: usize,
    },
    /// Not at all: each message is the bytes that were read together.
    Bytes,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::transport) enum Frame {
    Message(UserMessage),
    End,
}

impl Framing {
    pub(in crate::transport) fn new(purpose: Purpose, max_message_size: usize) -> Self {
        match purpose {
            Purpose::Protocol(ppid) => Self::SelfDelimiting(ppid),
            Purpose::Session => Self::Session { max_message_size },
            Purpose::Bytes => Self::Bytes,
        }
    }

    /// Returns the maximum length of a message. ASAP and ENRP messages have a length field of 16
    /// bits.
    pub(in crate::transport) fn max_message_size(self) -> usize {
        match self {
            Self::SelfDelimiting(_) => usize::from(u16::MAX),
            Self::Session { max_message_size } => max_message_size,
            Self::Bytes => usize::MAX,
        }
    }

    /// Removes the next frame from the received data, if it is complete.
    pub(in crate::transport) fn decode(self, incoming: &mut BytesMut) -> io::Result<Option<Frame>> {
        match self {
            Self::SelfDelimiting(ppid) => {
                let &[_, _, high, low, ..] = &incoming[..] else { return Ok(None) };
                let length = usize::from(u16::from_be_bytes([high, low]));
                // With a length smaller than the header, the start of the next message cannot be
                // found. The message then consists of all remaining bytes.
                let whole = if length < 4 { incoming.len() } else { padded(length) };
                if incoming.len() < whole {
                    return Ok(None);
                }
                let payload = incoming.split_to(whole).freeze();
                Ok(Some(Frame::Message(UserMessage::new(ppid, payload))))
            }
            Self::Session { max_message_size } => {
                let Some((header, _)) = incoming.split_first_chunk::<HEADER>() else {
                    return Ok(None);
                };
                let mut header = &header[..];
                let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
                let ppid = Ppid(header.get_u32());
                if length > max_message_size {
                    let text = format!("a message of {length} bytes is longer than allowed");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                if incoming.len() < HEADER + length {
                    incoming.reserve(HEADER + length - incoming.len());
                    return Ok(None);
                }
                incoming.advance(HEADER);
                let payload: Bytes = incoming.split_to(length).freeze();
                if payload.is_empty() && ppid == Ppid::ASAP {
                    return Ok(Some(Frame::End));
                }
                Ok(Some(Frame::Message(UserMessage::new(ppid, payload))))
            }
            Self::Bytes if incoming.is_empty() => Ok(None),
            Self::Bytes => {
                let payload = incoming.split().freeze();
                Ok(Some(Frame::Message(UserMessage::new(Ppid::NONE, payload))))
            }
        }
    }

    /// Returns the next event of the received data; `None` if more has to be read.
    pub(in crate::transport) fn event(self, incoming: &mut BytesMut) -> io::Result<Option<Event>> {
        Ok(self.decode(incoming)?.map(|frame| match frame {
            Frame::Message(message) => Event::Message(message),
            Frame::End => Event::Closed,
        }))
    }

    /// Returns the event at the end of the stream. In a session, a stream that ends without the
    /// closing frame is broken, which is an error. If the stream ends in the middle of an ASAP or
    /// ENRP message, returns the incomplete message, so that the receiver can report the peer's
    /// mistake.
    pub(in crate::transport) fn end_of_stream(self, incoming: &mut BytesMut) -> io::Result<Event> {
        match self {
            Self::Bytes => Ok(Event::Closed),
            Self::SelfDelimiting(_) if incoming.is_empty() => Ok(Event::Closed),
            Self::SelfDelimiting(ppid) => {
                Ok(Event::Message(UserMessage::new(ppid, incoming.split().freeze())))
            }
            Self::Session { .. } if incoming.is_empty() => {
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Self::Session { .. } => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(in crate::transport) fn encode(
        self,
        message: &UserMessage,
        outgoing: &mut Outgoing,
    ) -> Result<(), SendError> {
        let length = message.payload.len();
        match self {
            Self::SelfDelimiting(_) => {
                outgoing.put_payload(&message.payload);
                if length != padded(length) {
                    outgoing.end().put_bytes(0, padded(length) - length);
                }
            }
            Self::Session { max_message_size: limit } => {
                let header = u32::try_from(length).ok().filter(|_| length <= limit);
                let header = header.ok_or(SendError::TooLong { length, limit })?;
                let end = outgoing.end();
                end.put_u32(header);
                end.put_u32(message.ppid.0);
                outgoing.put_payload(&message.payload);
            }
            Self::Bytes => outgoing.put_payload(&message.payload),
        }
        Ok(())
    }

    pub(in crate::transport) fn encode_end(self, outgoing: &mut Outgoing) {
        match self {
            Self::SelfDelimiting(_) | Self::Bytes => {}
            Self::Session { .. } => {
                let end = outgoing.end();
                end.put_u32(0);
                end.put_u32(Ppid::ASAP.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Framing = Framing::Session { max_message_size: 10 };

    fn decode_all(framing: Framing, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut incoming = BytesMut::new();
        // Decode a byte at a time.
        for byte in bytes {
            incoming.put_u8(*byte);
            frames.extend(framing.decode(&mut incoming).unwrap());
        }
        assert!(incoming.is_empty());
        frames
    }

    #[test]
    fn sessions_keep_boundaries_and_identifiers() {
        let messages = [
            UserMessage::new(Ppid(33), b"ping".as_slice()),
            UserMessage::new(Ppid::NONE, b"".as_slice()),
            UserMessage::new(Ppid::ASAP, b"0123456789".as_slice()),
        ];
        let mut bytes = Outgoing::default();
        for message in &messages {
            SESSION.encode(message, &mut bytes).unwrap();
        }
        SESSION.encode_end(&mut bytes);
        let mut expected: Vec<_> = messages.into_iter().map(Frame::Message).collect();
        expected.push(Frame::End);
        assert_eq!(decode_all(SESSION, bytes.end()), expected);
    }

    #[test]
    fn what_is_too_long_is_neither_sent_nor_awaited() {
        let mut bytes = Outgoing::default();
        let message = UserMessage::new(Ppid::NONE, b"01234567890".as_slice());
        let error = SESSION.encode(&message, &mut bytes).unwrap_err();
        assert_eq!(error, SendError::TooLong { length: 11, limit: 10 });
        assert!(bytes.is_empty());
        let mut incoming = BytesMut::from(&[0xff; 8][..]);
        assert!(SESSION.decode(&mut incoming).is_err());
    }

    #[test]
    fn protocol_messages_delimit_themselves() {
        let framing = Framing::SelfDelimiting(Ppid::ASAP);
        let one = b"\x05\0\0\x0f\0\x09\0\x0bCalcPoo\0";
        let frames = decode_all(framing, &[&one[..], &one[..]].concat());
        let message = || Frame::Message(UserMessage::new(Ppid::ASAP, &one[..]));
        assert_eq!(frames, [message(), message()]);
    }
}
