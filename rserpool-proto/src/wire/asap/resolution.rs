//! Handle resolution (RFC 5352 sections 2.2.5 and 2.2.6).

use super::{DecodeError, FLAG, Format, Reader, Writer, placeholder};
use crate::wire::message::Extras;
use crate::wire::order::Layout;
use crate::wire::parameter::ItemCount;
use crate::wire::{
    Bytes, EncodedElement, OperationError, ParameterType, PolicyParameters, PolicyType,
    PoolElement, PoolHandle,
};

/// ASAP_HANDLE_RESOLUTION (RFC 5352 section 2.2.5): asks for the elements of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HandleResolution {
    /// True to subscribe to all further changes of the pool (the S bit).
    pub subscribe: bool,
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The number of elements to return; with `None`, the registrar chooses.
    pub items: Option<ItemCount>,
}

impl HandleResolution {
    /// Creates a request without subscription for as many elements as the registrar chooses.
    #[must_use]
    pub fn new(pool_handle: PoolHandle) -> Self {
        Self { subscribe: false, pool_handle, items: None }
    }
}

placeholder!(HandleResolution { subscribe, pool_handle, items });

impl Format for HandleResolution {
    const TYPE: u8 = 0x05;
    const NAME: &'static str = "ASAP_HANDLE_RESOLUTION";
    const LAYOUT: Option<Layout> =
        Some(Layout { fields: 0, order: &[ParameterType::PoolHandle, ParameterType::ItemCount] });
    const FLAGS: u8 = FLAG;

    fn flags(&self) -> u8 {
        u8::from(self.subscribe)
    }

    #[inline]
    fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.subscribe = flags & FLAG != 0;
        reader.required(&mut self.pool_handle)?;
        reader.optional(&mut self.items)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.parameter(&self.pool_handle);
        writer.parameters(&self.items);
    }
}

/// ASAP_HANDLE_RESOLUTION_RESPONSE (RFC 5352 section 2.2.6): answers with elements of the pool, or
/// with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HandleResolutionResponse {
    /// True if the registrar will report changes of the pool (the A bit).
    pub subscribed: bool,
    /// True if the registrar returns fewer elements than were asked for, although the pool has more:
    /// an extension, whose bit other implementations ignore. A registrar returns fewer elements
    /// because of its configuration, or because more do not fit into a message.
    pub partial: bool,
    /// The pool.
    pub pool_handle: PoolHandle,
    /// The elements, or the reason why there are none.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub result: Resolved,
}

/// Result of a handle resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Resolved {
    /// The pool's elements, as many as the registrar chose.
    Pool {
        /// The pool's policy; `None` means round robin.
        policy: Option<PolicyParameters>,
        /// The elements, in the order of selection.
        elements: Vec<PoolElement>,
    },
    /// The reason why the registrar returned no elements.
    Error(OperationError),
}

placeholder!(Resolved = Self::Pool { policy: None, elements: Vec::new() });

impl HandleResolutionResponse {
    /// Encodes a response with as many of the first `elements` as fit into a message; `elements`
    /// must be in the order of selection. The bytes are those of [`Resolved::Pool`] with the same
    /// elements without their ASAP transports. `subscribed` is the A bit. With fewer than `due`
    /// elements, the response says that it is partial.
    #[must_use]
    pub fn encode_pool<'e>(
        subscribed: bool,
        pool_handle: &PoolHandle,
        policy_type: PolicyType,
        elements: impl IntoIterator<Item = &'e EncodedElement>,
        due: usize,
    ) -> Bytes {
        const {
            // The header, the pool handle and the policy of the first element always fit into the
            // message.
            assert!(8 + PoolHandle::MAX_LENGTH + EncodedElement::MAX_SIZE < 65_532);
        }
        let extras = Extras::default();
        let mut writer = Writer::new(&extras);
        writer.slice(&[Self::TYPE, u8::from(subscribed), 0, 0]);
        writer.parameter(pool_handle);
        let mut elements = elements.into_iter().peekable();
        match elements.peek() {
            Some(first) => writer.encoded(first.policy()),
            None => writer.parameter(&PolicyParameters::new(policy_type, &[])),
        }
        let mut count = 0;
        for element in elements {
            if element.user_size() > writer.room() {
                break;
            }
            writer.element_for_users(element);
            count += 1;
        }
        if count < due {
            writer.add_flags(PARTIAL);
        }
        writer.finish_bounded()
    }
}

placeholder!(HandleResolutionResponse { subscribed, partial, pool_handle, result });

/// The flag of a partial response.
const PARTIAL: u8 = 0x02;

impl Format for HandleResolutionResponse {
    const TYPE: u8 = 0x06;
    const NAME: &'static str = "ASAP_HANDLE_RESOLUTION_RESPONSE";
    const LAYOUT: Option<Layout> = Some(Layout {
        fields: 0,
        order: &[
            ParameterType::PoolHandle,
            ParameterType::Policy,
            ParameterType::PoolElement,
            ParameterType::OperationError,
        ],
    });
    const FLAGS: u8 = FLAG | PARTIAL;

    fn flags(&self) -> u8 {
        u8::from(self.subscribed) | if self.partial { PARTIAL } else { 0 }
    }

    #[inline]
    fn decode(&mut self, flags: u8, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.subscribed = flags & FLAG != 0;
        self.partial = flags & PARTIAL != 0;
        reader.required(&mut self.pool_handle)?;
        if let Some(error) = reader.next()? {
            self.result = Resolved::Error(error);
        } else if let Resolved::Pool { policy, elements } = &mut self.result {
            reader.optional(policy)?;
            reader.repeated(elements)?;
        }
        Ok(())
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.parameter(&self.pool_handle);
        match &self.result {
            Resolved::Pool { policy, elements } => {
                writer.parameters(policy);
                writer.parameters(elements);
            }
            Resolved::Error(error) => writer.parameter(error),
        }
    }
}
