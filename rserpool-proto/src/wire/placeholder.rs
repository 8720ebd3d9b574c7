//! Values to decode into.

use std::net::{IpAddr, Ipv4Addr};

use super::{PoolElementId, PoolHandle, RegistrarId, RegistrationLife};

/// A value that is there to be overwritten, not necessarily a valid one. What is decoded is
/// decoded to where it stays: a message is large, and to hand it on from level to level takes
/// longer than to read it.
pub(crate) trait Placeholder {
    fn placeholder() -> Self;
}

/// Says what the placeholder one of a type is: a value, or a struct of placeholder fields.
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
