//! Bounds-checked reading of fields and parameters.

use std::ops::Range;

use bytes::Bytes;

use super::message::Unrecognized;
use super::{DecodeError, DecodeErrorKind, Parameter, ParameterType, padded};

/// A cursor over a message's bytes. It enters and leaves nested parameters, and collects the
/// parameters of unknown type separately.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    message: &'a Bytes,
    position: usize,
    /// The end of the message's body or of the enclosing parameter.
    end: usize,
    unrecognized: &'a mut Vec<Unrecognized>,
    /// The number of known parameters entered so far.
    ordinal: u32,
    /// The number of parameters that enclose the position.
    depth: u8,
}

/// A type-length-value triple: the number of its type, and its range in the message without
/// padding.
#[derive(Debug, Clone, Copy)]
struct Tlv {
    number: u16,
    start: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// Creates a reader of the bytes `range` of `message`; `range` must be inside `message`. The
    /// reader appends parameters of unknown type to `unrecognized`.
    #[inline]
    pub(super) fn new(
        message: &'a Bytes,
        range: Range<usize>,
        unrecognized: &'a mut Vec<Unrecognized>,
    ) -> Self {
        let Range { start, end } = range;
        Self { message, position: start, end, unrecognized, ordinal: 0, depth: 0 }
    }

