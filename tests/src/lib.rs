//! Code that the repository's tests share.

#![allow(clippy::exhaustive_structs, reason = "nobody else uses this crate")]

pub mod counter;
pub mod mutants;
pub mod words;
