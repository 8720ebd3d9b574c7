//! Runs the simulation with many seeds, or repeats one of them.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rserpool_proto::testing::simulation::{self, Tally};
use rserpool_proto::wire::Ppid;

/// Simulates registrars, elements and users with random faults, in virtual time
///
/// Stops at the first seed that breaks a rule, and prints how to see what happened
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of seeds
    #[arg(long, default_value_t = 1000, conflicts_with = "seed")]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    first: u64,
    /// Run only this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Print the events, one per line
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Add hosts that speak this protocol, ASAP or ENRP, and send arbitrary messages
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    adversary: Option<Ppid>,
    /// Continue after a seed that breaks a rule
    #[arg(long)]
    keep_going: bool,
}

fn protocol(name: &str) -> Result<Ppid, String> {
    match name {
        "asap" => Ok(Ppid::ASAP),
        "enrp" => Ok(Ppid::ENRP),
        _ => Err("asap or enrp".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(seed, arguments.adversary, arguments.trace),
        None => many(&arguments),
    }
}

fn one(seed: u64, adversary: Option<Ppid>, trace: bool) -> ExitCode {
    let outcome = simulation::run(seed, adversary, trace);
    let mut out = io::stdout().lock();
    for line in &outcome.trace {
        // The reader may stop early.
        if writeln!(out, "{line}").is_err() {
            return ExitCode::SUCCESS;
        }
    }
    match outcome.violation {
        Some((at, what)) => {
            eprintln!("seed {seed}: after {at:.3?}: {what}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("seed {seed}: nothing wrong");
            ExitCode::SUCCESS
        }
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    #[allow(clippy::disallowed_methods, reason = "how long it takes")]
    let begun = Instant::now();
    let bar = ProgressBar::new(arguments.seeds).with_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} to go")
            .expect("a template"),
    );
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first.saturating_add(arguments.seeds);
    let failed = AtomicBool::new(false);
    let work = || {
        let mut tally = Tally::default();
        while arguments.keep_going || !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let outcome = simulation::run(seed, arguments.adversary, false);
            tally.add(outcome.tally);
            if let Some((at, what)) = outcome.violation {
                failed.store(true, Ordering::Relaxed);
                bar.suspend(|| println!("seed {seed}: after {at:.3?}: {what}"));
            }
            bar.inc(1);
        }
        tally
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut total = Tally::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(tally) => total.add(tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    bar.finish_and_clear();
    println!("{total}\n{:.1?} on {threads} threads", begun.elapsed());
    if failed.into_inner() {
        println!("see what happened: simulate --seed SEED --trace");
        return ExitCode::FAILURE;
    }
    println!("no rule broken");
    ExitCode::SUCCESS
}
