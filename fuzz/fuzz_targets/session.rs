//! Fuzzes the state machine of a session with arbitrary messages of elements and answers of
//! registrars: it must not panic or produce outputs without end.
#![no_main]

use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use rserpool::proto::session::{Output, SessionConfig};
use rserpool::proto::user::ResolveError;
use rserpool::proto::wire::asap::{Body, Resolved};
use rserpool::proto::wire::{Ppid, TransportProtocol, UserMessage};
use rserpool::proto::{ConnectionEvent, ConnectionId, Session};
use rserpool_fuzz::{address, asap, handle};

fuzz_target!(|data: &[u8]| {
    let _ = play(&mut Unstructured::new(data));
});

fn play(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut now = Instant::now();
    let config = SessionConfig::default();
    let pool = handle(u)?;
    let mut session = Session::new(config, [TransportProtocol::Tcp, TransportProtocol::Sctp]);
    session.start(now);
    let mut connections: Vec<ConnectionId> = Vec::new();
    while !u.is_empty() {
        let mut outputs = 0;
        while let Some(output) = session.poll_output() {
            outputs += 1;
            assert!(outputs < 1000, "no end of outputs");
            match output {
                Output::Connect { connection, .. } => connections.push(connection),
                Output::Close { connection, .. } => connections.retain(|its| *its != connection),
                _ => {}
            }
        }
        let connection = connections.last().copied().unwrap_or(ConnectionId(0));
        match u.int_in_range(0..=9)? {
            0 => {
                now += Duration::from_millis(u.arbitrary::<u16>()?.into());
                session.handle_timeout(now);
            }
            1 | 2 => {
                let result = match asap(u)?.body {
                    Body::HandleResolutionResponse(response) => match response.result {
                        Resolved::Pool { elements, .. } => Ok(elements),
                        Resolved::Error(error) => Err(ResolveError::Refused(error)),
                        _ => Ok(Vec::new()),
                    },
                    Body::BusinessCard(card) => Ok(card.elements),
                    _ => Err(ResolveError::UnknownPool(pool.clone())),
                };
                session.handle_resolution(now, result);
            }
            3 => {
                let (local, peer) = (address(u)?, address(u)?);
                let event = ConnectionEvent::Established { local, peer, identity: None };
                session.handle_connection(now, connection, &event);
            }
            4 => session.handle_connection(now, connection, &ConnectionEvent::Lost),
            5 if u.ratio(1, 4)? => {
                session.handle_connection(now, connection, &ConnectionEvent::Closed);
            }
            6 if u.arbitrary()? => session.handle_refusal(now),
            6 => session.fail_over(now),
            7 => {
                let data = UserMessage::new(Ppid(7), u.arbitrary::<Vec<u8>>()?);
                let _ = session.send(now, data.clone());
                while session.poll_output().is_some() {}
                session.handle_message(now, connection, data);
            }
            _ => {
                if let Ok(payload) = asap(u)?.encode() {
                    let message = UserMessage::new(Ppid::ASAP, payload);
                    session.handle_message(now, connection, message);
                }
            }
        }
    }
    Ok(())
}
