//! `rserpool bench`.

mod cpu;
mod load;
mod registrar;
mod takeover;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Measure the performance of registrars
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Registrar(registrar::Arguments),
    Takeover(takeover::Arguments),
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.what {
        What::Registrar(arguments) => registrar::run(arguments).await,
        What::Takeover(arguments) => takeover::run(arguments).await,
    }
}
