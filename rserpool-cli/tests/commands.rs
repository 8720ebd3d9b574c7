//! Tests of the command, with the arguments that a newcomer uses.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

mod background;

use background::{Background, command, complaint, run, text};

#[test]
fn a_server_is_found_talked_to_and_replaced() {
    let (_registrar, address) = Background::registrar();
    let first = Background::serve("echo", &address);
    let second = Background::serve("echo", &address);
    let at = ["--registrar", &address];
    let list = run(&[&["resolve", "EchoPool", "--json"][..], &at].concat());
    let elements: Value = serde_json::from_str(&text(list.stdout)).unwrap();
    assert_eq!(elements.as_array().unwrap().len(), 2);
    let plain = text(run(&[&["resolve", "EchoPool", "--items", "1"][..], &at].concat()).stdout);
    assert_eq!(plain.lines().count(), 1);
    assert!(plain.contains("RoundRobin"), "{plain}");

    let mut terminal = command(&[&["terminal", "EchoPool"][..], &at].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = terminal.stdin.take().unwrap();
    let mut output = BufReader::new(terminal.stdout.take().unwrap()).lines();
    let mut news = BufReader::new(terminal.stderr.take().unwrap()).lines();
    let mut line = || news.next().unwrap().unwrap();
    writeln!(input, "one").unwrap();
    assert_eq!(output.next().unwrap().unwrap(), "one");
    let connected = line();
    let serving = connected.strip_prefix("-- connected to ").unwrap();
    let (serving, other) =
        if first.said["identifier"] == serving { (first, second) } else { (second, first) };
    drop(serving);
    assert!(line().ends_with("failed, looking for another"));
    let other_name = other.said["identifier"].as_str().unwrap();
    assert!(line().starts_with(&format!("-- {other_name} took over after ")));
    writeln!(input, "two").unwrap();
    assert_eq!(output.next().unwrap().unwrap(), "two");
    drop(input);
    assert!(terminal.wait().unwrap().success());
}

#[test]
fn a_server_that_ends_has_left_its_pool() {
    let (_registrar, address) = Background::registrar();
    let mut server = Background::serve("pingpong", &address);
    let resolve = || run(&["resolve", "PingPongPool", "--registrar", &address]);
    assert!(resolve().status.success());
    drop(server.child.stdin.take());
    assert!(server.child.wait().unwrap().success());
    let message = complaint(resolve(), 3);
    assert!(message.starts_with("rserpool: there is no pool PingPongPool"), "{message}");
}

#[test]
fn bad_words_are_one_line_and_status_2() {
    for (arguments, expected) in [
        (&["registrar", "--asap", "nowhere"][..], "not an address"),
        (&["registrar", "--asp", "127.0.0.1:1"], "unexpected argument '--asp'"),
        (&["resolve", ""], "it is empty"),
        (&["resolve"], "<POOL>"),
        (&["serve", "nothing"], "possible values: echo"),
        (&["serve", "echo", "--policy", "Best"], "unknown policy \"Best\""),
        (&["serve", "echo", "--policy", "LeastUsed:1:2"], "at most 1"),
        (&["serve", "echo", "--transport", "udp"], "possible values: auto"),
        (&["demo", "--seconds", "0"], "0 is not in 1"),
    ] {
        let message = complaint(run(arguments), 2);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_is_missing_or_in_the_way_is_said_and_what_to_do() {
    let (_registrar, address) = Background::registrar();
    let message = complaint(run(&["registrar", "--asap", &address]), 1);
    assert!(message.contains("is in use") && message.contains("--asap"), "{message}");
    let nobody = "127.0.0.1:1";
    for arguments in [["resolve", "A"], ["terminal", "A"]] {
        let message = complaint(run(&[&arguments[..], &["--registrar", nobody]].concat()), 4);
        assert!(message.contains("no registrar answered at tcp:127.0.0.1:1"), "{message}");
        assert!(message.contains("`rserpool registrar`"), "{message}");
    }
    let _server = Background::serve("echo", &address);
    let arguments = ["serve", "echo", "--policy", "LeastUsed:5", "--registrar", &address];
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(5));
    assert!(text(output.stderr).contains("the pool has another policy"));
}

#[test]
fn an_operator_defines_a_policy() {
    let rule = "0x80000001=order: load + 3 * words[1]";
    let registrar =
        Background::start(&["registrar", "--asap", "127.0.0.1:0", "--define-policy", rule]);
    let at = registrar.said["asap"].as_str().unwrap();
    // The values are 30, 38 and 64, in the reverse order of the identifiers.
    let values = [("1", "0x80000001:10:18"), ("2", "0x80000001:20:6"), ("3", "0x80000001:30:0")];
    let servers = values.map(|(identifier, policy)| {
        let options = ["--identifier", identifier, "--policy", policy, "--registrar", at];
        Background::start(&[&["serve", "echo"], &options[..]].concat())
    });
    let found = run(&["resolve", "EchoPool", "--registrar", at, "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let order: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|element| element["identifier"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(order, ["0x00000003", "0x00000002", "0x00000001"]);
    drop(servers);
    let complaint = complaint(run(&["registrar", "--define-policy", "7=order:speed"]), 2);
    assert!(complaint.contains("there is no speed"), "{complaint}");
}

#[test]
fn a_timer_without_sense_is_refused() {
    for (option, value, expected) in [
        ("--keep-alive-interval", "0", "at least 0.01 seconds"),
        ("--announce-interval", "0.001", "at least 0.01 seconds"),
        ("--heartbeat-cycle", "1e300", "from 0 to 31536000 seconds"),
        ("--mentor-discovery", "-1", "from 0 to 31536000 seconds"),
        ("--takeover-expiry", "NaN", "from 0 to 31536000 seconds"),
        ("--max-time-last-heard", "soon", "not a number of seconds"),
    ] {
        let argument = format!("{option}={value}");
        let complaint = complaint(run(&["registrar", &argument]), 2);
        assert!(complaint.contains(expected), "{argument}: {complaint}");
    }
}

#[test]
fn rubbish_is_answered_and_logged_once_and_others_are_served() {
    let (registrar, address) = Background::registrar();
    let _server = Background::serve("echo", &address);
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Send two messages of a type that asks for a report, and a message that is cut off.
    stream.write_all(b"\x42\0\0\x04\x42\0\0\x04").unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"\x0e\0\0\x10\0\x0c\0\x0c\0\x02\0\x08\x42\0\0\x04");
    stream.read_exact(&mut answer).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"\x0e\0\0\x0c\0\x0c\0\x08\0\0\0\x04");
    let list = run(&["resolve", "EchoPool", "--registrar", &address]);
    assert!(list.status.success());
    let log = registrar.end();
    assert_eq!(log.matches("misbehaved").count(), 1, "{log}");
}

#[test]
fn the_demonstration_loses_nothing_and_leaves_nobody_behind() {
    let output = run(&["demo", "--seconds", "3", "--json"]);
    let printed = text(output.stdout);
    let summary: Value = serde_json::from_str(&printed).unwrap();
    assert!(output.status.success(), "{printed}");
    assert_eq!((&summary["lost"], &summary["answered_twice"]), (&0.into(), &0.into()));
    assert_eq!(summary["sent"], summary["answered"]);
    assert!(summary["sent"].as_u64().unwrap() > 100, "{printed}");
    assert!(summary["failovers"].as_u64().unwrap() >= 2, "{printed}");
    assert!(summary["failover_ms"]["median"].as_f64().unwrap() > 0.0);
    assert!(summary["failover_ms"]["worst"].as_f64().is_some());
}

/// Returns the child processes of `parent`, as Linux lists them.
#[cfg(target_os = "linux")]
fn children_of(parent: u32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .map(|entry| entry.file_name().into_string().unwrap_or_default())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|name| {
            let stat = std::fs::read_to_string(format!("/proc/{name}/stat")).unwrap_or_default();
            let after_name = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned());
            let fields = after_name.unwrap_or_default();
            let mut fields = fields.split_whitespace();
            let (state, ppid) = (fields.next(), fields.next());
            state != Some("Z") && ppid == Some(&parent.to_string())
        })
        .collect()
}

