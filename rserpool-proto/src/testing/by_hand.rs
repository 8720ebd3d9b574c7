//! Functions with which a test exchanges single ASAP and ENRP messages with a state machine. The
//! test sends from the address 10.0.0.99, at which no state machine runs.

use crate::ConnectionId;
use crate::wire::{
    PoolElement, PoolElementId, Ppid, RegistrarId, RegistrationLife, TransportAddress, UserMessage,
    asap, enrp,
};

use crate::testing::world::{World, address};

/// Sends an ASAP message on a connection of the test.
pub fn send_asap(world: &mut World, on: ConnectionId, message: impl Into<asap::Message>) {
    let payload = message.into().encode().expect("a message that fits");
    world.send(on, UserMessage::new(Ppid::ASAP, payload));
}

/// Sends an ENRP message on a connection of the test.
pub fn send_enrp(world: &mut World, on: ConnectionId, message: impl Into<enrp::Message>) {
    let payload = message.into().encode().expect("a message that fits");
    world.send(on, UserMessage::new(Ppid::ENRP, payload));
}

/// Removes and returns the messages received over `on`.
fn take(world: &mut World, on: ConnectionId, protocol: Ppid) -> Vec<UserMessage> {
    let received = std::mem::take(&mut world.received);
    let (ours, others): (Vec<_>, Vec<_>) = received.into_iter().partition(|(its, _)| *its == on);
    world.received = others;
    ours.into_iter()
        .map(|(_, message)| {
            assert_eq!(message.ppid, protocol, "the protocol of the connection");
            message
        })
        .collect()
}

/// Removes and returns the ASAP messages received over `on`.
pub fn take_asap(world: &mut World, on: ConnectionId) -> Vec<asap::Body> {
    let decode = |message: UserMessage| asap::Message::decode(&message.payload).map(|it| it.body);
    let messages = take(world, on, Ppid::ASAP).into_iter();
    messages.map(|message| decode(message).expect("an ASAP message")).collect()
}

/// Removes and returns the ENRP messages received over `on`.
pub fn take_enrp(world: &mut World, on: ConnectionId) -> Vec<enrp::Body> {
    let decode = |message: UserMessage| enrp::Message::decode(&message.payload).map(|it| it.body);
    let messages = take(world, on, Ppid::ENRP).into_iter();
    messages.map(|message| decode(message).expect("an ENRP message")).collect()
}

/// Returns the registration of a round robin element at the address of the test, for 90 seconds.
#[must_use]
pub fn registration(pool: &str, identifier: u32) -> asap::Registration {
    let service = TransportAddress { port: 7, ..address(99) };
    asap::Registration {
        pool_handle: pool.parse().expect("a pool handle"),
        pool_element: PoolElement {
            identifier: PoolElementId(identifier),
            home_registrar: RegistrarId(0),
            registration_life: RegistrationLife(90),
            user_transport: service.into(),
            policy: "RoundRobin".parse().expect("a policy"),
            asap_transport: Some(address(99)),
        },
    }
}
