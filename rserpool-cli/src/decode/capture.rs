//! Extracts messages from capture files.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, IpNumber, LaxNetSlice, LaxSlicedPacket, LinuxSllSlice, TransportSlice,
};
use pcap_file::DataLink;
use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::{Block, PcapNgParser};
use rserpool::Ppid;
use rserpool::proto::wire::Bytes;

use super::sctp::Reassembler;

/// The UDP port of encapsulated SCTP (RFC 6951).
const SCTP_OVER_UDP: u16 = 9899;
const ASAP_PORT: u16 = 3863;
const ENRP_PORT: u16 = 9901;
/// Length of the header of Linux cooked capture, version 2: 20 bytes, which begin with the
/// protocol.
const SLL2_HEADER: usize = 20;

/// A message or an error that was found in a capture.
#[derive(Debug)]
#[non_exhaustive]
pub struct Found {
    /// The number of the frame, from 1 on, as in Wireshark.
    pub frame: u64,
    /// Source of the packet.
    pub source: SocketAddr,
    /// Destination of the packet.
    pub destination: SocketAddr,
    /// A message of ASAP or ENRP, or the error in the packet.
    pub content: Result<(Ppid, Bytes), String>,
}

/// Error of reading a capture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The file is neither pcapng nor pcap.
    #[error("not a pcapng or pcap file")]
    NotACapture,
    /// The file is damaged.
    #[error("damaged after frame {frame}: {error}")]
    Damaged {
        /// The last frame that was read.
        frame: u64,
        /// The error of the file's reader.
        error: pcap_file::PcapError,
    },
}

/// Reads a capture file, and calls `sink` with each ASAP and ENRP message in it.
///
/// # Errors
///
/// Returns an error if the file is damaged. `sink` was called with all messages before that.
pub fn read(file: &[u8], sink: &mut dyn FnMut(Found)) -> Result<(), CaptureError> {
    let mut reader = Reader { frame: 0, reassembler: Reassembler::default(), sink };
    match file.first_chunk::<4>() {
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => reader.pcapng(file),
        Some(_) => reader.pcap(file),
        None => Err(CaptureError::NotACapture),
    }
}

struct Reader<'s> {
    frame: u64,
    reassembler: Reassembler,
    sink: &'s mut dyn FnMut(Found),
}

impl Reader<'_> {
    fn pcapng(&mut self, file: &[u8]) -> Result<(), CaptureError> {
        let (mut rest, mut parser) =
            PcapNgParser::new(file).map_err(|_| CaptureError::NotACapture)?;
        while !rest.is_empty() {
            let (after, block) = parser.next_block(rest).map_err(|error| self.damaged(error))?;
            rest = after;
            let (interface, data) = match &block {
                Block::EnhancedPacket(packet) => (packet.interface_id, &packet.data),
                Block::SimplePacket(packet) => (0, &packet.data),
                Block::Packet(packet) => (u32::from(packet.interface_id), &packet.data),
                _ => continue,
            };
            let interface = usize::try_from(interface).unwrap_or(usize::MAX);
            let link = parser.interfaces().get(interface).map(|interface| interface.linktype);
            self.frame(link, data);
        }
        Ok(())
    }

    fn pcap(&mut self, file: &[u8]) -> Result<(), CaptureError> {
        let (mut rest, parser) = PcapParser::new(file).map_err(|_| CaptureError::NotACapture)?;
        let link = parser.header().datalink;
        while !rest.is_empty() {
            // Take the raw packet: only its bytes matter, whatever its header says.
            let (after, packet) =
                parser.next_raw_packet(rest).map_err(|error| self.damaged(error))?;
            rest = after;
            self.frame(Some(link), &packet.data);
        }
        Ok(())
    }

    fn damaged(&self, error: pcap_file::PcapError) -> CaptureError {
        CaptureError::Damaged { frame: self.frame, error }
    }

    fn frame(&mut self, link: Option<DataLink>, data: &[u8]) {
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
fn network_packet(link: DataLink, data: &[u8]) -> Option<LaxSlicedPacket<'_>> {
    match link {
        DataLink::ETHERNET => LaxSlicedPacket::from_ethernet(data).ok(),
        DataLink::LINUX_SLL => {
            let cooked = LinuxSllSlice::from_slice(data).ok()?;
            let ether_type = EtherType(u16::from(cooked.protocol_type()));
            Some(LaxSlicedPacket::from_ether_type(ether_type, cooked.payload_slice()))
        }
        DataLink::LINUX_SLL2 => {
            let (header, payload) = data.split_at_checked(SLL2_HEADER)?;
            let ether_type = EtherType(u16::from_be_bytes([header[0], header[1]]));
            Some(LaxSlicedPacket::from_ether_type(ether_type, payload))
        }
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => LaxSlicedPacket::from_ip(data).ok(),
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
