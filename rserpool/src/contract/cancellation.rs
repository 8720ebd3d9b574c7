//! Tests cancel safety: each future is dropped after one poll, after two, and so on.

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::oneshot;
use rserpool_proto::registrar::RegistrarConfig;
use rserpool_proto::session::Event;
use rserpool_proto::user::{ResolveError, ResolveOptions};
use rserpool_proto::wire::{PolicyParameters, PoolElementId, Ppid, RegistrarId, UserMessage};

use super::pause;
use super::service::{new_user, pool, start_registrar};
use super::{any_address, replay, service};
use crate::cookie::KeyRing;
use crate::{
    Correspondent, Departure, ElementEvent, ElementSession, MessengerEvent, Network, PoolChange,
    PoolElement, PoolUser, Registrar, RequestConfig, RequestEvent, SentToAll, Session,
    SessionClosed, dump,
};

/// Creates a future, polls it up to four times with pauses in between, and drops it. Repeats this
/// with new futures until one is ready. The number of polls changes with each future, so that
/// futures are dropped at different await points.
macro_rules! impatiently {
    ($network:expr, $future:expr) => {{
        let mut polls = 0;
        loop {
            let mut future = Box::pin($future);
            let mut result = Poll::Pending;
            for _ in 0..=polls % 4 {
                result = futures::poll!(future.as_mut());
                if result.is_ready() {
                    break;
                }
                pause($network, 1).await;
            }
            drop(future);
            if let Poll::Ready(result) = result {
                break result;
            }
            polls += 1;
            assert!(polls < 5000, "never ready: {}", stringify!($future));
        }
    }};
}

/// Checks that every message arrives once and in order while an element and its users drop each of
/// their futures again and again.
pub async fn futures_may_be_dropped_wherever_they_wait(network: Network) {
    const MESSAGES: u32 = 60;
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(&network, pool(), [at.clone()]);
    let builder = builder.configure(|config| config.policy(PolicyParameters::least_used(0)));
    let mut element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    let identifier = impatiently!(&network, element.registered()).expect("it is taken");
    let control = element.control();
    let (stop, mut stopped) = oneshot::channel::<()>();
    let (left, done) = oneshot::channel();
    let servers = network.clone();
    network.runtime().spawn(Box::pin(async move {
        // The session is served in the same task; dropping `accept` does not lose a session.
        let mut session = impatiently!(&servers, element.accept()).expect("it runs");
        let mut count = 0_u32;
        while let Ok(event) = impatiently!(&servers, session.recv()) {
            let ElementEvent::Message(message) = event else { continue };
            count += 1;
            let cookie = count.to_be_bytes().to_vec();
            impatiently!(&servers, session.send_cookie(cookie.clone())).expect("it lives");
            impatiently!(&servers, session.send_business_card(pool(), Vec::new()))
                .expect("it lives");
            let payload = message.payload;
            impatiently!(&servers, session.send(message.ppid, payload.clone())).expect("it lives");
        }
        while stopped.try_recv() == Ok(None) {
            pause(&servers, 1).await;
        }
        let _ = left.send(element.leave().await);
    }));

    let user = new_user(&network, &at);
    let resolve = || user.resolve(pool(), ResolveOptions::default());
    assert_eq!(impatiently!(&network, resolve()).expect("it is there")[0].identifier, identifier);
    let mut changes = impatiently!(&network, user.subscribe(pool())).expect("the user runs");
    let joined = impatiently!(&network, changes.next());
    assert!(matches!(joined, Some(PoolChange::Joined(_))), "{joined:?}");
    let mut session = user.open(pool()).await.expect("it is there");
    for number in 1..=MESSAGES {
        let payload = number.to_be_bytes().to_vec();
        impatiently!(&network, session.send(Ppid(7), payload.clone())).expect("it lives");
        let reply = loop {
            if let Event::Message(message) =
                impatiently!(&network, session.recv()).expect("it lives")
            {
                break message.payload;
            }
        };
        assert_eq!(reply[..], number.to_be_bytes(), "each once, in order");
        assert_eq!(session.cookie().map(|cookie| &cookie[..]), Some(&number.to_be_bytes()[..]));
    }
    let policy = || PolicyParameters::least_used(1);
    impatiently!(&network, control.set_policy(policy())).expect("it runs");
    let changed = impatiently!(&network, changes.next());
    assert!(matches!(changed, Some(PoolChange::Changed(_))), "{changed:?}");
    impatiently!(&network, control.set_load(0.5)).expect("it runs");
    let changed = impatiently!(&network, changes.next());
    assert!(matches!(changed, Some(PoolChange::Changed(_))), "{changed:?}");
    session.close().await;
    stop.send(()).expect("it runs");
    assert_eq!(done.await, Ok(Departure::Confirmed));
    assert_eq!(impatiently!(&network, changes.next()), Some(PoolChange::Left(identifier)));
}

