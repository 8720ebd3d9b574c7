//! Tests of sessions as streams and sinks, and of their halves.

use futures::future::join;
use futures::{SinkExt, StreamExt};
use rserpool_proto::session::Event;
use rserpool_proto::wire::{Ppid, UserMessage};

use super::any_address;
use super::service::{new_user, next, pool, serve_counter, start_counter, start_registrar};
use crate::{Network, PoolElement, SessionClosed, SessionSendError, TrySendError};

fn count(message: &UserMessage) -> u64 {
    u64::from_be_bytes(message.payload[..].try_into().expect("a number"))
}

fn request() -> UserMessage {
    UserMessage::new(Ppid(99), b"next".as_slice())
}

/// Checks that one half of a session receives while the other sends, across a failover, and that
/// sending without end does not keep the session from receiving.
pub async fn halves_of_a_session_work_in_two_tasks(network: Network) {
    const REQUESTS: u64 = 2000;
    let registrar = start_registrar(&network, &any_address(&network));
    let counter = start_counter(&network, registrar.local_address()).await;
    let user = new_user(&network, registrar.local_address());
    let session = user.open(pool()).await.expect("the pool has an element");
    let (mut sender, mut receiver) = session.split();
    let send = async {
        for number in 0..REQUESTS {
            match number % 2 {
                0 => sender.send(Ppid(99), b"next".as_slice()).await.expect("it lives"),
                _ => SinkExt::send(&mut sender, request()).await.expect("it lives"),
            }
        }
        sender
    };
    let receive = async {
        let mut seen = 0;
        while seen < REQUESTS {
            if let Some(Event::Message(message)) = receiver.next().await {
                seen += 1;
                assert_eq!(count(&message), seen);
            }
        }
        receiver
    };
    let (mut sender, mut receiver) = join(send, receive).await;
    let refused = sender.send(Ppid::ASAP, b"control".as_slice()).await;
    assert!(matches!(refused, Err(SessionSendError::Message(_))), "{refused:?}");

    // The session fails over while only the receiving half is used.
    let other = start_counter(&network, registrar.local_address()).await;
    drop(counter.stop);
    loop {
        if let Event::FailoverCompleted { to, .. } = receiver.recv().await.expect("it lives") {
            break assert_eq!(to, other.identifier);
        }
    }
    let mut session = sender.reunite(receiver).expect("of one session");
    assert_eq!(next(&mut session).await.0, REQUESTS + 1);

    let (mut sender, mut receiver) = session.split();
    let (end, ()) = join(receiver.recv(), sender.close()).await;
    assert_eq!(end, Err(SessionClosed::Here));
    assert_eq!(receiver.next().await, None);
    drop(other.stop);
}

/// Checks that a message for which there is no room is returned, and that a session as a sink is
/// closed in good order.
pub async fn what_has_no_room_is_returned_and_a_sink_closes(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let at = registrar.local_address().clone();
    let builder = PoolElement::builder(&network, pool(), [at.clone()]);
    let mut element = builder.listen(([127, 0, 0, 1], 0).into()).start().expect("a free port");
    element.registered().await.expect("the registrar takes it");
    let user = new_user(&network, &at);
    let (session, accepted) = join(user.open(pool()), element.accept()).await;
    let (mut session, accepted) = (session.expect("it is there"), accepted.expect("it runs"));
    let large = UserMessage::new(Ppid(99), vec![7; 60_000]);
    let mut sent = 0;
    let returned = loop {
        match session.try_send(large.clone()) {
            Ok(()) => sent += 1,
            Err(TrySendError::NoRoom(message)) => break message,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 10_000, "there is always room");
    };
    assert_eq!(returned, large);
    // The other end starts to read only now.
    network.runtime().spawn(Box::pin(serve_counter(accepted)));
    let mut seen = 0;
    while seen < sent {
        if let Some(Event::Message(message)) = session.next().await {
            seen += 1;
            assert_eq!(count(&message), seen);
        }
    }
    SinkExt::close(&mut session).await.expect("it lives");
    assert_eq!(session.recv().await, Err(SessionClosed::Here));
}
