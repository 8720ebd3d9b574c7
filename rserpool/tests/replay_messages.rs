//! Tests checkpoint and replay message by message: messages of hostile ends, limits and deadlines.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use rserpool_proto::replay::{
    Action, Answer, Client, ClientConfig, ClientEvent, Epoch, Frame, Progress, RefusalReason,
    RequestFailure, RequestNumber, RequestOptions, Server, ServerConfig, ServerError, WINDOW,
};

#[allow(clippy::disallowed_methods, reason = "any instant will do")]
fn instant() -> Instant {
    Instant::now()
}

const CONFIG: ServerConfig = ServerConfig { checkpoint_every: 1, room: 60_000, max_reply: 60_000 };

fn client(limit: usize) -> Client {
    Client::new(ClientConfig { limit, max_crashes: 3 })
}

fn request(epoch: u32, number: u64) -> Bytes {
    let (epoch, number) = (Epoch(epoch), RequestNumber(number));
    let acknowledged = RequestNumber(0);
    Frame::Request { epoch, number, acknowledged, announce: false, body: Bytes::new() }.encode()
}

fn refusal(epoch: u32, reason: RefusalReason) -> Vec<Action> {
    vec![Action::Send(Frame::Refusal { epoch: Epoch(epoch), reason }.encode())]
}

/// Passes a message to a server that answers each request with an empty reply. Returns the server's
/// other actions.
fn serve(server: &mut Server, message: Bytes) -> Vec<Action> {
    server.handle_message(message).unwrap();
    let mut actions = Vec::new();
    while let Some(action) = server.poll_action() {
        if let Action::Execute(_) = action {
            server.finish(Bytes::new(), || Ok(Bytes::new())).unwrap();
        } else {
            actions.push(action);
        }
    }
    actions
}

fn messages(client: &mut Client) -> Vec<Bytes> {
    std::iter::from_fn(|| client.poll_message(instant())).collect()
}

/// Passes the messages among a server's actions to the client. Returns the client's events.
fn hear(client: &mut Client, actions: Vec<Action>, checkpoint: Option<&[u8]>) -> Vec<ClientEvent> {
    for action in actions {
        if let Action::Send(message) = action {
            client.handle_message(instant(), message, checkpoint).unwrap();
        }
    }
    std::iter::from_fn(|| client.poll_event()).collect()
}

fn answered(number: u64) -> ClientEvent {
    let answer = Answer::Reply(Bytes::new());
    ClientEvent::Answer { number: RequestNumber(number), answer }
}

fn submit(client: &mut Client, options: RequestOptions) -> RequestNumber {
    client.submit(instant(), Bytes::from_static(b"do"), options).unwrap()
}

#[test]
fn without_the_checkpoint_a_session_starts_afresh_or_not_at_all() {
    let now = instant();
    let mut client = client(8);
    client.handle_connected(now, None);
    for _ in 0..5 {
        submit(&mut client, RequestOptions::default());
    }
    let sent = messages(&mut client);
    let mut server = Server::new(CONFIG);
    for (message, number) in sent[..2].iter().zip(1..) {
        let actions = serve(&mut server, message.clone());
        assert_eq!(hear(&mut client, actions, None), [answered(number)]);
    }
    // The client has no checkpoint to send, and knows of none that contains any request. It keeps
    // the two requests, and sends them again to be repeated.
    client.handle_lost();
    client.handle_connected(now, None);
    assert_eq!(messages(&mut client).len(), 5);
    let reach = [&1_u32.to_be_bytes()[..], &2_u64.to_be_bytes()[..]].concat();
    let actions = serve(&mut server, sent[2].clone());
    assert_eq!(hear(&mut client, actions, Some(&reach)), [answered(3)]);
    client.handle_lost();
    client.handle_connected(now, Some(&reach));
    let sent = messages(&mut client);
    assert_eq!(sent.len(), 3, "the checkpoint holds the first two");

    let mut other = Server::new(CONFIG);
    other.refuse_checkpoint(RefusalReason::UnknownKey);
    let refused = serve(&mut other, sent[0].clone());
    assert_eq!(refused, refusal(1, RefusalReason::UnknownKey));
    for message in &sent[1..] {
        assert_eq!(serve(&mut other, message.clone()), []);
    }
    let heard = hear(&mut client, refused, None);
    assert_eq!(heard, [ClientEvent::Refused(RefusalReason::UnknownKey)]);

    assert_eq!(client.start_afresh(now), 3, "so many are lost with their effects");
    let sent = messages(&mut client);
    assert_eq!(sent.len(), 2);
    for (message, number) in sent.into_iter().zip(4..) {
        let actions = serve(&mut other, message);
        assert_eq!(hear(&mut client, actions, None), [answered(number)]);
    }
    assert_eq!(submit(&mut client, RequestOptions::default()), RequestNumber(6));
}

