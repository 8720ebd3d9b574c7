//! Placeholder values to decode into.

use std::net::{IpAddr, Ipv4Addr};

use super::{PoolElementId, PoolHandle, RegistrarId, RegistrationLife};

/// A type that has a placeholder value, which need not be valid and is overwritten by decoding.
/// Decoding writes values to their final place, because messages are large and returning them
/// through several levels takes longer than decoding them.
pub(crate) trait Placeholder {
    fn placeholder() -> Self;
}

/// Defines the placeholder of a type: a value, or a struct whose fields are placeholders.
macro_rules! placeholder {
    ($name:ident $(<$T:ident>)? = $placeholder:expr) => {
        impl $(<$T>)? $crate::wire::Placeholder for $name $(<$T>)? {
            #[inline(always)]
            fn placeholder() -> Self {
                $placeholder
            }
        }
    };
    ($name:ident { $($field:ident),* $(,)? }) => {
        $crate::wire::placeholder!($name = Self { $($field: $crate::wire::Placeholder::placeholder()),* });
    };
}
pub(super) use placeholder;

placeholder!(bool = false);
placeholder!(u16 = 0);
placeholder!(IpAddr = Self::V4(Ipv4Addr::UNSPECIFIED));
placeholder!(PoolElementId = Self(0));
placeholder!(RegistrarId = Self(0));
placeholder!(RegistrationLife = Self(0));
placeholder!(PoolHandle = Self::nameless());
placeholder!(Option<T> = None);
placeholder!(Vec<T> = Self::new());
