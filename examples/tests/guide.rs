//! Runs the two programs of the guide's chapter `first_service`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rserpool::cookie::KeyRing;
use rserpool::transport::Tcp;
use rserpool::{Network, Registrar, RegistrarConfig};
use rserpool_smol::SmolRuntime;

#[test]
fn the_guide_shows_the_programs_that_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let chapter = root.join("../rserpool/src/guide/first_service.md");
    let chapter = fs::read_to_string(chapter).unwrap();
    for program in ["guide_server", "guide_client"] {
        let source = fs::read_to_string(root.join(format!("src/bin/{program}.rs"))).unwrap();
        let (_, code) = source.split_once("\n\n").unwrap();
        assert!(chapter.contains(&format!("```no_run\n{code}```")), "{program}");
    }
}

/// A process that is killed when the test ends.
struct Server(Child);

impl Server {
    fn start(folder: &Path, registrar: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_guide_server"))
            .arg(registrar)
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("registered as 0x"), "{line}");
        Self(child)
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_count_goes_on_while_servers_are_killed_and_stopped() {
    let network = Network::new(SmolRuntime::new(), Tcp::new());
    let registrar =
        Registrar::start(&network, ["127.0.0.1:0"], RegistrarConfig::default()).unwrap();
    let address = registrar.local_address().socket_addresses().next().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    KeyRing::create_file(folder.path().join("counter.keys"), 1).unwrap();

    let mut servers: Vec<_> = (0..2).map(|_| Server::start(folder.path(), &address)).collect();
    let mut stopped = Vec::new();
    let mut client = Command::new(env!("CARGO_BIN_EXE_guide_client"))
        .arg(&address)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(client.stdout.take().unwrap()).lines();
    for (expected, line) in (1..=100).zip(lines) {
        assert_eq!(line.unwrap(), expected.to_string());
        if expected % 20 == 10 {
            // Kill and terminate servers in turn, so that the session has to move each time.
            let signal = if expected % 40 == 10 { "-KILL" } else { "-TERM" };
            servers.push(Server::start(folder.path(), &address));
            let oldest = servers.remove(0);
            oldest.signal(signal);
            stopped.push(oldest);
        }
    }
    assert!(client.wait().unwrap().success());
}
