//! Fuzzes the protocol between clients and servers of replicated services: no frame and no cookie
//! makes either end panic, and a decoded frame encodes to the same bytes.
#![no_main]

use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use libfuzzer_sys::fuzz_target;
use rserpool::cookie::{KeyRing, Seal, clear_part};
use rserpool::proto::replay::{
    Action, Client, ClientConfig, Frame, Progress, RequestOptions, Server, ServerConfig,
};
use rserpool::proto::wire::Bytes;

static SEAL: LazyLock<Seal> =
    LazyLock::new(|| Seal::new("Pool".parse().expect("a handle"), KeyRing::generate()));

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(frame) = Frame::decode(bytes.clone()) {
        let encoded = frame.encode();
        assert_eq!(Frame::decode(encoded), Ok(frame));
    }
    let _ = clear_part(&bytes);
    assert!(SEAL.open(SystemTime::UNIX_EPOCH, &bytes).is_err());

    // Splits the input into messages, each of which is preceded by a byte with its length.
    let config = ServerConfig { checkpoint_every: 2, room: 200, max_reply: 100 };
    let mut server = Server::new(config);
    let client = ClientConfig { limit: 4, max_crashes: 2 };
    let (mut client, now) = (Client::new(client), Instant::now());
    client.handle_connected(now, None);
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let length = usize::from(rest.split_to(1)[0]).min(rest.len());
        let message = rest.split_to(length);
        serve(&mut server, &mut client, message.clone());
        let _ = client.handle_message(now, message.clone(), Some(&message));
        while let Some(message) = client.poll_message(now) {
            assert!(Frame::decode(message).is_ok());
        }
        if length == 3 {
            client.handle_lost();
            let progress = client.progress().encode();
            assert_eq!(Progress::decode(progress), Ok(client.progress()));
            client.handle_connected(now, None);
        }
        if length > 12 {
            let _ = Server::restore(config, &message.slice(..12), message.slice(12..));
            if let Ok(progress) = Progress::decode(message) {
                let _ = Client::resume(ClientConfig { limit: 4, max_crashes: 2 }, progress);
            }
        }
    }
    let _ = client.start_afresh(now);
    while client.poll_message(now).is_some() {}
});

/// Passes a message to the server, executes its actions, and passes its messages to the client.
fn serve(server: &mut Server, client: &mut Client, message: Bytes) {
    let now = Instant::now();
    if server.handle_message(message).is_err() {
        return;
    }
    let mut checkpoint = None;
    while let Some(action) = server.poll_action() {
        match action {
            Action::Execute(body) => {
                let _ = client.submit(now, body.clone(), RequestOptions::default());
                let state = body.slice(..body.len() / 2);
                if let Err(failure) = server.finish(body, || Ok(state)) {
                    server.fail(failure, Bytes::new());
                }
            }
            Action::Fail(failure) => server.fail(failure, Bytes::new()),
            Action::Reset => {}
            Action::Checkpoint { clear, rest } => {
                assert!(rest.len() <= server.config().room);
                assert!(Server::restore(server.config(), &clear, rest).is_ok());
                checkpoint = Some(clear);
            }
            Action::Send(message) => {
                let _ = client.handle_message(now, message, checkpoint.as_deref());
            }
        }
    }
}
