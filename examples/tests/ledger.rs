//! Runs the ledger's programs, and kills them all.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rserpool::cookie::KeyRing;
use rserpool::transport::Tcp;
use rserpool::{Network, Registrar, RegistrarConfig};
use rserpool_smol::SmolRuntime;

/// A process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, folder: &Path, registrar: &str) -> Killed {
    let mut command = Command::new(program);
    command.arg(registrar).current_dir(folder).stdout(Stdio::piped());
    Killed(command.spawn().unwrap())
}

fn start_server(folder: &Path, registrar: &str) -> Killed {
    let mut server = start(env!("CARGO_BIN_EXE_ledger_server"), folder, registrar);
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("registered as 0x"), "{line}");
    server
}

fn terminate(server: &Killed) {
    let status = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_ledger_is_kept_while_its_servers_and_its_client_are_killed() {
    let network = Network::new(SmolRuntime::new(), Tcp::new());
    let registrar =
        Registrar::start(&network, ["127.0.0.1:0"], RegistrarConfig::default()).unwrap();
    let address = registrar.local_address().socket_addresses().next().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let (folder, program) = (folder.path(), env!("CARGO_BIN_EXE_ledger_client"));
    KeyRing::create_file(folder.join("ledger.keys"), 1).unwrap();
    let mut servers: Vec<_> = (0..3).map(|_| start_server(folder, &address)).collect();
    let mut stopping = Vec::new();
    let mut client = start(program, folder, &address);
    for round in 0..100 {
        thread::sleep(Duration::from_millis(40));
        servers.push(start_server(folder, &address));
        let server = servers.remove(0);
        match round % 2 {
            0 => drop(server),
            _ => {
                terminate(&server);
                stopping.push(server);
            }
        }
        if let Some(status) = client.0.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        if round < 6 {
            drop(client);
            client = start(program, folder, &address);
        }
    }
    let mut output = String::new();
    client.0.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(output, "1600 transfers; the balances add up to 0\n");
}
