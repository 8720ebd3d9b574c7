//! The `rserpool` command.

/// Prints a line, or returns the error: whoever reads it may stop reading, as `head` does.
macro_rules! out {
    ($($text:tt)*) => {{
        use std::io::Write;
        writeln!(std::io::stdout(), $($text)*)?
    }};
}

mod bench;
mod client;
mod commands;
mod demo;
mod options;
mod process;
mod serve;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use rserpool_cli::decode;

/// Reliable Server Pooling: services that outlive their servers.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
struct Arguments {
    /// Tell more of what happens; -vv tells everything. RUST_LOG chooses in detail
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Try it, in three terminals:
  rserpool registrar
  rserpool serve echo
  rserpool terminal EchoPool
or all at once, with servers that are killed:
  rserpool demo";

#[derive(Debug, Subcommand)]
enum Command {
    Registrar(commands::registrar::Arguments),
    Serve(serve::Arguments),
    Client(client::Arguments),
    Terminal(commands::terminal::Arguments),
    Resolve(commands::resolve::Arguments),
    Dump(commands::dump::Arguments),
    Demo(demo::Arguments),
    Bench(bench::Arguments),
    Keys(commands::keys::Arguments),
    Decode(decode::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage_error(&error),
    };
    start_logging(arguments.verbose);
    let result = match arguments.command {
        Command::Decode(arguments) => decode::run(&arguments),
        Command::Keys(arguments) => commands::keys::run(&arguments),
        // One task each: more threads would only pass it around.
        Command::Registrar(arguments) => on_one_thread(commands::registrar::run(arguments)),
        Command::Serve(arguments) => block_on(serve::run(arguments)),
        Command::Client(arguments) => block_on(client::run(arguments)),
        Command::Terminal(arguments) => block_on(commands::terminal::run(arguments)),
        Command::Resolve(arguments) => block_on(commands::resolve::run(arguments)),
        Command::Dump(arguments) => block_on(commands::dump::run(arguments)),
        Command::Bench(arguments) => on_one_thread(bench::run(arguments)),
        Command::Demo(arguments) => block_on(demo::run(arguments)),
    };
    result.unwrap_or_else(|error| {
        let io_error = error.downcast_ref::<std::io::Error>();
        if io_error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        eprintln!("rserpool: {error:#}");
        ExitCode::FAILURE
    })
}

fn block_on<F>(future: F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}

fn on_one_thread<F>(future: F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Help as it is; an error in one line.
fn usage_error(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
        }
        _ => {
            let text = error.to_string();
            let message: Vec<_> =
                text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            let message = message.join(" ");
            let message = message.strip_prefix("error: ").unwrap_or(&message);
            eprintln!("rserpool: {message} (see --help)");
            ExitCode::from(2)
        }
    }
}

fn start_logging(verbose: u8) {
    let default = match verbose {
        0 => "rserpool=warn",
        1 => "rserpool=info",
        _ => "rserpool=trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
