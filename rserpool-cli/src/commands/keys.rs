//! `rserpool keys`.

use std::process::ExitCode;

use clap::Args;
use rserpool::cookie::KeyRing;

/// Print a key for the servers of a pool
///
/// Servers seal the state of sessions, which clients store, with the first key of their file, and
/// open it with any key of it. So give all servers the same file: `rserpool keys > pool.keys`. To
/// replace a key, add a new one behind it at all servers, then move the new one to the front.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the key, a number that is new in the file
    #[arg(default_value_t = 1)]
    name: u32,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    use std::io::Write;
    write!(std::io::stdout(), "{}", KeyRing::new_line(arguments.name))?;
    Ok(ExitCode::SUCCESS)
}