/// Checks that opening a session, when cancelled at any point, leaves no session behind that would
/// occupy a server.
pub async fn an_opening_that_is_given_up_leaves_no_session(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(&network, pool(), [at.clone()]);
    let element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    element.registered().await.expect("it is taken");
    let (stop, stopping) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel();
    network.runtime().spawn(Box::pin(async move {
        // Each session is served until its user closes it.
        let serve =
            |mut session: ElementSession, _| async move { while session.recv().await.is_ok() {} };
        let grace = Duration::from_secs(5);
        let _ = tell.send(element.serve_sessions(serve, stopping, grace).await);
    }));
    let user = new_user(&network, &at);
    for polls in 0..12 {
        let mut opening = Box::pin(user.open_requests(pool(), RequestConfig::default()));
        for _ in 0..polls {
            if futures::poll!(opening.as_mut()).is_ready() {
                break;
            }
            pause(&network, 1).await;
        }
    }
    drop(stop);
    assert_eq!(told.await.map(|outcome| outcome.aborted), Ok(0), "all sessions came to an end");
}

/// Checks that each message arrives once, however often sending it was cancelled before.
pub async fn messages_without_a_session_are_not_sent_by_futures_that_are_dropped(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let counter = service::start_counter(&network, registrar.local_address()).await;
    let user = new_user(&network, registrar.local_address());
    let mut messenger = user.messenger(pool()).expect("a dialler");
    let to = counter.identifier;
    let message = || UserMessage::new(Ppid(99), b"next".as_slice());
    for round in 0..10 {
        let sent = impatiently!(&network, messenger.send(message()));
        assert_eq!(sent.expect("it is there"), to);
        let sent = impatiently!(&network, messenger.send_to_last(message()));
        assert_eq!(sent.expect("it is there"), to);
        impatiently!(&network, messenger.send_to(to, message())).expect("it is there");
        // There is only one element, so no earlier attempt can have sent the message to another.
        let sent = impatiently!(&network, messenger.send_to_all(message()));
        assert_eq!(
            sent.expect("it is there"),
            SentToAll { reached: vec![to], ..SentToAll::default() }
        );
        for number in 1..=4_u64 {
            let (from, event) = impatiently!(&network, messenger.recv());
            let MessengerEvent::Message(reply) = event else { panic!("{event:?}") };
            assert_eq!(
                (from, &reply.payload[..]),
                (Correspondent::Element(to), &(4 * round + number).to_be_bytes()[..])
            );
        }
    }
}

