//! Tests checkpoint and replay with servers that crash at any moment, in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rserpool::cookie::{KeyRing, Lineage, Seal, clear_part};
use rserpool_proto::replay::{
    Action, Client, ClientEvent, Epoch, Frame, RefusalReason, RequestNumber, Server,
};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A message from the server to the client.
#[derive(Debug)]
enum Down {
    Cookie(Bytes),
    Data(Bytes),
}

/// A server process with one session. Its service records each request with a random number, the
/// mark, and replies with that mark. So the test notices a reply whose mark the next servers do not
/// know.
#[derive(Debug)]
struct Process {
    machine: Server,
    lineage: Lineage,
    /// Pairs of a request and its mark, eight bytes each.
    state: Vec<u8>,
    checkpoint_every: u32,
}

impl Process {
    fn new(checkpoint_every: u32) -> Self {
        let (machine, lineage) = (Server::new(), Lineage::new());
        Self { machine, lineage, state: Vec::new(), checkpoint_every }
    }

    fn take_over(&mut self, seal: &Seal, cookie: &Bytes) {
        let opened = seal.open(now(), cookie).unwrap();
        let (machine, state) = Server::restore(&opened.clear, opened.state).unwrap();
        (self.machine, self.lineage, self.state) = (machine, opened.lineage, state.to_vec());
    }

    fn handle(&mut self, seal: &Seal, message: Bytes, mark: u64, down: &mut VecDeque<Down>) {
        let request = match self.machine.handle_message(message).unwrap() {
            Action::Begin(body) => {
                self.state.clear();
                body
            }
            Action::Do(body) => body,
            Action::Send(message) | Action::Refuse(message) => {
                return down.push_back(Down::Data(message));
            }
            Action::Nothing => return,
        };
        self.state.extend_from_slice(&request);
        self.state.extend_from_slice(&mark.to_be_bytes());
        let reply = self.machine.finish(Bytes::from(mark.to_be_bytes().to_vec()));
        if self.machine.since_checkpoint() >= self.checkpoint_every {
            let (clear, rest) = self.machine.checkpoint(&self.state);
            let cookie = seal.seal(now(), &mut self.lineage, &clear, &rest).unwrap();
            down.push_back(Down::Cookie(cookie));
        }
        down.push_back(Down::Data(reply));
    }
}

/// Runs one client against servers that crash at random times drawn from the seed. `deterministic`
/// services give the same mark to the same request on all servers. Returns the number of crashes.
fn run(seed: u64, checkpoint_every: u32, deterministic: bool) -> u32 {
    const REQUESTS: u64 = 60;
    let rng = &mut StdRng::seed_from_u64(seed);
    let ring = KeyRing::generate();
    let seal = |ring: &KeyRing| Seal::new("Pool".parse().unwrap(), ring.clone());
    let depth = rng.random_range(1..=8);
    // Crash rarely enough that some servers reach the next checkpoint.
    let death = rng.random_range(0.01..0.3) / f64::from(checkpoint_every);
    let mut client = Client::new(depth);
    let mut cookie: Option<Bytes> = None;
    let mut server = (Process::new(checkpoint_every), seal(&ring));
    let (mut up, mut down) = (VecDeque::<Bytes>::new(), VecDeque::new());
    let mut seen: Vec<u64> = Vec::new();
    let mut begun = 0;
    let mut deaths = 0;
    let mut steps = 0;
    while (seen.len() as u64) < REQUESTS {
        steps += 1;
        assert!(steps < 100_000, "seed {seed}: no progress, {} replies", seen.len());
        if rng.random_bool(death) {
            deaths += 1;
            // On a crash, some of the messages on their way to the client still arrive.
            down.truncate(rng.random_range(0..=down.len()));
            while let Some(message) = down.pop_front() {
                hear(&mut client, message, &mut cookie, &mut seen);
            }
            up.clear();
            server = (Process::new(checkpoint_every), seal(&ring));
            if let Some(cookie) = &cookie {
                server.0.take_over(&server.1, cookie);
            }
            up.extend(client.replay());
        }
        match rng.random_range(0..3) {
            0 if begun < REQUESTS && client.has_room() => {
                begun += 1;
                let body = Bytes::from(begun.to_be_bytes().to_vec());
                let (number, message) = client.submit(body).unwrap();
                assert_eq!(number, RequestNumber(begun));
                up.push_back(message);
            }
            1 => {
                if let Some(message) = up.pop_front() {
                    let mark = if deterministic { 7 } else { rng.random() };
                    server.0.handle(&server.1, message, mark, &mut down);
                }
            }
            _ => {
                if let Some(message) = down.pop_front() {
                    hear(&mut client, message, &mut cookie, &mut seen);
                }
            }
        }
    }
    // The last server knows each request once, in order, with the reply that the client saw.
    let expected: Vec<u8> = (1..=REQUESTS)
        .zip(&seen)
        .flat_map(|(number, mark)| [number.to_be_bytes(), mark.to_be_bytes()].concat())
        .collect();
    let known = &server.0.state;
    assert_eq!(known[..], expected[..known.len()], "seed {seed}");
    if checkpoint_every == 1 {
        let mut successor = Process::new(1);
        successor.take_over(&seal(&ring), cookie.as_ref().unwrap());
        assert_eq!(successor.state, expected, "seed {seed}: the last checkpoint has all");
    }
    deaths
}

