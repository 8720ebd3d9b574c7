//! Prints the proportion in which pool users select each server, for all policies: the table in
//! docs/CONFORMANCE.md.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(rserpool_proto::testing::proportions::table().as_bytes())
}
