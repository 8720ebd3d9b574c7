//! The HTTP interface of a registrar for its operator.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod background;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use background::{Background, run};
use serde_json::Value;

/// A registrar with an HTTP interface.
struct Admin(Background);

impl Admin {
    fn start() -> Self {
        let at = ["--asap", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        Self(Background::start(&[&["registrar"], &at[..]].concat()))
    }

    fn serve(&self, pool: &str) -> Background {
        Background::start(&["serve", "echo", "--pool", pool, "--registrar", self.0.text("asap")])
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.0.text("admin")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends bytes, and returns the status of the answer and its body.
    fn send(&self, request: &str) -> (u16, String) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap_or("0").parse().unwrap();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status, body.unwrap_or_default())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    fn document(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[test]
fn what_the_registrar_knows_can_be_read() {
    let registrar = Admin::start();
    assert_eq!(registrar.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(registrar.get("/readyz").0, 503);
    let servers = ["A", "B", "B", "B", "C d"].map(|pool| registrar.serve(pool));
    let begin = Instant::now();
    while registrar.get("/readyz").0 != 200 {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(100));
    }
    let (status, page) = registrar.get("/");
    assert_eq!(status, 200);
    // The page loads nothing but its own parts.
    for part in ["/page.css", "/page.js"] {
        assert!(page.contains(&format!("\"{part}\"")), "{page}");
        assert_eq!(registrar.get(part).0, 200);
    }
    assert!(!page.contains("http:") && !page.contains("https:"), "{page}");
    let status = registrar.document("/v1/status");
    assert_eq!(status["identifier"], registrar.0.said["identifier"]);
    assert_eq!((&status["pools"], &status["elements"]), (&3.into(), &5.into()));
    assert_eq!(status["counters"]["registrations"], 5);
    assert_eq!(status["counters"]["removals"]["expired"], 0);
    assert_eq!(registrar.document("/v1/peers")["peers"], Value::Array(Vec::new()));

    let pages = |path: &str, name: &str| {
        let (mut items, mut after) = (Vec::new(), String::new());
        loop {
            let page = registrar.document(&format!("{path}?limit=2{after}"));
            items.extend(page[name].as_array().unwrap().iter().cloned());
            match &page["next"] {
                Value::Null => return items,
                next => after = format!("&after={next}"),
            }
        }
    };
    let pools = pages("/v1/pools", "pools");
    let mut sizes: Vec<_> = pools.iter().map(|pool| pool["elements"].as_u64().unwrap()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 3]);
    assert!(pools.iter().any(|pool| pool["handle"] == "C d"), "{pools:?}");

    let elements = pages("/v1/pools/B", "elements");
    assert_eq!(elements.len(), 3);
    for server in &servers[1..4] {
        let identifier = &server.said["identifier"];
        let element = elements.iter().find(|it| it["element"]["identifier"] == *identifier);
        assert!(element.unwrap()["heard_seconds"].is_number(), "{elements:?}");
    }
    let page = registrar.document("/v1/pools/C%20d");
    assert_eq!((&page["pool"]["elements"], &page["next"]), (&1.into(), &Value::Null));

    let (status, metrics) = registrar.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "rserpool_registrar_elements 5",
        "rserpool_registrar_registrations_total 5",
        "rserpool_registrar_removals_total{reason=\"expired\"} 0",
        "rserpool_registrar_denials_total{role=\"user\"} 0",
        "rserpool_pool_elements{pool=\"B\"} 3",
        "# TYPE rserpool_registrar_ready gauge",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
    }
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("rserpool_") && value.parse::<u64>().is_ok(), "{line}");
    }
}

#[test]
fn events_are_followed() {
    let registrar = Admin::start();
    let mut stream = registrar.connect();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: 127.0.0.1:80\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("200"));
    let server = registrar.serve("A");
    let mut next = |name: &str| {
        lines.find(|line| *line == format!("event: {name}")).unwrap();
        let data = lines.next().unwrap();
        serde_json::from_str::<Value>(data.strip_prefix("data: ").unwrap()).unwrap()
    };
    let event = next("registered");
    assert_eq!((&event["pool"], &event["element"]), (&"A".into(), &server.said["identifier"]));
    assert!(event["time"].as_str().unwrap().ends_with('Z'));
    drop(server);
    assert_eq!(next("removed")["reason"], "unreachable");
}

