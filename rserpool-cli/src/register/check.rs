//! Checks of a server: whether it works, and how loaded it is.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hyper::Uri;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::group::Group;
use super::grpc;
use crate::{http, options};

/// Maximum length of what a command or a server answers, in bytes. Further bytes are not read.
const MAX_ANSWER: usize = 64 * 1024;

/// The forms of a check.
const FORM: &str = "write tcp, http:/PATH, grpc, grpc:SERVICE, ttl:SECONDS:FILE or exec:COMMAND";

/// A way to check whether a server works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// The server accepts connections.
    Tcp,
    /// The server answers a GET request for this path with a status from 200 to 399.
    Http(String),
    /// The server says by gRPC that it serves this service; with an empty name, that it serves.
    Grpc(String),
    /// The server, or who watches it, has written to the file within this time.
    Ttl(Duration, PathBuf),
    /// The command exits with status 0.
    Exec(String),
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "tcp" => Ok(Self::Tcp),
            None if text == "grpc" => Ok(Self::Grpc(String::new())),
            Some(("grpc", service)) if !service.is_empty() => Ok(Self::Grpc(service.to_owned())),
            Some(("ttl", rest)) => {
                let (time, file) = rest.split_once(':').unwrap_or((rest, ""));
                let time = options::some_seconds(time)?;
                if file.is_empty() {
                    Err(FORM.to_owned())
                } else {
                    Ok(Self::Ttl(time, file.into()))
                }
            }
            Some(("http", path)) if path.starts_with('/') && path.parse::<Uri>().is_ok() => {
                Ok(Self::Http(path.to_owned()))
            }
            Some(("exec", command)) if !command.is_empty() => Ok(Self::Exec(command.to_owned())),
            _ => Err(FORM.to_owned()),
        }
    }
}

impl Check {
    /// Checks the server at `address`, a host and a port.
    ///
    /// # Errors
    ///
    /// Returns the reason if the server does not work, or does not answer within the time.
    pub(super) async fn run(&self, address: &str, limit: Duration) -> anyhow::Result<()> {
        let check = async {
            match self {
                Self::Tcp => TcpStream::connect(address).await.map(drop).context("no connection"),
                Self::Http(path) => http::get(address, path, 0).await.map(drop),
                Self::Grpc(service) => grpc::check(address, service).await,
                Self::Ttl(time, file) => is_fresh(file, *time),
                Self::Exec(command) => exec(command, false).await.map(drop),
            }
        };
        within(limit, check).await
    }
}

/// Checks that a file was written within the last `time`.
fn is_fresh(file: &Path, time: Duration) -> anyhow::Result<()> {
    let written = std::fs::metadata(file).and_then(|about| about.modified());
    let written = written.with_context(|| format!("cannot look at {}", file.display()))?;
    // A time in the future is that of a clock which was set.
    let age = written.elapsed().unwrap_or_default();
    ensure!(age <= time, "{} was written {:.0} s ago", file.display(), age.as_secs_f64());
    Ok(())
}

/// A way to ask for the load of a server: a number from 0 to 1, or a percentage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Load {
    /// The answer to a GET request for this path.
    Http(String),
    /// The output of the command.
    Exec(String),
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(Check::Http(path)) => Ok(Self::Http(path)),
            Ok(Check::Exec(command)) => Ok(Self::Exec(command)),
            _ => Err("write http:/PATH or exec:COMMAND".to_owned()),
        }
    }
}

impl Load {
    /// Returns the load of the server at `address`, from 0 to 1.
    ///
    /// # Errors
    ///
    /// Returns the reason if the answer is not a load, or does not arrive within the time.
    pub(super) async fn ask(&self, address: &str, limit: Duration) -> anyhow::Result<f64> {
        let answer = async {
            match self {
                Self::Http(path) => http::get(address, path, MAX_ANSWER).await,
                Self::Exec(command) => exec(command, true).await,
            }
        };
        parse(&within(limit, answer).await?)
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => bail!("no answer within {} s", limit.as_secs_f64()),
    }
}

/// Parses a load such as `0.3` or `30%`.
fn parse(answer: &str) -> anyhow::Result<f64> {
    let text = answer.trim();
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let load = number.trim().parse::<f64>().ok().map(|number| number / unit);
    let load = load.filter(|load| (0.0..=1.0).contains(load));
    load.with_context(|| {
        let shown: String = text.chars().take(40).collect();
        format!("{shown:?} is not a load: write a number from 0 to 1, or a percentage")
    })
}

