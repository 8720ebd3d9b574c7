//! Tests checkpoint and replay with servers that crash at any moment, in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rserpool::cookie::{KeyRing, Lineage, Seal, clear_part};
use rserpool_proto::replay::{
    Action, Answer, Client, ClientConfig, ClientEvent, Epoch, Frame, Progress, RefusalReason,
    RequestFailure, RequestNumber, RequestOptions, Server, ServerConfig, ServerError, WINDOW,
};

fn wall_clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Returns an instant that advances with the number of steps.
#[allow(clippy::disallowed_methods, reason = "any instant will do")]
fn instant() -> Instant {
    Instant::now()
}

const CONFIG: ServerConfig = ServerConfig { checkpoint_every: 1, room: 60_000, max_reply: 60_000 };

fn client(limit: usize) -> Client {
    Client::new(ClientConfig { limit, max_crashes: 3 })
}

/// A message from the server to the client.
#[derive(Debug)]
enum Down {
    Cookie(Bytes),
    Data(Bytes),
}

/// A request: its number, the length of the reply, and what it does to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Nothing,
    Panic,
    Crash,
}

fn request_body(number: u64, reply: u32, effect: Effect) -> Bytes {
    let effect = match effect {
        Effect::Nothing => 0,
        Effect::Panic => 1,
        Effect::Crash => 2,
    };
    [&number.to_be_bytes()[..], &reply.to_be_bytes(), &[effect]].concat().into()
}

/// A server process with one session. Its service records each request with a random number, the
/// mark, and replies with that mark and some padding. So the test notices a reply whose mark the
/// next servers do not know.
#[derive(Debug)]
struct Process {
    machine: Server,
    lineage: Lineage,
    /// Pairs of a request and its mark, eight bytes each.
    state: Vec<u8>,
    saved: Vec<u8>,
    since: Vec<(Bytes, u64)>,
}

impl Process {
    fn new(config: ServerConfig) -> Self {
        let (machine, lineage) = (Server::new(config), Lineage::new());
        Self { machine, lineage, state: Vec::new(), saved: Vec::new(), since: Vec::new() }
    }

    fn take_over(&mut self, seal: &Seal, cookie: &Bytes) {
        let opened = seal.open(wall_clock(), cookie).unwrap();
        let config = self.machine.config();
        let (machine, state) = Server::restore(config, &opened.clear, opened.state).unwrap();
        (self.machine, self.lineage, self.state) = (machine, opened.lineage, state.to_vec());
        self.saved.clone_from(&self.state);
    }

    /// Handles a message. Returns false if the process crashes.
    fn handle(
        &mut self,
        seal: &Seal,
        message: Bytes,
        mut mark: impl FnMut() -> u64,
        down: &mut VecDeque<Down>,
    ) -> bool {
        self.machine.handle_message(message).unwrap();
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Reset => self.state.clear(),
                Action::Execute(request) => {
                    let mark = mark();
                    if !self.execute(request, mark) {
                        return false;
                    }
                }
                Action::Fail(failure) => self.fail(failure),
                Action::Checkpoint { clear, rest } => {
                    assert!(rest.len() <= self.machine.config().room);
                    let cookie = seal.seal(wall_clock(), &mut self.lineage, &clear, &rest).unwrap();
                    down.push_back(Down::Cookie(cookie));
                }
                Action::Send(message) => down.push_back(Down::Data(message)),
            }
        }
        true
    }

    fn execute(&mut self, request: Bytes, mark: u64) -> bool {
        match request[12] {
            1 => {
                self.roll_back();
                self.fail(RequestFailure::Panicked);
                return true;
            }
            2 => return false,
            _ => {}
        }
        self.state.extend_from_slice(&request[..8]);
        self.state.extend_from_slice(&mark.to_be_bytes());
        let padding = u32::from_be_bytes(request[8..12].try_into().unwrap());
        let mut reply = mark.to_be_bytes().to_vec();
        reply.resize(8 + padding as usize, 0);
        let state = self.state.clone();
        match self.machine.finish(reply.into(), || state.into()) {
            Ok(None) => self.since.push((request, mark)),
            Ok(Some(state)) => {
                self.saved = state.to_vec();
                self.since.clear();
            }
            Err(failure) => {
                self.roll_back();
                self.fail(failure);
            }
        }
        true
    }

    fn roll_back(&mut self) {
        self.state.clone_from(&self.saved);
        for (request, mark) in &self.since {
            self.state.extend_from_slice(&request[..8]);
            self.state.extend_from_slice(&mark.to_be_bytes());
        }
    }

    fn fail(&mut self, failure: RequestFailure) {
        self.saved.clone_from(&self.state);
        self.since.clear();
        self.machine.fail(failure, self.state.clone().into());
    }
}

/// A run: how often servers send checkpoints, and what its requests are like.
#[derive(Debug, Clone, Copy)]
struct Run {
    checkpoint_every: u32,
    /// Services that are deterministic give the same mark to the same request on all servers.
    deterministic: bool,
    /// The maximum length of the padding of a reply.
    padding: u32,
    /// True if some requests panic, and some crash their servers.
    poison: bool,
}

