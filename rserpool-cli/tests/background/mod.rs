//! Runs the command in the background.
#![allow(dead_code, reason = "not each test uses all of it")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rserpool"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub(crate) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Returns the only line on standard error, after checking that the exit status is `code`.
pub(crate) fn complaint(output: Output, code: i32) -> String {
    let message = text(output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// A process in the background, which is killed at the end of the test.
pub(crate) struct Background {
    pub(crate) child: Child,
    pub(crate) lines: BufReader<ChildStdout>,
    /// The first line of output.
    pub(crate) said: Value,
}

impl Background {
    /// Starts a process, and waits for its first line of output.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.args(["--json", "--until-eof"]);
        Self::spawn(command)
    }

    /// Starts a process that prints JSON, and waits for its first line of output.
    pub(crate) fn spawn(command: Command) -> Self {
        let mut it = Self::launch(command);
        it.said = it.line();
        it
    }

    /// Starts a process, and does not wait for its output.
    pub(crate) fn launch(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, said: Value::Null }
    }

    /// Reads the next line of output.
    pub(crate) fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// Returns a text of the first line.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.said[name].as_str().unwrap()
    }

    pub(crate) fn registrar() -> (Self, String) {
        let registrar = Self::start(&["registrar", "--asap", "127.0.0.1:0"]);
        let address = registrar.text("asap").to_owned();
        (registrar, address)
    }

    pub(crate) fn serve(service: &str, registrar: &str) -> Self {
        Self::start(&["serve", service, "--registrar", registrar])
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Ends the process by the end of its input, so that it writes its log to the end. Returns what
    /// it wrote to standard error.
    pub(crate) fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