/// Returns the output of a command that the shell runs, if that is wanted. All its processes end with
/// this future.
async fn exec(command: &str, with_output: bool) -> anyhow::Result<String> {
    let stdout = if with_output { Stdio::piped() } else { Stdio::null() };
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
    let mut group = Group::spawn(&mut shell).context("cannot run sh")?;
    let mut output = Vec::new();
    if let Some(stdout) = group.child.stdout.take() {
        stdout.take(MAX_ANSWER as u64).read_to_end(&mut output).await?;
    }
    let status = group.child.wait().await?;
    ensure!(status.success(), "{status}");
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Counts the results of checks, and decides whether the server works.
#[derive(Debug)]
pub(super) struct Verdict {
    rise: u32,
    fall: u32,
    works: bool,
    /// Number of the last results that contradict `works`.
    contrary: u32,
    /// False before the first result that counts.
    known: bool,
}

impl Verdict {
    /// Creates the verdict of a server that has not been checked yet and does not count as working.
    /// The first check decides alone.
    pub(super) fn new(rise: u32, fall: u32) -> Self {
        Self { rise, fall, works: false, contrary: 0, known: false }
    }

    /// Notes a result. Returns whether the verdict changed.
    pub(super) fn note(&mut self, works: bool) -> bool {
        if works == self.works {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        let needed = match (self.known, works) {
            (false, _) => 1,
            (true, true) => self.rise,
            (true, false) => self.fall,
        };
        let changed = self.contrary >= needed;
        if changed {
            (self.works, self.contrary, self.known) = (works, 0, true);
        }
        changed
    }

    pub(super) fn works(&self) -> bool {
        self.works
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_several_results_in_a_row() {
        let mut verdict = Verdict::new(2, 3);
        assert!(!verdict.note(false) && !verdict.works());
        assert!(verdict.note(true) && verdict.works());
        for results in [[false, false, true], [false, true, false], [false, true, true]] {
            assert_eq!(results.map(|works| verdict.note(works)), [false; 3]);
        }
        assert_eq!([false; 3].map(|works| verdict.note(works)), [false, false, true]);
        assert_eq!([true, false, true].map(|works| verdict.note(works)), [false; 3]);
        assert!(verdict.note(true) && verdict.works());
    }

    #[test]
    fn loads_are_fractions_or_percentages() {
        for (answer, load) in [("0.25\n", 0.25), (" 30% ", 0.3), ("0", 0.0), ("100 %", 1.0)] {
            assert_eq!(parse(answer).unwrap(), load);
        }
        for answer in ["", "1.5", "-1", "101%", "NaN", "much"] {
            let text = parse(answer).unwrap_err().to_string();
            assert!(text.contains("is not a load"), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_not_written_any_more_is_noticed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let now = file.as_file().metadata().unwrap().modified().unwrap();
        let ago = |seconds| now - Duration::from_secs(seconds);
        for (written, fresh) in [(ago(1), true), (ago(20), false)] {
            file.as_file().set_modified(written).unwrap();
            assert_eq!(is_fresh(file.path(), Duration::from_secs(10)).is_ok(), fresh);
        }
        assert!(is_fresh(Path::new("/nowhere/file"), Duration::from_secs(10)).is_err());
    }

    #[test]
    fn checks_are_named_by_their_kind() {
        assert_eq!("tcp".parse(), Ok(Check::Tcp));
        assert_eq!("http:/health".parse(), Ok(Check::Http("/health".to_owned())));
        assert_eq!("grpc".parse(), Ok(Check::Grpc(String::new())));
        assert_eq!("grpc:a.B".parse(), Ok(Check::Grpc("a.B".to_owned())));
        assert_eq!(
            "ttl:2.5:/run/x:y".parse(),
            Ok(Check::Ttl(Duration::from_millis(2500), "/run/x:y".into()))
        );
        assert_eq!("exec:test -e up".parse(), Ok(Check::Exec("test -e up".to_owned())));
        for text in [
            "",
            "udp",
            "http",
            "http:health",
            "http:/a b",
            "exec:",
            "tcp:80",
            "grpc:",
            "ttl",
            "ttl:",
            "ttl:5",
            "ttl:5:",
            "ttl:0:f",
            "ttl:x:f",
        ] {
            assert!(text.parse::<Check>().is_err(), "{text}");
        }
        assert!("tcp".parse::<Load>().is_err());
    }
}
