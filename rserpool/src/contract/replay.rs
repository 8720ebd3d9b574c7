//! Tests that requests are answered exactly once, even if servers crash.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{AbortHandle, abortable};
use rserpool_proto::replay::{RefusalReason, RequestNumber};
use rserpool_proto::session::heartbeat_reply;
use rserpool_proto::wire::{PoolElementId, TransportAddress, TransportUse};

use super::any_address;
use super::pause;
use super::service::{new_user, pool, start_registrar};
use crate::cookie::{KeyRing, Seal};
use crate::transport::{Endpoint, Event, Purpose};
use crate::{
    Departure, InvalidState, Network, PoolElement, PoolUser, RequestConfig, RequestError,
    RequestEvent, RequestSession, ServeOutcome, Service, ServiceConfig, SessionConfig, SubmitError,
};

/// Test service that replies, after a delay, with the number of requests so far.
struct Counter {
    count: u64,
    network: Network,
    takes: u64,
}

impl Service for Counter {
    async fn handle(&mut self, _: Bytes) -> Bytes {
        if self.takes > 0 {
            pause(&self.network, self.takes).await;
        }
        self.count += 1;
        self.count.to_be_bytes().to_vec().into()
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        Ok(self.count.to_be_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        self.count = u64::from_be_bytes(state.try_into()?);
        Ok(())
    }
}

/// A running server, which crashes when it is aborted.
pub(super) struct Running {
    identifier: PoolElementId,
    epoch: AbortHandle,
    stop: Option<oneshot::Sender<()>>,
    /// Receives the outcome when the server has stopped.
    stopped: oneshot::Receiver<ServeOutcome>,
}

pub(super) async fn start_counter(
    network: &Network,
    registrar: &TransportAddress,
    ring: &KeyRing,
    takes: u64,
) -> Running {
    let builder = PoolElement::builder(network, pool(), [registrar.clone()]);
    let element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    let identifier = element.registered().await.expect("the registrar takes it");
    let config = ServiceConfig::new(Seal::new(pool(), ring.clone()));
    let (stop, stopping) = oneshot::channel::<()>();
    let (tell, stopped) = oneshot::channel();
    let counters = network.clone();
    let (serve, epoch) = abortable(async move {
        let new = || Counter { count: 0, network: counters.clone(), takes };
        let ended = element.serve(config, new, stopping, Duration::from_secs(2)).await;
        let _ = tell.send(ended);
    });
    network.runtime().spawn(Box::pin(async move {
        let _ = serve.await;
    }));
    Running { identifier, epoch, stop: Some(stop), stopped }
}

/// Starts three counters with the same keys.
async fn start_counters(
    network: &Network,
    registrar: &TransportAddress,
    ring: &KeyRing,
) -> Vec<Running> {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(start_counter(network, registrar, ring, 0).await);
    }
    servers
}

async fn open(user: &PoolUser, config: RequestConfig) -> RequestSession {
    user.open_requests(pool(), config).await.expect("the pool has elements")
}

pub(super) fn count(body: &Bytes) -> u64 {
    u64::from_be_bytes(body[..].try_into().expect("a count"))
}

/// Checks that requests are answered once while servers crash.
pub async fn requests_are_answered_once_whoever_dies(network: Network) {
    const REQUESTS: u64 = 400;
    let registrar = start_registrar(&network, &any_address(&network));
    let (at, ring) = (registrar.local_address(), KeyRing::generate());
    let mut servers = start_counters(&network, at, &ring).await;
    let user = new_user(&network, at);
    let mut session = open(&user, RequestConfig::default().limit(16)).await;
    let (mut begun, mut seen, mut failovers) = (0, 0, 0);
    while seen < REQUESTS {
        while begun < REQUESTS && session.submit(begun.to_be_bytes().to_vec()).is_ok() {
            begun += 1;
        }
        match session.event().await.expect("somebody serves") {
            RequestEvent::Reply { number, body } => {
                seen += 1;
                assert_eq!((number, count(&body)), (RequestNumber(seen), seen));
                let serving = session.element();
                let dies = seen % 40 == 0;
                if let Some(index) = servers.iter().position(|s| Some(s.identifier) == serving)
                    && dies
                {
                    servers.swap_remove(index).epoch.abort();
                    servers.push(start_counter(&network, at, &ring, 0).await);
                }
            }
            RequestEvent::FailoverCompleted { .. } => failovers += 1,
            _ => {}
        }
    }
    assert!(failovers >= 5, "only {failovers} failovers");
    session.close().await;
}

/// Checks that a request is still executed after its future was dropped, and that the next request
/// receives its own reply.
pub async fn a_request_that_is_given_up_does_not_confuse_the_next(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let (at, ring) = (registrar.local_address(), KeyRing::generate());
    let _server = start_counter(&network, at, &ring, 1).await;
    let user = new_user(&network, at);
    let mut session = open(&user, RequestConfig::default()).await;
    let mut expected = 0;
    for polls in 0..20 {
        let mut request = Box::pin(session.request(Bytes::new()));
        let mut reply = None;
        for _ in 0..=polls {
            if let std::task::Poll::Ready(result) = futures::poll!(request.as_mut()) {
                reply = Some(result.expect("it lives"));
                break;
            }
        }
        drop(request);
        expected += 1;
        if let Some(reply) = reply {
            assert_eq!(count(&reply), expected);
        }
        expected += 1;
        let reply = session.request(Bytes::new()).await.expect("it lives");
        assert_eq!(count(&reply), expected);
    }
}

