//! `rserpool keys`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use rserpool::cookie::KeyRing;

/// Print a key for the servers of a pool
///
/// Servers seal the state of sessions, which clients store, with the first key of their file, and
/// open it with any key of it. So give all servers the same file: `rserpool keys --out pool.keys`. To
/// replace a key, add a new one behind it at all servers, then move the new one to the front.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the key, a number that is new in the file
    #[arg(default_value_t = 1)]
    name: u32,
    /// Create a file that only its owner can read, instead of printing the key
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    use std::io::Write;
    if let Some(file) = &arguments.out {
        KeyRing::create_file(file, arguments.name)
            .with_context(|| format!("cannot create {}", file.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    write!(std::io::stdout(), "{}", KeyRing::new_line(arguments.name))?;
    Ok(ExitCode::SUCCESS)
}
