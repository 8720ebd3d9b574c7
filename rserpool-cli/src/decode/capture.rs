//! Extracts messages from capture files.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, IpNumber, LaxNetSlice, LaxSlicedPacket, LinuxSllSlice, TransportSlice,
};
use pcap_parser::pcapng::Block;
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};
use rserpool::Ppid;
use rserpool::proto::wire::Bytes;

use super::sctp::Reassembler;

/// The UDP port of encapsulated SCTP (RFC 6951).
const SCTP_OVER_UDP: u16 = 9899;
const ASAP_PORT: u16 = 3863;
const ENRP_PORT: u16 = 9901;
/// Length of the header of Linux cooked capture, version 2, in bytes. The header begins with the
/// network protocol.
const SLL2_HEADER: usize = 20;

/// Block type of a section header, with which a pcapng file begins.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Length of the shortest block of pcapng in bytes: its type and, twice, its length.
const MIN_BLOCK: u32 = 12;
/// Initial size of the read buffer in bytes.
const BUFFER: usize = 64 * 1024;
/// Maximum length of a block of the capture file in bytes.
const MAX_BLOCK: usize = 16 * 1024 * 1024;

/// A message or an error that was found in a capture.
#[derive(Debug)]
pub(crate) struct Found {
    /// The number of the frame, from 1 on, as in Wireshark.
    pub(crate) frame: u64,
    /// Source of the packet.
    pub(crate) source: SocketAddr,
    /// Destination of the packet.
    pub(crate) destination: SocketAddr,
    /// A message of ASAP or ENRP, or the error in the packet.
    pub(crate) content: Result<(Ppid, Bytes), String>,
}

/// Error of reading a capture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// The file is neither pcapng nor pcap.
    #[error("not a pcapng or pcap file")]
    NotACapture,
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[from] io::Error),
    /// The file is damaged.
    #[error("damaged after frame {frame}: {reason}")]
    Damaged {
        /// The last frame that was read.
        frame: u64,
        /// The error of the file's reader.
        reason: String,
    },
}

/// Reads a capture, and calls `sink` with each ASAP and ENRP message in it.
///
/// # Errors
///
/// Returns an error if the capture is damaged. `sink` has then been called with all messages before
/// the damage.
pub(crate) fn read(
    mut capture: impl Read + Send,
    sink: &mut dyn FnMut(Found),
) -> Result<(), CaptureError> {
    // The parser wants the header of the file in its first read.
    let mut begin = Vec::new();
    capture.by_ref().take(BUFFER as u64).read_to_end(&mut begin)?;
    let pcapng = begin.starts_with(&SECTION_HEADER);
    let whole = begin.as_slice().chain(capture);
    let mut parser = create_reader(BUFFER, whole).map_err(|_| CaptureError::NotACapture)?;
    let mut reader = Reader { frame: 0, reassembler: Reassembler::default(), sink };
    let mut links = Vec::new();
    let mut capacity = BUFFER;
    loop {
        if pcapng && shorter_than_a_block(parser.data()) {
            return Err(reader.damaged("a block is too short"));
        }
        let damaged = match parser.next() {
            Ok((length, block)) => {
                reader.block(&block, &mut links);
                parser.consume(length);
                continue;
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::Incomplete(_)) => parser.refill().is_err().then_some("it ends early"),
            Err(PcapError::BufferTooSmall) if capacity < MAX_BLOCK => {
                capacity *= 2;
                (!parser.grow(capacity) || parser.refill().is_err()).then_some("it ends early")
            }
            Err(PcapError::BufferTooSmall) => Some("a block is too long"),
            Err(PcapError::UnexpectedEof) => Some("it ends early"),
            Err(PcapError::ReadError) => Some("it cannot be read"),
            Err(_) => Some("a block is not valid"),
        };
        if let Some(reason) = damaged {
            return Err(reader.damaged(reason));
        }
    }
}

/// Returns true if the length field of the next block of a pcapng file is less than [`MIN_BLOCK`].
///
/// The parser subtracts the length of a block's fixed fields from this length, which must not
/// underflow. The byte order need not be known: a length that is too short in one byte order is
/// beyond [`MAX_BLOCK`] in the other one.
fn shorter_than_a_block(data: &[u8]) -> bool {
    let length = data.get(4..8).and_then(|length| <[u8; 4]>::try_from(length).ok());
    length.is_some_and(|length| {
        u32::from_le_bytes(length) < MIN_BLOCK || u32::from_be_bytes(length) < MIN_BLOCK
    })
}

