//! Reliable Server Pooling.

#[cfg(feature = "contract")]
pub mod contract;
pub mod driver;
pub mod handlespace;
pub mod policy;
pub mod protocol;
pub mod runtime;
pub mod transport;
pub mod wire;
