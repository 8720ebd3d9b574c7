//! The parts of the `rserpool` command that read what others wrote.

pub mod decode;