fn hear(client: &mut Client, message: Down, cookie: &mut Option<Bytes>, seen: &mut Vec<u64>) {
    match message {
        Down::Cookie(new) => *cookie = Some(new),
        Down::Data(message) => {
            let clear = cookie.as_ref().and_then(clear_part);
            match client.handle_message(message, clear.as_deref()).unwrap() {
                ClientEvent::Reply { number, body } => {
                    seen.push(u64::from_be_bytes(body[..].try_into().unwrap()));
                    assert_eq!(number, RequestNumber(seen.len() as u64), "each once, in order");
                }
                ClientEvent::Nothing => {}
                ClientEvent::Refused(reason) => panic!("refused: {reason}"),
            }
        }
    }
}

#[test]
fn each_request_is_answered_once_whenever_servers_die() {
    let deaths: u32 = (0..400).map(|seed| run(seed, 1, false)).sum();
    assert!(deaths > 3000, "only {deaths} servers died");
}

#[test]
fn the_same_with_few_checkpoints_if_replies_follow_from_the_state() {
    for checkpoint_every in [2, 5, 64] {
        let deaths: u32 = (0..100).map(|seed| run(seed, checkpoint_every, true)).sum();
        assert!(deaths > 40, "only {deaths} servers died");
    }
}

fn request(epoch: u32, number: u64) -> Bytes {
    let (epoch, number) = (Epoch(epoch), RequestNumber(number));
    Frame::Request { epoch, number, acknowledged: RequestNumber(0), body: Bytes::new() }.encode()
}

fn refusal(epoch: u32, reason: RefusalReason) -> Action {
    Action::Refuse(Frame::Refusal { epoch: Epoch(epoch), reason }.encode())
}

