//! TLS with certificates that a test issues: which are trusted, how they are replaced, and whether
//! another implementation of TLS connects.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

mod authority;

use std::future::poll_fn;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use rserpool::cookie::{KeyRing, Seal};
use rserpool::proto::wire::{Ppid, TransportAddress, UserMessage};
use rserpool::transport::tls::{TlsConfig, TlsConfigError};
use rserpool::transport::{Connection, Endpoint, Event, Memory, Purpose, Tcp, Tls};
use rserpool::{
    AccessRole, AccessRules, ElementEvent, Identity, InvalidState, MessengerEvent, Network,
    PoolElement, PoolUser, Registrar, RegistrarConfig, RequestConfig, Service, ServiceConfig,
    SessionEvent, proto,
};
use rserpool_tokio::TokioRuntime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use authority::{Authority, DAY, name};

const ASAP: Purpose = Purpose::Protocol(Ppid::ASAP);

fn network(config: &TlsConfig) -> Network {
    Network::new(TokioRuntime::current(), Tls::over(Tcp::new(), config).unwrap())
}

fn local() -> TransportAddress {
    TransportAddress::tcp("127.0.0.1:0".parse().unwrap())
}

async fn next(connection: &mut Box<dyn Connection>) -> Event {
    poll_fn(|cx| connection.poll_event(cx)).await
}

/// Connects a client to a server and sends a message. Returns the identity that the server knows, or
/// the error that the client sees.
async fn exchange(server: &TlsConfig, client: &TlsConfig) -> Result<Identity, String> {
    let (server, client) = (network(server), network(client));
    let mut server = server.listen(ASAP, &local()).unwrap();
    let mut dialler = client.dialler(ASAP).unwrap();
    exchange_between(&mut server, &mut dialler).await
}

/// Does what [`exchange`] does, between endpoints that are there.
async fn exchange_between(
    server: &mut Box<dyn Endpoint>,
    dialler: &mut Box<dyn Endpoint>,
) -> Result<Identity, String> {
    let mut ours = dialler.connect(server.local().unwrap());
    let mut theirs = pin!(async {
        let mut theirs = poll_fn(|cx| server.poll_accept(cx)).await.unwrap();
        let Event::Message(message) = next(&mut theirs).await else { panic!("a message") };
        theirs.send(message).unwrap();
        poll_fn(|cx| theirs.poll_flush(cx)).await;
        theirs
    });
    let request = UserMessage::new(Ppid::ASAP, &b"\x05\0\0\x10\0\x09\0\x0cEchoPool"[..]);
    let mut answered = pin!(async {
        loop {
            match next(&mut ours).await {
                Event::Established { .. } => ours.send(request.clone()).unwrap(),
                Event::Message(message) => {
                    assert_eq!(message, request);
                    return Ok(());
                }
                Event::Lost(error) => return Err(error.to_string()),
                event => panic!("{event:?}"),
            }
        }
    });
    tokio::select! {
        theirs = &mut theirs => {
            answered.await.expect("the server accepted the connection");
            Ok(theirs.identity().unwrap())
        }
        answered = &mut answered => {
            answered?;
            Ok(theirs.await.identity().unwrap())
        }
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_refused_at_both_ends() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let good = ours.config(&ours.issue(1, -1, 1));
    let identity = exchange(&good, &ours.config(&ours.issue(2, -1, 1))).await.unwrap();
    assert!(identity.names().eq(["spiffe://example.org/2"]));

    let bad = [
        (ours.issue(3, -2, -1), "xpired"),
        (ours.issue(4, 1, 2), "xpired"),
        (other.issue(5, -1, 1), "UnknownC"),
    ];
    for (issued, alert) in &bad {
        let config = ours.config(issued);
        let error = exchange(&good, &config).await.unwrap_err();
        assert!(error.contains(alert), "as a client: {error}");
        exchange(&config, &good).await.unwrap_err();
    }
    let error = exchange(&ours.config(&bad[0].0), &good).await.unwrap_err();
    assert!(error.contains("xpired"), "{error}");
    let error = exchange(&ours.config(&bad[1].0), &good).await.unwrap_err();
    assert!(error.contains("not valid yet") || error.contains("NotValidYet"), "{error}");
    let error = exchange(&ours.config(&bad[2].0), &good).await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
    // Another authority with the same name.
    let namesake = ours.config(&Authority::new("ours").issue(7, -1, 1));
    let error = exchange(&namesake, &good).await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
    exchange(&good, &namesake).await.unwrap_err();

    let revoked = ours.config(&ours.issue(6, -1, 1));
    exchange(&good, &revoked).await.unwrap();
    let strict = good.clone().revocation_lists(ours.revoke(6).as_bytes()).unwrap();
    exchange(&strict, &good).await.unwrap();
    let error = exchange(&strict, &revoked).await.unwrap_err();
    assert!(error.contains("Revoked"), "{error}");
    let error = exchange(&revoked, &strict).await.unwrap_err();
    assert!(error.contains("Revoked"), "{error}");
}

/// A resumed connection has no certificates in its handshake. They are verified nevertheless.
#[tokio::test]
async fn a_connection_is_not_resumed_once_a_certificate_has_expired() {
    let authority = Authority::new("ours");
    let lasting = authority.config(&authority.issue(1, -1, 1));
    let end = SystemTime::now() + Duration::from_secs(3);
    let brief = authority.issue_between(2, SystemTime::now() - DAY, end, &[]);
    let brief = authority.config(&brief);
    let pairs = [(&lasting, &brief), (&brief, &lasting)];
    let mut endpoints = pairs.map(|(server, client)| {
        let server = network(server).listen(ASAP, &local()).unwrap();
        (server, network(client).dialler(ASAP).unwrap())
    });
    for (server, dialler) in &mut endpoints {
        for _ in 0..3 {
            exchange_between(server, dialler).await.unwrap();
        }
    }
    let rest = end.duration_since(SystemTime::now()).expect("the certificate is valid");
    tokio::time::sleep(rest + Duration::from_secs(1)).await;
    for (server, dialler) in &mut endpoints {
        exchange_between(server, dialler).await.unwrap_err();
    }
}

/// Actions of somebody on the way with the records of a client.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meddling {
    Nothing,
    Change,
    Repeat,
    CutOff,
}

