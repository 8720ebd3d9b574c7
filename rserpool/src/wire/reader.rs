//! Bounds-checked reading of fields and parameters.

use std::ops::Range;

use bytes::Bytes;

use super::message::Extras;
use super::{DecodeError, DecodeErrorKind, Parameter, ParameterType};

/// A cursor over a part of a message: the message's body or one parameter's value. Small, for
/// there is one for each parameter; messages are shorter than 2^32 bytes by far.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    message: &'a Bytes,
    position: u32,
    end: u32,
    /// The parameter that it reads, which ends where it does, and where that begins.
    parameter: Option<ParameterType>,
    start: u32,
}

/// Where a parameter is, without its padding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tlv {
    start: u32,
    end: u32,
}

impl Tlv {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(super) fn value(self) -> Range<usize> {
        self.start as usize + 4..self.end as usize
    }
}

impl<'a> Reader<'a> {
    /// Reads the bytes `range` of `message`, which must be inside it.
    #[inline(always)]
    pub(super) fn new(message: &'a Bytes, range: Range<usize>) -> Self {
        let small = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let (position, end) = (small(range.start), small(range.end));
        Self { message, position, end, parameter: None, start: 0 }
    }

    #[cold]
    pub(super) fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        let range = self.start as usize..self.end as usize;
        let parameter = self.parameter.map(|parameter| (parameter, range));
        DecodeError::new(kind, self.position as usize, parameter)
    }

    #[inline]
    pub(super) fn remaining(&self) -> usize {
        (self.end - self.position) as usize
    }

    #[cold]
    fn truncated(&self, needed: usize) -> DecodeError {
        self.error(DecodeErrorKind::Truncated { needed, available: self.remaining() })
    }

    #[inline(always)]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let start = self.position as usize;
        match self.message[start..self.end as usize].first_chunk() {
            Some(array) => {
                self.position += N as u32;
                Ok(*array)
            }
            None => Err(self.truncated(N)),
        }
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
        let rest = self.message.slice(self.position as usize..self.end as usize);
        self.position = self.end;
        rest
    }

    /// What is left, for those who do not keep it.
    #[inline]
    pub(super) fn rest_of_bytes(&mut self) -> &'a [u8] {
        let rest = &self.message[self.position as usize..self.end as usize];
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

    /// The next type-length-value triple, whatever it is, and where it is. The padding of the
    /// last one may be missing.
    #[inline(always)]
    pub(super) fn tlv(&mut self) -> Result<Option<(u16, Tlv)>, DecodeError> {
        if self.position == self.end {
            return Ok(None);
        }
        let start = self.position;
        let [a, b, c, d] = self.array()?;
        let (parameter_type, length) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if length < 4 {
            self.position = start + 2;
            return Err(self.error(DecodeErrorKind::LengthTooSmall(length)));
        }
        let end = start + u32::from(length);
        if end > self.end {
            return Err(self.truncated(usize::from(length) - 4));
        }
        self.position = (start + u32::from(length).next_multiple_of(4)).min(self.end);
        Ok(Some((parameter_type, Tlv { start, end })))
    }

    #[inline(always)]
    fn value(&self, parameter: ParameterType, tlv: Tlv) -> Self {
        let Tlv { start, end } = tlv;
        let parameter = Some(parameter);
        Self { message: self.message, position: start + 4, end, parameter, start }
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
    next: Option<(ParameterType, Tlv)>,
    extras: &'e mut Extras,
    depth: u8,
}

impl<'a, 'e> ParameterReader<'a, 'e> {
    #[inline(always)]
    pub(super) fn new(reader: Reader<'a>, extras: &'e mut Extras) -> Self {
        let depth = extras.depth();
        Self { reader, next: None, extras, depth }
    }

    /// Looks for the next parameter. Only when it is wanted, so that the one before, of which
    /// nothing is left to do, can be decoded to where it shall be.
    #[inline(always)]
    fn peek(&mut self) -> Result<Option<ParameterType>, DecodeError> {
        if self.next.is_none() {
            self.extras.leave_to(self.depth);
            while let Some((number, tlv)) = self.reader.tlv()? {
                if let Some(parameter) = ParameterType::recognized(number) {
                    self.next = Some((parameter, tlv));
                    break;
                }
                self.extras.push(self.reader.slice(tlv.range()));
            }
        }
        Ok(self.next.as_ref().map(|(parameter, _)| *parameter))
    }

    /// The next parameter if it is a `P`, yet to be decoded.
    #[inline(always)]
    fn take<P: Parameter>(&mut self) -> Result<Option<(ParameterType, Reader<'a>)>, DecodeError> {
        match self.peek()? {
            Some(parameter) if P::accepts(parameter) => {}
            _ => return Ok(None),
        }
        let taken = self.next.take();
        Ok(taken.map(|(parameter, tlv)| {
            self.extras.enter();
            (parameter, self.reader.value(parameter, tlv))
        }))
    }

    /// The next parameter, if it is a `P`.
    #[inline(always)]
    pub(super) fn optional<P: Parameter>(&mut self) -> Result<Option<P>, DecodeError> {
        match self.take::<P>()? {
            Some((parameter, value)) => P::decode(parameter, value, self.extras).map(Some),
            None => Ok(None),
        }
    }

    /// The next parameter, which must be a `P`.
    #[inline(always)]
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
    #[inline(always)]
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
                tlv.start as usize,
                Some((*parameter, tlv.range())),
            ),
            None => self.reader.error(DecodeErrorKind::TrailingBytes(0)),
        }
    }
}
