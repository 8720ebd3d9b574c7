//! Futures that are dropped after each number of polls.

use std::task::Poll;

use futures::StreamExt;
use futures::channel::oneshot;

use super::any_address;
use super::service::{new_user, pause, pool, start_registrar};
use crate::driver::{ElementEvent, Network, PoolChange, PoolElement, RequestConfig};
use crate::protocol::session::Event;
use crate::protocol::user::ResolveOptions;
use crate::wire::{PolicyParameters, Ppid};

/// Makes the future again and again, polls it once more each time, with pauses, and drops it,
/// until it is ready: so it is dropped at each of the points where it waits.
macro_rules! impatiently {
    ($network:expr, $future:expr) => {{
        let mut patience = 0;
        loop {
            let mut future = Box::pin($future);
            let mut result = Poll::Pending;
            for _ in 0..=patience % 4 {
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
            patience += 1;
            assert!(patience < 5000, "never ready: {}", stringify!($future));
        }
    }};
}

/// An element and its users drop each future of theirs again and again, and every message comes
/// once and in order.
pub async fn futures_may_be_dropped_wherever_they_wait(network: Network) {
    const MESSAGES: u32 = 60;
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(&network, pool(), [at.clone()]);
    let builder = builder.policy(PolicyParameters::least_used(0));
    let mut element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    let identifier = impatiently!(&network, element.registered()).expect("it is taken");
    let control = element.control();
    let (stop, mut stopped) = oneshot::channel::<()>();
    let (left, done) = oneshot::channel();
    let servers = network.clone();
    network.runtime().spawn(Box::pin(async move {
        // The session is served in the same task: accepting is given up, not lost.
        let mut session = impatiently!(&servers, element.accept());
        let mut count = 0_u32;
        while let Ok(Some(event)) = impatiently!(&servers, session.recv()) {
            let ElementEvent::Message(message) = event else { continue };
            count += 1;
            let cookie = count.to_be_bytes().to_vec();
            impatiently!(&servers, session.send_cookie(cookie.clone())).expect("it lives");
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
    let mut changes = impatiently!(&network, user.subscribe(pool()));
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
    impatiently!(&network, control.set_load(0.5));
    let changed = impatiently!(&network, changes.next());
    assert!(matches!(changed, Some(PoolChange::Changed(_))), "{changed:?}");
    session.close().await;
    stop.send(()).expect("it runs");
    assert_eq!(done.await, Ok(true));
    assert_eq!(impatiently!(&network, changes.next()), Some(PoolChange::Left(identifier)));
}

/// Opening is given up at each point, and leaves nothing behind that would keep a server busy.
pub async fn an_opening_that_is_given_up_leaves_no_session(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(&network, pool(), [at.clone()]);
    let element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    element.registered().await.expect("it is taken");
    let (stop, stopping) = oneshot::channel::<()>();
    let (tell, told) = oneshot::channel();
    network.runtime().spawn(Box::pin(async move {
        // Each session is served until its user is gone.
        let serve = |mut session: crate::driver::ElementSession, _| async move {
            while let Ok(Some(_)) = session.recv().await {}
        };
        let grace = std::time::Duration::from_secs(5);
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
    assert_eq!(told.await, Ok(true), "all sessions came to an end");
}