/// Passes on what the client that connects to `listener` and the server at `to` send, and meddles as
/// the channel says. Returns the bytes of the client.
async fn meddle(
    listener: TcpListener,
    to: SocketAddr,
    meddling: watch::Receiver<Meddling>,
) -> io::Result<Vec<u8>> {
    let (client, _) = listener.accept().await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(to).await?.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut seen = Vec::new();
    loop {
        let mut record = vec![0; 5];
        if from_client.read_exact(&mut record).await.is_err() {
            return Ok(seen);
        }
        record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
        from_client.read_exact(&mut record[5..]).await?;
        seen.extend_from_slice(&record);
        match *meddling.borrow() {
            Meddling::Nothing => {}
            Meddling::Change => *record.last_mut().unwrap() ^= 1,
            Meddling::Repeat => record.extend_from_within(..),
            Meddling::CutOff => return Ok(seen),
        }
        to_server.write_all(&record).await?;
    }
}

#[tokio::test]
async fn who_is_on_the_way_reads_and_changes_nothing() {
    let authority = Authority::new("ours");
    let server = network(&authority.config(&authority.issue(1, -1, 1)));
    let client = network(&authority.config(&authority.issue(2, -1, 1)));
    let request = UserMessage::new(Ppid::ASAP, &b"\x05\0\0\x10\0\x09\0\x0cEchoPool"[..]);
    for (meddling, messages) in [
        (Meddling::Nothing, 1),
        (Meddling::Change, 0),
        (Meddling::Repeat, 1),
        (Meddling::CutOff, 0),
    ] {
        let mut server = server.listen(ASAP, &local()).unwrap();
        let to = server.local().unwrap();
        let to = SocketAddr::new(to.host(), to.port);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let between = TransportAddress::tcp(listener.local_addr().unwrap());
        let (choose, chosen) = watch::channel(Meddling::Nothing);
        let meddler = tokio::spawn(meddle(listener, to, chosen));

        let mut ours = client.dialler(ASAP).unwrap().connect(&between);
        let (mut theirs, established) =
            tokio::join!(poll_fn(|cx| server.poll_accept(cx)).map(Result::unwrap), next(&mut ours));
        assert!(matches!(established, Event::Established { .. }), "{established:?}");
        ours.send(request.clone()).unwrap();
        poll_fn(|cx| ours.poll_flush(cx)).await;
        assert!(matches!(next(&mut theirs).await, Event::Message(it) if it == request));

        choose.send(meddling).unwrap();
        ours.send(request.clone()).unwrap();
        poll_fn(|cx| ours.poll_flush(cx)).await;
        for _ in 0..messages {
            assert!(matches!(next(&mut theirs).await, Event::Message(it) if it == request));
        }
        if meddling == Meddling::Nothing {
            tokio::join!(poll_fn(|cx| ours.poll_close(cx)), async {
                let event = next(&mut theirs).await;
                assert!(matches!(event, Event::Closed), "{event:?}");
                drop(theirs);
            });
        } else {
            let event = next(&mut theirs).await;
            assert!(matches!(event, Event::Lost(_)), "{meddling:?}: {event:?}");
        }
        drop(ours);
        let seen = meddler.await.unwrap().unwrap();
        assert!(!seen.windows(8).any(|bytes| bytes == b"EchoPool"));
    }
}