#[test]
fn what_a_hostile_client_sends_is_refused() {
    let mut server = Server::new(CONFIG);
    assert_eq!(serve(&mut server, request(1, 9)), refusal(1, RefusalReason::NoCheckpoint));
    assert_eq!(serve(&mut server, request(1, 1)), [], "a refused epoch");
    assert_eq!(serve(&mut server, request(2, 1))[0], Action::Reset);
    assert_eq!(serve(&mut server, request(2, 3)), refusal(2, RefusalReason::OutOfOrder));
    assert!(server.handle_message(Bytes::from_static(b"rubbish")).is_err());
    let reach = Bytes::from([&1_u32.to_be_bytes()[..], &2_u64.to_be_bytes()[..]].concat());
    for rest in [&b""[..], &[0; 8], &u64::MAX.to_be_bytes(), &[0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9]]
    {
        let restored = Server::restore(CONFIG, &reach, Bytes::from(rest.to_vec()));
        assert!(restored.is_err(), "{rest:?}");
    }
    let endless = Bytes::from([&1_u32.to_be_bytes()[..], &u64::MAX.to_be_bytes()[..]].concat());
    assert!(Server::restore(CONFIG, &endless, Bytes::from(vec![0; 100])).is_err());
}

#[test]
fn a_client_cannot_fill_the_memory_of_a_server_that_waits() {
    let mut server = Server::new(CONFIG);
    let body = Bytes::from(vec![0; 60_000]);
    let acknowledged = RequestNumber(0);
    let mut sent = 0;
    let error = loop {
        sent += 1;
        let (epoch, number) = (Epoch(1), RequestNumber(sent));
        let request =
            Frame::Request { epoch, number, acknowledged, announce: false, body: body.clone() };
        if let Err(error) = server.handle_message(request.encode()) {
            break error;
        }
        // The second reply has to wait for an acknowledgement, which never comes.
        while let Some(action) = server.poll_action() {
            if let Action::Execute(body) = action {
                server.finish(body.slice(..40_000), || Ok(Bytes::new())).unwrap();
            }
        }
    };
    assert_eq!(error, ServerError::WindowExceeded);
    assert!(sent as usize <= 3 + WINDOW / body.len(), "{sent} requests were accepted");
}

#[test]
fn the_client_keeps_to_the_window() {
    let mut client = client(1000);
    client.handle_connected(instant(), None);
    for _ in 0..100 {
        let body = Bytes::from(vec![0; 60_000]);
        client.submit(instant(), body, RequestOptions::default()).unwrap();
    }
    assert_eq!(messages(&mut client).len(), WINDOW / 60_064);
    let answer = Answer::Reply(Bytes::new());
    let reply = Frame::Answer { epoch: Epoch(1), number: RequestNumber(1), answer };
    client.handle_message(instant(), reply.encode(), None).unwrap();
    assert_eq!(messages(&mut client).len(), 1);
}

#[test]
fn a_reply_or_state_that_never_fits_fails_its_request_alone() {
    let mut server = Server::new(ServerConfig { room: 1000, ..CONFIG });
    server.handle_message(request(1, 1)).unwrap();
    server.handle_message(request(1, 2)).unwrap();
    assert_eq!(server.poll_action(), Some(Action::Reset));
    assert_eq!(server.poll_action(), Some(Action::Execute(Bytes::new())));
    let long = server.finish(Bytes::from(vec![0; 900]), || Ok(vec![0; 200].into()));
    assert_eq!(long, Err(RequestFailure::ReplyTooLong { length: 900, limit: 788 }));
    let long = server.finish(Bytes::new(), || Ok(vec![0; 972].into()));
    assert_eq!(long, Err(RequestFailure::StateTooLong { length: 972, limit: 971 }));
    // A checkpoint with the longest state still has room for the failure.
    server.fail(RequestFailure::Panicked, vec![0; 971].into());
    let Some(Action::Checkpoint { rest, .. }) = server.poll_action() else { panic!() };
    assert_eq!(rest.len(), 1000);
    assert!(matches!(server.poll_action(), Some(Action::Send(_))));
    assert_eq!(server.poll_action(), Some(Action::Execute(Bytes::new())));
}

