//! Fuzzes the protocol between clients and servers of replicated services: no frame and no cookie
//! makes either end panic, and a decoded frame encodes to the same bytes.
#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use rserpool::cookie::{KeyRing, Seal, clear_part};
use rserpool::proto::replay::{Action, Client, Frame, Server};
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
    let (mut server, mut client) = (Server::new(), Client::new(4));
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let length = usize::from(rest.split_to(1)[0]).min(rest.len());
        let message = rest.split_to(length);
        if let Ok(Action::Begin(body) | Action::Do(body)) = server.handle_message(message.clone()) {
            let _ = client.submit(body.clone());
            let reply = server.finish(body);
            let (clear, state) = server.checkpoint(b"state");
            let (_, restored) = Server::restore(&clear, state).expect("just made");
            assert_eq!(&restored[..], b"state");
            let _ = client.handle_message(reply, Some(&clear));
        }
        let _ = client.handle_message(message.clone(), Some(&message));
        if length > 12 {
            let _ = Server::restore(&message.slice(..12), message.slice(12..));
        }
    }
    let _ = client.start_afresh();
    let _ = client.replay().count();
});
