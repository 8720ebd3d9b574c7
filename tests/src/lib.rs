//! What the tests of the repository share.

pub mod mutants;