const PLAIN: Run = Run { checkpoint_every: 1, deterministic: false, padding: 0, poison: false };

/// What became of a run.
#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    /// The number of crashes at random times.
    deaths: u32,
    /// The number of requests that failed because they crashed their servers.
    crashed: u32,
}

/// The client's end of the session.
struct End {
    client: Client,
    cookie: Option<Bytes>,
    /// The answers: the mark, or `None` for a failure.
    seen: Vec<Option<u64>>,
    effects: HashMap<u64, Effect>,
    seed: u64,
}

impl End {
    fn hear(&mut self, now: Instant, message: Down) {
        let message = match message {
            Down::Cookie(new) => return self.cookie = Some(new),
            Down::Data(message) => message,
        };
        let clear = self.cookie.as_ref().and_then(clear_part);
        self.client.handle_message(now, message, clear.as_deref()).unwrap();
        while let Some(event) = self.client.poll_event() {
            let ClientEvent::Answer { number, answer } = event else { panic!("{event:?}") };
            let seed = self.seed;
            let place = RequestNumber(self.seen.len() as u64 + 1);
            assert_eq!(number, place, "seed {seed}: each once, in order");
            let effect = self.effects[&number.0];
            self.seen.push(match answer {
                Answer::Reply(body) => {
                    assert_eq!(effect, Effect::Nothing, "seed {seed}");
                    Some(u64::from_be_bytes(body[..8].try_into().unwrap()))
                }
                Answer::Failure(failure) => {
                    let expected = match effect {
                        Effect::Panic => RequestFailure::Panicked,
                        _ => RequestFailure::Crashed { servers: 3 },
                    };
                    assert_eq!(failure, expected, "seed {seed}, request {number:?}");
                    None
                }
            });
        }
    }

    fn connect(&mut self, now: Instant) {
        let clear = self.cookie.as_ref().and_then(clear_part);
        self.client.handle_connected(now, clear.as_deref());
    }
}

/// Runs one client against servers that crash at random times drawn from the seed.
fn run(seed: u64, run: Run) -> Outcome {
    const REQUESTS: u64 = 60;
    let rng = &mut StdRng::seed_from_u64(seed);
    let now = instant();
    let ring = KeyRing::generate();
    let seal = |ring: &KeyRing| Seal::new("Pool".parse().unwrap(), ring.clone());
    let depth = rng.random_range(1..=8);
    let config = ServerConfig {
        checkpoint_every: run.checkpoint_every,
        room: 4096 + run.padding as usize,
        ..CONFIG
    };
    // Crash rarely enough that some servers reach the next checkpoint. Where requests crash servers,
    // nothing else does, so that the number of crashes is known.
    let death = match run.poison {
        true => 0.0,
        false => rng.random_range(0.01..0.3) / f64::from(run.checkpoint_every),
    };
    let mut end = End {
        client: client(depth),
        cookie: None,
        seen: Vec::new(),
        effects: HashMap::new(),
        seed,
    };
    let mut server = (Process::new(config), seal(&ring));
    end.connect(now);
    let (mut up, mut down) = (VecDeque::<Bytes>::new(), VecDeque::new());
    let (mut begun, mut steps, mut outcome) = (0, 0, Outcome::default());
    while (end.seen.len() as u64) < REQUESTS {
        steps += 1;
        assert!(steps < 100_000, "seed {seed}: no progress, {} replies", end.seen.len());
        let mut dies = rng.random_bool(death);
        outcome.deaths += u32::from(dies);
        match rng.random_range(0..3) {
            0 if begun < REQUESTS && end.client.has_room() => {
                begun += 1;
                let effect = match rng.random_range(0..20) {
                    0 if run.poison => Effect::Panic,
                    1 if run.poison => Effect::Crash,
                    _ => Effect::Nothing,
                };
                end.effects.insert(begun, effect);
                let body = request_body(begun, rng.random_range(0..=run.padding), effect);
                let options = RequestOptions::default();
                let number = end.client.submit(now, body, options).unwrap();
                assert_eq!(number, RequestNumber(begun));
            }
            1 => {
                if let Some(message) = up.pop_front() {
                    let mark = || if run.deterministic { 7 } else { rng.random() };
                    dies |= !server.0.handle(&server.1, message, mark, &mut down);
                }
            }
            _ => {
                if let Some(message) = down.pop_front() {
                    end.hear(now, message);
                }
            }
        }
        up.extend(std::iter::from_fn(|| end.client.poll_message(now)));
        if dies {
            // On a crash, some of the messages on their way to the client still arrive: all of them
            // where the number of crashes is checked.
            if !run.poison {
                down.truncate(rng.random_range(0..=down.len()));
            }
            while let Some(message) = down.pop_front() {
                end.hear(now, message);
            }
            up.clear();
            server = (Process::new(config), seal(&ring));
            if let Some(cookie) = &end.cookie {
                server.0.take_over(&server.1, cookie);
            }
            end.client.handle_lost();
            if rng.random_bool(0.1) {
                // The client's process crashes, too, and is resumed from what it stored.
                let stored = end.client.progress().encode();
                let progress = Progress::decode(stored).unwrap();
                let config = ClientConfig { limit: depth, max_crashes: 3 };
                end.client = Client::resume(config, progress);
            }
            end.connect(now);
        }
    }
    // The last server knows each request once, in order, with the reply that the client saw.
    let expected: Vec<u8> = (1..=REQUESTS)
        .zip(&end.seen)
        .filter_map(|(number, mark)| Some([number.to_be_bytes(), (*mark)?.to_be_bytes()].concat()))
        .flatten()
        .collect();
    let known = &server.0.state;
    assert_eq!(known[..], expected[..known.len()], "seed {seed}");
    if run.checkpoint_every == 1 {
        let mut successor = Process::new(config);
        successor.take_over(&seal(&ring), end.cookie.as_ref().unwrap());
        assert_eq!(successor.state, expected, "seed {seed}: the last checkpoint has all");
    }
    outcome.crashed =
        end.effects.values().filter(|effect| **effect == Effect::Crash).count() as u32;
    outcome
}

