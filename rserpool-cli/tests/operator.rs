//! The commands of an operator to a registrar.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod background;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use background::{Background, command, complaint, run, text};
use serde_json::Value;
use tempfile::TempDir;

/// A registrar with a control socket and an HTTP interface.
struct Controlled {
    registrar: Background,
    folder: TempDir,
}

impl Controlled {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control");
        let own = ["registrar", "--asap", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--control"];
        let all = [&own[..], &[socket.to_str().unwrap()], more].concat();
        Self { registrar: Background::start(&all), folder }
    }

    fn socket(&self) -> String {
        self.folder.path().join("control").to_str().unwrap().to_owned()
    }

    fn serve(&self, policy: &str) -> Background {
        let at = self.registrar.text("asap");
        Background::start(&["serve", "echo", "--policy", policy, "--registrar", at])
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = run(&[arguments, &["--at", &self.socket()]].concat());
        assert!(output.status.success(), "{}", text(output.stderr));
        text(output.stdout)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Returns the identifiers that a user is told.
    fn resolved(&self) -> Vec<String> {
        let at = self.registrar.text("asap");
        let output = run(&["resolve", "EchoPool", "--items", "9", "--json", "--registrar", at]);
        let elements: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let elements = elements.as_array().into_iter().flatten();
        elements.map(|element| element["identifier"].as_str().unwrap().to_owned()).collect()
    }
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn elements_are_drained_and_deregistered_by_their_home() {
    let one = Controlled::start(&["--name", "one"]);
    let enrp = one.registrar.text("enrp").to_owned();
    let two = Controlled::start(&["--peer", &enrp]);
    let servers = [one.serve("RoundRobin"), one.serve("RoundRobin")];
    let identifiers = servers.each_ref().map(|it| it.text("identifier").to_owned());
    wait_until(|| two.resolved().len() == 2);

    assert_eq!(one.json(&["drain", "EchoPool", &identifiers[0]])["changed"], true);
    assert!(one.run(&["drain", "EchoPool", &identifiers[0]]).contains("is drained already"));
    wait_until(|| two.resolved() == identifiers[1..]);
    assert_eq!(one.resolved(), identifiers[1..]);
    let explained = one.run(&["explain", "EchoPool"]);
    let drained = explained.lines().find(|line| line.contains(&identifiers[0])).unwrap();
    assert!(drained.contains("drained") && drained.contains(" 0 %"), "{explained}");
    assert!(explained.lines().all(|line| line.chars().count() <= 80), "{explained}");
    assert!(explained.contains(&format!("next: {}", identifiers[1])), "{explained}");

    // Sessions go on, and another registrar does not take the order.
    let elsewhere = ["drain", "EchoPool", &identifiers[1], "--at", &two.socket()];
    let message = complaint(run(&elsewhere), 5);
    assert!(message.contains(one.registrar.text("identifier")), "{message}");
    let undo = one.run(&["drain", "EchoPool", &identifiers[0], "--undo"]);
    assert!(undo.contains("not drained any more"), "{undo}");
    wait_until(|| two.resolved().len() == 2);

    // An element that hangs is not waited for.
    servers[1].signal("STOP");
    assert!(one.run(&["deregister", "EchoPool", &identifiers[1]]).contains("removed"));
    assert_eq!(one.resolved(), identifiers[..1]);
    servers[1].signal("CONT");
    // One that lives registers again.
    wait_until(|| one.resolved().len() == 2);

    let nobody = ["drain", "EchoPool", "0x12345678", "--at", &one.socket()];
    assert!(complaint(run(&nobody), 3).contains("no such element"));
    // Who asks for the handlespace is not taken for a registrar that comes and goes.
    assert!(run(&["dump", &enrp]).status.success());
    let log = one.registrar.end();
    assert_eq!(log.matches("peer found").count(), 1, "{log}");
    assert!(!log.contains("peer lost"), "{log}");
    assert!(log.contains("drained") && log.contains("order of an operator"), "{log}");
}

#[test]
fn orders_are_taken_by_the_socket_alone() {
    let one = Controlled::start(&[]);
    let server = one.serve("RoundRobin");
    let identifier = server.text("identifier");
    let admin = one.registrar.text("admin");
    let message = complaint(run(&["drain", "EchoPool", identifier, "--at", admin]), 5);
    assert!(message.contains("--control"), "{message}");
    assert_eq!(one.resolved(), [identifier]);
    // Others may not connect.
    let mode = fs::metadata(one.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // What can be read there can be read here.
    for arguments in [&["explain", "EchoPool"][..], &["peers"]] {
        let output = run(&[arguments, &["--at", admin]].concat());
        assert!(output.status.success(), "{}", text(output.stderr));
    }
    // Another server.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = other.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut client, _) = other.accept().unwrap();
        let _ = client.read(&mut [0; 1024]);
        client.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno").unwrap();
    });
    let message = complaint(run(&["peers", "--at", &at]), 4);
    assert!(message.contains("not that of a registrar"), "{message}");
    let message = complaint(run(&["peers", "--at", "/nowhere/control"]), 4);
    assert!(message.contains("--at"), "{message}");
    let message = complaint(run(&["explain", "Nothing", "--at", admin]), 3);
    assert!(message.contains("no such pool"), "{message}");
    // The file is removed in the end, and one that was left behind does no harm.
    let socket = one.socket();
    fs::remove_file(&socket).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let again = ["registrar", "--asap", "127.0.0.1:0", "--control", &socket];
    let again = Background::start(&again);
    assert_eq!(again.text("control"), socket);
    let second = ["registrar", "--asap", "127.0.0.1:0", "--control", &socket];
    assert!(complaint(run(&second), 1).contains("--control"));
    again.end();
    assert!(!Path::new(&socket).exists());
}

#[test]
fn a_person_sees_peers_servers_and_the_reasons_of_selections() {
    let one = Controlled::start(&["--name", "one"]);
    let two = Controlled::start(&["--peer", one.registrar.text("enrp")]);
    let servers = [one.serve("LeastUsed:50%"), one.serve("LeastUsed:10%")];
    wait_until(|| two.resolved().len() == 2);
    let peers = one.run(&["peers"]);
    assert!(peers.starts_with("registrar one 0x"), "{peers}");
    assert!(peers.contains(two.registrar.text("identifier")) && peers.contains("alive"), "{peers}");
    assert_eq!(two.json(&["peers"])["peers"][0]["elements"], 2);

    let explained = one.json(&["explain", "EchoPool"]);
    let elements = explained["elements"].as_array().unwrap();
    let of = |server: &Background| {
        let identifier = server.text("identifier");
        elements.iter().find(|it| it["element"]["identifier"] == *identifier).unwrap()
    };
    assert_eq!((&of(&servers[0])["first"], &of(&servers[1])["first"]), (&0.into(), &1000.into()));
    let keys = servers.each_ref().map(|server| of(server)["rank"]["key"].as_u64().unwrap());
    assert!(keys[0] > keys[1]);
    let shown = one.run(&["explain", "EchoPool"]);
    assert!(shown.contains("load 50 %") && shown.contains(" 10.0 %"), "{shown}");

    let dump = text(run(&["dump", one.registrar.text("enrp")]).stdout);
    assert!(dump.contains("load 10 %"), "{dump}");
    assert!(dump.lines().all(|line| line.chars().count() <= 80), "{dump}");

    let at = one.registrar.text("asap").to_owned();
    let ping = ["ping", "EchoPool", "--count", "2", "--every", "0.1", "--registrar", &at];
    let output = run(&ping);
    assert!(output.status.success());
    assert_eq!(text(output.stdout).lines().count(), 4);
    let output = run(&[&ping[..], &["--json"]].concat());
    let times: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(times["servers"].as_array().unwrap().len(), 2);
    for server in times["servers"].as_array().unwrap() {
        assert_eq!((&server["answered"], &server["failed"]), (&2.into(), &0.into()), "{times}");
        assert!(server["median_milliseconds"].as_f64().unwrap() > 0.0, "{times}");
    }
}

#[test]
fn changes_of_a_pool_are_shown_with_their_times() {
    let one = Controlled::start(&[]);
    let server = one.serve("LeastUsed:20%");
    let at = one.registrar.text("asap");
    let watch = command(&["watch", "EchoPool", "--json", "--registrar", at]);
    let mut watch = Background::launch(watch);
    let joined = watch.line();
    assert_eq!(joined["change"], "joined");
    assert_eq!(joined["identifier"], *server.text("identifier"));
    assert!(joined["time"].as_str().unwrap().ends_with('Z'), "{joined}");
    one.run(&["drain", "EchoPool", server.text("identifier")]);
    assert_eq!(watch.line()["change"], "left");
    one.run(&["drain", "EchoPool", server.text("identifier"), "--undo"]);
    assert_eq!(watch.line()["change"], "joined");
}