/// Checks that a server which stops completes its current requests, and that its sessions continue
/// on other servers.
pub async fn a_server_that_stops_hands_its_sessions_over(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let (at, ring) = (registrar.local_address(), KeyRing::generate());
    let mut servers = [
        start_counter(&network, at, &ring, 30).await,
        start_counter(&network, at, &ring, 30).await,
    ];
    let user = new_user(&network, at);
    let mut session = open(&user, RequestConfig::default()).await;
    assert_eq!(count(&session.request(Bytes::new()).await.expect("it lives")), 1);
    let serving = session.element();
    let server = servers.iter_mut().find(|server| Some(server.identifier) == serving);
    let server = server.expect("one of them");
    session.submit(Bytes::new()).expect("room");
    session.submit(Bytes::new()).expect("room");
    drop(server.stop.take());
    let mut counts = Vec::new();
    while counts.len() < 2 {
        if let RequestEvent::Reply { body, .. } = session.event().await.expect("it lives") {
            counts.push(count(&body));
        }
    }
    assert_eq!(counts, [2, 3]);
    assert_ne!(session.element(), serving);
    let outcome = (&mut server.stopped).await.expect("it stops");
    assert_eq!((outcome.departure, outcome.aborted), (Departure::Confirmed, 0));
}

/// Checks that a checkpoint from another pool's servers is refused. The session then ends, or
/// starts afresh if that is allowed.
pub async fn a_foreign_checkpoint_is_refused(network: Network) {
    for starts_afresh in [false, true] {
        let registrar = start_registrar(&network, &any_address(&network));
        let at = registrar.local_address();
        let first = start_counter(&network, at, &KeyRing::generate(), 0).await;
        let user = new_user(&network, at);
        let config = RequestConfig::default().starts_afresh(starts_afresh);
        let mut session = open(&user, config).await;
        for expected in 1..=3 {
            assert_eq!(count(&session.request(Bytes::new()).await.expect("it lives")), expected);
        }
        let _second = start_counter(&network, at, &KeyRing::generate(), 0).await;
        first.epoch.abort();
        while !matches!(session.event().await, Ok(RequestEvent::FailoverStarted { .. })) {}
        session.submit(Bytes::new()).expect("room");
        let reason = RefusalReason::UnknownKey;
        let mut afresh = false;
        loop {
            match session.event().await {
                Ok(RequestEvent::StartedAfresh { reason: given, forgotten }) => {
                    assert_eq!((given, forgotten), (reason, 3));
                    afresh = true;
                }
                Ok(RequestEvent::Reply { number, body }) => {
                    assert_eq!((afresh, number, count(&body)), (true, RequestNumber(4), 1));
                    break;
                }
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error, RequestError::Refused(reason));
                    assert!(!starts_afresh);
                    break;
                }
            }
        }
    }
}

/// Checks that sessions skip a server with other keys, and that no request is lost or counted
/// twice.
pub async fn a_server_with_other_keys_is_passed_over(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let (at, ring) = (registrar.local_address(), KeyRing::generate());
    let mut servers = Vec::new();
    for number in 0..4 {
        let other = KeyRing::generate();
        let ring = if number == 2 { &other } else { &ring };
        servers.push(start_counter(&network, at, ring, 0).await);
    }
    let user = new_user(&network, at);
    let stranger = servers[2].identifier;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        let mut session = open(&user, RequestConfig::default()).await;
        if session.element() != Some(stranger) {
            assert_eq!(count(&session.request(Bytes::new()).await.expect("it lives")), 1);
            sessions.push(session);
        }
    }
    let (mut met, mut killed) = (0, servers.swap_remove(0));
    killed.epoch.abort();
    for expected in 2..4 {
        for session in &mut sessions {
            let number = session.submit(Bytes::new()).expect("room");
            loop {
                match session.event().await.expect("others have the keys") {
                    RequestEvent::Reply { number: its, body } => {
                        assert_eq!((its, count(&body)), (number, expected));
                        break;
                    }
                    RequestEvent::FailoverStarted { from } => met += u32::from(from == stranger),
                    _ => {}
                }
            }
        }
        // Crash another server, so that the session has to move in the next round.
        let index = servers.iter().position(|server| server.identifier != stranger);
        killed = servers.swap_remove(index.expect("two are left"));
        servers.push(start_counter(&network, at, &ring, 0).await);
        killed.epoch.abort();
    }
    assert!(met > 0, "no session met the server with other keys");
}