/// Checks a document against a schema of the interface's description. Each of its fields has to be
/// described.
fn check(api: &Value, schema: &Value, document: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        return check(api, api.pointer(&name[1..]).unwrap(), document, at);
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    let matching = kinds.iter().any(|kind| match kind.as_str().unwrap() {
        "object" => document.is_object(),
        "array" => document.is_array(),
        "string" => document.is_string(),
        "boolean" => document.is_boolean(),
        "integer" => document.is_u64(),
        "number" => document.is_number(),
        "null" => document.is_null(),
        other => panic!("{other}"),
    });
    assert!(matching, "{at}: {document} is not {kinds:?}");
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(document), "{at}: {document}");
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(document.get(name.as_str().unwrap()).is_some(), "{at}: no {name}");
    }
    for item in document.as_array().into_iter().flatten() {
        check(api, &schema["items"], item, at);
    }
    for (name, value) in document.as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema)) => check(api, schema, value, &at),
            _ => assert!(schema.get("properties").is_none(), "{at} is not described"),
        }
    }
}

#[test]
fn the_interface_is_as_its_description_says() {
    let registrar = Admin::start();
    let enrp = registrar.0.text("enrp").to_owned();
    let _peer = Background::start(&["registrar", "--asap", "127.0.0.1:0", "--peer", &enrp]);
    let _server = registrar.serve("A");
    let api = registrar.document("/openapi.json");
    let begin = Instant::now();
    while registrar.document("/v1/peers")["peers"].as_array().unwrap().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(100));
    }
    let paths = api["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 11);
    let read =
        |(path, methods): &(&String, &Value)| *path != "/v1/events" && methods["get"].is_object();
    for (path, methods) in paths.iter().filter(read) {
        let concrete = path.replace("{handle}", "A");
        let (status, body) = registrar.get(&concrete);
        let content = &methods["get"]["responses"][status.to_string()]["content"];
        let Some(schema) = content["application/json"].get("schema") else {
            assert!(content["text/plain"].is_object(), "{path}: {status}");
            continue;
        };
        check(&api, schema, &serde_json::from_str(&body).unwrap(), path);
    }
    for (path, code) in [("/v1/pools/Nobody", "404"), ("/v1/pools?limit=0", "400")] {
        let (status, body) = registrar.get(path);
        assert_eq!(status.to_string(), code);
        let error = &api["components"]["schemas"]["Error"];
        check(&api, error, &serde_json::from_str(&body).unwrap(), path);
    }
}

#[test]
fn bad_requests_are_refused() {
    let registrar = Admin::start();
    for (path, expected) in [
        ("/page.html", 404),
        ("/v1/pools/Nobody", 404),
        ("/v1/pools/", 400),
        ("/v1/pools?limit=0", 400),
        ("/v1/pools?limit=1001", 400),
        ("/v1/pools?best=1", 400),
        ("/v1/pools/A?after=x", 400),
        ("/v1/pools?after=4294967296", 400),
    ] {
        let (status, body) = registrar.get(path);
        assert_eq!(status, expected, "{path}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].is_string(), "{path}");
    }
    let request = |method: &str, host: &str| {
        let rest = "content-length: 0\r\nconnection: close";
        registrar.send(&format!("{method} /v1/status HTTP/1.1\r\nhost: {host}\r\n{rest}\r\n\r\n"))
    };
    assert_eq!(request("POST", "localhost").0, 405);
    assert_eq!(request("DELETE", "[::1]:8080").0, 405);
    assert_eq!(request("HEAD", "127.0.0.1:1"), (200, String::new()));
    // The page of another host, whose name leads a browser here.
    assert_eq!(request("GET", "example.org").0, 421);
    assert_eq!(request("GET", "127.0.0.1.example.org:80").0, 421);
    assert_eq!(registrar.send("rubbish\r\n\r\n").0, 400);
    let long = "x".repeat(100_000);
    let mut stream = registrar.connect();
    let _ = stream.write_all(format!("GET /{long} HTTP/1.1\r\n\r\n").as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.contains("200 OK"), "{answer}");
}

/// Clients that send nothing or half a request keep others waiting for some seconds at most, and do
/// not hinder the registrar at all.
#[test]
fn slow_clients_do_not_hinder_others() {
    let registrar = Admin::start();
    let _server = registrar.serve("A");
    let slow: Vec<_> = (0..200)
        .map(|number| {
            let mut stream = registrar.connect();
            if number % 2 == 0 {
                stream.write_all(b"GET /v1/status HTTP/1.1\r\n").unwrap();
            }
            stream
        })
        .collect();
    let begin = Instant::now();
    let resolved = run(&["resolve", "A", "--registrar", registrar.0.text("asap")]);
    assert!(resolved.status.success() && begin.elapsed() < Duration::from_secs(5));
    assert_eq!(registrar.document("/v1/status")["elements"], 1);
    assert!(begin.elapsed() < Duration::from_secs(28), "{:?}", begin.elapsed());
    drop(slow);
}