#[tokio::test]
async fn clients_are_anonymous_only_where_that_is_allowed() {
    let authority = Authority::new("ours");
    let server = authority.config(&authority.issue(1, -1, 1));
    let error = exchange(&server, &authority.trusted()).await.unwrap_err();
    assert!(error.contains("CertificateRequired"), "{error}");
    let lenient = server.clone().allow_anonymous(true);
    let identity = exchange(&lenient, &authority.trusted()).await.unwrap();
    assert_eq!(identity.names().count(), 0);
    let named = exchange(&lenient, &server).await.unwrap();
    assert_eq!(named.names().count(), 1);

    let without = network(&authority.trusted()).listen(ASAP, &local()).unwrap_err();
    assert!(without.io_error().to_string().contains("certificate"), "{without}");
}

#[test]
fn what_does_not_fit_is_an_error_that_says_so_and_shows_no_key() {
    let authority = Authority::new("ours");
    let (one, two) = (authority.issue(1, -1, 1), authority.issue(2, -1, 1));
    let trusted = || authority.trusted();
    let mixed = trusted().certificate(one.certificate.as_bytes(), two.key.as_bytes());
    assert!(matches!(mixed, Err(TlsConfigError::KeyMismatch)));
    let swapped = trusted().certificate(one.key.as_bytes(), one.certificate.as_bytes());
    let text = swapped.unwrap_err().to_string();
    assert!(text.contains("certificate") && !text.contains(&one.key), "{text}");
    let broken = one.key.replace('M', "!");
    let text = trusted().certificate(one.certificate.as_bytes(), broken.as_bytes());
    let text = text.unwrap_err().to_string();
    assert!(text.contains("private key") && !text.contains(broken.trim()), "{text}");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    for not_pem in [&b""[..], b"not PEM", one.key.as_bytes()] {
        assert!(TlsConfig::new(Arc::clone(&provider), not_pem).is_err());
    }
    assert!(trusted().revocation_lists(one.certificate.as_bytes()).is_err());
}

/// New connections use the new certificate; a session that is open goes on.
#[tokio::test]
async fn certificates_are_replaced_while_connections_go_on() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let memory = Memory::new();
    let tls = Tls::over(memory.clone(), &old.config(&old.issue(1, -1, 1))).unwrap();
    let network = Network::new(TokioRuntime::current(), tls.clone());
    let registrar =
        Registrar::start(&network, ["127.0.0.1:3864"], RegistrarConfig::default()).unwrap();
    let user = PoolUser::new(&network, registrar.local_addresses()).unwrap();
    let resolve = async |user: &PoolUser| {
        let error = user.resolve("Nobody", Default::default()).await.unwrap_err();
        assert!(error.to_string().contains("Nobody"), "{error}");
    };
    resolve(&user).await;
    tls.reload(&new.config(&new.issue(2, -1, 1))).unwrap();
    resolve(&user).await;
    // A user that trusts only the new authority is answered.
    let renewed = Tls::over(memory, &new.config(&new.issue(3, -1, 1))).unwrap();
    let renewed = Network::new(TokioRuntime::current(), renewed);
    resolve(&PoolUser::new(&renewed, registrar.local_addresses()).unwrap()).await;
}

