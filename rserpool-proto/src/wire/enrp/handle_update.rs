//! Updates of the handlespace (RFC 5353 section 2.4).

use super::{DecodeError, Format, Reader, Route, Writer, placeholder};
use crate::wire::message::Extras;
use crate::wire::order::Layout;
use crate::wire::{Bytes, EncodedElement, ParameterType, PoolElement, PoolHandle};

/// ENRP_HANDLE_UPDATE (RFC 5353 section 2.4): reports that an element was added, changed or
/// removed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HandleUpdate {
    /// True if the sender suggests that the receiver take over the element (the T flag of
    /// draft-dreibholz-rserpool-enrp-takeover).
    pub takeover_suggested: bool,
    /// The sender and the receiver.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub route: Route,
    /// The change.
    pub action: UpdateAction,
    /// A reserved field: zero, unless another value was received.
    pub reserved: u16,
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The element.
    pub pool_element: PoolElement,
}

impl HandleUpdate {
    /// Encodes the message for an element that is stored encoded.
    #[must_use]
    pub fn encode_kept(
        takeover_suggested: bool,
        route: Route,
        action: UpdateAction,
        pool_handle: &PoolHandle,
        element: &EncodedElement,
    ) -> Bytes {
        const { assert!(16 + EncodedElement::MAX_SIZE <= 65_532) };
        let extras = Extras::default();
        let mut writer = Writer::new(&extras);
        writer.slice(&[Self::TYPE, u8::from(takeover_suggested), 0, 0]);
        route.encode(&mut writer);
        writer.u16(action.number());
        writer.u16(0);
        writer.parameter(pool_handle);
        writer.encoded(element.as_bytes());
        writer.finish_bounded()
    }
}

impl UpdateAction {
    fn number(self) -> u16 {
        match self {
            Self::Add => 0,
            Self::Delete => 1,
            Self::Other(other) => other,
        }
    }
}

/// The change that a handle update reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum UpdateAction {
    /// Add or change the element (ADD_PE).
    Add,
    /// Delete the element (DEL_PE).
    Delete,
    /// A value that the RFC reserves.
    Other(u16),
}

placeholder!(UpdateAction = Self::Add);

placeholder!(HandleUpdate {
    takeover_suggested,
    route,
    action,
    reserved,
    pool_handle,
    pool_element
});

impl Format for HandleUpdate {
    const TYPE: u8 = 0x04;
    const NAME: &'static str = "ENRP_HANDLE_UPDATE";
    const LAYOUT: Option<Layout> = Some(Layout {
        fields: 12,
        order: &[ParameterType::PoolHandle, ParameterType::PoolElement],
    });
    const FLAGS: u8 = 0x01;

    fn flags(&self) -> u8 {
        u8::from(self.takeover_suggested)
    }

    fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.takeover_suggested = flags & 0x01 != 0;
        self.route.decode(reader)?;
        self.action = match reader.u16()? {
            0 => UpdateAction::Add,
            1 => UpdateAction::Delete,
            other => UpdateAction::Other(other),
        };
        self.reserved = reader.u16()?;
        reader.required(&mut self.pool_handle)?;
        reader.required(&mut self.pool_element)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.route.encode(writer);
        writer.u16(self.action.number());
        writer.u16(self.reserved);
        writer.parameter(&self.pool_handle);
        writer.parameter(&self.pool_element);
    }
}
