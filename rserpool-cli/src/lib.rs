//! The parts of the `rserpool` command that have tests of their own.

pub mod decode;
