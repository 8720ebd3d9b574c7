//! Fuzzes a connection over TLS between two ends: its bytes arrive in parts, altered, or not at all,
//! and either end closes at any time. Whatever arrives was sent, in this order; a connection is
//! closed in good order only if everything was received.
#![no_main]

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rserpool::proto::wire::{Ppid, TransportAddress, UserMessage};
use rserpool::runtime::Runtime;
use rserpool::transport::tls::TlsConfig;
use rserpool::transport::{Connection, Event, Purpose, Tls, Transport};
use rserpool_fuzz::asap;
use rserpool_fuzz::pipe::{Driven, Pipes};

static TLS: LazyLock<(Pipes, Tls)> = LazyLock::new(|| {
    let key = || KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority");
    let (params, key) = (CertificateParams::new(["end.example".into()]).expect("a name"), key());
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = TlsConfig::new(provider, authority.pem().as_bytes())
        .and_then(|it| it.certificate(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()))
        .expect("a configuration");
    let pipes = Pipes::default();
    let tls = Tls::over(pipes.clone(), &config).expect("TLS");
    (pipes, tls)
});

fuzz_target!(|data: &[u8]| {
    let driven = Driven::default();
    let _ = play(&driven, &mut Unstructured::new(data));
    driven.stop();
});

/// One end of the connection.
#[derive(Default)]
struct End {
    connection: Option<Box<dyn Connection>>,
    sent: VecDeque<UserMessage>,
    closing: bool,
}

fn play(driven: &Driven, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let (pipes, tls) = &*TLS;
    let cx = &mut Context::from_waker(Waker::noop());
    let runtime: Arc<dyn Runtime> = Arc::new(driven.clone());
    let purpose = *u.choose(&[Purpose::Session, Purpose::Protocol(Ppid::ASAP)])?;
    let listen = TransportAddress::tcp(([127, 0, 0, 1], 3864).into());
    let mut server = tls.open(&runtime, purpose, Some(&listen)).expect("an endpoint");
    let mut client = tls.open(&runtime, purpose, None).expect("an endpoint");
    let mut ends = [End::default(), End::default()];
    ends[0].connection = Some(client.connect(&listen));
    let wire = pipes.wire();
    // Most connections complete their handshakes first.
    let (mut honest, mut steps) = (u.ratio(3, 4)?, 0);
    while honest || !u.is_empty() {
        steps += 1;
        let operation = if honest { 2 } else { u.int_in_range(0..=15)? };
        honest &= steps < 10;
        let side = if honest { steps % 2 } else { usize::from(u.arbitrary::<bool>()?) };
        match operation {
            0..=3 => {
                let length = if honest { usize::MAX } else { u.arbitrary::<u16>()?.into() };
                let mut wire = wire.lock().expect("one thread");
                for direction in &mut wire.directions {
                    direction.delivered = length;
                }
            }
            4..=8 => {
                let message = if purpose == Purpose::Session {
                    let payload = vec![u.arbitrary()?; u.int_in_range(1..=40_000)?];
                    UserMessage::new(Ppid(u.int_in_range(1..=3)?), payload)
                } else {
                    let Ok(payload) = asap(u)?.encode() else { continue };
                    UserMessage::new(Ppid::ASAP, payload)
                };
                let end = &mut ends[side];
                if let Some(connection) = &mut end.connection
                    && connection.send(message.clone()).is_ok()
                {
                    assert!(!end.closing, "sent after the end");
                    end.sent.push_back(message);
                }
            }
            9 => ends[side].closing = true,
            10 => wire.lock().expect("one thread").stalled ^= true,
            11 if u.ratio(1, 4)? => {
                let direction = &mut wire.lock().expect("one thread").directions[side];
                direction.ended = true;
                direction.lost = u.arbitrary()?;
                direction.bytes.truncate(u.int_in_range(0..=direction.bytes.len())?);
            }
            12 => {
                let bytes = &mut wire.lock().expect("one thread").directions[side].bytes;
                let at = u.int_in_range(0..=bytes.len())?;
                match bytes.get_mut(at) {
                    Some(byte) if u.arbitrary()? => *byte ^= u.int_in_range(1..=255)?,
                    Some(_) if u.arbitrary()? => drop(bytes.remove(at)),
                    _ => bytes.insert(at, u.arbitrary()?),
                }
            }
            13 if u.ratio(1, 8)? => driven.pass(Duration::from_secs(3)),
            _ => {}
        }
        driven.run();
        if let Poll::Ready(Ok(connection)) = server.poll_accept(cx) {
            ends[1].connection = Some(connection);
        }
        driven.run();
        for side in 0..2 {
            poll(cx, &mut ends, side);
        }
    }
    Ok(())
}

/// Polls an end until it waits, and compares what it receives with what the other one sent.
fn poll(cx: &mut Context<'_>, ends: &mut [End; 2], side: usize) {
    let mut polls = 0;
    while let Some(connection) = &mut ends[side].connection {
        polls += 1;
        assert!(polls < 10_000, "no end of events");
        if ends[side].closing {
            if connection.poll_close(cx).is_ready() {
                ends[side].connection = None;
            }
            return;
        }
        let _ = connection.poll_ready(cx);
        let other = 1 - side;
        match connection.poll_event(cx) {
            Poll::Ready(Event::Message(message)) => {
                assert_eq!(Some(message), ends[other].sent.pop_front(), "not what was sent");
            }
            Poll::Ready(Event::Closed) => {
                assert!(ends[other].closing && ends[other].sent.is_empty(), "cut off unnoticed");
                ends[side].connection = None;
            }
            Poll::Ready(Event::Lost(_)) => ends[side].connection = None,
            Poll::Ready(Event::Established { .. }) => {}
            Poll::Ready(event) => panic!("{event:?}"),
            Poll::Pending => return,
        }
    }
}
