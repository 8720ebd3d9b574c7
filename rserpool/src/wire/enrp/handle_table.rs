//! Download of the handlespace (RFC 5353 sections 2.2 and 2.3).

use super::{DecodeError, Extras, Format, ParameterReader, Reader, Route, Writer};
use crate::wire::{PoolElement, PoolHandle};

/// ENRP_HANDLE_TABLE_REQUEST (RFC 5353 section 2.2): send me the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HandleTableRequest {
    /// Whether only the receiver's own elements are wanted (the W flag).
    pub own_children_only: bool,
    /// From whom, for whom.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
}

impl Format for HandleTableRequest {
    const TYPE: u8 = 0x02;
    const NAME: &'static str = "ENRP_HANDLE_TABLE_REQUEST";
    const FLAGS: u8 = 0x01;

    fn flags(&self) -> u8 {
        u8::from(self.own_children_only)
    }

    fn decode(flags: u8, mut reader: Reader<'_>, extras: &mut Extras) -> Result<Self, DecodeError> {
        let route = Route::decode(&mut reader)?;
        ParameterReader::new(reader, extras).finish()?;
        Ok(Self { own_children_only: flags & 0x01 != 0, route })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
    }
}

/// ENRP_HANDLE_TABLE_RESPONSE (RFC 5353 section 2.3): one page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HandleTableResponse {
    /// Whether there is another page (the M flag).
    pub more_to_send: bool,
    /// Whether the request was refused (the R flag).
    pub reject: bool,
    /// From whom, for whom.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
    /// The pools of this page.
    pub pools: Vec<PoolEntry>,
}

/// A pool and those of its elements that are on this page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PoolEntry {
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The elements.
    pub elements: Vec<PoolElement>,
}

impl Format for HandleTableResponse {
    const TYPE: u8 = 0x03;
    const NAME: &'static str = "ENRP_HANDLE_TABLE_RESPONSE";
    const FLAGS: u8 = 0x03;

    fn flags(&self) -> u8 {
        u8::from(self.reject) | u8::from(self.more_to_send) << 1
    }

    fn decode(flags: u8, mut reader: Reader<'_>, extras: &mut Extras) -> Result<Self, DecodeError> {
        let route = Route::decode(&mut reader)?;
        let mut parameters = ParameterReader::new(reader, extras);
        let mut pools = Vec::new();
        while let Some(pool_handle) = parameters.optional()? {
            pools.push(PoolEntry { pool_handle, elements: parameters.repeated()? });
        }
        parameters.finish()?;
        Ok(Self { more_to_send: flags & 0x02 != 0, reject: flags & 0x01 != 0, route, pools })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
        for pool in &self.pools {
            writer.parameter(&pool.pool_handle);
            writer.parameters(&pool.elements);
        }
    }
}
