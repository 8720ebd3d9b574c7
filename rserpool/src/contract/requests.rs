//! Tests of requests that fail alone: those that panic or crash servers, take too long, or do not fit.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{AbortHandle, Abortable, BoxFuture, join_all};
use rserpool_proto::replay::{RequestFailure, RequestNumber, RequestOptions};
use rserpool_proto::wire::TransportAddress;

use super::service::{new_user, pool, start_registrar};
use super::{any_address, pause};
use crate::cookie::{KeyRing, Seal};
use crate::{
    Checkpoint, InvalidState, Network, PoolElement, PoolUser, RequestConfig, RequestError,
    RequestEvent, Service, ServiceConfig,
};

/// Test service that executes the command in each request, and replies with the number of requests
/// so far.
struct Obedient {
    count: u64,
    padding: usize,
    is_spoiled: bool,
    network: Network,
    server: AbortHandle,
}

/// Returns a request with a command and the command's argument.
fn order(what: u8, number: u32) -> Bytes {
    [&[what][..], &number.to_be_bytes()].concat().into()
}

const COUNT: u8 = 0;
const PANIC: u8 = 1;
const CRASH: u8 = 2;
/// Command: take the given number of milliseconds to reply.
const TAKE: u8 = 3;
/// Command: reply with the given number of bytes.
const REPLY: u8 = 4;
/// Command: add the given number of bytes to the state.
const GROW: u8 = 5;
/// Command: fail to save the state from now on.
const SPOIL: u8 = 6;

impl Service for Obedient {
    async fn handle(&mut self, request: Bytes) -> Bytes {
        let number = u32::from_be_bytes(request[1..5].try_into().expect("a number"));
        self.count += 1;
        let mut reply = self.count.to_be_bytes().to_vec();
        match request[0] {
            PANIC => panic!("as requested"),
            CRASH => {
                self.server.abort();
                // The task is aborted at its next await.
                pending::<()>().await;
            }
            TAKE => pause(&self.network, number.into()).await,
            REPLY => reply.resize(number as usize, 0),
            GROW => self.padding += number as usize,
            SPOIL => self.is_spoiled = true,
            _ => {}
        }
        reply.into()
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        if self.is_spoiled {
            return Err(InvalidState::new("spoiled, as requested"));
        }
        let mut state = self.count.to_be_bytes().to_vec();
        state.resize(8 + self.padding, 0);
        Ok(state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        let (count, padding) =
            state.split_at_checked(8).ok_or_else(|| InvalidState::new("short"))?;
        self.count = u64::from_be_bytes(count.try_into()?);
        self.padding = padding.len();
        self.is_spoiled = false;
        Ok(())
    }
}

/// Keeps `servers` servers running: starts another one after each crash. Returns the number of
/// crashes so far.
async fn start_servers(network: &Network, at: &TransportAddress, servers: u32) -> Arc<Mutex<u32>> {
    let (ring, crashes) = (KeyRing::generate(), Arc::default());
    for _ in 0..servers {
        start_server(network.clone(), at.clone(), ring.clone(), Arc::clone(&crashes)).await;
    }
    crashes
}

/// Starts a server, and another one after it crashes.
fn start_server(
    network: Network,
    at: TransportAddress,
    ring: KeyRing,
    crashes: Arc<Mutex<u32>>,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let builder = PoolElement::builder(&network, pool(), [&at]);
        let element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
        element.registered().await.expect("the registrar takes it");
        let config = ServiceConfig::new(Seal::new(pool(), ring.clone()));
        let (server, registration) = AbortHandle::new_pair();
        let clock = network.clone();
        let new = move || Obedient {
            count: 0,
            padding: 0,
            is_spoiled: false,
            network: clock.clone(),
            server: server.clone(),
        };
        let serve = element.serve(config, new, pending::<()>(), Duration::ZERO);
        let serve = Abortable::new(serve, registration);
        network.runtime().clone().spawn(Box::pin(async move {
            let _ = serve.await;
            *crashes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            start_server(network, at, ring, crashes).await;
        }));
    })
}

fn count(reply: Result<Bytes, RequestError>) -> u64 {
    let reply = reply.expect("the session lives");
    u64::from_be_bytes(reply[..8].try_into().expect("a count"))
}

