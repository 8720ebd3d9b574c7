//! Applies the faults of tests/data/mutants.txt to a copy of the code, one at a time, and runs the
//! tests that have to find them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

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
    let copy = Copy { code: target.join("mutants/code"), target: target.join("mutants/target") };
    copy.fill(&root)?;
    let mut missed = 0;
    for mutant in mutants::all().filter(|mutant| mutant.name.contains(&arguments.name)) {
        let outcome = copy.try_out(&mutant)?;
        writeln!(io::stdout(), "{}: {outcome}", mutant.name)?;
        missed += u32::from(outcome != "found");
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Copy {
    code: PathBuf,
    target: PathBuf,
}

impl Copy {
    /// Makes the copy equal to the checkout. Unchanged files keep their modification times, which
    /// cargo compares.
    fn fill(&self, root: &Path) -> io::Result<()> {
        let listed =
            Command::new("git").args(["ls-files", "-z", "--cached"]).current_dir(root).output()?;
        let mut wanted = BTreeMap::new();
        for name in String::from_utf8_lossy(&listed.stdout).split_terminator('\0') {
            if let Ok(content) = fs::read(root.join(name)) {
                wanted.insert(name.to_owned(), content);
            }
        }
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
        let outcome = if !self.cargo(mutant, true)? {
            "DOES NOT COMPILE"
        } else if self.cargo(mutant, false)? {
            "NOT FOUND"
        } else {
            "found"
        };
        fs::write(&path, original)?;
        Ok(outcome)
    }

    /// Builds or runs the tests of a mutant. Returns whether that succeeded.
    fn cargo(&self, mutant: &Mutant, build_only: bool) -> io::Result<bool> {
        let mut command = Command::new(env!("CARGO"));
        command.args(["test", "-q", "--locked"]).current_dir(&self.code);
        match mutant.test.as_str() {
            "lib" => {
                let package = mutant.file.split('/').next().unwrap_or_default();
                command.args(["-p", package, "--lib"])
            }
            "contract" => command.args(["-p", "rserpool-tokio", "--test", "contract"]),
            test => command.args(["-p", "rserpool-proto", "--test", test]),
        };
        command.args(build_only.then_some("--no-run"));
        command.env("CARGO_TARGET_DIR", &self.target).env("RUSTFLAGS", "-Awarnings");
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(quiet.status()?.success())
    }
}
