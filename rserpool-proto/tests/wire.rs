//! Tests of the wire format against bytes that the reference implementation sent.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rserpool_proto::wire::parameter::{Cookie, ItemCount};
use rserpool_proto::wire::{
    self, DecodeErrorKind, EncodeError, ErrorCause, Message, OperationError, ParameterType,
    PolicyParameters, PolicyType, PoolElement, PoolElementId, PoolHandle, RegistrarId,
    RegistrationLife, TransportAddress, TransportProtocol, TransportUse, UserTransport, asap, enrp,
};

/// Parses hexadecimal digits, with spaces between them.
fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn captured() -> Vec<(bool, Bytes)> {
    include_str!("data/rsplib-messages.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (protocol, digits) = line.split_once(' ').unwrap();
            (protocol == "asap", hex(digits))
        })
        .collect()
}

fn reencode<B: wire::Body + PartialEq>(bytes: &Bytes) -> Result<Bytes, wire::DecodeError> {
    let message = Message::<B>::decode(bytes)?;
    let encoded = message.encode().unwrap();
    assert_eq!(Message::<B>::decode(&encoded).as_ref(), Ok(&message));
    Ok(encoded)
}

#[test]
fn captured_messages_decode_and_encode_back_to_the_same_bytes() {
    let messages = captured();
    assert!(messages.len() > 160);
    for (is_asap, bytes) in messages {
        let encoded =
            if is_asap { reencode::<asap::Body>(&bytes) } else { reencode::<enrp::Body>(&bytes) };
        assert_eq!(encoded.unwrap_or_else(|error| panic!("{bytes:x}: {error}")), bytes);
    }
}

fn asap_vector(text: &str, body: impl Into<asap::Message>) {
    let bytes = hex(text);
    let message = body.into();
    assert_eq!(asap::Message::decode(&bytes).unwrap(), message);
    assert_eq!(message.encode().unwrap(), bytes);
}

fn enrp_vector(text: &str, body: impl Into<enrp::Message>) {
    let bytes = hex(text);
    let message = body.into();
    assert_eq!(enrp::Message::decode(&bytes).unwrap(), message);
    assert_eq!(message.encode().unwrap(), bytes);
}

fn handle(text: &'static str) -> PoolHandle {
    PoolHandle::new(text).unwrap()
}

fn sctp(port: u16, usage: TransportUse, addresses: &[&str]) -> TransportAddress {
    TransportAddress {
        port,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ..TransportAddress::sctp("0.0.0.0:0".parse().unwrap()).with_usage(usage)
    }
}

fn echo_element(life: i32, user_port: u16, asap_port: Option<u16>) -> PoolElement {
    let both = TransportUse::DATA_PLUS_CONTROL;
    PoolElement {
        identifier: PoolElementId(0xe000_0001),
        home_registrar: RegistrarId(1),
        registration_life: RegistrationLife(life),
        user_transport: sctp(user_port, both, &["10.99.0.1"]).into(),
        policy: PolicyParameters::round_robin(),
        asap_transport: asap_port.map(|port| sctp(port, TransportUse::DATA_ONLY, &["10.99.0.1"])),
    }
}

#[test]
fn registration_and_its_response() {
    asap_vector(
        "0100 0054 0009 0010 50696e67506f6e67506f6f6c 000a 0040 aaaa0002 00000000 00015f90
         0004 0024 9435 0001 0001 0008 0a630001 0002 0014 fd000099000000000000000000000001
         0008 000c 00000002 00000002",
        asap::Registration {
            pool_handle: handle("PingPongPool"),
            pool_element: PoolElement {
                identifier: PoolElementId(0xaaaa_0002),
                home_registrar: RegistrarId(0),
                registration_life: RegistrationLife(90_000),
                user_transport: sctp(
                    0x9435,
                    TransportUse::DATA_PLUS_CONTROL,
                    &["10.99.0.1", "fd00:99::1"],
                )
                .into(),
                policy: "WeightedRoundRobin:2".parse().unwrap(),
                asap_transport: None,
            },
        },
    );
    asap_vector(
        "0300 001c 0009 0010 50696e67506f6e67506f6f6c 000e 0008 aaaa0002",
        asap::RegistrationResponse {
            reject: false,
            pool_handle: handle("PingPongPool"),
            identifier: PoolElementId(0xaaaa_0002),
            error: None,
        },
    );
}

