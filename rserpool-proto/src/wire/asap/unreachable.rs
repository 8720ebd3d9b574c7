//! Reports of unreachable elements (RFC 5352 section 2.2.9).

use super::{DecodeError, Format, Reader, Writer, element_message, placeholder};
use crate::wire::{PoolElementId, PoolHandle};

element_message! {
    /// ASAP_ENDPOINT_UNREACHABLE (RFC 5352 section 2.2.9): reports that an element could not be
    /// reached.
    EndpointUnreachable = 0x09, "ASAP_ENDPOINT_UNREACHABLE"
}