fn failed(reply: Result<Bytes, RequestError>) -> RequestFailure {
    match reply {
        Err(RequestError::Failed(failure)) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}

/// Checks that a request that panics fails alone, that a request that crashes its servers fails after
/// three of them, and that the requests around them are executed once.
pub async fn a_request_that_panics_or_crashes_servers_fails_alone(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address();
    let crashes = start_servers(&network, at, 3).await;
    let user = new_user(&network, at);
    let client = user.request_client(pool(), RequestConfig::default()).await.expect("a server");
    assert_eq!(count(client.request(order(COUNT, 0)).await), 1);
    assert_eq!(failed(client.request(order(PANIC, 0)).await), RequestFailure::Panicked);
    assert_eq!(count(client.request(order(COUNT, 0)).await), 2, "the panic left no trace");
    assert_eq!(failed(client.request(order(SPOIL, 0)).await), RequestFailure::StateNotSaved);
    let crashed = RequestFailure::Crashed { servers: 3 };
    assert_eq!(failed(client.request(order(CRASH, 0)).await), crashed);
    assert_eq!(count(client.request(order(COUNT, 0)).await), 3);
    // The client may notice a crash before it is counted.
    let counted = || *crashes.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..100 {
        if counted() < 3 {
            pause(&network, 20).await;
        }
    }
    assert_eq!(counted(), 3);

    // Send such requests among others, all at the same time.
    let orders = (0..30).map(|number| match number {
        10 => order(PANIC, 0),
        20 | 24 => order(CRASH, 0),
        _ => order(COUNT, 0),
    });
    let replies = join_all(orders.map(|order| client.request(order))).await;
    let mut expected = 3;
    for (number, reply) in replies.into_iter().enumerate() {
        match number {
            10 => assert_eq!(failed(reply), RequestFailure::Panicked),
            20 | 24 => assert!(matches!(failed(reply), RequestFailure::Crashed { .. })),
            _ => {
                expected += 1;
                assert_eq!(count(reply), expected);
            }
        }
    }
}

/// Checks that a server that takes too long for a request is left, and that a request fails at its
/// deadline.
pub async fn a_request_that_takes_too_long_is_moved_or_given_up(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address();
    let _crashes = start_servers(&network, at, 2).await;
    let user = new_user(&network, at);
    let mut session = user.open_requests(pool(), RequestConfig::default()).await.expect("a server");
    assert_eq!(count(session.request(order(COUNT, 0)).await), 1);
    let server = session.element();
    let deadline = RequestOptions::default().deadline(Duration::from_millis(100));
    let given_up = session.request_with(order(TAKE, 400), deadline).await;
    assert_eq!(failed(given_up), RequestFailure::DeadlinePassed);
    // The server executes the request although its deadline has passed.
    assert_eq!(count(session.request(order(COUNT, 0)).await), 3);
    assert_eq!(session.element(), server);

    // A request whose deadline has passed counts against the limit until it is answered.
    let full = RequestConfig::default().limit(1);
    let mut small = user.open_requests(pool(), full.clone()).await.expect("a server");
    let given_up = small.request_with(order(TAKE, 300), deadline).await;
    assert_eq!(failed(given_up), RequestFailure::DeadlinePassed);
    let patience = Duration::from_secs(20);
    let next = network.timeout(patience, small.request(order(COUNT, 0))).await;
    assert_eq!(count(next.expect("there is room again")), 2);
    let client = user.request_client(pool(), full).await.expect("a server");
    let given_up = client.request_with(order(TAKE, 300), deadline).await;
    assert_eq!(failed(given_up), RequestFailure::DeadlinePassed);
    let next = network.timeout(patience, client.request(order(COUNT, 0))).await;
    assert_eq!(count(next.expect("there is room again")), 2);

    // The time before a request is sent, or while this program does something else, does not count
    // against the server.
    let soon = RequestOptions::default().fail_over_after(Duration::from_millis(200));
    small.submit_with(order(COUNT, 0), soon).expect("room");
    pause(&network, 300).await;
    match small.event().await.expect("it lives") {
        RequestEvent::Reply { body, .. } => assert_eq!(count(Ok(body)), 3),
        event => panic!("{event:?}"),
    }

    // Each server takes longer than the limit for this request, so the session fails over from all.
    let late = RequestOptions::default().fail_over_after(Duration::from_millis(150));
    let number = session.submit_with(order(TAKE, 5000), late).expect("room");
    let mut failovers = 0;
    loop {
        match session.event().await.expect("it lives") {
            RequestEvent::FailoverStarted { .. } => failovers += 1,
            RequestEvent::Failed { number: failed, failure } => {
                assert_eq!((failed, failure), (number, RequestFailure::Crashed { servers: 3 }));
                break;
            }
            RequestEvent::FailoverCompleted { .. } => {}
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(failovers, 3);
    assert_eq!(count(session.request(order(COUNT, 0)).await), 4);
}

/// Checks that the replies that are on their way at a time may exceed the size of a checkpoint.
pub async fn many_more_replies_than_fit_a_checkpoint_are_on_their_way(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address();
    let _crashes = start_servers(&network, at, 1).await;
    let user = new_user(&network, at);
    for (limit, length) in [(40, 60_000), (150, 700)] {
        exchange(&user, limit, length, &network).await;
    }
}

/// Submits `limit` requests at once, and receives a reply of `length` bytes to each.
async fn exchange(user: &PoolUser, limit: usize, length: u32, network: &Network) {
    let config = RequestConfig::default().limit(limit);
    let mut session = user.open_requests(pool(), config).await.expect("a server");
    for _ in 0..limit {
        session.submit(order(REPLY, length)).expect("room");
    }
    for number in 1..=limit as u64 {
        let event = network.timeout(Duration::from_secs(10), session.event()).await;
        let event = event.unwrap_or_else(|_| panic!("reply {number} of {limit}, {length} bytes"));
        match event.expect("it lives") {
            RequestEvent::Reply { number: its, body } => {
                assert_eq!((its, body.len()), (RequestNumber(number), length as usize));
            }
            event => panic!("{event:?}"),
        }
    }
    session.close().await;
}

/// Checks that replies of any length may be on their way at a time, and that a reply or a state that
/// never fits fails its request alone.
pub async fn replies_of_any_length_fit_or_fail_alone(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address();
    let _crashes = start_servers(&network, at, 1).await;
    let user = new_user(&network, at);
    for (limit, length) in [(32, 2100), (1, 60_000), (1000, 8)] {
        exchange(&user, limit, length, &network).await;
    }
    let mut session = user.open_requests(pool(), RequestConfig::default()).await.expect("a server");
    assert_eq!(count(session.request(order(COUNT, 0)).await), 1);
    let long = failed(session.request(order(REPLY, 66_000)).await);
    let RequestFailure::ReplyTooLong { length: 66_000, limit } = long else { panic!("{long}") };
    let most = u32::try_from(limit).expect("less than a message");
    assert_eq!(session.request(order(REPLY, most)).await.expect("it fits").len(), most as usize);
    let long = failed(session.request(order(REPLY, most + 1)).await);
    assert!(matches!(long, RequestFailure::ReplyTooLong { .. }), "{long}");
    let long = failed(session.request(order(GROW, 65_500)).await);
    let RequestFailure::StateTooLong { length: 65_508, limit } = long else { panic!("{long}") };
    let most = u32::try_from(limit).expect("less than a message");
    assert_eq!(count(session.request(order(GROW, most - 8 - 25)).await), 3);
    assert_eq!(count(session.request(order(COUNT, 0)).await), 4, "the session goes on");
}

/// Checks that a session continues in another client from its checkpoint, and sends the requests that
/// were not answered.
pub async fn a_session_is_resumed_from_its_checkpoint(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address();
    let _crashes = start_servers(&network, at, 2).await;
    let user = new_user(&network, at);
    let mut session = user.open_requests(pool(), RequestConfig::default()).await.expect("a server");
    for expected in 1..=3 {
        assert_eq!(count(session.request(order(COUNT, 0)).await), expected);
    }
    session.submit(order(COUNT, 0)).expect("room");
    let checkpoint = session.checkpoint();
    assert_eq!(checkpoint.unanswered(), 1);
    let stored = checkpoint.to_bytes();
    drop((session, user));

    let user = new_user(&network, at);
    let checkpoint = Checkpoint::from_bytes(stored.clone()).expect("it is whole");
    let config = RequestConfig::default().resume(checkpoint);
    let mut session = user.open_requests(pool(), config).await.expect("a server");
    match session.event().await.expect("it lives") {
        RequestEvent::Reply { number, body } => {
            assert_eq!((number, count(Ok(body))), (RequestNumber(4), 4));
        }
        event => panic!("{event:?}"),
    }
    assert_eq!(count(session.request(order(COUNT, 0)).await), 5);

    // The client that tasks share also resumes from a checkpoint, and returns its own.
    let config = RequestConfig::default().resume(session.checkpoint());
    session.close().await;
    let client = user.request_client(pool(), config).await.expect("a server");
    assert_eq!(count(client.request(order(COUNT, 0)).await), 6);
    client.fail_over().await;
    assert_eq!(count(client.request(order(COUNT, 0)).await), 7);
    let checkpoint = client.checkpoint().await.expect("its task runs");
    drop(client);
    let config = RequestConfig::default().resume(checkpoint);
    let client = user.request_client(pool(), config).await.expect("a server");
    assert_eq!(count(client.request(order(COUNT, 0)).await), 8);
    assert!(Checkpoint::from_bytes(stored.slice(..stored.len() - 1)).is_err());
}