#[test]
fn handle_resolution_and_its_responses() {
    asap_vector(
        "0500 001c 0009 000f 43616c63417070506f6f6c 00 803f 0008 00000001",
        asap::HandleResolution {
            items: Some(ItemCount(1)),
            ..asap::HandleResolution::new(handle("CalcAppPool"))
        },
    );
    asap_vector(
        "0600 0040 0009 000c 4563686f506f6f6c 0008 0008 00000001 000a 0028 e0000001 00000001
         00015f90 0004 0010 9202 0001 0001 0008 0a630001 0008 0008 00000001",
        asap::HandleResolutionResponse {
            subscribed: false,
            partial: false,
            pool_handle: handle("EchoPool"),
            result: asap::Resolved::Pool {
                policy: Some(PolicyParameters::round_robin()),
                elements: vec![echo_element(0x15f90, 0x9202, None)],
            },
        },
    );
    asap_vector(
        "0600 0014 0009 0007 466f6f 00 000c 0008 0009 0004",
        asap::HandleResolutionResponse {
            subscribed: false,
            partial: false,
            pool_handle: handle("Foo"),
            result: asap::Resolved::Error(ErrorCause::UnknownPoolHandle.into()),
        },
    );
}

#[test]
fn keep_alives_reports_announcements_and_cookies() {
    let pool_handle = handle("PingPongPool");
    let identifier = PoolElementId(0xaaaa_0002);
    asap_vector(
        "0700 0020 11111111 0009 0010 50696e67506f6e67506f6f6c 000e 0008 aaaa0002",
        asap::EndpointKeepAlive {
            home: false,
            registrar: RegistrarId(0x1111_1111),
            pool_handle: pool_handle.clone(),
            identifier: Some(identifier),
        },
    );
    asap_vector(
        "0800 001c 0009 0010 50696e67506f6e67506f6f6c 000e 0008 aaaa0002",
        asap::EndpointKeepAliveAck { pool_handle: pool_handle.clone(), identifier },
    );
    asap_vector(
        "0900 001c 0009 0010 50696e67506f6e67506f6f6c 000e 0008 aaaa0002",
        asap::EndpointUnreachable { pool_handle, identifier },
    );
    asap_vector(
        "0a00 0008 11111111",
        asap::ServerAnnounce { registrar: RegistrarId(0x1111_1111), transports: Vec::new() },
    );
    let cookie = Cookie(Bytes::from_static(b"<PP-TD1>\0\0\0\0\0\0\0\x02"));
    asap_vector(
        "0b00 0018 000d 0014 3c50502d5444313e 0000000000000002",
        asap::Cookie { cookie: cookie.clone() },
    );
    asap_vector(
        "0c00 0018 000d 0014 3c50502d5444313e 0000000000000002",
        asap::CookieEcho { cookie },
    );
}

