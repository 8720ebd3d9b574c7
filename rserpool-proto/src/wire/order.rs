//! Reordering of messages whose parameters are not in the order of the RFCs, or that contain known
//! parameters that do not belong in the message.
//!
//! This crate reorders only messages that it cannot decode directly. RFC 5354 section 3 has no rule
//! for the order of parameters. So this crate accepts every unambiguous order, and sends the order
//! of the RFCs.

use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeErrorKind, Parameter, ParameterType, UserTransport, padded};

/// The layout of a message type: fields of fixed size, followed by parameters in their usual order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// The number of bytes of the fields before the parameters.
    pub(super) fields: usize,
    /// The parameters, in the usual order.
    pub(super) order: &'static [ParameterType],
}

/// The number of bytes of a pool element's fields: identifier, home registrar and lifetime.
const ELEMENT_FIELDS: usize = 12;

/// A known parameter of a received message, together with the unknown parameters that follow it.
struct Piece<'a> {
    rank: usize,
    bytes: &'a [u8],
}

/// Returns whether reordering the message's parameters may remove the decoding error.
pub(super) fn may_help(fault: &DecodeErrorKind) -> bool {
    matches!(fault, DecodeErrorKind::Unexpected(_) | DecodeErrorKind::Missing(_))
}

/// Returns the message with its parameters in the usual order, without those that do not belong in
/// it. Returns `None` if the lengths are wrong.
pub(super) fn in_order(message: &Bytes, layout: Layout) -> Option<Bytes> {
    let end = usize::from(u16::from_be_bytes([*message.get(2)?, *message.get(3)?]));
    let start = 4 + layout.fields;
    let rank = |parameter| layout.order.iter().position(|its| *its == parameter);
    let pieces = pieces(message.get(start..end)?, |parameter, _| rank(parameter))?;
    let mut ordered = BytesMut::with_capacity(message.len());
    ordered.put_slice(&message[..start]);
    for piece in pieces {
        if kind_of(piece.bytes) == Some(ParameterType::PoolElement) {
            put_element(&mut ordered, piece.bytes)?;
        } else {
            put_padded(&mut ordered, piece.bytes);
        }
    }
    let length = u16::try_from(ordered.len()).ok()?;
    ordered[2..4].copy_from_slice(&length.to_be_bytes());
    Some(ordered.freeze())
}

/// Appends a pool element with its user transport first, then its policy, and the transport of its
/// ASAP endpoint last. Unknown parameters that followed the element are appended after it.
fn put_element(ordered: &mut BytesMut, bytes: &[u8]) -> Option<()> {
    let end = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let start = 4 + ELEMENT_FIELDS;
    let parameters = bytes.get(start..end)?;
    let pieces = pieces(parameters, |parameter, transports| {
        if UserTransport::accepts(parameter) {
            return Some(if transports == 0 { 0 } else { 2 });
        }
        (parameter == ParameterType::Policy).then_some(1)
    })?;
    let begin = ordered.len();
    ordered.put_slice(&bytes[..start]);
    for piece in pieces {
        put_padded(ordered, piece.bytes);
    }
    let length = u16::try_from(ordered.len() - begin).ok()?;
    ordered[begin + 2..begin + 4].copy_from_slice(&length.to_be_bytes());
    put_padded(ordered, bytes.get(padded(end)..).unwrap_or_default());
    Some(())
}

/// Returns the parameters to which `rank` assigns a rank (a place in the usual order), sorted by
/// rank. The second argument of `rank` is the number of preceding parameters of rank 0.
fn pieces(
    bytes: &[u8],
    rank: impl Fn(ParameterType, usize) -> Option<usize>,
) -> Option<Vec<Piece<'_>>> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let (mut position, mut first_rank) = (0, 0);
    while position < bytes.len() {
        let header: &[u8; 4] = bytes[position..].first_chunk()?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if length < 4 || position + length > bytes.len() {
            return None;
        }
        let end = (position + padded(length)).min(bytes.len());
        match kind_of(&bytes[position..]) {
            Some(parameter) => {
                if let Some(rank) = rank(parameter, first_rank) {
                    first_rank += usize::from(rank == 0);
                    pieces.push(Piece { rank, bytes: &bytes[position..end] });
                }
            }
            // An unknown parameter stays behind the parameter that it followed.
            None => match pieces.last_mut() {
                Some(last) if last.bytes.as_ptr_range().end == bytes[position..].as_ptr() => {
                    let start = position - last.bytes.len();
                    last.bytes = &bytes[start..end];
                }
                _ => pieces.push(Piece { rank: 0, bytes: &bytes[position..end] }),
            },
        }
        position = end;
    }
    pieces.sort_by_key(|piece| piece.rank);
    Some(pieces)
}

fn kind_of(parameter: &[u8]) -> Option<ParameterType> {
    ParameterType::recognized(u16::from_be_bytes([*parameter.first()?, *parameter.get(1)?]))
}

fn put_padded(ordered: &mut BytesMut, bytes: &[u8]) {
    ordered.put_slice(bytes);
    ordered.put_bytes(0, padded(bytes.len()) - bytes.len());
}
