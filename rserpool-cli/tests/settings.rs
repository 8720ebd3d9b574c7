//! Settings of a registrar from a file, variables and the command line, and their changes while it
//! runs.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod background;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use background::{Background, command, complaint, run, text};

fn wait_until(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_command_line_is_above_variables_and_these_above_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registrar.toml");
    let config = file.to_str().unwrap();
    let names = |variable: Option<&str>, options: &[&str]| {
        let mut command = command(&["registrar", "--config", config, "--json", "--until-eof"]);
        command.args(options).envs(variable.map(|value| ("RSERPOOL_NAME", value)));
        Background::spawn(command).text("name").to_owned()
    };
    fs::write(&file, "asap = \"127.0.0.1:0\"\nname = \"by file\"\n").unwrap();
    assert_eq!(names(None, &[]), "by file");
    assert_eq!(names(Some("by variable"), &[]), "by variable");
    assert_eq!(names(Some("by variable"), &["--name", "by option"]), "by option");

    let check = || run(&["registrar", "--config", config, "--check"]);
    assert_eq!(text(check().stdout), "the settings are valid\n");
    // What an option needs may be in the file, and the other way round.
    fs::write(&file, "tls-ca = \"none.pem\"\n").unwrap();
    let grant = ["registrar", "--config", config, "--check", "--grant", "a registrar"];
    assert!(complaint(run(&grant), 2).contains("none.pem"));
    fs::write(&file, "asap = \"127.0.0.1:0\"\n\nmax-element = 7\n").unwrap();
    let message = complaint(check(), 2);
    assert!(
        message.contains("registrar.toml:3:1: there is no setting \"max-element\""),
        "{message}"
    );
    fs::write(&file, "items = 9\nmax-items = 8\n").unwrap();
    assert!(complaint(check(), 2).contains("--items is more than --max-items"));
    fs::remove_file(&file).unwrap();
    assert!(complaint(check(), 2).contains("No such file"));
}

#[test]
fn settings_are_read_again_on_sighup_and_the_state_is_logged_on_sigusr1() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registrar.toml");
    fs::write(&file, "asap = \"127.0.0.1:0\"\nname = \"one\"\n").unwrap();
    let mut registrar = Background::start(&["registrar", "--config", file.to_str().unwrap()]);
    let at = registrar.text("asap").to_owned();
    let _server = Background::serve("echo", &at);
    let status = || run(&["resolve", "EchoPool", "--registrar", &at]).status.code();
    assert_eq!(status(), Some(0));
    fs::write(&file, "asap = \"127.0.0.1:0\"\nname = \"two\"\nallow-user = [\"192.0.2.1\"]\n")
        .unwrap();
    registrar.signal("HUP");
    wait_until(|| status() == Some(5));
    // A mistake changes nothing, and TLS begins only with a restart.
    fs::write(&file, "asap = \n").unwrap();
    registrar.signal("HUP");
    let mut log = String::new();
    let stderr = registrar.child.stderr.take().unwrap();
    let mut lines = BufReader::new(stderr).lines().map(Result::unwrap);
    while !log.contains("cannot read the settings again") {
        log += &lines.next().unwrap();
    }
    assert_eq!(status(), Some(5));
    let secured = "asap = \"127.0.0.1:0\"\nname = \"one\"\ntls-ca = \"none.pem\"\n";
    fs::write(&file, secured).unwrap();
    registrar.signal("HUP");
    wait_until(|| status() == Some(0));
    registrar.signal("USR1");
    while !log.contains("pools=1 elements=1") {
        log += &lines.next().unwrap();
    }
    for expected in [
        "settings were read again",
        "a setting changes only with a restart setting=\"name\"",
        "a setting changes only with a restart setting=\"tls\"",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
}

