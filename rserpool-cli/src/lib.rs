//! Library part of the `rserpool` command: modules that have separate tests.

pub mod decode;