#[test]
fn registrars_among_themselves() {
    let route = |sender, receiver| enrp::Route {
        sender: RegistrarId(sender),
        receiver: RegistrarId(receiver),
    };
    enrp_vector(
        "0100 002c 00000001 00000000 000f 0006 ffff 0000
         000b 0018 00000001 0004 0010 26ad 0000 0001 0008 0a630001",
        enrp::Presence {
            reply_required: false,
            route: route(1, 0),
            checksum: Some(wire::parameter::PeChecksum(0xffff)),
            server: Some(wire::ServerInformation {
                registrar: RegistrarId(1),
                transport: sctp(9901, TransportUse::DATA_ONLY, &["10.99.0.1"]),
            }),
        },
    );
    enrp_vector(
        "0200 000c 00000002 00000001",
        enrp::HandleTableRequest { own_children_only: false, route: route(2, 1) },
    );
    enrp_vector("0500 000c 00000002 00000001", enrp::ListRequest { route: route(2, 1) });
    enrp_vector(
        "0700 0010 00000002 00000001 00000001",
        enrp::InitTakeover { route: route(2, 1), target: RegistrarId(1) },
    );
    enrp_vector(
        "0800 0010 00000003 00000002 00000001",
        enrp::InitTakeoverAck { route: route(3, 2), target: RegistrarId(1) },
    );
    enrp_vector(
        "0400 0054 00000001 00000002 0000 0000 0009 000c 4563686f506f6f6c
         000a 0038 e0000001 00000001 00057e40 0004 0010 86eb 0001 0001 0008 0a630001
         0008 0008 00000001 0004 0010 83a2 0000 0001 0008 0a630001",
        enrp::HandleUpdate {
            takeover_suggested: false,
            route: route(1, 2),
            action: enrp::UpdateAction::Add,
            reserved: 0,
            pool_handle: handle("EchoPool"),
            pool_element: echo_element(0x57e40, 0x86eb, Some(0x83a2)),
        },
    );
}

/// Covers the kinds of transports, causes, policies and messages that captures do not have.
#[test]
fn every_other_parameter_and_message_comes_back_the_same() {
    let round_trip = |message: asap::Message| {
        let bytes = message.encode().unwrap();
        assert_eq!(asap::Message::decode(&bytes).unwrap(), message);
    };
    let with_element = |change: &dyn Fn(&mut PoolElement)| {
        let mut pool_element = echo_element(-1, 80, None);
        change(&mut pool_element);
        asap::Message::from(asap::Registration { pool_handle: handle("A"), pool_element })
    };
    use TransportProtocol as Protocol;
    let dccp = Protocol::Dccp { service_code: 0x5352_5650 };
    for protocol in [dccp, Protocol::Sctp, Protocol::Tcp, Protocol::Udp, Protocol::UdpLite] {
        let address = TransportAddress::new(protocol, "[fd00::1]:80".parse().unwrap());
        round_trip(with_element(&|element| element.user_transport = address.clone().into()));
    }
    let opaque = UserTransport::Opaque(Bytes::from_static(b"pigeons"));
    round_trip(with_element(&|element| element.user_transport = opaque.clone()));
    for policy in PolicyType::KNOWN {
        let words: Vec<u32> = (0..policy.values().unwrap().len() as u32).collect();
        let parameters = PolicyParameters::new(*policy, &words);
        assert_eq!(
            policy.name().unwrap().parse::<PolicyParameters>().unwrap().policy_type(),
            *policy
        );
        round_trip(with_element(&|element| element.policy = parameters.clone()));
    }
    let quoted = hex("0009 0005 41");
    let causes = [
        ErrorCause::Unspecified,
        ErrorCause::UnrecognizedParameter(quoted.clone()),
        ErrorCause::UnrecognizedMessage(quoted.clone()),
        ErrorCause::InvalidValues(quoted.clone()),
        ErrorCause::NonUniqueIdentifier,
        ErrorCause::InconsistentPolicy(quoted.clone()),
        ErrorCause::LackOfResources,
        ErrorCause::InconsistentTransport(quoted.clone()),
        ErrorCause::InconsistentDataControl,
        ErrorCause::UnknownPoolHandle,
        ErrorCause::Security,
        ErrorCause::Other { code: 0xf008, information: quoted },
    ];
    assert!(causes.iter().zip(0..=0xa).all(|(cause, code)| cause.code() == code));
    round_trip(asap::Error { error: causes.into_iter().collect() }.into());
    let elements = vec![echo_element(1, 2, Some(3)), echo_element(1, 4, None)];
    round_trip(asap::BusinessCard { pool_handle: handle("A"), elements: elements.clone() }.into());
    let transports = vec![
        sctp(3863, TransportUse::DATA_ONLY, &["10.0.0.1", "fd00::1"]),
        TransportAddress::tcp("10.0.0.1:3863".parse().unwrap()),
    ];
    let registrar = RegistrarId(7);
    round_trip(asap::ServerAnnounce { registrar, transports: transports.clone() }.into());

    let round_trip = |message: enrp::Message| {
        let bytes = message.encode().unwrap();
        assert_eq!(enrp::Message::decode(&bytes).unwrap(), message);
    };
    let route = enrp::Route { sender: registrar, receiver: RegistrarId(8) };
    let pools = vec![
        enrp::PoolEntry { pool_handle: handle("A"), elements: elements.clone() },
        enrp::PoolEntry { pool_handle: handle("B"), elements },
    ];
    for (more_to_send, reject) in [(true, false), (false, true)] {
        let pools = pools.clone();
        round_trip(enrp::HandleTableResponse { more_to_send, reject, route, pools }.into());
    }
    let transport = transports[0].clone();
    let servers = vec![wire::ServerInformation { registrar, transport }; 2];
    round_trip(enrp::ListResponse { reject: true, route, servers }.into());
    round_trip(enrp::TakeoverServer { route, target: RegistrarId(9) }.into());
    round_trip(enrp::Error { route, error: ErrorCause::Security.into() }.into());
}