#[test]
fn servers_are_registered_by_files() {
    let (_registrar, at) = Background::registrar();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.toml");
    let text_of = |more: &str| {
        format!("pool = \"Web\"\naddress = \"{address}\"\nregistrar = [\"{at}\"]\n{more}\n")
    };
    let start = |more: &str, options: &[&str]| {
        fs::write(&file, text_of(more)).unwrap();
        let fixed = ["register", "--config", file.to_str().unwrap()];
        Background::start(&[&fixed[..], options].concat())
    };
    let said = start("policy = \"LeastUsed:10%\"", &[]).said.clone();
    assert_eq!((&said["pool"], &said["member"]), (&"Web".into(), &true.into()));
    assert_eq!(start("", &["Other"]).said["pool"], "Other");
    // The command ends, and so does the registration.
    let end = folder.path().join("end");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", end.display());
    let mut short = start(&format!("command = [\"sh\", \"-c\", \"{wait}\"]"), &["Short"]);
    fs::write(&end, "").unwrap();
    assert_eq!(short.line()["reason"], "its command has ended");
}

/// Tests what systemd is told: ready, its watchdog, reloading, and stopping.
#[cfg(target_os = "linux")]
#[test]
fn systemd_is_told_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut command = command(&["registrar", "--asap", "127.0.0.1:0", "--json", "--until-eof"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let registrar = Background::spawn(command);
    let told = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        text(bytes[..length].to_vec())
    };
    assert_eq!(told(), "READY=1\n");
    for _ in 0..3 {
        assert_eq!(told(), "WATCHDOG=1\nSTATUS=0 pools, 0 elements, 0 other registrars\n");
    }
    let wait_for = |expected: &str| while !told().starts_with(expected) {};
    registrar.signal("HUP");
    wait_for("RELOADING=1\nMONOTONIC_USEC=");
    wait_for("READY=1");
    registrar.signal("TERM");
    wait_for("STOPPING=1");
}

#[test]
fn manual_pages_and_completions_are_of_the_command() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&["manual", folder.path().to_str().unwrap()]).status.success());
    let page = fs::read_to_string(folder.path().join("rserpool-registrar.1")).unwrap();
    assert!(
        page.contains("max\\-connections") && page.contains("RSERPOOL_MAX_CONNECTIONS"),
        "{page}"
    );
    for shell in ["bash", "zsh", "fish"] {
        let completions = text(run(&["completions", shell]).stdout);
        assert!(completions.contains("registrar"), "{shell}");
    }
}

#[test]
fn ports_that_are_taken_are_errors() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let enrp = taken.local_addr().unwrap().to_string();
    let arguments = ["registrar", "--asap", "127.0.0.1:0", "--transport", "tcp", "--enrp", &enrp];
    let message = complaint(run(&arguments), 1);
    assert!(message.contains("in use") && message.contains("--enrp"), "{message}");
}

#[test]
fn registrars_are_found_by_name() {
    let one = Background::start(&["registrar", "--asap", "127.0.0.1:0"]);
    let name = |address: &str| address.replace("127.0.0.1", "localhost");
    let peer = name(one.text("enrp"));
    let two = Background::start(&["registrar", "--asap", "127.0.0.1:0", "--peer", &peer]);
    let _server = Background::serve("echo", &name(one.text("asap")));
    let resolve = || run(&["resolve", "EchoPool", "--registrar", &name(two.text("asap"))]);
    wait_until(|| resolve().status.success());

    // A name that is not known is waited for, and said.
    let unknown = ["--peer", "nowhere.invalid", "--name", "three"];
    let three =
        Background::start(&[&["registrar", "--asap", "127.0.0.1:0"][..], &unknown].concat());
    assert_eq!(three.text("name"), "three");
    let log = three.end();
    assert!(log.contains("cannot resolve nowhere.invalid yet"), "{log}");
}

#[test]
fn exit_statuses_tell_the_reason() {
    let (_registrar, at) = Background::registrar();
    for (arguments, status) in [
        (&["resolve", "Nothing", "--registrar", &at][..], 3),
        (&["terminal", "Nothing", "--registrar", &at], 3),
        (&["resolve", "Nothing", "--registrar", "127.0.0.1:1"], 4),
        (&["dump", "127.0.0.1:1"], 4),
        (&["resolve"], 2),
    ] {
        assert_eq!(run(arguments).status.code(), Some(status), "{arguments:?}");
    }
}
