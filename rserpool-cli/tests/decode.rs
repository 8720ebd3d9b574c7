//! Tests of `rserpool decode` with captures.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};

use etherparse::{IpNumber, PacketBuilder};
use serde_json::Value;

const RESOLUTION: &[u8] = b"\x05\0\0\x10\0\x09\0\x0cEchoPool";
const PRESENCE: &[u8] = b"\x01\0\0\x14\0\0\0\x01\0\0\0\0\0\x0f\0\x06\xff\xff\0\0";

fn decode(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rserpool")).arg("decode").args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the objects that `--json` prints, the summary after them, and the exit status.
fn objects(file: &Path) -> (Vec<Value>, Value, Option<i32>) {
    let output = decode(&[file.to_str().unwrap(), "--json"]);
    let text = stdout(&output);
    let mut objects: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = objects.pop().unwrap()["summary"].clone();
    (objects, summary, output.status.code())
}

fn data(ppid: u8, flags: u8, tsn: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(16 + payload.len()).unwrap().to_be_bytes();
    let mut chunk = vec![0, flags, length[0], length[1], 0, 0, 0, tsn, 0, 0, 0, 0, 0, 0, 0, ppid];
    chunk.extend(payload);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

fn sctp(chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = [0x0f, 0x17, 0x9c, 0x40, 0, 0, 0, 7, 0, 0, 0, 0];
    [&header[..], &chunks.concat()].concat()
}

fn ipv4(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.write(&mut packet, IpNumber::SCTP, payload).unwrap();
    packet
}

const ETHERNET: u32 = 1;
const RAW: u32 = 101;
const LINUX_SLL: u32 = 113;
const LINUX_SLL2: u32 = 276;

/// Writes a pcap file.
fn capture(folder: &Path, link: u32, frames: &[Vec<u8>]) -> std::path::PathBuf {
    let file = folder.join(format!("{link}.pcap"));
    let version = [2_u16, 4].map(u16::to_le_bytes).concat();
    let header = [0, 0, 65_535, link].map(u32::to_le_bytes).concat();
    let mut bytes = [&0xa1b2_c3d4_u32.to_le_bytes()[..], &version, &header].concat();
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        bytes.extend([0, 0, length, length].map(u32::to_le_bytes).concat());
        bytes.extend(frame);
    }
    std::fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn a_capture_of_rsplib_decodes_and_reencodes() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rsplib-session-failover.pcapng");
    let output = decode(&[file]);
    assert!(output.status.success());
    let text = stdout(&output);
    assert!(text.ends_with("\n87 of 87 messages re-encode to the same bytes\n"), "{text}");
    assert!(text.contains("\n     1 ASAP_COOKIE_ECHO\n"));
    let (objects, summary, _) = objects(Path::new(file));
    assert_eq!(objects.len(), 87);
    assert_eq!(summary["types"]["ASAP_REGISTRATION"], 5);
    let registration =
        objects.iter().find(|object| object["message"] == "ASAP_REGISTRATION").unwrap();
    assert_eq!(registration["parameters"]["pool_handle"], "CalcAppPool");
}

#[test]
fn every_way_to_carry_a_message_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let whole = 3;
    let both = sctp(&[data(11, whole, 1, RESOLUTION), data(12, whole, 2, PRESENCE)]);
    let check = |link, frames: &[Vec<u8>], expected: &[(u64, &str)]| {
        let (objects, summary, code) = objects(&capture(folder.path(), link, frames));
        let found: Vec<_> = objects
            .iter()
            .map(|object| (object["frame"].as_u64().unwrap(), object["message"].as_str().unwrap()))
            .collect();
        assert_eq!(found, expected, "{link:?}");
        assert_eq!((&summary["errors"], code), (&Value::from(0), Some(0)));
    };
    let one_each = [(1, "ASAP_HANDLE_RESOLUTION"), (1, "ENRP_PRESENCE")];
    check(RAW, &[ipv4(&both)], &one_each);

    let mut cooked = vec![0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    cooked.extend(ipv4(&both));
    check(LINUX_SLL, &[cooked], &one_each);

    let mut cooked = vec![8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0];
    cooked.extend(ipv4(&both));
    check(LINUX_SLL2, &[cooked], &one_each);

    let ethernet = || PacketBuilder::ethernet2([1; 6], [2; 6]);
    let mut over_udp = Vec::new();
    let builder = ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(40_000, 9899);
    builder.write(&mut over_udp, &both).unwrap();
    let mut version_6 = Vec::new();
    let builder = ethernet().ipv6([1; 16], [2; 16], 64);
    builder.write(&mut version_6, IpNumber::SCTP, &both).unwrap();
    let mut announcement = Vec::new();
    let builder = ethernet().ipv4([10, 0, 0, 1], [239, 0, 0, 50], 64).udp(3863, 3863);
    builder.write(&mut announcement, b"\x0a\0\0\x08\x11\x11\x11\x11").unwrap();
    // Write one message in two packets. The second packet also contains a message of another
    // protocol.
    let [mut first, mut second] = [Vec::new(), Vec::new()];
    let ip = || ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    let packet = sctp(&[data(11, 2, 8, &RESOLUTION[..6])]);
    ip().write(&mut first, IpNumber::SCTP, &packet).unwrap();
    let packet = sctp(&[data(11, 1, 9, &RESOLUTION[6..]), data(33, whole, 10, b"ping")]);
    ip().write(&mut second, IpNumber::SCTP, &packet).unwrap();
    check(
        ETHERNET,
        &[over_udp, version_6, announcement, first, second],
        &[
            (1, "ASAP_HANDLE_RESOLUTION"),
            (1, "ENRP_PRESENCE"),
            (2, "ASAP_HANDLE_RESOLUTION"),
            (2, "ENRP_PRESENCE"),
            (3, "ASAP_SERVER_ANNOUNCE"),
            (5, "ASAP_HANDLE_RESOLUTION"),
        ],
    );
}

#[test]
fn what_does_not_decode_is_printed_and_the_status_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let frames = [
        ipv4(&sctp(&[data(11, 3, 1, &RESOLUTION[..10])])),
        ipv4(&sctp(&[data(11, 3, 2, RESOLUTION)])),
        ipv4(&sctp(&[data(11, 3, 3, RESOLUTION)])[..30]),
    ];
    let file = capture(folder.path(), RAW, &frames);
    let output = decode(&[file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with(
            "frame 1 10.0.0.1:3863 -> 10.0.0.2:40000 ASAP ERROR truncated: 12 bytes needed, 6 available at \
         offset 2: 0500001000"
        ),
        "{text}"
    );
    assert!(lines[1].contains("ASAP_HANDLE_RESOLUTION"), "{text}");
    assert!(lines[2].contains("SCTP ERROR SCTP chunk of 32 bytes of which 18 are there"), "{text}");
    assert!(text.ends_with("\n1 of 2 messages re-encode to the same bytes\n"), "{text}");
}

#[test]
fn a_message_in_digits() {
    let output = decode(&["--asap", "0500 0010 0009000866 6f:6f21 80ff0004"]);
    assert!(output.status.success());
    assert_eq!(
        stdout(&output),
        "ASAP_HANDLE_RESOLUTION type=0x05 flags=0x00 subscribe=false pool_handle=foo! \
         unrecognized=[{type=0x80ff value=}]\n"
    );
    let output = decode(&["--enrp", "0500000c0000000200000001", "--json"]);
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(object["parameters"]["sender"], "0x00000002");
    assert_eq!(decode(&["--enrp", "05"]).status.code(), Some(1));
    for wrong in [&["--asap", "0"][..], &["--asap", "xx"], &[], &["a", "--asap", "00"]] {
        let output = decode(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1);
    }
}

#[test]
fn a_file_that_is_no_capture_is_an_error_and_a_damaged_one_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    std::fs::write(&file, "this is no capture").unwrap();
    let output = decode(&[file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.ends_with("not a pcapng or pcap file\n"), "{message}");

    let whole = include_bytes!("data/rsplib-session-failover.pcapng");
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let output = decode(&[file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("messages re-encode to the same bytes"));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("damaged after frame"), "{message}");

    // A block whose length is less than that of its own header, in both byte orders.
    for length in [4_u32.to_le_bytes(), 4_u32.to_be_bytes()] {
        let process_information = 0x8000_0001_u32.to_le_bytes();
        let damaged = [&whole[..], &process_information, &length, &[0; 64]].concat();
        std::fs::write(&file, damaged).unwrap();
        let output = decode(&[file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains("87 of 87 messages re-encode to the same bytes"));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("a block is too short"), "{message}");
    }
}

/// The numbers of messages are those that tshark 4.0 finds.
#[test]
fn captures_of_many_kinds_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for (name, messages) in [
        ("ethernet-with-checksums.pcap", 26),
        ("fragments.pcap", 12),
        ("loopback-bsd.pcap", 26),
        ("loopback-macos.pcap", 26),
        ("raw-ip.pcap", 26),
        ("tcp.pcapng", 12),
        ("compressed.pcapng.gz", 87),
    ] {
        let (_, summary, status) = objects(&folder.join(name));
        let found = (&summary["messages"], &summary["errors"], status);
        assert_eq!(found, (&messages.into(), &0.into(), Some(0)), "{name}: {summary}");
    }
    // The capture has the first 80 bytes of each frame.
    let (_, summary, _) = objects(&folder.join("cut-off.pcap"));
    assert!(summary["unread"]["cut_off"].as_u64().unwrap() > 50, "{summary}");
}