struct Reader<'s> {
    frame: u64,
    reassembler: Reassembler,
    sink: &'s mut dyn FnMut(Found),
}

impl Reader<'_> {
    /// Reads a block; `links` are the link types of the interfaces so far.
    fn block(&mut self, block: &PcapBlockOwned<'_>, links: &mut Vec<Linktype>) {
        match block {
            PcapBlockOwned::LegacyHeader(header) => *links = vec![header.network],
            PcapBlockOwned::Legacy(packet) => self.frame(links.first().copied(), packet.data),
            PcapBlockOwned::NG(Block::SectionHeader(_)) => links.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                links.push(interface.linktype);
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = usize::try_from(packet.if_id).unwrap_or(usize::MAX);
                self.frame(links.get(interface).copied(), packet.packet_data());
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                self.frame(links.first().copied(), packet.packet_data());
            }
            PcapBlockOwned::NG(_) => {}
        }
    }

    fn damaged(&self, reason: &str) -> CaptureError {
        CaptureError::Damaged { frame: self.frame, reason: reason.to_owned() }
    }

    fn frame(&mut self, link: Option<Linktype>, data: &[u8]) {
        self.frame += 1;
        let Some(packet) = link.and_then(|link| network_packet(link, data)) else { return };
        let Some((source, destination)) = packet.net.as_ref().and_then(addresses) else { return };
        let payload = packet.net.as_ref().and_then(LaxNetSlice::ip_payload_ref);
        let Some(payload) = payload.filter(|payload| !payload.fragmented) else { return };
        if payload.ip_number == IpNumber::SCTP {
            let sctp = Bytes::copy_from_slice(payload.payload);
            self.sctp(source, destination, &sctp);
        } else if let Some(TransportSlice::Udp(udp)) = &packet.transport {
            let ports = [udp.source_port(), udp.destination_port()];
            let data = Bytes::copy_from_slice(udp.payload());
            if ports.contains(&SCTP_OVER_UDP) {
                self.sctp(source, destination, &data);
                return;
            }
            let [source, destination] =
                [(source, ports[0]), (destination, ports[1])].map(SocketAddr::from);
            for (port, ppid) in [(ASAP_PORT, Ppid::ASAP), (ENRP_PORT, Ppid::ENRP)] {
                if ports.contains(&port) {
                    self.found(source, destination, Ok((ppid, data)));
                    return;
                }
            }
        }
    }

    fn sctp(&mut self, source: IpAddr, destination: IpAddr, packet: &Bytes) {
        let mut messages = Vec::new();
        let result = self.reassembler.packet(packet, |ports, ppid, data| {
            if ppid == Ppid::ASAP || ppid == Ppid::ENRP {
                messages.push((ports, (ppid, data)));
            }
        });
        for (ports, message) in messages {
            let source = SocketAddr::new(source, ports.source);
            self.found(source, SocketAddr::new(destination, ports.destination), Ok(message));
        }
        if let Err(error) = result {
            let [source, destination] = [source, destination].map(|ip| SocketAddr::new(ip, 0));
            self.found(source, destination, Err(error.to_string()));
        }
    }

    fn found(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        content: Result<(Ppid, Bytes), String>,
    ) {
        (self.sink)(Found { frame: self.frame, source, destination, content });
    }
}

/// Returns the network layer of a frame, if there is one.
fn network_packet(link: Linktype, data: &[u8]) -> Option<LaxSlicedPacket<'_>> {
    match link {
        Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(data).ok(),
        Linktype::LINUX_SLL => {
            let cooked = LinuxSllSlice::from_slice(data).ok()?;
            let ether_type = EtherType(u16::from(cooked.protocol_type()));
            Some(LaxSlicedPacket::from_ether_type(ether_type, cooked.payload_slice()))
        }
        Linktype::LINUX_SLL2 => {
            let (header, payload) = data.split_at_checked(SLL2_HEADER)?;
            let ether_type = EtherType(u16::from_be_bytes([header[0], header[1]]));
            Some(LaxSlicedPacket::from_ether_type(ether_type, payload))
        }
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => LaxSlicedPacket::from_ip(data).ok(),
        _ => None,
    }
}

fn addresses(net: &LaxNetSlice<'_>) -> Option<(IpAddr, IpAddr)> {
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        LaxNetSlice::Arp(_) => None,
    }
}
