//! Bounds-checked reading of fields and parameters.

use std::ops::Range;

use bytes::Bytes;

use super::message::Extras;
use super::{DecodeError, DecodeErrorKind, Parameter, ParameterType, padded};

/// A cursor over a part of a message: the message's body or one parameter's value.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    message: &'a Bytes,
    bytes: &'a [u8],
    position: usize,
    end: usize,
    parameter: Option<(ParameterType, Range<usize>)>,
}

impl<'a> Reader<'a> {
    /// Reads the bytes `range` of `message`, which must be inside it.
    #[inline]
    pub(super) fn new(message: &'a Bytes, range: Range<usize>) -> Self {
        Self { message, bytes: message, position: range.start, end: range.end, parameter: None }
    }

    #[cold]
    pub(super) fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError::new(kind, self.position, self.parameter.clone())
    }

    #[inline]
    pub(super) fn remaining(&self) -> usize {
        self.end - self.position
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let available = self.remaining();
        if count > available {
            return Err(self.error(DecodeErrorKind::Truncated { needed: count, available }));
        }
        let start = self.position;
        self.position += count;
        Ok(&self.bytes[start..start + count])
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// What is left, sharing the message's memory.
    #[inline]
    pub(super) fn rest(&mut self) -> Bytes {
        let rest = self.message.slice(self.position..self.end);
        self.position = self.end;
        rest
    }

    /// What is left, for those who do not keep it.
    #[inline]
    pub(super) fn rest_of_bytes(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.position..self.end];
        self.position = self.end;
        rest
    }

    #[inline]
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(self.error(DecodeErrorKind::TrailingBytes(count))),
        }
    }

    /// The next type-length-value triple, whatever it is, and the range that it takes without
    /// its padding. The padding of the last one may be missing.
    #[inline]
    pub(super) fn tlv(&mut self) -> Result<Option<(u16, Range<usize>)>, DecodeError> {
        if self.remaining() == 0 {
            return Ok(None);
        }
        let start = self.position;
        let [a, b, c, d] = self.array()?;
        let (parameter_type, length) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let Some(value_length) = usize::from(length).checked_sub(4) else {
            self.position = start + 2;
            return Err(self.error(DecodeErrorKind::LengthTooSmall(length)));
        };
        let end = start + usize::from(length);
        self.take(value_length)?;
        self.position = padded(end - start).saturating_add(start).min(self.end);
        Ok(Some((parameter_type, start..end)))
    }

    #[inline]
    fn value(&self, parameter: ParameterType, tlv: &Range<usize>) -> Self {
        Self {
            message: self.message,
            bytes: self.bytes,
            position: tlv.start + 4,
            end: tlv.end,
            parameter: Some((parameter, tlv.clone())),
        }
    }

    pub(super) fn slice(&self, range: Range<usize>) -> Bytes {
        self.message.slice(range)
    }
}

/// Reads a list of parameters in the order that a format prescribes, and sets aside those
/// whose type is unknown.
#[derive(Debug)]
pub(crate) struct ParameterReader<'a, 'e> {
    reader: Reader<'a>,
    /// The next parameter, once it was looked for.
    next: Option<(ParameterType, Range<usize>)>,
    extras: &'e mut Extras,
    depth: u8,
}

impl<'a, 'e> ParameterReader<'a, 'e> {
    #[inline]
    pub(super) fn new(reader: Reader<'a>, extras: &'e mut Extras) -> Self {
        let depth = extras.depth();
        Self { reader, next: None, extras, depth }
    }

    /// Looks for the next parameter. Only when it is wanted, so that the one before, of which
    /// nothing is left to do, can be decoded to where it shall be.
    #[inline]
    fn peek(&mut self) -> Result<Option<ParameterType>, DecodeError> {
        if self.next.is_none() {
            self.extras.leave_to(self.depth);
            while let Some((number, tlv)) = self.reader.tlv()? {
                match ParameterType::recognized(number) {
                    Some(parameter) => {
                        self.next = Some((parameter, tlv));
                        break;
                    }
                    None => self.extras.push(self.reader.slice(tlv)),
                }
            }
        }
        Ok(self.next.as_ref().map(|(parameter, _)| *parameter))
    }

    /// The next parameter if it is a `P`, yet to be decoded.
    #[inline]
    fn take<P: Parameter>(&mut self) -> Result<Option<(ParameterType, Reader<'a>)>, DecodeError> {
        match self.peek()? {
            Some(parameter) if P::accepts(parameter) => {}
            _ => return Ok(None),
        }
        let taken = self.next.take();
        Ok(taken.map(|(parameter, tlv)| {
            self.extras.enter();
            (parameter, self.reader.value(parameter, &tlv))
        }))
    }

    /// The next parameter, if it is a `P`.
    #[inline]
    pub(super) fn optional<P: Parameter>(&mut self) -> Result<Option<P>, DecodeError> {
        match self.take::<P>()? {
            Some((parameter, value)) => P::decode(parameter, value, self.extras).map(Some),
            None => Ok(None),
        }
    }

    /// The next parameter, which must be a `P`.
    #[inline]
    pub(super) fn required<P: Parameter>(&mut self) -> Result<P, DecodeError> {
        match self.take::<P>()? {
            Some((parameter, value)) => P::decode(parameter, value, self.extras),
            None => Err(match &self.next {
                Some(_) => self.unexpected(),
                None => self.reader.error(DecodeErrorKind::Missing(P::NAME)),
            }),
        }
    }

    /// All that follow, which must be `P`s until something else comes.
    pub(super) fn repeated<P: Parameter, C: Default + Extend<P>>(
        &mut self,
    ) -> Result<C, DecodeError> {
        let mut list = C::default();
        while let Some(decoded) = self.optional()? {
            list.extend(Some(decoded));
        }
        Ok(list)
    }

    /// Nothing recognised may be left.
    #[inline]
    pub(super) fn finish(mut self) -> Result<(), DecodeError> {
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(self.unexpected()),
        }
    }

    #[cold]
    fn unexpected(&self) -> DecodeError {
        match &self.next {
            Some((parameter, tlv)) => DecodeError::new(
                DecodeErrorKind::Unexpected(*parameter),
                tlv.start,
                Some((*parameter, tlv.clone())),
            ),
            None => self.reader.error(DecodeErrorKind::TrailingBytes(0)),
        }
    }
}
