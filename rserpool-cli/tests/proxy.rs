//! Servers and clients that know nothing of pools: `rserpool register` and `rserpool proxy`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod background;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use background::{Background, command, run, text};

/// Registers a server in the pool "Web", and waits until it is a member.
fn register(registrar: &str, server: SocketAddr, more: &[&str]) -> Background {
    let server = server.to_string();
    let fixed = ["register", "Web", &server, "--registrar", registrar, "--json", "--until-eof"];
    let it = Background::spawn(command(&[&fixed[..], more].concat()));
    assert_eq!(it.said["member"], true);
    wait_until(|| resolve(registrar).contains(&server));
    it
}

fn start_proxy(registrar: &str, listen: &str, more: &[&str]) -> (Background, String) {
    let fixed = ["proxy", "Web", "--registrar", registrar, "--listen", listen, "--json"];
    let it = Background::spawn(command(&[&fixed[..], &["--until-eof"], more].concat()));
    let at = it.text("listen").to_owned();
    (it, at)
}

/// Sends a signal to a process. Returns whether there is one.
fn signal(name: &str, id: &str) -> bool {
    let kill = Command::new("sh").args(["-c", &format!("kill {name} {id} 2>&-")]).status();
    kill.unwrap().success()
}

fn resolve(registrar: &str) -> String {
    text(run(&["resolve", "Web", "--registrar", registrar]).stdout)
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "not in time");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A server that reads a connection to its end, and answers with its name and what it read.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(name: &'static str) -> Self {
        Self::start_at(name, "127.0.0.1:0".parse().unwrap())
    }

    fn start_at(name: &'static str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                thread::spawn(move || {
                    let mut read = Vec::new();
                    if stream.read_to_end(&mut read).is_ok() {
                        let _ = stream.write_all(name.as_bytes());
                        let _ = stream.write_all(&read);
                    }
                });
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

