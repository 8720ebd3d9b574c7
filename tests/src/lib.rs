//! Code that the repository's tests share.

#![allow(clippy::exhaustive_structs, reason = "nobody else uses this crate")]

pub mod mutants;
pub mod words;
