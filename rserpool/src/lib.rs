//! Reliable Server Pooling.

pub mod wire;