/// Checks that a request is done once, and that dropped resolutions, reports and dumps succeed when
/// repeated.
pub async fn requests_and_reports_may_be_dropped_wherever_they_wait(network: Network) {
    let config = RegistrarConfig::default().identifier(RegistrarId(1));
    let config = config.enrp(any_address(&network));
    let registrar =
        Registrar::start(&network, [&any_address(&network)], config).expect("free ports");
    let at = registrar.local_address().clone();
    let server = replay::start_counter(&network, &at, &KeyRing::generate(), 1).await;
    let user = new_user(&network, &at);
    impatiently!(&network, user.report_unreachable(pool(), PoolElementId(404))).expect("it runs");
    let enrp = registrar.enrp_address().expect("it has one").clone();
    let timeout = Duration::from_secs(5);
    for polls in 0..12 {
        give_up(&network, polls, dump(&network, &enrp, timeout)).await;
    }
    let dumped = dump(&network, &enrp, timeout).await.expect("it answers");
    assert_eq!(dumped.pools.len(), 1);

    let mut session =
        user.open_requests(pool(), RequestConfig::default()).await.expect("it is there");
    for number in 1..=20 {
        let taken = session.submit(b"next".as_slice()).expect("there is room");
        let reply = loop {
            let event = impatiently!(&network, session.event()).expect("it lives");
            if let RequestEvent::Reply { number, body } = event {
                assert_eq!(number, taken);
                break body;
            }
        };
        assert_eq!(replay::count(&reply), number);
    }
    // A request that the session has accepted is done although its future is dropped.
    let mut request = Box::pin(session.request(b"next".as_slice()));
    assert!(futures::poll!(request.as_mut()).is_pending());
    drop(request);
    assert_eq!(replay::count(&session.request(b"next".as_slice()).await.expect("it lives")), 22);
    session.close().await;
    drop(server);
}

/// Polls the future `polls` times, with pauses, and drops it.
async fn give_up<F: Future>(network: &Network, polls: usize, future: F) {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        if futures::poll!(future.as_mut()).is_ready() {
            break;
        }
        pause(network, 1).await;
    }
}

/// Opens a session and returns both ends of it.
async fn session(user: &PoolUser, element: &mut PoolElement) -> (Session, ElementSession) {
    let (session, accepted) = futures::join!(user.open(pool()), element.accept());
    let (mut session, accepted) = (session.expect("it is there"), accepted.expect("it runs"));
    session.send(Ppid(7), b"here".as_slice()).await.expect("it lives");
    assert!(matches!(session.recv().await, Ok(Event::Connected(_))));
    (session, accepted)
}

/// Checks that closing, leaving, stopping and serving complete even if their futures are dropped at
/// any point.
pub async fn an_end_that_is_given_up_is_an_end(network: Network) {
    for polls in 0..6 {
        let registrar = start_registrar(&network, &any_address(&network));
        let at = registrar.local_address().clone();
        let user = new_user(&network, &at);
        let start = || async {
            let builder = PoolElement::builder(&network, pool(), [at.clone()]);
            let element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
            element.registered().await.expect("it is taken");
            element
        };
        let gone = || async {
            while user.resolve(pool(), ResolveOptions::default()).await
                != Err(ResolveError::UnknownPool(pool()))
            {
                pause(&network, 1).await;
            }
        };

        let mut element = start().await;
        let (ours, mut theirs) = session(&user, &mut element).await;
        give_up(&network, polls, ours.close()).await;
        while theirs.recv().await.is_ok() {}
        let (mut ours, theirs) = session(&user, &mut element).await;
        give_up(&network, polls, theirs.close()).await;
        match ours.recv().await {
            Err(SessionClosed::ByPeer) | Ok(Event::FailoverStarted { .. }) => {}
            other => panic!("neither closed nor aborted: {other:?}"),
        }
        drop(ours);
        give_up(&network, polls, element.leave()).await;
        gone().await;

        let element = start().await;
        let serve =
            |mut session: ElementSession, _| async move { while session.recv().await.is_ok() {} };
        let mut serving = Box::pin(element.serve_sessions(
            serve,
            std::future::pending::<()>(),
            Duration::from_secs(5),
        ));
        let opened = futures::future::select(serving.as_mut(), Box::pin(user.open(pool()))).await;
        let futures::future::Either::Right((opened, _)) = opened else { panic!("it stopped") };
        let mut ours = opened.expect("it is there");
        give_up(&network, polls, serving).await;
        loop {
            match ours.recv().await {
                Ok(Event::Connected(_)) => {}
                Ok(Event::FailoverStarted { .. }) => break,
                other => panic!("not aborted: {other:?}"),
            }
        }
        gone().await;

        give_up(&network, polls, registrar.shutdown()).await;
        // The port of the stopped registrar is free again.
        let again = || {
            Registrar::start(&network, [&at], RegistrarConfig::default().identifier(RegistrarId(2)))
        };
        while again().is_err() {
            pause(&network, 1).await;
        }
    }
}
