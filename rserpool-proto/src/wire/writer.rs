//! Writing of fields and parameters, with lengths and padding.

use bytes::Bytes;

use super::message::{Extras, Unrecognized};
use super::{EncodeError, EncodedElement, Parameter, ParameterType, padded};

/// The maximum size of a message, in bytes, if its length field includes the padding.
const MAX_MESSAGE_SIZE: usize = 65_532;

/// The maximum length of a parameter that an error cause quotes, so that the error fits into its
/// message.
const MAX_QUOTE: usize = 16 * 1024;

/// Returns the bytes of a parameter, for an error cause to quote; empty if they are longer than
/// [`MAX_QUOTE`].
pub(crate) fn quote<P: Parameter>(parameter: &P) -> Bytes {
    let extras = Extras::default();
    let mut writer = Writer::new(&extras);
    writer.parameter(parameter);
    match writer.bytes.len() {
        0..=MAX_QUOTE => Bytes::copy_from_slice(&writer.bytes),
        _ => Bytes::new(),
    }
}

/// A writer of messages. If a length does not fit its field, [`finish`](Self::finish) returns an
/// error.
#[derive(Debug)]
pub(crate) struct Writer<'e> {
    /// The bytes written so far, without padding after the last parameter. The next write adds that
    /// padding, so that the last parameter inside another one has none (RFC 5354 section 2).
    bytes: Vec<u8>,
    too_long: Option<usize>,
    extras: &'e [Unrecognized],
    ordinal: u32,
    depth: u8,
}

impl<'e> Writer<'e> {
    pub(super) fn new(extras: &'e Extras) -> Self {
        Self::over(Vec::with_capacity(256), extras)
    }

    /// Creates a writer into `bytes`, which must be empty; its capacity is reused.
    pub(super) fn over(bytes: Vec<u8>, extras: &'e Extras) -> Self {
        Self { bytes, too_long: None, extras: extras.unrecognized(), ordinal: 0, depth: 0 }
    }

    #[inline]
    pub(super) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    #[inline]
    pub(super) fn u16(&mut self, value: u16) {
        self.slice(&value.to_be_bytes());
    }

    #[inline]
    pub(super) fn u32(&mut self, value: u32) {
        self.slice(&value.to_be_bytes());
    }

    #[inline]
    pub(super) fn slice(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    #[inline(always)]
    fn pad(&mut self) {
        let end = self.bytes.len();
        if !end.is_multiple_of(4) {
            self.slice(&[0; 3][..padded(end) - end]);
        }
    }

    /// Writes a type-length-value triple; `body` writes the value.
    #[inline(always)]
    pub(super) fn tlv(&mut self, number: u16, body: impl FnOnce(&mut Self)) {
        self.pad();
        let start = self.bytes.len();
        let [high, low] = number.to_be_bytes();
        self.slice(&[high, low, 0, 0]);
        body(self);
        self.set_length(start);
    }

    /// Sets flags of the message, whose header has been written.
    pub(super) fn add_flags(&mut self, flags: u8) {
        if let Some(byte) = self.bytes.get_mut(1) {
            *byte |= flags;
        }
    }

    /// Sets the length of the triple or message that begins at `start` and ends with the last byte
    /// written.
    #[inline(always)]
    fn set_length(&mut self, start: usize) {
        let length = self.bytes.len() - start;
        match u16::try_from(length) {
            Ok(length) => self.bytes[start + 2..start + 4].copy_from_slice(&length.to_be_bytes()),
            Err(_) => self.too_long = Some(length),
        }
    }

    #[inline(always)]
    pub(super) fn parameter<P: Parameter>(&mut self, parameter: &P) {
        if self.extras.is_empty() {
            self.tlv(parameter.parameter_type().number(), |writer| parameter.encode(writer));
        } else {
            self.parameter_among_unrecognized(parameter);
        }
    }

    /// Writes a parameter, together with the unknown parameters that the received message had
    /// before it and inside it.
    #[cold]
    fn parameter_among_unrecognized<P: Parameter>(&mut self, parameter: &P) {
        self.unrecognized();
        self.ordinal += 1;
        self.tlv(parameter.parameter_type().number(), |writer| {
            writer.depth += 1;
            parameter.encode(writer);
            writer.unrecognized();
            writer.depth -= 1;
        });
    }

    pub(super) fn parameters<'p, P: Parameter + 'p>(
        &mut self,
        parameters: impl IntoIterator<Item = &'p P>,
    ) {
        for parameter in parameters {
            self.parameter(parameter);
        }
    }

    /// Writes a parameter that is already encoded.
    pub(super) fn encoded(&mut self, parameter: &[u8]) {
        self.pad();
        self.slice(parameter);
    }

    /// Writes the part of an element that pool users receive.
    pub(super) fn element_for_users(&mut self, element: &EncodedElement) {
        let (length, value) = element.for_users();
        self.pad();
        let [[a, b], [c, d]] = [ParameterType::PoolElement.number(), length].map(u16::to_be_bytes);
        self.slice(&[a, b, c, d]);
        self.slice(value);
    }

    fn unrecognized(&mut self) {
        while let Some((next, rest)) = self.extras.split_first()
            && (next.ordinal, next.depth) == (self.ordinal, self.depth)
        {
            self.encoded(&next.bytes);
            self.extras = rest;
        }
    }

    /// Sets the length in the header and returns the message.
    pub(super) fn finish(mut self, count_padding: bool) -> Result<Bytes, EncodeError> {
        for left in self.extras {
            self.encoded(&left.bytes);
        }
        if count_padding {
            self.pad();
        }
        self.set_length(0);
        self.pad();
        match self.too_long {
            Some(length) => Err(EncodeError::TooLong { length }),
            None => Ok(Bytes::copy_from_slice(&self.bytes)),
        }
    }

    /// Returns the padded bytes. The caller checks that the lengths fit.
    pub(super) fn into_padded(mut self) -> Vec<u8> {
        self.pad();
        self.bytes
    }

    /// Returns the number of bytes that the message has room for.
    pub(super) fn room(&self) -> usize {
        MAX_MESSAGE_SIZE.saturating_sub(padded(self.bytes.len()))
    }

    /// Returns a message of stored elements, which cannot be too long.
    pub(super) fn finish_bounded(mut self) -> Bytes {
        self.pad();
        self.set_length(0);
        debug_assert_eq!(self.too_long, None);
        Bytes::from(self.bytes)
    }
}
