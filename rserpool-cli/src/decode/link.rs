//! Finds IP packets in the frames of a link.

use pcap_parser::Linktype;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Types of Ethernet for tags of virtual networks.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const ETHERNET_HEADER: usize = 14;
/// Lengths of the headers of Linux cooked capture, in bytes: version 1, which ends with the network
/// protocol, and version 2, which begins with it.
const SLL_HEADER: usize = 16;
const SLL2_HEADER: usize = 20;
/// Numbers of the link type for IP packets without a header, which differ between systems.
const RAW: [i32; 5] = [12, 14, 101, 228, 229];
/// Numbers of the link types for PPP, and for PPP in frames like those of HDLC.
const PPP: [i32; 2] = [9, 50];
/// The protocol of PPP for IPv4 and IPv6.
const PPP_IP: [u16; 2] = [0x0021, 0x0057];

/// Returns the IP packet of a frame, or `None` if it has none.
///
/// # Errors
///
/// Returns an error if frames of the link type are not understood.
pub(super) fn ip_packet(link: Linktype, frame: &[u8]) -> Result<Option<&[u8]>, NotUnderstood> {
    // The upper bits tell how long the checksum behind each frame is, which IP's own length leaves out.
    Ok(match Linktype(link.0 & 0xffff) {
        Linktype::ETHERNET => ethernet(frame),
        Linktype::LINUX_SLL => frame.split_at_checked(SLL_HEADER).and_then(|(header, payload)| {
            by_ether_type(u16::from_be_bytes([header[14], header[15]]), payload)
        }),
        Linktype::LINUX_SLL2 => {
            frame.split_at_checked(SLL2_HEADER).and_then(|(header, payload)| {
                by_ether_type(u16::from_be_bytes([header[0], header[1]]), payload)
            })
        }
        Linktype::NULL | Linktype::LOOP => loopback(frame),
        Linktype(number) if PPP.contains(&number) => ppp(frame),
        Linktype(number) if RAW.contains(&number) => Some(frame),
        Linktype(number) => return Err(NotUnderstood(number)),
    })
}

/// The link type has no reader here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotUnderstood(pub(super) i32);

/// Returns the IP packet of an Ethernet frame.
pub(super) fn ethernet(frame: &[u8]) -> Option<&[u8]> {
    let (header, mut payload) = frame.split_at_checked(ETHERNET_HEADER)?;
    let mut kind = u16::from_be_bytes([header[12], header[13]]);
    while TAGS.contains(&kind) {
        let (tag, rest) = payload.split_first_chunk::<4>()?;
        (kind, payload) = (u16::from_be_bytes([tag[2], tag[3]]), rest);
    }
    by_ether_type(kind, payload)
}

/// Returns the payload if its type is that of IP packets.
pub(super) fn by_ether_type(kind: u16, payload: &[u8]) -> Option<&[u8]> {
    [IPV4, IPV6].contains(&kind).then_some(payload)
}

/// Returns the IP packet of a frame of a loopback interface, whose header is an address family in the
/// byte order of the capturing host. The number for IPv6 differs between systems.
fn loopback(frame: &[u8]) -> Option<&[u8]> {
    let (family, payload) = frame.split_first_chunk::<4>()?;
    let families = [u32::from_le_bytes(*family), u32::from_be_bytes(*family)];
    let is_ip = families.iter().any(|family| [2, 10, 24, 28, 30].contains(family));
    is_ip.then_some(payload)
}

fn ppp(frame: &[u8]) -> Option<&[u8]> {
    let frame = frame.strip_prefix(&[0xff, 0x03]).unwrap_or(frame);
    let (protocol, payload) = frame.split_first_chunk::<2>()?;
    PPP_IP.contains(&u16::from_be_bytes(*protocol)).then_some(payload)
}

/// Returns the IP packet in a packet of Generic Routing Encapsulation (RFC 2784, RFC 2890).
pub(super) fn gre(packet: &[u8]) -> Option<&[u8]> {
    const TRANSPARENT_ETHERNET: u16 = 0x6558;
    let ([flags, _, high, low], rest) = packet.split_first_chunk::<4>()?;
    let optional = [0x80, 0x20, 0x10].iter().filter(|bit| flags & *bit != 0).count();
    let payload = rest.get(4 * optional..)?;
    match u16::from_be_bytes([*high, *low]) {
        TRANSPARENT_ETHERNET => ethernet(payload),
        kind => by_ether_type(kind, payload),
    }
}
