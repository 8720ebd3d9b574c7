//! Counts the cache misses of each operation on the handlespace. The caches are simulated by
//! valgrind, since many machines do not report the misses of their own caches.
//!
//!     cargo bench -p rserpool --bench misses [-- --quick]
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

#[path = "../handlespace/operation.rs"]
mod operation;
mod profile;
#[path = "../handlespace/space.rs"]
mod space;

use std::process::{Command, Stdio};
use std::{env, fs, process};

use operation::{LAYOUTS, Layout, OPERATIONS, POLICIES};
use profile::Profile;
use space::Space;

/// The number of batches of each operation; only the later half of them counts.
const ROUNDS: usize = 10;

/// The simulated caches are those of an EPYC: 32 KiB for each core, and 32 MiB for all.
const CACHES: [&str; 3] = ["--I1=32768,8,64", "--D1=32768,8,64", "--LL=33554432,16,64"];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, policy, layout, size] = &arguments[..]
        && first == "--observed"
    {
        let policy = POLICIES.into_iter().find(|name| name == policy).unwrap();
        let layout = LAYOUTS.into_iter().find(|name| name.to_string() == *layout).unwrap();
        let size = size.parse().unwrap();
        return be_observed(&mut Space::new(policy, size, layout.pools(size)));
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        return eprintln!("SKIPPED misses of the caches: there is no valgrind");
    }
    let quick = arguments.iter().any(|argument| argument == "--quick" || argument == "--test");
    let (policies, sizes) = if quick { (1, &[1_000][..]) } else { (6, &[100_000, 1_000_000][..]) };
    println!("Instructions, misses of the nearest cache and of the last one, for each operation");
    for policy in &POLICIES[..policies] {
        for layout in LAYOUTS {
            let profiles: Vec<_> =
                sizes.iter().map(|size| observe(policy, layout, *size)).collect();
            print!("\n{:<32}", format!("{policy}, {layout}"));
            sizes.iter().for_each(|size| print!("{size:>26}"));
            println!();
            for (at, operation) in OPERATIONS.iter().enumerate() {
                print!("  {:<30}", operation.to_string());
                for batches in &profiles {
                    let batches = &batches[at * ROUNDS + ROUNDS / 2..(at + 1) * ROUNDS];
                    let Profile { instructions, nearest, last } = Profile::mean(batches);
                    print!("{instructions:>10.0}{nearest:>8.2}{last:>8.2}");
                }
                println!();
            }
        }
    }
}

/// Does the operations in batches, in the order in which they are reported.
fn be_observed(space: &mut Space) {
    for operation in OPERATIONS {
        for _ in 0..ROUNDS {
            let requests = operation.requests(space);
            observed(|| operation.run(space, &requests));
            operation.undo(space, &requests);
        }
    }
}

/// Calls `body`. Valgrind counts only in this function, and writes a file after each call.
#[inline(never)]
fn observed(body: impl FnOnce()) {
    body();
}

/// Runs this program under valgrind, and returns the counters of each batch.
fn observe(policy: &str, layout: Layout, size: usize) -> Vec<Profile> {
    let directory = env::temp_dir().join(format!("misses-{}", process::id()));
    fs::create_dir_all(&directory).unwrap();
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--cache-sim=yes"])
        .args(CACHES)
        .args(["--toggle-collect=misses::observed", "--dump-after=misses::observed"])
        .arg(format!("--callgrind-out-file={}/profile", directory.display()))
        .arg(env::current_exe().unwrap())
        .args(["--observed", policy, &layout.to_string(), &size.to_string()])
        .stderr(Stdio::null())
        .status();
    let status = status.unwrap();
    assert!(status.success(), "valgrind: {status}");
    let batches = (1..=OPERATIONS.len() * ROUNDS).map(|number| {
        let profile = fs::read_to_string(directory.join(format!("profile.{number}"))).unwrap();
        Profile::read(&profile)
    });
    let batches = batches.collect();
    fs::remove_dir_all(directory).unwrap();
    batches
}