/// Number of processes of the demonstration: three registrars and three servers.
#[cfg(target_os = "linux")]
const PROCESSES: usize = 6;

#[test]
#[cfg(target_os = "linux")]
fn the_demonstration_takes_its_processes_along_however_it_ends() {
    for signal in ["INT", "KILL"] {
        let mut demo =
            command(&["demo", "--seconds", "60", "--json"]).stderr(Stdio::null()).spawn().unwrap();
        let mut children = Vec::new();
        for _ in 0..500 {
            children = children_of(demo.id());
            if children.len() == PROCESSES {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(children.len(), PROCESSES);
        let kill = Command::new("kill").args(["-s", signal, &demo.id().to_string()]).status();
        assert!(kill.unwrap().success());
        demo.wait().unwrap();
        let alive = |process: &String| {
            let name = std::fs::read_to_string(format!("/proc/{process}/stat"));
            name.is_ok_and(|stat| stat.contains("(rserpool)") && !stat.contains(") Z"))
        };
        for _ in 0..500 {
            if !children.iter().any(alive) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!children.iter().any(alive), "left behind after SIG{signal}");
    }
}

/// Certificates are made by two commands, and a registrar, a server and a client use them; others
/// are refused, with a line that says why.
#[cfg(unix)]
#[test]
fn certificates_are_issued_and_used() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let certs = |arguments: &[&str]| {
        let output = run(&[&["certs"], arguments, &["--dir", &path("")]].concat());
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, error) = certs(&["issue", "--role", "user"]);
    assert!(!done && error.contains("rserpool certs init"), "{error}");
    assert!(certs(&["init"]).0);
    let (done, error) = certs(&["init"]);
    assert!(!done && error.contains("authority.key"), "{error}");
    let issued: [(&str, &[&str]); 4] = [
        ("registrar", &["--role", "registrar"]),
        ("server", &["--role", "element", "--pool", "Echo*", "--max-elements", "1"]),
        ("client", &["--role", "user", "--pool", "Echo*"]),
        ("both", &["--role", "element", "--role", "user", "--pool", "Calc*"]),
    ];
    for (name, roles) in issued {
        assert!(certs(&[&["issue", "--name", name], roles].concat()).0);
        let mode = std::fs::metadata(path(&format!("{name}.key"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    for wrong in ["../up", "", ".hidden", "authority"] {
        assert!(!certs(&["issue", "--role", "user", "--name", wrong]).0, "{wrong}");
    }
    for wrong in [
        &["--role", "registrar", "--pool", "A"][..],
        &["--role", "user", "--max-elements", "1"],
        &["--role", "user", "--identifier", "1"],
        &["--role", "admin"],
        &["--name", "nobody"],
    ] {
        assert!(!certs(&[&["issue"], wrong].concat()).0, "{wrong:?}");
    }
    let shown = run(&["certs", "show", &path("server.pem")]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("spiffe://rserpool.internal/server"), "{shown}");
    assert!(shown.contains("rserpool:element:Echo*?max=1"), "{shown}");
    assert!(!run(&["certs", "show", &path("server.key")]).status.success());

    let options = |name: &str| {
        let (ca, certificate) = (path("authority.pem"), path(&format!("{name}.pem")));
        let key = path(&format!("{name}.key"));
        ["--tls-ca", &ca, "--tls-cert", &certificate, "--tls-key", &key].map(str::to_owned)
    };
    let with = |arguments: &[&str], name: &str| -> Vec<String> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        arguments.chain(options(name)).collect()
    };
    let start = |arguments: &[&str], name: &str| {
        let arguments = with(arguments, name);
        Background::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let transport = ["--transport", "tcp"];
    let registrar =
        start(&[&["registrar", "--asap", "127.0.0.1:0"], &transport[..]].concat(), "registrar");
    let at = registrar.said["asap"].as_str().unwrap().to_owned();
    let at = ["--registrar", &at, transport[0], transport[1]];
    let server = start(&[&["serve", "echo"], &at[..]].concat(), "server");
    let resolve =
        |arguments: &[String]| run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let found = resolve(&with(&[&["resolve", "EchoPool"], &at[..]].concat(), "client"));
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    for (name, pool) in [("client", "CalcPool"), ("both", "EchoPool"), ("registrar", "EchoPool")] {
        let denied = resolve(&with(&[&["resolve", pool], &at[..]].concat(), name));
        assert!(!denied.status.success(), "{name}");
    }
    let elsewhere = [&["serve", "echo", "--pool", "CalcPool"], &at[..]].concat();
    let denied = resolve(&with(&elsewhere, "server"));
    assert!(!denied.status.success());
    let error = String::from_utf8(denied.stderr).unwrap();
    assert!(error.contains("--role element --pool CalcPool"), "{error}");
    let plain = run(&[&["resolve", "EchoPool"], &at[..]].concat());
    assert!(!plain.status.success());

    let other = path("other");
    for arguments in [&["init"][..], &["issue", "--role", "user", "--name", "stranger"]] {
        assert!(run(&[&["certs"], arguments, &["--dir", &other]].concat()).status.success());
    }
    let stranger = resolve(&with(&[&["resolve", "EchoPool"], &at[..]].concat(), "other/stranger"));
    assert!(!stranger.status.success());

    let key = path("client.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    let read_by_others = resolve(&with(&[&["resolve", "EchoPool"], &at[..]].concat(), "client"));
    let error = String::from_utf8(read_by_others.stderr).unwrap();
    assert!(error.contains("chmod 600"), "{error}");
    drop(server);
    let log = registrar.end();
    assert!(log.contains("plain text on a connection that needs TLS"), "{log}");
    assert!(log.contains("certificate of an unknown authority"), "{log}");
    assert!(log.contains("denied by the access rules: not a user"), "{log}");
    assert!(log.contains("rserpool:user:Echo*"), "{log}");
}

/// A key file that cannot be used is named, also where there is no SCTP.
#[cfg(target_os = "linux")]
#[test]
fn keys_for_sctp_are_read_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sctp.keys");
    let resolve = |transport: &str| {
        let keys = file.to_str().unwrap();
        let option = ["--transport", transport, "--sctp-auth-keys", keys];
        let output = run(&[&["resolve", "EchoPool"], &option[..]].concat());
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(resolve("tcp").contains("authenticates only SCTP"));
    for transport in ["auto", "sctp"] {
        let error = resolve(transport);
        assert!(error.contains("sctp.keys") && error.contains("cannot read"), "{error}");
    }
    std::fs::write(&file, "0:00").unwrap();
    assert!(resolve("sctp").contains("chmod 600"));
}