#[test]
fn a_length_without_the_last_padding_is_accepted_and_kept() {
    // The length field is 15 and excludes the padding (RFC 5354 section 4); 16 bytes are there.
    let bytes = hex("0500 000f 0009 000b 43616c63506f6f 00");
    let message = asap::Message::decode(&bytes).unwrap();
    assert_eq!(message.encode().unwrap(), bytes);
    // The padding itself may be missing, too.
    assert!(asap::Message::decode(&bytes.slice(..15)).is_ok());
    // The length field of an encoded message includes the padding, as in rsplib.
    let made = asap::Message::from(message.body).encode().unwrap();
    assert_eq!(made, hex("0500 0010 0009 000b 43616c63506f6f 00"));
}

#[test]
fn padding_is_ignored_whatever_it_is() {
    // The handle "A" and its padding, in the middle of the message and at its end.
    for padding in ["00 00 00", "ff fe fd"] {
        let request =
            hex(&format!("05 00 00 14  80 3f 00 08 00 00 00 03  00 09 00 05 41 {padding}"));
        // rsplib puts the item count last.
        let first = asap::Message::decode(&request).unwrap();
        let request =
            hex(&format!("05 00 00 14  00 09 00 05 41 {padding}  80 3f 00 08 00 00 00 03"));
        let message = asap::Message::decode(&request).unwrap();
        let expected = asap::HandleResolution {
            items: Some(ItemCount(3)),
            ..asap::HandleResolution::new(handle("A"))
        };
        assert_eq!(message, first);
        assert_eq!(message, expected.into());
        let last = hex(&format!("05 00 00 0c  00 09 00 05 41 {padding}"));
        let message = asap::Message::decode(&last).unwrap();
        assert_eq!(message, asap::HandleResolution::new(handle("A")).into());
    }
}

/// Decodes a registration of the pool "A" with these parameters in the pool element.
fn register(parameters: &str) -> Result<asap::Registration, DecodeErrorKind> {
    let element = hex(&format!("00 00 00 01  00 00 00 00  00 00 00 3c  {parameters}"));
    let length = 4 + element.len();
    let mut message = hex(&format!("01 00 {:04x}  00 09 00 05 41 00 00 00", 12 + length)).to_vec();
    message.extend(hex(&format!("00 0a {length:04x}")));
    message.extend(element);
    match asap::Message::decode(&message.into()) {
        Ok(Message { body: asap::Body::Registration(registration), .. }) => Ok(registration),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.kind().clone()),
    }
}