#[test]
fn what_was_not_read_is_said_and_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let file = capture(folder.path(), 147, &[vec![0; 60]]);
    let output = decode(&[file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.ends_with("\nnot read: 1 frames of link type 147\n"), "{text}");
    // Traffic of others is no fault.
    let mut echo = Vec::new();
    let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).icmpv4_echo_request(1, 1);
    builder.write(&mut echo, b"hello").unwrap();
    let file = capture(folder.path(), RAW, &[echo]);
    assert_eq!(decode(&[file.to_str().unwrap()]).status.code(), Some(0));
}

#[test]
fn tunnels_and_point_to_point_links_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let inner = ipv4(&sctp(&[data(11, 3, 1, RESOLUTION)]));
    let outer = |number: u8, payload: &[u8]| {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
        builder.write(&mut packet, IpNumber(number), payload).unwrap();
        packet
    };
    let gre = [&[0x20, 0, 8, 0, 0, 0, 0, 1], &inner[..]].concat();
    let ppp = |packet: &[u8]| [&[0xff, 0x03, 0x00, 0x21], packet].concat();
    for (link, frame) in [
        (RAW, outer(4, &inner)),
        (RAW, outer(47, &gre)),
        (RAW, outer(4, &outer(47, &gre))),
        (9, ppp(&inner)),
        (50, ppp(&inner)),
    ] {
        let (messages, summary, status) = objects(&capture(folder.path(), link, &[frame]));
        assert_eq!((messages.len(), status), (1, Some(0)), "{summary}");
        assert_eq!(messages[0]["source"], "10.0.0.1:3863");
    }
}