/// Sends bytes, finishes, and returns the answer.
fn ask(at: &str, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(at)?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn first(answer: std::io::Result<Vec<u8>>) -> Option<char> {
    answer.ok()?.first().map(|byte| char::from(*byte))
}

#[test]
fn clients_reach_the_servers_that_work() {
    let (_registrar, registrar) = Background::registrar();
    let (one, two) = (Server::start("1"), Server::start("2"));
    let quick = ["--every", "0.1", "--fall", "2", "--rise", "2"];
    let mut first_entry = register(&registrar, one.address, &quick);
    let _second_entry = register(&registrar, two.address, &quick);
    let (_proxy, at) = start_proxy(&registrar, "127.0.0.1:0", &["--cache", "0"]);

    // Large, so that either direction has to wait for the other, and finished in one direction
    // before the answer begins.
    let large: Vec<u8> = (0..3_000_000u32).map(|number| number.to_be_bytes()[3]).collect();
    let answer = ask(&at, &large).unwrap();
    assert_eq!(&answer[1..], &large);
    let served: Vec<_> = (0..10).map(|_| first(ask(&at, b"x")).unwrap()).collect();
    assert!(served.contains(&'1') && served.contains(&'2'), "{served:?}");

    // A server that ends: no client notices, and then it is not in the pool any more.
    let address = one.address;
    drop(one);
    for _ in 0..20 {
        assert_eq!(first(ask(&at, b"x")), Some('2'));
    }
    assert_eq!(first_entry.line()["member"], false);
    wait_until(|| !resolve(&registrar).contains(&address.to_string()));
    let _again = Server::start_at("1", address);
    assert_eq!(first_entry.line()["member"], true);
    wait_until(|| first(ask(&at, b"x")) == Some('1'));
}

#[test]
fn a_client_waits_for_the_first_server_and_not_for_ever() {
    let (_registrar, registrar) = Background::registrar();
    let (_proxy, at) = start_proxy(&registrar, "127.0.0.1:0", &["--patience", "3"]);
    let waiting = {
        let at = at.clone();
        thread::spawn(move || first(ask(&at, b"x")))
    };
    let server = Server::start("1");
    let _entry = register(&registrar, server.address, &[]);
    assert_eq!(waiting.join().unwrap(), Some('1'));
    drop(server);
    let begin = Instant::now();
    assert_eq!(first(ask(&at, b"x")), None);
    let waited = begin.elapsed();
    assert!(waited > Duration::from_millis(2900), "{waited:?}");
}

#[test]
fn a_server_leaves_when_its_check_fails_and_tells_its_load() {
    let (_registrar, registrar) = Background::registrar();
    let server = Server::start("1");
    let folder = tempfile::tempdir().unwrap();
    let (up, load) = (folder.path().join("up"), folder.path().join("load"));
    std::fs::write(&up, "").unwrap();
    std::fs::write(&load, "25%\n").unwrap();
    let check = format!("exec:test -e {}", up.display());
    let source = format!("exec:cat {} | cat", load.display());
    let options = ["--check", &check, "--load", &source, "--policy", "LeastUsed"];
    let options = [&options[..], &["--every", "0.1", "--fall", "2"]].concat();
    let mut entry = register(&registrar, server.address, &options);
    wait_until(|| resolve(&registrar).contains("LeastUsed:10737418"));
    std::fs::write(&load, "0.75").unwrap();
    wait_until(|| resolve(&registrar).contains("LeastUsed:32212254"));
    std::fs::remove_file(&up).unwrap();
    let line = entry.line();
    assert_eq!((&line["member"], line["reason"].is_string()), (&false.into(), true));
    wait_until(|| resolve(&registrar).is_empty());
    std::fs::write(&up, "").unwrap();
    assert_eq!(entry.line()["member"], true);
    wait_until(|| !resolve(&registrar).is_empty());
}

/// Without any registrar, the proxy goes on with the servers that it knew last, also with one that did
/// not accept for a while.
#[test]
fn servers_are_used_while_there_is_no_registrar() {
    let (only, registrar) = Background::registrar();
    let server = Server::start("1");
    let entry = register(&registrar, server.address, &[]);
    let (_proxy, at) = start_proxy(&registrar, "127.0.0.1:0", &[]);
    assert_eq!(first(ask(&at, b"x")), Some('1'));
    drop(only);
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(first(ask(&at, b"x")), Some('1'));
    let address = server.address;
    drop(server);
    let waiting = thread::spawn({
        let at = at.clone();
        move || first(ask(&at, b"x"))
    });
    thread::sleep(Duration::from_millis(1500));
    let _again = Server::start_at("2", address);
    assert_eq!(waiting.join().unwrap(), Some('2'));
    assert_eq!(first(ask(&at, b"x")), Some('2'));
    drop(entry);
}

/// An HTTP server that answers one path only.
fn http_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let line = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            // Longer than what is read of a load.
            let page = "x".repeat(100_000);
            let (status, body) = match line.split(' ').nth(1) {
                Some("/health") => ("200 OK", page.as_str()),
                Some("/load") => ("200 OK", "0.5"),
                _ => ("503 Service Unavailable", "no"),
            };
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        }
    });
    address
}

/// A registrar that changes its mind ends neither the registration nor the command.
#[test]
fn a_member_that_is_refused_later_tries_again() {
    let (first, registrar) = Background::registrar();
    let server = Server::start("1");
    let sleep = ["--", "sleep", "20"];
    let mut entry = register(&registrar, server.address, &sleep);
    drop(first);
    let address = ["registrar", "--asap", &registrar, "--json", "--until-eof"];
    let strict =
        Background::spawn(command(&[&address[..], &["--allow-element", "192.0.2.0/24"]].concat()));
    thread::sleep(Duration::from_secs(3));
    assert!(entry.child.try_wait().unwrap().is_none(), "the program has ended");
    drop(strict);
    let _second = Background::spawn(command(&address));
    wait_until(|| resolve(&registrar).contains(&server.address.to_string()));
}

#[test]
fn an_http_server_is_checked_by_its_status() {
    let (_registrar, registrar) = Background::registrar();
    let server = http_server();
    let options = ["--check", "http:/health", "--load", "http:/load", "--policy", "LeastUsed"];
    let _entry = register(&registrar, server, &[&options[..], &["--every", "0.1"]].concat());
    wait_until(|| resolve(&registrar).contains("LeastUsed:21474836"));

    // The server closes its connection, while the client's input stays open.
    let mut proxy =
        Background::launch(command(&["proxy", "Web", "--registrar", &registrar, "--stdio"]));
    let mut input = proxy.child.stdin.take().unwrap();
    input.write_all(b"GET /load HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    proxy.lines.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\n0.5"), "{answer}");
    drop(input);
    assert!(proxy.child.wait().unwrap().success());

    let address = server.to_string();
    let at = ["register", "Ill", &address, "--registrar", &registrar, "--check", "http:/other"];
    let mut ill = Command::new(env!("CARGO_BIN_EXE_rserpool"))
        .args(at)
        .args(["--json", "--until-eof"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut errors = BufReader::new(ill.stderr.take().unwrap());
    // The first line may say that there is no SCTP.
    while !line.contains("503") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "the reason is said");
    }
    drop(ill.stdin.take());
    assert!(ill.wait().unwrap().success());
}

