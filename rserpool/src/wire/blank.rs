//! Values to decode into.

use std::net::{IpAddr, Ipv4Addr};

use super::{PoolElementId, PoolHandle, RegistrarId, RegistrationLife};

/// A value that is there to be overwritten, not necessarily a valid one. What is decoded is
/// decoded to where it stays: a message is large, and to hand it on from level to level takes
/// longer than to read it.
pub(crate) trait Blank {
    fn blank() -> Self;
}

/// Makes a struct of blank fields the blank one.
macro_rules! blank {
    ($name:ident { $($field:ident),* }) => {
        impl $crate::wire::Blank for $name {
            #[inline(always)]
            fn blank() -> Self {
                Self { $($field: $crate::wire::Blank::blank()),* }
            }
        }
    };
}
pub(super) use blank;

macro_rules! blank_is {
    ($($type:ty: $blank:expr;)*) => {
        $(impl Blank for $type {
            #[inline(always)]
            fn blank() -> Self {
                $blank
            }
        })*
    };
}

blank_is! {
    bool: false;
    u16: 0;
    IpAddr: Self::V4(Ipv4Addr::UNSPECIFIED);
    PoolElementId: Self(0);
    RegistrarId: Self(0);
    RegistrationLife: Self(0);
    PoolHandle: Self::nameless();
}

impl<T> Blank for Option<T> {
    #[inline(always)]
    fn blank() -> Self {
        None
    }
}

impl<T> Blank for Vec<T> {
    #[inline(always)]
    fn blank() -> Self {
        Self::new()
    }
}
