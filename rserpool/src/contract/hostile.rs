//! Tests of a registrar against arbitrary messages.

use std::time::Duration;

use rserpool_proto::user::{ResolveError, ResolveOptions};
use rserpool_proto::wire::asap::{Body, HandleResolution, Message, Registration, Resolved};
use rserpool_proto::wire::{
    PolicyParameters, PolicyType, PoolElement, PoolElementId, PoolHandle, Ppid, RegistrarId,
    RegistrationLife, TransportAddress, TransportProtocol, TransportUse, UserMessage,
};

use super::service::{new_user, pool, start_counter, start_registrar};
use super::transport::{event, message, send};
use super::{any_address, pause};
use crate::transport::{Connection, Event, Purpose};
use crate::{MessengerError, Network, Registrar, RegistrarConfig};

const ASAP: Purpose = Purpose::Protocol(Ppid::ASAP);

async fn dial(
    network: &Network,
    registrar: &TransportAddress,
) -> (Box<dyn Connection>, TransportAddress) {
    let mut endpoint = network.dialler(ASAP).expect("a dialler");
    let mut connection = endpoint.connect(registrar);
    let Event::Established { local, .. } = event(&mut *connection).await else {
        panic!("not established")
    };
    (connection, local)
}

async fn ask(connection: &mut dyn Connection, request: impl Into<Message>) -> Body {
    let payload = request.into().encode().expect("it is short");
    send(connection, UserMessage::new(Ppid::ASAP, payload)).await;
    let answer = message(connection).await;
    Message::decode(&answer.payload).expect("it is ASAP").body
}

/// Returns the registration of an element that accepts no session.
fn silent_element(
    pool: &PoolHandle,
    policy: PolicyParameters,
    local: TransportAddress,
) -> Registration {
    let user_transport =
        TransportAddress { port: 7, usage: TransportUse::DATA_PLUS_CONTROL, ..local.clone() };
    Registration {
        pool_handle: pool.clone(),
        pool_element: PoolElement {
            identifier: PoolElementId(1),
            home_registrar: RegistrarId(0),
            registration_life: RegistrationLife(60),
            user_transport: user_transport.into(),
            policy,
            asap_transport: Some(local),
        },
    }
}

/// Checks that a message to all elements reaches those behind one that cannot be reached, and that
/// the sender is told of those that were not reached, also if the registrar does not list them.
pub async fn a_message_to_all_tells_whom_it_did_not_reach(network: Network) {
    let round_robin = PolicyParameters::round_robin();
    for (max_items, more) in [(128, false), (2, true)] {
        let config = RegistrarConfig::default().ready_after(Duration::ZERO).max_items(max_items);
        let registrar = Registrar::start(&network, [any_address(&network)], config);
        let registrar = registrar.expect("the address is free");
        let address = registrar.local_address();
        let (mut connection, local) = dial(&network, address).await;
        let silent = silent_element(&pool(), round_robin.clone(), local);
        let answer = ask(&mut *connection, silent).await;
        assert!(matches!(answer, Body::RegistrationResponse(response) if !response.reject));
        let counters =
            [start_counter(&network, address).await, start_counter(&network, address).await];
        let mut messenger = new_user(&network, address).messenger(pool()).expect("a dialler");
        let message = UserMessage::new(Ppid(99), b"next".as_slice());
        let sent = messenger.send_to_all(message.clone()).await.expect("two read");
        assert_eq!(sent.more, more);
        if more {
            assert_eq!(sent.reached.len() + sent.missed.len(), 2);
        } else {
            assert_eq!((sent.reached.len(), sent.missed), (2, vec![PoolElementId(1)]));
            for counter in &counters {
                messenger.send_to(counter.identifier, message.clone()).await.expect("it is there");
            }
        }
        let nobody = messenger.send_to(PoolElementId(2), message).await;
        assert!(matches!(nobody, Err(MessengerError::NoElement(_))), "{nobody:?}");
    }
}

/// Checks that messages known to crash other registrar implementations are answered or dropped by
/// this project's registrar, and that it serves requests afterwards.
pub async fn what_ends_other_registrars_is_answered(network: Network) {
    let registrar = start_registrar(&network, &any_address(&network));
    let address = registrar.local_address().clone();
    let user = new_user(&network, &address);
    let still_serving = async || {
        let nobody: PoolHandle = "Nobody".parse().expect("a handle");
        let result = user.resolve(nobody.clone(), ResolveOptions::default()).await;
        assert_eq!(result, Err(ResolveError::UnknownPool(nobody)));
    };
    let (mut connection, local) = dial(&network, &address).await;

    // Send a pool handle of 33 bytes.
    let long: PoolHandle = "x".repeat(33).parse().expect("a handle");
    let answer = ask(&mut *connection, HandleResolution::new(long)).await;
    assert!(matches!(answer, Body::HandleResolutionResponse(response)
        if matches!(response.result, Resolved::Error(_))));
    still_serving().await;

    // Resolve a pool whose elements all have weight zero. Selecting one of them is better than
    // selecting none.
    let weightless: PoolHandle = "Weightless".parse().expect("a handle");
    let policy = PolicyParameters::new(PolicyType::WEIGHTED_RANDOM, &[0]);
    let answer = ask(&mut *connection, silent_element(&weightless, policy, local)).await;
    assert!(matches!(answer, Body::RegistrationResponse(response) if !response.reject));
    let answer = ask(&mut *connection, HandleResolution::new(weightless)).await;
    let Body::HandleResolutionResponse(response) = answer else { panic!("{answer:?}") };
    assert!(matches!(response.result, Resolved::Pool { elements, .. } if elements.len() == 1));
    still_serving().await;

    // Send a message whose length field exceeds its size. Over TCP the registrar waits for the
    // rest.
    let truncated = UserMessage::new(Ppid::ASAP, b"\x05\0\0\x10\0\x09\0\x0cEcho".as_slice());
    let (mut other, _) = dial(&network, &address).await;
    send(&mut *other, truncated.clone()).await;
    if network.protocol() == TransportProtocol::Sctp {
        let answer = message(&mut *other).await;
        let answer = Message::decode(&answer.payload).expect("it is ASAP").body;
        assert!(matches!(answer, Body::Error(_)), "{answer:?}");
    }
    still_serving().await;
    drop(other);

    // Send messages with payload protocol identifiers of other protocols. The registrar must not
    // take them for ASAP, whatever they contain.
    if network.protocol() == TransportProtocol::Sctp {
        let payload = Message::from(HandleResolution::new("Nobody".parse().expect("a handle")))
            .encode()
            .expect("it is short");
        for ppid in [Ppid::NONE, Ppid::ENRP, Ppid(99)] {
            send(&mut *connection, UserMessage::new(ppid, payload.clone())).await;
        }
        // The registrar answers only the ASAP message, so the first answer is the answer to that.
        let request = HandleResolution::new("Somebody".parse().expect("a handle"));
        let answer = ask(&mut *connection, request).await;
        let Body::HandleResolutionResponse(response) = answer else { panic!("{answer:?}") };
        assert_eq!(response.pool_handle.to_string(), "Somebody");
    }
    still_serving().await;

    // Close a connection in the middle of a message.
    let (mut other, _) = dial(&network, &address).await;
    let mut payload = b"\x05\0\xff\xfc\0\x09\xff\xf8".to_vec();
    payload.resize(60_000, b'x');
    send(&mut *other, UserMessage::new(Ppid::ASAP, payload)).await;
    drop(other);
    pause(&network, 20).await;
    still_serving().await;
}
