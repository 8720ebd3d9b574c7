//! Tests that sessions, requests, failovers and takeovers can be followed by their spans.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rserpool::cookie::{KeyRing, Seal};
use rserpool::testing::TestPool;
use rserpool::transport::{Memory, Transport};
use rserpool::{
    InvalidState, Network, PoolElement, Registrar, RegistrarConfig, RegistrarId, RequestConfig,
    Service, ServiceConfig,
};
use rserpool_tokio::TokioRuntime;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// The fields of a span, of its parents, and the messages in it.
#[derive(Debug, Clone, Default)]
struct Seen {
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<&'static str, String>,
    messages: Vec<String>,
    closed: bool,
}

/// Records all spans.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<BTreeMap<u64, Seen>>>);

struct Fields<'f>(&'f mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| span.parent()).map(|it| it.id().into_u64());
        let name = attributes.metadata().name();
        let mut seen = Seen { name, parent, ..Seen::default() };
        attributes.record(&mut Fields(&mut seen.fields));
        self.0.lock().unwrap().insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = self.0.lock().unwrap().get_mut(&id.into_u64()) {
            record.record(&mut Fields(&mut seen.fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let span = context.event_span(event).map(|span| span.id().into_u64());
        if let Some(seen) = span.and_then(|id| self.0.lock().unwrap().get_mut(&id).cloned()) {
            let mut seen = seen;
            seen.messages.extend(fields.remove("message"));
            self.0.lock().unwrap().insert(span.unwrap_or_default(), seen);
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        if let Some(seen) = self.0.lock().unwrap().get_mut(&id.into_u64()) {
            seen.closed = true;
        }
    }
}

impl Recorder {
    fn named(&self, name: &str) -> Vec<Seen> {
        self.0.lock().unwrap().values().filter(|seen| seen.name == name).cloned().collect()
    }

    fn parent_of(&self, seen: &Seen) -> Option<Seen> {
        self.0.lock().unwrap().get(&seen.parent?).cloned()
    }
}

/// A service whose handler logs.
struct Greeter;

impl Service for Greeter {
    async fn handle(&mut self, request: Bytes) -> Bytes {
        tracing::info!("greeting");
        request
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> {
        Ok(())
    }
}

async fn greet(element: PoolElement, keys: KeyRing) {
    let seal = Seal::new("Greeters".parse().unwrap(), keys);
    let stop = std::future::pending::<()>();
    element.serve(ServiceConfig::new(seal), || Greeter, stop, Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_is_followed_through_a_failover() {
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(Registry::default().with(recorder.clone()));
    let pool = TestPool::start(TokioRuntime::current(), "Greeters");
    let keys = KeyRing::generate();
    let serve = || pool.server(|element| greet(element, keys.clone()));
    let mut servers = vec![serve().await, serve().await];
    let user = pool.user();
    let mut session = user.open_requests("Greeters", RequestConfig::default()).await.unwrap();
    session.request("one").await.unwrap();
    let first = session.element().unwrap();
    let dying = servers.iter().position(|it| it.identifier() == first).unwrap();
    servers.remove(dying).kill();
    session.request("two").await.unwrap();
    let second = session.element().unwrap();
    drop(session);

    let failovers = recorder.named("failover");
    assert_eq!(failovers.len(), 1, "{failovers:?}");
    let failover = &failovers[0];
    assert_eq!(
        (&failover.fields["from"], &failover.fields["to"]),
        (&first.to_string(), &second.to_string())
    );
    assert_eq!(failover.messages.first().unwrap(), "failover started");
    assert_eq!(failover.messages.last().unwrap(), "failover completed");
    let session = recorder.parent_of(failover).unwrap();
    assert_eq!((session.name, &*session.fields["pool"]), ("session", "Greeters"));
    assert_eq!(session.fields["element"], second.to_string());
    assert!(failover.closed && session.closed);

    // What a handler logs is in the span of its request, within that of the session at the server.
    let (at_users, at_servers): (Vec<_>, Vec<_>) =
        recorder.named("request").into_iter().partition(|seen| seen.parent.is_none());
    assert_eq!((at_users.len(), at_servers.len()), (2, 2));
    let numbers: Vec<_> = at_users.iter().map(|seen| &seen.fields["number"]).collect();
    assert_ne!(numbers[0], numbers[1]);
    for (seen, number) in at_servers.iter().zip(numbers) {
        assert_eq!((&seen.fields["number"], &*seen.fields["pool"]), (number, "Greeters"));
        assert_eq!(seen.messages, ["greeting"]);
        let session = recorder.parent_of(seen).unwrap();
        assert!(session.name == "session" && session.fields.contains_key("peer"), "{session:?}");
    }
}

#[tokio::test]
async fn a_takeover_is_a_span() {
    let recorder = Recorder::default();
    let _guard = tracing::subscriber::set_default(Registry::default().with(recorder.clone()));
    let memory: Arc<dyn Transport> = Arc::new(Memory::new());
    let start = |network: &Network, number: u32, peers: &[&str]| {
        let config = RegistrarConfig::default()
            .identifier(RegistrarId(number))
            .enrp(format!("sctp:127.0.0.{number}:9901").parse().unwrap())
            .peers(peers.iter().map(|peer| peer.parse().unwrap()));
        Registrar::start(network, [format!("127.0.0.{number}:3863")], config).unwrap()
    };
    // A runtime that ends takes its registrar with it.
    let mut other = tokio::runtime::Builder::new_multi_thread();
    let other = other.worker_threads(1).enable_all().build().unwrap();
    let runtime = TokioRuntime::new(other.handle().clone());
    let theirs = Network::shared(Arc::new(runtime), Arc::clone(&memory));
    let ours = Network::shared(Arc::new(TokioRuntime::current()), memory);
    let one = start(&theirs, 1, &[]);
    let two = start(&ours, 2, &["sctp:127.0.0.1:9901"]);
    two.ready().await.unwrap();
    let element = PoolElement::start(&ours, "Pool", one.local_addresses()).unwrap();
    element.registered().await.unwrap();

    while two.status().await.unwrap().elements == 0 {
        ours.sleep(Duration::from_millis(20)).await;
    }
    other.shutdown_background();
    let begin = ours.timeout(Duration::from_secs(60), async {
        while recorder.named("takeover").iter().all(|seen| !seen.closed) {
            ours.sleep(Duration::from_millis(20)).await;
        }
    });
    begin.await.unwrap();
    let takeover = recorder.named("takeover").remove(0);
    assert_eq!(takeover.fields["registrar"], RegistrarId(1).to_string());
    assert_eq!(takeover.messages.first().unwrap(), "peer declared dead");
    assert!(takeover.fields.contains_key("elements"), "{takeover:?}");
}