#[test]
fn each_request_is_answered_once_whenever_servers_die() {
    let deaths: u32 = (0..400).map(|seed| run(seed, PLAIN).deaths).sum();
    assert!(deaths > 3000, "only {deaths} servers died");
}

#[test]
fn the_same_with_few_checkpoints_if_replies_follow_from_the_state() {
    for checkpoint_every in [2, 5, 64] {
        let few = Run { checkpoint_every, deterministic: true, ..PLAIN };
        let deaths: u32 = (0..100).map(|seed| run(seed, few).deaths).sum();
        assert!(deaths > 40, "only {deaths} servers died");
    }
}

#[test]
fn the_same_when_replies_have_to_wait_for_room_in_the_checkpoint() {
    for checkpoint_every in [1, 5] {
        let large = Run { checkpoint_every, deterministic: true, padding: 9000, ..PLAIN };
        let deaths: u32 = (0..40).map(|seed| run(seed, large).deaths).sum();
        assert!(deaths > 100, "only {deaths} servers died");
    }
}

#[test]
fn requests_that_crash_their_servers_or_panic_fail_alone() {
    for checkpoint_every in [1, 5] {
        let poison = Run { checkpoint_every, deterministic: true, poison: true, ..PLAIN };
        let crashed: u32 = (0..200).map(|seed| run(seed, poison).crashed).sum();
        assert!(crashed > 300, "only {crashed} requests crashed their servers");
    }
}

fn request(epoch: u32, number: u64) -> Bytes {
    let (epoch, number) = (Epoch(epoch), RequestNumber(number));
    let acknowledged = RequestNumber(0);
    Frame::Request { epoch, number, acknowledged, announce: false, body: Bytes::new() }.encode()
}

fn refusal(epoch: u32, reason: RefusalReason) -> Vec<Action> {
    vec![Action::Send(Frame::Refusal { epoch: Epoch(epoch), reason }.encode())]
}

/// Passes a message to a server whose requests are answered with nothing. Returns the other actions.
fn serve(server: &mut Server, message: Bytes) -> Vec<Action> {
    server.handle_message(message).unwrap();
    let mut actions = Vec::new();
    while let Some(action) = server.poll_action() {
        if let Action::Execute(_) = action {
            server.finish(Bytes::new(), Bytes::new).unwrap();
        } else {
            actions.push(action);
        }
    }
    actions
}

fn messages(client: &mut Client) -> Vec<Bytes> {
    std::iter::from_fn(|| client.poll_message(instant())).collect()
}

/// Passes what a server sends to the client. Returns the events.
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
                server.finish(body.slice(..40_000), Bytes::new).unwrap();
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
    let long = server.finish(Bytes::from(vec![0; 900]), || vec![0; 200].into());
    assert_eq!(long, Err(RequestFailure::ReplyTooLong { length: 900, limit: 788 }));
    let long = server.finish(Bytes::new(), || vec![0; 972].into());
    assert_eq!(long, Err(RequestFailure::StateTooLong { length: 972, limit: 971 }));
    // The longest state leaves room for the failure.
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
    // It counts as crashed, so the next server is to fail it. Its deadline passes before that.
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
                Action::Execute(_) => drop(server.finish(Bytes::new(), Bytes::new)),
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
        // The request is marked after the first crash, and then the server is lost before it begins.
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
    for length in (0..stored.len()).filter(|length| *length != 20) {
        assert!(Progress::decode(stored.slice(..length)).is_err(), "{length} bytes");
    }
    let mut zero = stored[..20].to_vec();
    zero[12..20].fill(0);
    assert!(Progress::decode(zero.into()).is_err(), "numbers begin at 1");
    assert!(Progress::decode(Bytes::from(vec![0xff; 20])).is_err());
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