const ROUND_ROBIN: &str = "00 08 00 08 00 00 00 01";
const ADDRESS: &str = "00 01 00 08 0a 00 00 01";

#[test]
fn an_element_has_one_user_transport_and_that_has_addresses() {
    let sctp = format!("00 04 00 10 00 07 00 00 {ADDRESS}");
    assert!(register(&format!("{sctp} {ROUND_ROBIN}")).is_ok());
    let version_6 = format!("00 02 00 14 {}", "fd 00".repeat(8));
    let both = format!("00 04 00 24 00 07 00 00 {ADDRESS} {version_6}");
    let registration = register(&format!("{both} {ROUND_ROBIN}")).unwrap();
    let address = registration.pool_element.user_transport.address().unwrap().clone();
    assert_eq!(address.addresses.len(), 2);

    let none = register(&format!("00 04 00 08 00 07 00 00 {ROUND_ROBIN}"));
    assert!(matches!(none, Err(DecodeErrorKind::Missing(_))), "{none:?}");
    // A second transport is that of the ASAP endpoint, and a third one is not allowed.
    let three = register(&format!("{sctp} {sctp} {sctp} {ROUND_ROBIN}"));
    assert!(matches!(three, Err(DecodeErrorKind::Unexpected(_))), "{three:?}");
}

#[test]
fn the_reserved_field_of_other_transports_is_read_as_the_transport_use() {
    for (number, code) in [("03", "00 00 00 09"), ("05", ""), ("06", ""), ("07", "")] {
        let length = if code.is_empty() { "10" } else { "14" };
        let transport = format!("00 {number} 00 {length} 00 07 00 01 {code} {ADDRESS}");
        let registration = register(&format!("{transport} {ROUND_ROBIN}")).unwrap();
        let address = registration.pool_element.user_transport.address().unwrap().clone();
        assert_eq!(address.usage, TransportUse::DATA_PLUS_CONTROL, "{number}");
    }
}

#[test]
fn unknown_parameters_stay_where_they_were() {
    for text in [
        // Unknown parameters before and after the pool handle: two in a row, one of odd length.
        "0500 0024 80ff 0008 61626364 c0ff 0005 61 000000 0009 0007 466f6f 00 80fe 0006 6162 0000",
        // Unknown parameters at the end of a nested SCTP transport, at the beginning and the end of
        // the pool element, and after it.
        "0100 004c 0009 0007 466f6f 00 000a 003c 00000001 00000000 0000003c c001 0005 aa 000000
         0004 0018 1234 0001 0001 0008 0a630001 8001 0008 00000001 0008 0008 00000001
         8002 0004 8003 0004",
    ] {
        let bytes = hex(text);
        let message = asap::Message::decode(&bytes).unwrap();
        assert!(message.unrecognized().len() >= 3);
        assert_eq!(message.encode().unwrap(), bytes, "{text}");
    }
}

#[test]
fn the_high_bits_of_an_unknown_parameter_say_what_to_do() {
    let decide = |text: &str| {
        let bytes = hex(&format!("0500 0014 {text} 0004 0009 0008 506f6f6c 80ff 0004"));
        let bytes = [&bytes[..3], &[bytes.len() as u8], &bytes[4..]].concat();
        asap::Message::decode(&bytes.into()).unwrap().disposition()
    };
    let report = vec![ErrorCause::UnrecognizedParameter(hex("40ff 0004"))];
    assert_eq!((decide("00ff").process, decide("00ff").report), (false, vec![]));
    assert_eq!((decide("40ff").process, decide("40ff").report), (false, report));
    assert_eq!((decide("80ff").process, decide("80ff").report), (true, vec![]));
    let report = vec![ErrorCause::UnrecognizedParameter(hex("c0ff 0004"))];
    assert_eq!((decide("c0ff").process, decide("c0ff").report), (true, report));
}

