//! `serde` representation of the types in `wire`, for tools that print messages.

use serde::ser::{SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use super::parameter::PeChecksum;
use super::{
    ErrorCause, ParameterType, PolicyParameters, PoolElementId, PoolHandle, RegistrarId,
    RegistrationLife, TransportAddress, Unrecognized,
};

macro_rules! as_text {
    ($($name:ty),*) => {
        $(impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        })*
    };
}

as_text!(PoolElementId, RegistrarId, PoolHandle, ParameterType);

pub(crate) mod hex {
    use bytes::Bytes;
    use serde::Serializer;

    pub(crate) fn serialize<S: Serializer>(
        bytes: &Bytes,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{bytes:x}"))
    }
}

impl Serialize for PeChecksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#06x}", self.0))
    }
}

impl Serialize for RegistrationLife {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(self.0)
    }
}

impl Serialize for PolicyParameters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("{}", self.policy_type()))?;
        match self.policy_type().values() {
            Some(names) if names.len() == self.words().len() => {
                for (name, word) in names.iter().zip(self.words()) {
                    map.serialize_entry(&format_args!("{name}"), word)?;
                }
            }
            _ => map.serialize_entry("data", &format_args!("{:x}", self.to_bytes()))?,
        }
        map.end()
    }
}

impl Serialize for TransportAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct List<'a>(&'a TransportAddress);
        impl Serialize for List<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut list = serializer.serialize_seq(Some(self.0.addresses.len()))?;
                for address in &self.0.addresses {
                    list.serialize_element(&format_args!("{address}"))?;
                }
                list.end()
            }
        }
        let mut fields = serializer.serialize_struct("TransportAddress", 4)?;
        fields.serialize_field("protocol", &format_args!("{}", self.protocol))?;
        fields.serialize_field("addresses", &List(self))?;
        fields.serialize_field("port", &self.port)?;
        fields.serialize_field("use", &format_args!("{:?}", self.usage))?;
        fields.end()
    }
}

impl Serialize for ErrorCause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let information = self.information();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("code", &self.code())?;
        map.serialize_entry("meaning", &format_args!("{self}"))?;
        if !information.is_empty() {
            let bytes = bytes::Bytes::copy_from_slice(information);
            map.serialize_entry("information", &format_args!("{bytes:x}"))?;
        }
        map.end()
    }
}

impl Serialize for Unrecognized {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", &format_args!("{:#06x}", self.number()))?;
        map.serialize_entry("value", &format_args!("{:x}", self.bytes().slice(4..)))?;
        map.end()
    }
}
