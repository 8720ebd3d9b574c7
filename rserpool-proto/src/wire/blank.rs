//! Values to decode into.

use std::net::{IpAddr, Ipv4Addr};

use super::{PoolElementId, PoolHandle, RegistrarId, RegistrationLife};

/// A value that is there to be overwritten, not necessarily a valid one. What is decoded is
/// decoded to where it stays: a message is large, and to hand it on from level to level takes
/// longer than to read it.
pub(crate) trait Blank {
    fn blank() -> Self;
}

/// Says what the blank one of a type is: a value, or a struct of blank fields.
macro_rules! blank {
    ($name:ident $(<$T:ident>)? = $blank:expr) => {
        impl $(<$T>)? $crate::wire::Blank for $name $(<$T>)? {
            #[inline(always)]
            fn blank() -> Self {
                $blank
            }
        }
    };
    ($name:ident { $($field:ident),* $(,)? }) => {
        $crate::wire::blank!($name = Self { $($field: $crate::wire::Blank::blank()),* });
    };
}
pub(super) use blank;

blank!(bool = false);
blank!(u16 = 0);
blank!(IpAddr = Self::V4(Ipv4Addr::UNSPECIFIED));
blank!(PoolElementId = Self(0));
blank!(RegistrarId = Self(0));
blank!(RegistrationLife = Self(0));
blank!(PoolHandle = Self::nameless());
blank!(Option<T> = None);
blank!(Vec<T> = Self::new());