#[test]
fn a_command_ends_with_its_registration_and_the_other_way_round() {
    let (_registrar, registrar) = Background::registrar();
    let address = "127.0.0.1:9".parse().unwrap();
    let options = ["--check", "exec:true", "--", "sh", "-c", "sleep 2; exit 7"];
    let mut entry = register(&registrar, address, &options);
    assert_eq!(entry.line()["reason"], "its command has ended");
    assert_eq!(entry.child.wait().unwrap().code(), Some(7));
    assert_eq!(resolve(&registrar), "");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("id");
    let command = format!("echo $$ > {}; exec sleep 1000", file.display());
    let sleeping = ["--check", "exec:true", "--grace", "0", "--", "sh", "-c", &command];
    let mut entry = register(&registrar, address, &sleeping);
    let id = std::fs::read_to_string(file).unwrap();
    assert!(signal("-0", id.trim()));
    entry.signal("TERM");
    assert_eq!(entry.line()["reason"], "this program ends");
    assert!(entry.child.wait().unwrap().success());
    assert!(!signal("-0", id.trim()));
}

#[test]
fn clients_come_by_a_unix_socket_and_by_standard_input_and_are_named_to_servers() {
    let (_registrar, registrar) = Background::registrar();
    let server = Server::start("1");
    let _entry = register(&registrar, server.address, &[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let at = format!("unix:{}", path.display());
    for _ in 0..2 {
        // The second one finds the socket that the first one, which was killed, left behind.
        let (proxy, said) = start_proxy(&registrar, &at, &[]);
        assert_eq!(said, at);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "1hello");
        drop(proxy);
        assert!(path.exists());
    }
    // A file is no socket that may be removed.
    let precious = folder.path().join("precious");
    std::fs::write(&precious, "data").unwrap();
    let listen = format!("unix:{}", precious.display());
    let mut refused = Background::launch(command(&[
        "proxy",
        "Web",
        "--registrar",
        &registrar,
        "--listen",
        &listen,
    ]));
    assert!(!refused.child.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "data");
    let mut proxy =
        Background::launch(command(&["proxy", "Web", "--registrar", &registrar, "--stdio"]));
    let mut input = proxy.child.stdin.take().unwrap();
    input.write_all(b"hello").unwrap();
    drop(input);
    let mut answer = String::new();
    proxy.lines.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "1hello");
    assert!(proxy.child.wait().unwrap().success());

    let (_proxy, at) = start_proxy(&registrar, "127.0.0.1:0", &["--proxy-protocol", "v2"]);
    let answer = ask(&at, b"hello").unwrap();
    assert_eq!(&answer[..13], b"1\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(&answer[13..15], b"\x21\x11");
    assert_eq!(&answer[answer.len() - 5..], b"hello");
}

#[test]
fn connections_finish_before_the_end_and_idle_ones_are_closed() {
    let (_registrar, registrar) = Background::registrar();
    let server = Server::start("1");
    let _entry = register(&registrar, server.address, &[]);
    let (mut proxy, at) = start_proxy(&registrar, "127.0.0.1:0", &["--idle", "1"]);
    let mut idle = TcpStream::connect(&at).unwrap();
    let begin = Instant::now();
    // It is reset, so that nobody takes what was received for the whole.
    assert_eq!(idle.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!((900..9000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());

    let mut open = TcpStream::connect(&at).unwrap();
    open.write_all(b"be").unwrap();
    thread::sleep(Duration::from_millis(200));
    proxy.signal("TERM");
    wait_until(|| TcpStream::connect(&at).is_err());
    open.write_all(b"fore").unwrap();
    open.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "1before");
    assert!(proxy.child.wait().unwrap().success());
}
