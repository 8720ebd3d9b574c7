//! Code that the repository's tests share.

pub mod mutants;
pub mod words;