#[test]
fn a_request_fails_at_its_deadline_and_a_late_server_is_left() {
    let now = instant();
    let seconds = Duration::from_secs;
    let mut client = client(8);
    client.handle_connected(now, None);
    let options = RequestOptions::default().deadline(seconds(9)).fail_over_after(seconds(2));
    submit(&mut client, options);
    submit(&mut client, RequestOptions::default());
    for stay in 0..3 {
        let start = now + seconds(3 * stay);
        client.handle_lost();
        client.handle_connected(start, None);
        let sent = std::iter::from_fn(|| client.poll_message(start)).count();
        assert_eq!(sent, 2);
        if stay > 0 {
            let begun = Frame::Begun { epoch: Epoch(1), number: RequestNumber(1) };
            client.handle_message(start, begun.encode(), None).unwrap();
        }
        assert_eq!(client.poll_timeout(), Some(start + seconds(2)));
        client.handle_timeout(start + seconds(2) - Duration::from_millis(1));
        assert_eq!(client.poll_event(), None);
        client.handle_timeout(start + seconds(2));
        assert_eq!(client.poll_event(), Some(ClientEvent::FailOver));
        client.handle_left();
    }
    // The request counts as one that crashed its servers, so the client asks the next server to
    // fail it. The deadline of the request passes before the server does so.
    client.handle_connected(now + seconds(9), None);
    let sent = messages(&mut client);
    assert!(matches!(
        Frame::decode(sent[0].clone()),
        Ok(Frame::Abandonment { number: RequestNumber(1), servers: 3.., .. })
    ));
    client.handle_timeout(now + seconds(9) + Duration::from_secs(1));
    let passed = ClientEvent::DeadlinePassed(RequestNumber(1));
    assert_eq!(client.poll_event(), Some(passed));
    let mut server = Server::new(CONFIG);
    let mut actions = Vec::new();
    for message in sent {
        server.handle_message(message).unwrap();
        while let Some(action) = server.poll_action() {
            match action {
                Action::Fail(failure) => server.fail(failure, Bytes::new()),
                Action::Execute(_) => drop(server.finish(Bytes::new(), || Ok(Bytes::new()))),
                action => actions.push(action),
            }
        }
    }
    let late = ClientEvent::AnsweredLate(RequestNumber(1));
    assert_eq!(hear(&mut client, actions, None), [late, answered(2)]);
    assert_eq!(client.unanswered(), 0);
}

#[test]
fn answers_that_a_server_makes_up_are_ignored() {
    let mut client = client(8);
    client.handle_connected(instant(), None);
    for _ in 0..3 {
        submit(&mut client, RequestOptions::default());
    }
    assert_eq!(messages(&mut client).len(), 3);
    let reply = |number| {
        let answer = Answer::Reply(Bytes::new());
        Frame::Answer { epoch: Epoch(1), number: RequestNumber(number), answer }.encode()
    };
    for (number, heard) in [(3, false), (9, false), (1, true), (1, false), (3, false), (2, true)] {
        let events = hear(&mut client, vec![Action::Send(reply(number))], None);
        assert_eq!(!events.is_empty(), heard, "answer {number}");
        assert_eq!(Progress::decode(client.progress().encode()), Ok(client.progress()));
    }
}

#[test]
fn an_announced_request_is_blamed_alone() {
    let mut client = client(8);
    client.handle_connected(instant(), None);
    submit(&mut client, RequestOptions::default());
    assert_eq!(messages(&mut client).len(), 1);
    for _ in 0..5 {
        // After the first crash, the client marks the request to be announced. Each further server
        // is lost before it begins the request.
        client.handle_lost();
        client.handle_connected(instant(), None);
        let sent = messages(&mut client);
        let frame = Frame::decode(sent[0].clone()).unwrap();
        assert!(matches!(frame, Frame::Request { announce: true, .. }), "{frame:?}");
    }
}

#[test]
fn a_damaged_progress_is_refused() {
    let mut client = client(8);
    submit(&mut client, RequestOptions::default());
    let stored = client.progress().encode();
    assert_eq!(Progress::decode(stored.clone()), Ok(client.progress()));
    // The first 28 bytes are complete by themselves: they are a progress without any request.
    for length in (0..stored.len()).filter(|length| *length != 28) {
        assert!(Progress::decode(stored.slice(..length)).is_err(), "{length} bytes");
    }
    for (first, acknowledged) in [(0, 0), (1, 2), (3, 1), (u64::MAX, 0), (1, u64::MAX)] {
        let mut changed = stored.to_vec();
        changed[12..20].copy_from_slice(&u64::to_be_bytes(first));
        changed[20..28].copy_from_slice(&u64::to_be_bytes(acknowledged));
        assert!(Progress::decode(changed.into()).is_err(), "{first}, {acknowledged}");
    }
    assert!(Progress::decode(Bytes::from(vec![0xff; 28])).is_err());
}

#[test]
fn a_life_of_which_nothing_came_is_not_followed_by_another() {
    let mut client = client(2);
    client.handle_connected(instant(), None);
    submit(&mut client, RequestOptions::default());
    assert!(client.may_start_afresh());
    client.start_afresh(instant());
    assert!(!client.may_start_afresh(), "the servers refuse every epoch of it");
    let mut server = Server::new(CONFIG);
    for message in messages(&mut client) {
        let actions = serve(&mut server, message);
        hear(&mut client, actions, None);
    }
    assert!(client.may_start_afresh());
}
