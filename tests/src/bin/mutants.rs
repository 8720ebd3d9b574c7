//! Applies the faults of tests/data/mutants.txt to a copy of the code, one at a time, and runs the
//! tests that have to find them.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::Parser;
use rserpool_tests::mutants::{self, Mutant};

/// Reports for each fault whether the tests find it, and fails if one is not found
#[derive(Debug, Parser)]
struct Arguments {
    /// Only faults whose names contain this text
    #[arg(default_value = "")]
    name: String,
}

fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut mutants: Vec<Mutant> =
        mutants::all().filter(|mutant| mutant.name.contains(&arguments.name)).collect();
    // Those whose tests have few dependencies to build first.
    mutants.sort_by_cached_key(|mutant| (mutant.test().0 != "rserpool-proto", mutant.test.clone()));
    let mutants = Mutex::new(VecDeque::from(mutants));
    let work = |name: &str, next: fn(&mut VecDeque<Mutant>) -> Option<Mutant>| {
        let folder = target.join("mutants").join(name);
        let copy = Copy { code: folder.join("code"), target: folder.join("target") };
        copy.fill(&root)?;
        let mut missed = 0;
        loop {
            let mutant = next(&mut mutants.lock().unwrap_or_else(PoisonError::into_inner));
            let Some(mutant) = mutant else { return io::Result::Ok(missed) };
            let outcome = copy.try_out(&mutant)?;
            writeln!(io::stdout(), "{}: {outcome}", mutant.name)?;
            missed += u32::from(!outcome.starts_with("found"));
        }
    };
    // Two copies of the code, each of which builds mostly its own crates.
    let missed = thread::scope(|scope| -> io::Result<u32> {
        let others = scope.spawn(|| work("others", VecDeque::pop_back));
        let proto = work("proto", VecDeque::pop_front)?;
        Ok(proto + others.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    })?;
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Copy {
    code: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Makes the copy equal to the checkout. Unchanged files keep their modification times, which
    /// cargo compares; files that are not in the checkout are removed.
    fn fill(&self, root: &Path) -> io::Result<()> {
        let listed =
            Command::new("git").args(["ls-files", "-z", "--cached"]).current_dir(root).output()?;
        let mut wanted = BTreeMap::new();
        for name in String::from_utf8_lossy(&listed.stdout).split_terminator('\0') {
            if let Ok(content) = fs::read(root.join(name)) {
                wanted.insert(name.to_owned(), content);
            }
        }
        remove_others(&self.code, &self.code, &wanted)?;
        for (name, content) in wanted {
            let to = self.code.join(name);
            if fs::read(&to).ok().as_ref() != Some(&content) {
                fs::create_dir_all(to.parent().unwrap_or(&self.code))?;
                fs::write(to, content)?;
            }
        }
        Ok(())
    }

    fn try_out(&self, mutant: &Mutant) -> io::Result<&'static str> {
        let path = self.code.join(&mutant.file);
        let original = fs::read_to_string(&path)?;
        let Some(changed) = mutant.apply(&original) else {
            return Ok("DOES NOT FIT the code any more");
        };
        fs::write(&path, changed)?;
        let outcome = match self.cargo(mutant, true)? {
            Outcome::Passed => match self.cargo(mutant, false)? {
                Outcome::Passed => "NOT FOUND",
                Outcome::Failed => "found",
                Outcome::TimedOut => "found, since a test did not end",
            },
            Outcome::Failed => "DOES NOT COMPILE",
            Outcome::TimedOut => "DOES NOT END its build",
        };
        fs::write(&path, original)?;
        Ok(outcome)
    }

    /// Builds or runs the tests of a mutant.
    fn cargo(&self, mutant: &Mutant, build_only: bool) -> io::Result<Outcome> {
        let mut command = Command::new(env!("CARGO"));
        command.args(["test", "--locked"]).current_dir(&self.code);
        command.args(["--config", "profile.dev.package.rserpool-proto.opt-level=0"]);
        let (package, test) = mutant.test();
        command.args(["-p", package]).args(test);
        command.args(build_only.then_some("--no-run"));
        if mutant.test == "contract" && !build_only {
            // The suite runs over TCP and in memory, which is enough.
            command.args(["--", "--skip", "tls"]);
        }
        command.env("CARGO_TARGET_DIR", &self.target).env("RUSTFLAGS", "-Awarnings");
        // Most of the time goes into builds.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
        let limit = if build_only { Duration::MAX } else { LIMIT };
        run(command.stdout(Stdio::piped()).stderr(Stdio::null()), limit)
    }
}

/// Removes the files below `folder` whose names, relative to `code`, are not wanted.
fn remove_others(code: &Path, folder: &Path, wanted: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(code, &path, wanted)?;
        } else {
            let name = path.strip_prefix(code).ok().and_then(Path::to_str);
            if !name.is_some_and(|name| wanted.contains_key(name)) {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// Outcome of a command.
enum Outcome {
    Passed,
    Failed,
    /// The command was killed at its time limit.
    TimedOut,
}

/// Time for the tests of one mutant. The longest of them take less than half a minute.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a command. Kills it with its children when the first test has failed, and when the time is
/// over: some faults make a test wait for ever.
fn run(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut process = command.spawn()?;
    let output = process.stdout.take().map(BufReader::new);
    let mut failed = Some(thread::spawn(move || {
        let mut lines = output.into_iter().flat_map(BufRead::lines).map_while(Result::ok);
        lines.any(|line| line.starts_with("test ") && line.ends_with("... FAILED"))
    }));
    let mut failure = false;
    let mut waited = Duration::ZERO;
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(if status.success() { Outcome::Passed } else { Outcome::Failed });
        }
        if failed.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(failed) = failed.take()
        {
            // At the end of its output without a failure, the command is about to end.
            failure = failed.join().unwrap_or_default();
        }
        if failure || waited >= limit {
            let group = format!("-{}", process.id());
            Command::new("kill").args(["-KILL", "--", &group]).status()?;
            process.wait()?;
            return Ok(if failure { Outcome::Failed } else { Outcome::TimedOut });
        }
        thread::sleep(PAUSE);
        waited += PAUSE;
    }
}

/// Time between two looks at a process.
const PAUSE: Duration = Duration::from_millis(100);