    #[cold]
    pub(super) fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError::new(kind, self.position)
    }

    #[cold]
    fn truncated(&self, needed: usize) -> DecodeError {
        self.error(DecodeErrorKind::Truncated { needed, available: self.end - self.position })
    }

    #[inline(always)]
    fn left(&self) -> &'a [u8] {
        &self.message[self.position..self.end]
    }

    #[inline(always)]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.left().first_chunk() {
            Some(array) => {
                self.position += N;
                Ok(*array)
            }
            None => Err(self.truncated(N)),
        }
    }

    #[inline(always)]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline(always)]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads the remaining bytes.
    #[inline(always)]
    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = self.left();
        self.position = self.end;
        rest
    }

    /// Reads the remaining bytes, sharing the message's memory.
    #[inline]
    pub(super) fn shared_rest(&mut self) -> Bytes {
        let rest = self.message.slice(self.position..self.end);
        self.position = self.end;
        rest
    }

    /// Returns the next type-length-value triple without consuming it.
    #[inline(always)]
    fn peek_tlv(&mut self) -> Result<Option<Tlv>, DecodeError> {
        let start = self.position;
        if start == self.end {
            return Ok(None);
        }
        let [a, b, c, d] = self.array()?;
        let (number, length) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if length < 4 {
            self.position = start + 2;
            return Err(self.error(DecodeErrorKind::LengthTooSmall(length)));
        }
        let end = start + usize::from(length);
        if end > self.end {
            return Err(self.truncated(usize::from(length) - 4));
        }
        self.position = start;
        Ok(Some(Tlv { number, start, end }))
    }

    /// Advances past a type-length-value triple. The padding of the last triple may be missing.
    #[inline(always)]
    fn skip(&mut self, tlv: Tlv) {
        self.position = (tlv.start + padded(tlv.end - tlv.start)).min(self.end);
    }

    /// Reads the next triple of any type; returns its number and its value.
    #[inline]
    pub(super) fn tlv(&mut self) -> Result<Option<(u16, Bytes)>, DecodeError> {
        Ok(self.peek_tlv()?.map(|tlv| {
            self.skip(tlv);
            (tlv.number, self.message.slice(tlv.start + 4..tlv.end))
        }))
    }

    /// Returns the next known parameter without consuming it. Collects the unknown parameters
    /// before it in `unrecognized`.
    #[inline(always)]
    fn peek(&mut self) -> Result<Option<(ParameterType, Tlv)>, DecodeError> {
        while let Some(tlv) = self.peek_tlv()? {
            if let Some(parameter) = ParameterType::recognized(tlv.number) {
                return Ok(Some((parameter, tlv)));
            }
            self.set_aside(tlv);
        }
        Ok(None)
    }

    #[cold]
    fn set_aside(&mut self, tlv: Tlv) {
        let bytes = self.message.slice(tlv.start..tlv.end);
        self.unrecognized.push(Unrecognized { ordinal: self.ordinal, depth: self.depth, bytes });
        self.skip(tlv);
    }

    /// Returns the next parameter without consuming it, if it is a `P`.
    #[inline(always)]
    fn peek_for<P: Parameter>(&mut self) -> Result<Option<(ParameterType, Tlv)>, DecodeError> {
        Ok(self.peek()?.filter(|(parameter, _)| P::accepts(*parameter)))
    }

    /// Reads the next parameter, if it is a `P`.
    #[inline(always)]
    pub(super) fn next<P: Parameter>(&mut self) -> Result<Option<P>, DecodeError> {
        let mut next = None;
        self.optional(&mut next)?;
        Ok(next)
    }

    /// Reads the next parameter into `parameter`, if it is a `P`; leaves `parameter` unchanged
    /// otherwise.
    #[inline(always)]
    pub(super) fn optional<P: Parameter>(
        &mut self,
        parameter: &mut Option<P>,
    ) -> Result<(), DecodeError> {
        match self.peek_for::<P>()? {
            Some(next) => self.decode(parameter.insert(P::placeholder()), next),
            None => Ok(()),
        }
    }

    /// Reads the next parameter, which must be a `P`, into `parameter`, a placeholder.
    #[inline(always)]
    pub(super) fn required<P: Parameter>(&mut self, parameter: &mut P) -> Result<(), DecodeError> {
        match self.peek()? {
            Some(next) if P::accepts(next.0) => self.decode(parameter, next),
            Some(next) => Err(self.unexpected(next)),
            None => Err(self.error(DecodeErrorKind::Missing(P::NAME))),
        }
    }

    /// Reads consecutive parameters into `list` as long as they are `P`s.
    pub(super) fn repeated<P: Parameter>(&mut self, list: &mut Vec<P>) -> Result<(), DecodeError> {
        while let Some(next) = self.peek_for::<P>()? {
            let last = list.len();
            list.push(P::placeholder());
            self.decode(&mut list[last], next)?;
        }
        Ok(())
    }

    /// Returns an error if a known parameter is left.
    #[inline(always)]
    pub(super) fn no_more_parameters(&mut self) -> Result<(), DecodeError> {
        match self.peek()? {
            None => Ok(()),
            Some(next) => Err(self.unexpected(next)),
        }
    }

    /// Decodes a parameter: narrows the reader to its value, and restores it afterwards.
    #[inline(always)]
    fn decode<P: Parameter>(
        &mut self,
        into: &mut P,
        (parameter, tlv): (ParameterType, Tlv),
    ) -> Result<(), DecodeError> {
        let end = self.end;
        self.position = tlv.start + 4;
        self.end = tlv.end;
        self.ordinal += 1;
        self.depth += 1;
        match into.decode(parameter, self) {
            Ok(()) if self.position == self.end => {
                self.end = end;
                self.depth -= 1;
                self.skip(tlv);
                Ok(())
            }
            result => Err(self.fault(parameter, tlv, result.err())),
        }
    }

    /// Returns the error of decoding a parameter: `error` or, if that is `None`, an error about the
    /// bytes left over after the parameter's value.
    #[cold]
    fn fault(&self, parameter: ParameterType, tlv: Tlv, error: Option<DecodeError>) -> DecodeError {
        error
            .unwrap_or_else(|| self.error(DecodeErrorKind::TrailingBytes(self.left().len())))
            .within(parameter, tlv.start..tlv.end)
    }

    #[cold]
    fn unexpected(&self, (parameter, tlv): (ParameterType, Tlv)) -> DecodeError {
        DecodeError::new(DecodeErrorKind::Unexpected(parameter), tlv.start)
            .within(parameter, tlv.start..tlv.end)
    }
}