#[test]
fn unknown_policies_and_reserved_bits_survive() {
    let bytes = hex("01fe 0038 0009 0007 466f6f 00 000a 002c 00000001 00000000 ffffffff
         0005 0010 1234 5678 0001 0008 0a630001 0008 000b 80000001 aabbcc 00");
    let bytes: Bytes = [&bytes[..3], &[bytes.len() as u8], &bytes[4..]].concat().into();
    // A nested parameter's length leaves out its last padding.
    let bytes: Bytes = [&bytes[..15], &[0x2b_u8], &bytes[16..]].concat().into();
    let message = asap::Message::decode(&bytes).unwrap();
    assert_eq!(message.flags(), 0xfe);
    assert_eq!(message.encode().unwrap(), bytes);
}

#[test]
fn errors_say_where_and_in_which_parameter() {
    let error = |text: &str| asap::Message::decode(&hex(text)).unwrap_err();
    assert_eq!(error("0500").to_string(), "truncated: 4 bytes needed, 2 available at offset 0");
    assert_eq!(
        error("0500 0003").to_string(),
        "length field of 3 is smaller than the header at offset 2"
    );
    assert_eq!(
        error("0500 0010 0009").to_string(),
        "truncated: 12 bytes needed, 2 available at offset 2"
    );
    assert_eq!(error("0500 0004").to_string(), "Pool Handle parameter missing at offset 4");
    assert_eq!(
        error("0500 0008 0009 0004").to_string(),
        "cannot use the pool handle: it is empty at offset 8 in the Pool Handle parameter"
    );
    assert_eq!(
        error("0500 000c 000e 0008 00000001").to_string(),
        "unexpected PE Identifier parameter at offset 4 in the PE Identifier parameter"
    );
    assert_eq!(error("0500 0008 0009 0007 00000000").kind(), &DecodeErrorKind::TrailingBytes(4));

    let registration = hex("0100 0034 0009 0007 466f6f 00 000a 0024 00000001 00000000 ffffffff
         0005 0010 1234 0000 0001 0006 0a630000 0008 0008 00000001");
    let error = asap::Message::decode(&registration).unwrap_err();
    assert_eq!(error.parameter(), Some(ParameterType::Ipv4Address));
    assert_eq!(error.offset(), 40);
    assert_eq!(error.cause(&registration), ErrorCause::InvalidValues(hex("0001 0006 0a63")));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let message = asap::Message::from(asap::BusinessCard {
        pool_handle: handle("EchoPool"),
        elements: vec![echo_element(1, 1, None); 2000],
    });
    assert!(matches!(message.encode(), Err(EncodeError::TooLong { length: 80_000.. })));
    let cookie = Cookie(vec![0; 65_535].into());
    let message = asap::Message::from(asap::Cookie { cookie });
    assert!(message.encode().is_err());
    let cookie = Cookie(vec![0; 65_520].into());
    assert!(asap::Message::from(asap::Cookie { cookie }).encode().is_ok());
}

proptest! {
    #[test]
    fn damaged_messages_never_panic(
        which in 0..200usize,
        damage in prop::collection::vec((0..200usize, any::<u8>()), 0..6),
        length in 0..200usize,
    ) {
        let messages = captured();
        let mut bytes = messages[which % messages.len()].1.to_vec();
        for (position, value) in damage {
            if let Some(byte) = bytes.get_mut(position) {
                *byte = value;
            }
        }
        bytes.truncate(length.max(4));
        let bytes = Bytes::from(bytes);
        for result in [reencode::<asap::Body>(&bytes), reencode::<enrp::Body>(&bytes)] {
            if let Err(error) = result {
                prop_assert!(error.offset() <= bytes.len());
            }
        }
    }
}

/// Shuffles the parameters of a message behind `fields` bytes, also those nested in parameters, and
/// adds others that have no place there.
fn shuffled(message: &Bytes, fields: usize, rng: &mut StdRng) -> Bytes {
    let mut pieces = Vec::new();
    let mut rest = &message[4 + fields..];
    while rest.len() > 4 {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let (piece, others) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = others;
    }
    // A cookie parameter is added, which has no meaning in these messages.
    pieces.push(vec![0, 0xd, 0, 5, 7, 0, 0, 0]);
    pieces.shuffle(rng);
    let mut shuffled = [&message[..4 + fields], &pieces.concat()].concat();
    let length = u16::try_from(shuffled.len()).unwrap();
    shuffled[2..4].copy_from_slice(&length.to_be_bytes());
    shuffled.into()
}

#[test]
fn parameters_are_taken_in_any_order_that_is_clear() {
    let rng = &mut StdRng::seed_from_u64(1);
    let element = echo_element(60, 7, Some(3863));
    let (pool_handle, identifier) = (handle("EchoPool"), PoolElementId(7));
    let error = Some(OperationError::from(ErrorCause::Unspecified));
    let messages: Vec<(usize, asap::Message)> = vec![
        (
            0,
            asap::Registration { pool_handle: pool_handle.clone(), pool_element: element.clone() }
                .into(),
        ),
        (0, asap::Deregistration { pool_handle: pool_handle.clone(), identifier }.into()),
        (
            0,
            asap::RegistrationResponse {
                reject: true,
                pool_handle: pool_handle.clone(),
                identifier,
                error,
            }
            .into(),
        ),
        (
            0,
            asap::HandleResolutionResponse {
                partial: false,
                subscribed: false,
                pool_handle: pool_handle.clone(),
                result: asap::Resolved::Pool {
                    policy: Some(PolicyParameters::round_robin()),
                    elements: vec![element.clone()],
                },
            }
            .into(),
        ),
        (
            4,
            asap::EndpointKeepAlive {
                home: true,
                registrar: RegistrarId(1),
                pool_handle: pool_handle.clone(),
                identifier: Some(identifier),
            }
            .into(),
        ),
        (0, asap::HandleResolution::new(pool_handle).into()),
    ];
    for (fields, message) in messages {
        let usual = message.encode().unwrap();
        for _ in 0..50 {
            let bytes = shuffled(&usual, fields, rng);
            let decoded = asap::Message::decode(&bytes);
            assert_eq!(decoded.as_ref(), Ok(&message), "{bytes:x}");
            assert_eq!(decoded.unwrap().encode().unwrap(), usual);
        }
    }
    // Within a pool element, the first transport is the user transport, wherever the policy is.
    let [user, policy, asap] = [
        "00050010 0007 0001 00010008 0a000001",
        "00080008 00000001",
        "00050010 0f17 0001 00010008 0a000001",
    ];
    let usual = register(&[user, policy, asap].concat()).unwrap();
    assert_eq!(usual.pool_element.asap_transport.as_ref().unwrap().port, 3863);
    for order in [[policy, user, asap], [user, asap, policy]] {
        assert_eq!(register(&order.concat()).as_ref(), Ok(&usual));
    }
    // Ambiguous parameters are an error: two handles, three transports, or none.
    assert!(register(&[user, user, policy, asap].concat()).is_err());
    assert_eq!(register(policy), Err(DecodeErrorKind::Unexpected(ParameterType::Policy)));
    let twice = hex("01 00 001c 0009000545000000 0009000545000000 000e000800000001");
    assert!(asap::Message::decode(&twice).is_err());
    // A known parameter behind a message that has none is skipped.
    for request in [
        "02 00 0014 00000001 00000002 000e000800000007",
        "05 00 0014 00000001 00000002 000e000800000007",
        "07 00 0018 00000001 00000002 00000003 000e000800000007",
    ] {
        let decoded = enrp::Message::decode(&hex(request));
        assert!(decoded.is_ok(), "{request}: {decoded:?}");
    }
}
