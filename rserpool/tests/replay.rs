//! Tests checkpoint and replay with servers that crash at any moment, in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rserpool::cookie::{KeyRing, Lineage, Seal, clear_part};
use rserpool_proto::replay::{
    Action, Answer, Client, ClientConfig, ClientEvent, Progress, RequestFailure, RequestNumber,
    RequestOptions, Server, ServerConfig,
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

/// Effect of a request on its server. A request consists of its number, the length of the reply,
/// and its effect.
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

/// A server process with one session. For each request, its service records a random number, the
/// mark, and replies with the mark and some padding. The test thereby detects a reply whose mark is
/// missing in the state of the next servers.
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
        match self.machine.finish(reply.into(), || Ok(state.into())) {
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

/// Parameters of a run: the interval between checkpoints of a server, and the kinds of requests.
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

/// Outcome of a run.
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
            // After a crash, only some of the messages in flight to the client arrive. If the
            // number of crashes is checked, all of them arrive.
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