/// A client that is silent during its handshake is disconnected after 10 s.
#[tokio::test(start_paused = true)]
async fn a_silent_client_has_ten_seconds_for_its_handshake() {
    let (authority, memory) = (Authority::new("ours"), Memory::new());
    let tls = Tls::over(memory.clone(), &authority.config(&authority.issue(1, -1, 1))).unwrap();
    let address = TransportAddress::sctp("127.0.0.1:3864".parse().unwrap());
    let network = Network::new(TokioRuntime::current(), tls);
    let mut server = network.listen(ASAP, &address).unwrap();
    let plain = Network::new(TokioRuntime::current(), memory);
    let mut silent = plain.dialler(Purpose::Bytes).unwrap().connect(&address);
    assert!(matches!(next(&mut silent).await, Event::Established { .. }));
    let began = tokio::time::Instant::now();
    tokio::select! {
        event = next(&mut silent) => assert!(matches!(event, Event::Lost(_)), "{event:?}"),
        _ = poll_fn(|cx| server.poll_accept(cx)) => panic!("it is not accepted"),
    }
    let took = began.elapsed().as_secs_f64();
    assert!((10.0..11.0).contains(&took), "{took} s");
}

/// Returns the output of `openssl s_client`, another implementation of TLS, for a connection to a
/// registrar with this configuration.
async fn openssl(authority: &Authority, server: &TlsConfig, options: &'static [&str]) -> String {
    let client = authority.issue(2, -1, 1);
    let registrar =
        Registrar::start(&network(server), ["127.0.0.1:0"], RegistrarConfig::default()).unwrap();
    let port = registrar.local_address().port;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (ca, certificate, key) = (
        file("ca.pem", &authority.pem()),
        file("client.pem", &client.certificate),
        file("client.key", &client.key),
    );
    let output = tokio::task::spawn_blocking(move || {
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-alpn", "asap"])
            .args(options)
            .arg("-CAfile")
            .arg(ca)
            .arg("-cert")
            .arg(certificate)
            .arg("-key")
            .arg(key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs openssl");
        let mut input = openssl.stdin.take().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        // Without a connection, openssl has ended already.
        let _ = input.write_all(b"Q\n");
        drop(input);
        String::from_utf8_lossy(&openssl.wait_with_output().unwrap().stdout).into_owned()
    });
    output.await.unwrap()
}

#[tokio::test]
async fn openssl_completes_the_handshake() {
    let authority = Authority::new("ours");
    let server = authority.config(&authority.issue(1, -1, 1));
    let output = openssl(&authority, &server, &[]).await;
    for expected in ["Verify return code: 0 (ok)", "TLSv1.3", "ALPN protocol: asap"] {
        assert!(output.contains(expected), "{output}");
    }
}

#[tokio::test]
async fn tls_1_2_is_used_only_where_it_is_allowed() {
    let authority = Authority::new("ours");
    let server = authority.config(&authority.issue(1, -1, 1));
    let refused = openssl(&authority, &server, &["-tls1_2"]).await;
    assert!(refused.contains("Cipher is (NONE)"), "{refused}");
    let allowed = openssl(&authority, &server.allow_tls12(true), &["-tls1_2"]).await;
    assert!(allowed.contains("New, TLSv1.2, Cipher is ECDHE"), "{allowed}");
}

const POOL: &str = "EchoPool";

/// Starts a registrar that believes everybody to have all roles, so that only the other ends refuse
/// those who do not have them.
fn credulous_registrar(authority: &Authority) -> Registrar {
    let mut rules = AccessRules::default();
    for role in ["registrar", "element", "user"] {
        rules = rules.grant("*".parse().unwrap(), role.parse().unwrap());
    }
    let config = RegistrarConfig::default().access(rules);
    let network = network(&authority.granted(1, &["registrar"]));
    Registrar::start(&network, ["127.0.0.1:0"], config).unwrap()
}

fn names(identity: &Identity) -> Vec<String> {
    identity.names().map(str::to_owned).collect()
}

/// Starts an element that answers each message with the first name of the user.
async fn introduce(registrar: &Registrar, config: &TlsConfig) -> tokio::task::JoinHandle<()> {
    let network = network(config);
    let mut element = PoolElement::start(&network, POOL, registrar.local_addresses()).unwrap();
    element.registered().await.unwrap();
    tokio::spawn(async move {
        while let Ok(mut session) = element.accept().await {
            let name = names(session.identity().unwrap()).remove(0);
            while let Ok(event) = session.recv().await {
                if let ElementEvent::Message(message) = event {
                    session.send(message.ppid, name.clone()).await.unwrap();
                }
            }
        }
    })
}

#[tokio::test]
async fn sessions_know_and_verify_the_other_end() {
    let authority = Authority::new("ours");
    let registrar = credulous_registrar(&authority);
    let _impostor = introduce(&registrar, &authority.granted(2, &["user"])).await;
    let _element = introduce(&registrar, &authority.granted(3, &["element:Echo*"])).await;
    let user = authority.granted(4, &["user:Echo*"]);
    let user = PoolUser::new(&network(&user), registrar.local_addresses()).unwrap();
    for _ in 0..4 {
        let mut session = user.open(POOL).await.unwrap();
        assert_eq!(names(&session.identity().unwrap())[0], name(3));
        session.send(Ppid::NONE, "who am I?").await.unwrap();
        let answer = loop {
            if let SessionEvent::Message(answer) = session.recv().await.unwrap() {
                break answer;
            }
        };
        assert_eq!(answer.payload, name(4));
        session.close().await;
    }
    let mut messenger = user.messenger(POOL).unwrap();
    for _ in 0..4 {
        messenger.send(UserMessage::new(Ppid::NONE, "who am I?")).await.unwrap();
        let (_, answer) = messenger.recv().await;
        assert!(matches!(answer, MessengerEvent::Message(it) if it.payload == name(4)));
    }
    // The registrar names the elements to everybody, but they serve their users only.
    let other = authority.granted(5, &["user:Calc*", "element"]);
    let other = PoolUser::new(&network(&other), registrar.local_addresses()).unwrap();
    let opened = tokio::time::timeout(Duration::from_secs(2), other.open(POOL)).await;
    assert!(!matches!(opened, Ok(Ok(_))));
}

/// Returns the name of its user and the number of requests so far.
#[derive(Default)]
struct Introduced {
    user: String,
    count: u8,
}

impl Service for Introduced {
    fn begin(&mut self, user: Option<&Identity>) {
        self.user = names(user.unwrap()).remove(0);
    }

    async fn handle(&mut self, _: proto::wire::Bytes) -> proto::wire::Bytes {
        self.count += 1;
        format!("{} {}", self.user, self.count).into()
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(vec![self.count])
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        [self.count] = state.try_into()?;
        Ok(())
    }
}

#[tokio::test]
async fn a_service_knows_its_user_before_and_after_a_failover() {
    let authority = Authority::new("ours");
    let registrar = credulous_registrar(&authority);
    let ring = KeyRing::generate();
    let mut servers = Vec::new();
    for serial in 2..4 {
        let network = network(&authority.granted(serial, &["element"]));
        let element = PoolElement::start(&network, POOL, registrar.local_addresses()).unwrap();
        let identifier = element.registered().await.unwrap();
        let seal = Seal::new(POOL.parse().unwrap(), ring.clone());
        let config = ServiceConfig::new(seal).bind_to_user();
        let stop = std::future::pending::<()>();
        let served = element.serve(config, Introduced::default, stop, Duration::ZERO);
        servers.push((identifier, tokio::spawn(served)));
    }
    let user = authority.granted(4, &["user"]);
    let user = PoolUser::new(&network(&user), registrar.local_addresses()).unwrap();
    let mut session = user.open_requests(POOL, RequestConfig::default()).await.unwrap();
    assert_eq!(session.request("").await.unwrap(), format!("{} 1", name(4)));
    let serving = session.element();
    for (_, server) in servers.iter().filter(|(identifier, _)| Some(*identifier) == serving) {
        server.abort();
    }
    assert_eq!(session.request("").await.unwrap(), format!("{} 2", name(4)));
    assert_ne!(session.element(), serving);
}

#[tokio::test]
async fn hosts_without_a_role_are_refused_before_the_handshake() {
    let authority = Authority::new("ours");
    for (range, refused) in [("10.0.0.0/8", true), ("127.0.0.0/8", false)] {
        let mut rules = AccessRules::default();
        for role in [AccessRole::Element, AccessRole::User] {
            rules = rules.allow(role, [range.parse().unwrap()]);
        }
        let network = network(&authority.granted(1, &["registrar"]));
        let config = RegistrarConfig::default().access(rules);
        let registrar = Registrar::start(&network, ["127.0.0.1:0"], config).unwrap();
        let at = registrar.local_address().socket_addresses().next().unwrap();
        // Nothing is sent, so a registrar that begins the handshake waits.
        let mut stream = TcpStream::connect(at).await.unwrap();
        let read = stream.read_u8();
        let ended = tokio::time::timeout(Duration::from_secs(2), read).await;
        assert_eq!(ended.is_ok(), refused, "{ended:?}");
    }
}

#[tokio::test]
async fn requests_go_on_while_certificates_are_replaced() {
    let authority = Authority::new("ours");
    let over_tls = |serial, role: &str| {
        let tls = Tls::over(Tcp::new(), &authority.granted(serial, &[role])).unwrap();
        (tls.clone(), Network::new(TokioRuntime::current(), tls))
    };
    let (registrars, network) = over_tls(1, "registrar");
    let registrar =
        Registrar::start(&network, ["127.0.0.1:0"], RegistrarConfig::default()).unwrap();
    let (servers, network) = over_tls(2, "element");
    let element = PoolElement::start(&network, POOL, registrar.local_addresses()).unwrap();
    element.registered().await.unwrap();
    let config = ServiceConfig::new(Seal::new(POOL.parse().unwrap(), KeyRing::generate()));
    let stop = std::future::pending::<()>();
    tokio::spawn(element.serve(config, Introduced::default, stop, Duration::ZERO));
    let (users, network) = over_tls(3, "user");
    let user = PoolUser::new(&network, registrar.local_addresses()).unwrap();
    let mut session = user.open_requests(POOL, RequestConfig::default()).await.unwrap();

    let mut every = tokio::time::interval(Duration::from_millis(1));
    for count in 1..=250_u8 {
        every.tick().await;
        assert_eq!(session.request("").await.unwrap(), format!("{} {count}", name(3)));
        if count.is_multiple_of(50) {
            let serial = u64::from(count);
            for (tls, role) in [(&registrars, "registrar"), (&servers, "element"), (&users, "user")]
            {
                tls.reload(&authority.granted(serial, &[role])).unwrap();
            }
            // The open session stays with the old certificates, a new one has the new ones.
            let new = user.open(POOL).await.unwrap();
            assert_eq!(names(&new.identity().unwrap())[0], name(serial));
        }
    }
}

#[tokio::test]
async fn a_certificate_without_a_name_gives_no_role() {
    let authority = Authority::new("ours");
    let nameless = authority.granted(0, &[]);
    let identity = exchange(&authority.granted(1, &[]), &nameless).await.unwrap();
    assert!(!identity.is_anonymous());
    let rules = AccessRules::default();
    let host = std::net::Ipv4Addr::LOCALHOST.into();
    for role in [AccessRole::Registrar, AccessRole::Element, AccessRole::User] {
        assert!(!rules.permits(host, Some(&identity), role, None), "{role}");
    }
}
