//! The `rserpool` command.

/// Prints a line, or returns the error: the reader may stop early, as `head` does.
macro_rules! out {
    ($($text:tt)*) => {{
        use std::io::Write;
        writeln!(std::io::stdout(), $($text)*)?
    }};
}

/// Prints a line, and ignores an error: the program continues if nobody reads it.
macro_rules! announce {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// Prints a line for a person to standard error.
macro_rules! notify {
    ($($text:tt)*) => {
        $crate::logging::message(&format!($($text)*))
    };
}

/// The allocator of the program. After a peak or an attack, it returns the freed memory to the
/// system within seconds. The allocator of glibc keeps half of it.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod admin;
mod bench;
mod client;
mod commands;
mod decode;
mod demo;
mod grants;
mod http;
mod logging;
mod names;
mod operator;
mod options;
mod process;
mod proxy;
mod register;
mod serve;
mod settings;
mod signals;
mod status;
mod table;
mod tls;
mod top;
#[cfg(unix)]
mod unix_socket;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use logging::LogFormat;

/// Reliable Server Pooling: services that outlive their servers.
#[derive(Debug, Parser)]
#[command(name = "rserpool", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES, after_long_help = long_examples())]
pub(crate) struct Arguments {
    /// Log more events; -vv logs all. RUST_LOG chooses in detail
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Form of the log
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, global = true)]
    log: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

fn long_examples() -> String {
    format!("{EXAMPLES}\n\n{}", status::HELP)
}

const EXAMPLES: &str = "\
Try it, in three terminals:
  rserpool registrar
  rserpool serve echo
  rserpool terminal EchoPool
or all at once, with servers that are killed:
  rserpool demo";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Registrar(Box<commands::registrar::Arguments>),
    Serve(serve::Arguments),
    Register(Box<register::Arguments>),
    Proxy(Box<proxy::Arguments>),
    Client(client::Arguments),
    Terminal(commands::terminal::Arguments),
    Resolve(commands::resolve::Arguments),
    Watch(commands::watch::Arguments),
    Ping(commands::ping::Arguments),
    Dump(commands::dump::Arguments),
    Peers(operator::peers::Arguments),
    Explain(operator::explain::Arguments),
    Drain(operator::drain::DrainArguments),
    Deregister(operator::drain::DeregisterArguments),
    Top(top::Arguments),
    Demo(demo::Arguments),
    Bench(bench::Arguments),
    Certs(commands::certs::Arguments),
    Keys(commands::keys::Arguments),
    Decode(decode::Arguments),
    Completions(commands::manual::CompletionsArguments),
    Manual(commands::manual::ManualArguments),
}

fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage_error(&error),
    };
    logging::start(arguments.verbose, arguments.log);
    // The system's usual limit is meant for programs with few connections.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let status = run(arguments.command);
    logging::flush();
    status
}

/// Returns the arguments of this process, with the settings from the file and the environment.
pub(crate) fn parse() -> Result<Arguments, clap::Error> {
    let mut program = Arguments::command();
    program.build();
    let arguments = settings::complete(&program, std::env::args_os().collect())
        .map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error:#}")))?;
    Arguments::try_parse_from(arguments)
}

fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Decode(arguments) => decode::run(&arguments),
        Command::Certs(arguments) => commands::certs::run(&arguments),
        Command::Keys(arguments) => commands::keys::run(&arguments),
        Command::Completions(arguments) => Ok(commands::manual::completions(&arguments)),
        Command::Manual(arguments) => commands::manual::manual(&arguments),
        // The registrar and the benchmarks consist of one task each. A runtime with several threads
        // would only move that task between its threads.
        Command::Registrar(arguments) => on_one_thread(commands::registrar::run(*arguments)),
        Command::Serve(arguments) => block_on(serve::run(arguments)),
        Command::Register(arguments) => block_on(register::run(*arguments)),
        Command::Proxy(arguments) => block_on(proxy::run(*arguments)),
        Command::Client(arguments) => block_on(client::run(arguments)),
        Command::Terminal(arguments) => block_on(commands::terminal::run(arguments)),
        Command::Resolve(arguments) => block_on(commands::resolve::run(arguments)),
        Command::Watch(arguments) => block_on(commands::watch::run(arguments)),
        Command::Ping(arguments) => block_on(commands::ping::run(arguments)),
        Command::Dump(arguments) => block_on(commands::dump::run(arguments)),
        Command::Peers(arguments) => on_one_thread(operator::peers::run(arguments)),
        Command::Explain(arguments) => on_one_thread(operator::explain::run(arguments)),
        Command::Drain(arguments) => on_one_thread(operator::drain::drain(arguments)),
        Command::Deregister(arguments) => on_one_thread(operator::drain::deregister(arguments)),
        Command::Top(arguments) => block_on(top::run(arguments)),
        Command::Bench(arguments) => on_one_thread(bench::run(arguments)),
        Command::Demo(arguments) => block_on(demo::run(arguments)),
    };
    result.unwrap_or_else(|error| {
        let io_error = error.downcast_ref::<std::io::Error>();
        if io_error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        logging::message(&format!("rserpool: {error:#}"));
        ExitCode::from(status::of(&error))
    })
}

fn block_on<F>(future: F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    run_on(tokio::runtime::Builder::new_multi_thread().enable_all().build()?, future)
}

fn on_one_thread<F>(future: F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    run_on(tokio::runtime::Builder::new_current_thread().enable_all().build()?, future)
}

/// Runs a command, and does not wait for what goes on in other threads at its end, such as the
/// resolution of a name.
fn run_on<F>(runtime: tokio::runtime::Runtime, future: F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// Prints help unchanged, and an error in one line.
fn usage_error(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(status::USAGE) } else { ExitCode::SUCCESS }
        }
        _ => {
            let text = error.to_string();
            let message: Vec<_> =
                text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            let message = message.join(" ");
            let message = message.strip_prefix("error: ").unwrap_or(&message);
            let _ = writeln!(std::io::stderr(), "rserpool: {message} (see --help)");
            ExitCode::from(status::USAGE)
        }
    }
}