#[test]
fn without_the_checkpoint_a_session_starts_afresh_or_not_at_all() {
    let mut client = Client::new(8);
    let mut messages: Vec<_> =
        (0..5).map(|_| client.submit(Bytes::from_static(b"do")).unwrap().1).collect();
    let mut server = Server::new();
    for message in messages.drain(..2) {
        assert!(matches!(
            server.handle_message(message).unwrap(),
            Action::Begin(_) | Action::Do(_)
        ));
        let reply = server.finish(Bytes::new());
        server.checkpoint(b"");
        assert!(matches!(client.handle_message(reply, None).unwrap(), ClientEvent::Reply { .. }));
    }
    // The client has no checkpoint to send, and knows of none that contains any request. It keeps
    // the two requests, and sends them again to be repeated.
    assert_eq!(client.replay().count(), 5);
    let reach = [&1_u32.to_be_bytes()[..], &2_u64.to_be_bytes()[..]].concat();
    let Action::Do(_) = server.handle_message(messages.remove(0)).unwrap() else { panic!() };
    let reply = server.finish(Bytes::new());
    assert!(matches!(
        client.handle_message(reply, Some(&reach)).unwrap(),
        ClientEvent::Reply { number: RequestNumber(3), .. }
    ));
    assert_eq!(client.replay().count(), 3, "the checkpoint holds the first two");

    let mut other = Server::new();
    other.refuse_checkpoint();
    let mut replay = client.replay();
    let refused = other.handle_message(replay.next().unwrap()).unwrap();
    assert_eq!(refused, refusal(1, RefusalReason::CheckpointRefused));
    for message in replay {
        assert_eq!(other.handle_message(message).unwrap(), Action::Nothing);
    }
    let Action::Refuse(message) = refused else { panic!() };
    let heard = client.handle_message(message, None).unwrap();
    assert_eq!(heard, ClientEvent::Refused(RefusalReason::CheckpointRefused));

    assert_eq!(client.start_afresh(), 3, "so many are lost with their effects");
    let replay: Vec<_> = client.replay().collect();
    assert_eq!(replay.len(), 2);
    for (message, expected) in replay.into_iter().zip(4..) {
        assert!(matches!(other.handle_message(message).unwrap(), Action::Begin(_) | Action::Do(_)));
        let reply = other.finish(Bytes::new());
        let heard = client.handle_message(reply, None).unwrap();
        assert!(
            matches!(heard, ClientEvent::Reply { number, .. } if number == RequestNumber(expected))
        );
    }
    assert_eq!(client.submit(Bytes::new()).unwrap().0, RequestNumber(6));
}

#[test]
fn what_a_hostile_client_sends_is_refused() {
    let mut server = Server::new();
    assert_eq!(
        server.handle_message(request(1, 9)).unwrap(),
        refusal(1, RefusalReason::NoCheckpoint)
    );
    assert_eq!(server.handle_message(request(1, 1)).unwrap(), Action::Nothing, "a refused epoch");
    assert!(matches!(server.handle_message(request(2, 1)).unwrap(), Action::Begin(_)));
    server.finish(Bytes::new());
    assert_eq!(
        server.handle_message(request(2, 3)).unwrap(),
        refusal(2, RefusalReason::OutOfOrder)
    );
    assert!(server.handle_message(Bytes::from_static(b"rubbish")).is_err());
    let reach = Bytes::from([&1_u32.to_be_bytes()[..], &2_u64.to_be_bytes()[..]].concat());
    for rest in [&b""[..], &[0; 8], &u64::MAX.to_be_bytes(), &[0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9]]
    {
        let restored = Server::restore(&reach, Bytes::from(rest.to_vec()));
        assert!(restored.is_err(), "{rest:?}");
    }
    let endless = Bytes::from([&1_u32.to_be_bytes()[..], &u64::MAX.to_be_bytes()[..]].concat());
    assert!(Server::restore(&endless, Bytes::from(vec![0; 100])).is_err());
}

#[test]
fn a_life_of_which_nothing_came_is_not_followed_by_another() {
    let mut client = Client::new(2);
    client.submit(Bytes::new()).unwrap();
    assert!(client.may_start_afresh());
    client.start_afresh();
    assert!(!client.may_start_afresh(), "the servers refuse every epoch of it");
    let mut server = Server::new();
    let message = client.replay().next().unwrap();
    assert!(matches!(server.handle_message(message).unwrap(), Action::Begin(_)));
    client.handle_message(server.finish(Bytes::new()), None).unwrap();
    assert!(client.may_start_afresh());
}