/// Checks that a request that is too long is refused, and that the session continues.
pub async fn a_request_that_is_too_long_is_refused_alone(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let (at, ring) = (registrar.local_address(), KeyRing::generate());
    let _server = start_counter(&network, at, &ring, 0).await;
    let user = new_user(&network, at);
    let mut session = open(&user, RequestConfig::default()).await;
    assert_eq!(count(&session.request(Bytes::new()).await.expect("it lives")), 1);
    let Err(SubmitError::TooLong { request, limit }) = session.submit(vec![0; 64 << 20]) else {
        // The memory transport has no maximum message size, so there is nothing to test.
        return;
    };
    assert_eq!(request.len(), 64 << 20);
    let refused = session.request(vec![0; limit + 1]).await;
    assert!(matches!(refused, Err(RequestError::Request(_))), "{refused:?}");
    let longest = session.request(vec![0; limit]).await.expect("it is short enough");
    assert_eq!(count(&longest), 2);
    session.close().await;
}

/// Checks that a session leaves a server whose program hangs while its kernel still answers, and
/// stays with a server that is only busy.
pub async fn a_server_that_hangs_is_left_and_one_that_is_busy_is_not(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let (at, ring) = (registrar.local_address(), KeyRing::generate());
    let mut endpoint = hanging_endpoint(&network);
    let address = endpoint.local().expect("it listens").clone();
    let hanging = PoolElement::builder(&network, pool(), [at])
        .serving_at(address.with_usage(TransportUse::DATA_PLUS_CONTROL))
        .listen(([127, 0, 0, 1], 0).into())
        .start()
        .expect("a free port");
    let identifier = hanging.registered().await.expect("the registrar takes it");
    let (stop, stopped) = oneshot::channel::<()>();
    network.runtime().spawn(Box::pin(async move {
        let hang = hang(&mut *endpoint);
        let _ = futures::future::select(Box::pin(hang), stopped).await;
    }));
    let user = new_user(&network, at);
    let heartbeat = SessionConfig::default().heartbeat(Duration::from_millis(300));
    let config = RequestConfig::default().session(heartbeat);
    let mut session = open(&user, config).await;
    assert_eq!(session.element(), Some(identifier));
    session.submit(Bytes::new()).expect("room");
    let since = network.now();
    // The handler of this server takes longer than the heartbeat's timeout.
    let busy = start_counter(&network, at, &ring, 1500).await;
    loop {
        match session.event().await.expect("somebody serves") {
            RequestEvent::FailoverStarted { from } => assert_eq!(from, identifier),
            RequestEvent::Reply { body, .. } => break assert_eq!(count(&body), 1),
            _ => {}
        }
    }
    assert!(network.now() < since + Duration::from_secs(20), "it is left in time");
    assert_eq!(session.element(), Some(busy.identifier));
    drop((stop, hanging));
}

fn hanging_endpoint(network: &Network) -> Box<dyn Endpoint> {
    let address = TransportAddress::new(network.protocol(), ([127, 0, 0, 1], 0).into());
    network.listen(Purpose::Session, &address).expect("a free port")
}

/// Accepts sessions, answers the first message, and does nothing more.
async fn hang(endpoint: &mut dyn Endpoint) {
    let mut connections = Vec::new();
    loop {
        let accepted = poll_fn(|cx| endpoint.poll_accept(cx)).await;
        let mut connection = accepted.expect("there are descriptors");
        while !matches!(poll_fn(|cx| connection.poll_event(cx)).await, Event::Message(_)) {}
        let _ = connection.send(heartbeat_reply().expect("it is short"));
        poll_fn(|cx| connection.poll_flush(cx)).await;
        connections.push(connection);
    }
}

/// Checks that clones of a client share a session, and that none of their requests is lost or
/// executed twice while servers crash.
pub async fn clones_of_a_client_share_its_session(network: Network) {
    const TASKS: usize = 8;
    const REQUESTS: usize = 50;
    let registrar = start_registrar(&network, &any_address(&network));
    let (at, ring) = (registrar.local_address(), KeyRing::generate());
    let mut servers = start_counters(&network, at, &ring).await;
    let user = new_user(&network, at);
    let config = RequestConfig::default().limit(4);
    let client = user.request_client(pool(), config).await.expect("the pool has elements");
    let tasks = (0..TASKS).map(|_| {
        let client = client.clone();
        async move {
            let mut counts = Vec::new();
            for _ in 0..REQUESTS {
                counts.push(count(&client.request(Bytes::new()).await.expect("somebody serves")));
            }
            assert!(counts.is_sorted(), "the requests of a task are executed in order");
            counts
        }
    });
    let kill = async {
        for _ in 0..6 {
            pause(&network, 3).await;
            servers.remove(0).epoch.abort();
            servers.push(start_counter(&network, at, &ring, 0).await);
        }
    };
    let (counts, ()) = futures::join!(futures::future::join_all(tasks), kill);
    let mut counts: Vec<_> = counts.into_iter().flatten().collect();
    counts.sort_unstable();
    let expected: Vec<_> = (1..=(TASKS * REQUESTS) as u64).collect();
    assert_eq!(counts, expected);

    // The session fails over although no request is pending, and continues.
    for server in servers.drain(..) {
        server.epoch.abort();
    }
    servers.push(start_counter(&network, at, &ring, 0).await);
    let last = client.request(Bytes::new()).await.expect("somebody serves");
    assert_eq!(count(&last), expected.len() as u64 + 1);
}
