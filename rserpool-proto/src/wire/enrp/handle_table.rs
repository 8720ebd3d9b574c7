//! Download of the handlespace (RFC 5353 sections 2.2 and 2.3).

use super::{DecodeError, Format, Reader, Route, Writer, placeholder};
use crate::wire::message::Extras;
use crate::wire::order::Layout;
use crate::wire::{Bytes, EncodedElement, PoolElement, PoolHandle};

/// ENRP_HANDLE_TABLE_REQUEST (RFC 5353 section 2.2): asks for the next page (part) of the
/// receiver's handlespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HandleTableRequest {
    /// True to request only the elements whose home registrar is the receiver (the W flag).
    pub own_children_only: bool,
    /// The sender and the receiver.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
}

placeholder!(HandleTableRequest { own_children_only, route });

impl Format for HandleTableRequest {
    const TYPE: u8 = 0x02;
    const NAME: &'static str = "ENRP_HANDLE_TABLE_REQUEST";
    const LAYOUT: Option<Layout> = Some(Layout { fields: 8, order: &[] });
    const FLAGS: u8 = 0x01;

    fn flags(&self) -> u8 {
        u8::from(self.own_children_only)
    }

    fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.own_children_only = flags & 0x01 != 0;
        self.route.decode(reader)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
    }
}

/// ENRP_HANDLE_TABLE_RESPONSE (RFC 5353 section 2.3): returns one page (part) of the sender's
/// handlespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HandleTableResponse {
    /// True if the sender has another page of its handlespace to send on request (the M flag).
    pub more_to_send: bool,
    /// True if the sender refuses the request (the R flag).
    pub reject: bool,
    /// The sender and the receiver.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
    /// The pools of this page, each with those of its elements that are on the page.
    pub pools: Vec<PoolEntry>,
}

/// A pool and those of its elements that are in one [`HandleTableResponse`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PoolEntry {
    /// The pool.
    pub pool_handle: PoolHandle,
    /// Those elements of the pool that are in the message.
    pub elements: Vec<PoolElement>,
}

impl HandleTableResponse {
    /// Encodes a message with stored elements, each given with its pool. The bytes are those of a
    /// message whose [`Self::pools`] are sorted by handle. Leaves out elements that do not fit into
    /// the message.
    #[must_use]
    pub fn encode_page(
        route: Route,
        more_to_send: bool,
        mut entries: Vec<(&PoolHandle, &EncodedElement)>,
    ) -> Bytes {
        // The sort is stable: the elements of a pool keep their order.
        entries.sort_by_key(|(handle, _)| *handle);
        let extras = Extras::default();
        let mut writer = Writer::new(&extras);
        writer.slice(&[Self::TYPE, u8::from(more_to_send) << 1, 0, 0]);
        route.encode(&mut writer);
        let mut pool = None;
        for (handle, element) in entries {
            if writer.room() < EncodedElement::MAX_SIZE {
                break;
            }
            if pool != Some(handle) {
                writer.parameter(handle);
                pool = Some(handle);
            }
            writer.encoded(element.as_bytes());
        }
        writer.finish_bounded()
    }
}

placeholder!(HandleTableResponse { more_to_send, reject, route, pools });

impl Format for HandleTableResponse {
    const TYPE: u8 = 0x03;
    const NAME: &'static str = "ENRP_HANDLE_TABLE_RESPONSE";
    const FLAGS: u8 = 0x03;

    fn flags(&self) -> u8 {
        u8::from(self.reject) | u8::from(self.more_to_send) << 1
    }

    fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.more_to_send = flags & 0x02 != 0;
        self.reject = flags & 0x01 != 0;
        self.route.decode(reader)?;
        while let Some(pool_handle) = reader.next()? {
            let mut elements = Vec::new();
            reader.repeated(&mut elements)?;
            self.pools.push(PoolEntry { pool_handle, elements });
        }
        Ok(())
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
        for pool in &self.pools {
            writer.parameter(&pool.pool_handle);
            writer.parameters(&pool.elements);
        }
    }
}
