//! Writing of fields and parameters, lengths and padding filled in.

use bytes::Bytes;

use super::message::{Extras, Unrecognized};
use super::{EncodeError, EncodedElement, Parameter, ParameterType, padded};

/// The bytes of one parameter, as an error cause quotes it.
pub(crate) fn quote<P: Parameter>(parameter: &P) -> Bytes {
    let extras = Extras::default();
    let mut writer = Writer::new(&extras);
    writer.parameter(parameter);
    Bytes::copy_from_slice(&writer.bytes[..writer.unpadded_end])
}

/// Collects a message. A length that does not fit is remembered and reported at the end.
#[derive(Debug)]
pub(crate) struct Writer<'e> {
    bytes: Vec<u8>,
    /// Where the last parameter ended, without its padding.
    unpadded_end: usize,
    too_long: Option<usize>,
    extras: &'e [Unrecognized],
    ordinal: u32,
    depth: u8,
}

impl<'e> Writer<'e> {
    pub(super) fn new(extras: &'e Extras) -> Self {
        Self::over(Vec::with_capacity(256), extras)
    }

    /// Writes into `bytes`, which are empty but have room.
    pub(super) fn over(bytes: Vec<u8>, extras: &'e Extras) -> Self {
        Self {
            bytes,
            unpadded_end: 0,
            too_long: None,
            extras: extras.unrecognized(),
            ordinal: 0,
            depth: 0,
        }
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

    /// The value of a message whose format is unknown, and its padding.
    pub(super) fn opaque_value(&mut self, value: &[u8]) {
        self.slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.unpadded_end = self.bytes.len();
        self.bytes.resize(padded(self.bytes.len()), 0);
    }

    /// One type-length-value triple whose value `body` writes, and its padding.
    pub(super) fn tlv(&mut self, number: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.u16(number);
        self.u16(0);
        body(self);
        // A nested parameter's padding belongs to its container, except the last one's
        // (RFC 5354 section 2).
        if self.unpadded_end > start && padded(self.unpadded_end) == self.bytes.len() {
            self.bytes.truncate(self.unpadded_end);
        }
        self.set_length(start, self.bytes.len() - start);
        self.pad();
    }

    fn set_length(&mut self, start: usize, length: usize) {
        match u16::try_from(length) {
            Ok(length) => self.bytes[start + 2..start + 4].copy_from_slice(&length.to_be_bytes()),
            Err(_) => self.too_long = Some(length),
        }
    }

    /// A parameter, after the unknown ones that came before it.
    pub(super) fn parameter<P: Parameter>(&mut self, parameter: &P) {
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

    /// A parameter that is encoded already, its padding included.
    pub(super) fn encoded(&mut self, parameter: &[u8]) {
        self.slice(parameter);
        self.pad();
    }

    /// What a pool user gets of an element.
    pub(super) fn element_for_users(&mut self, element: &EncodedElement) {
        let (length, value) = element.for_users();
        self.u16(ParameterType::PoolElement.number());
        self.u16(length);
        self.slice(value);
        self.pad();
    }

    #[inline]
    fn unrecognized(&mut self) {
        while let Some((next, rest)) = self.extras.split_first()
            && (next.ordinal, next.depth) == (self.ordinal, self.depth)
        {
            self.slice(&next.bytes);
            self.pad();
            self.extras = rest;
        }
    }

    /// The message, its header's length filled in.
    pub(super) fn finish(mut self, count_padding: bool) -> Result<Bytes, EncodeError> {
        self.unrecognized();
        for left in self.extras {
            self.slice(&left.bytes);
            self.pad();
        }
        let end = if count_padding { self.bytes.len() } else { self.unpadded_end };
        self.set_length(0, end.max(4));
        self.written().map(Bytes::copy_from_slice)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What was written, as it is.
    pub(super) fn written(&self) -> Result<&[u8], EncodeError> {
        match self.too_long {
            Some(length) => Err(EncodeError::TooLong { length }),
            None => Ok(&self.bytes),
        }
    }
}
