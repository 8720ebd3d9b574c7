//! Extracts messages from capture files.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};

use etherparse::defrag::IpDefragPool;
use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, SlicedPacket, TcpSlice, UdpSlice};
use flate2::read::MultiGzDecoder;
use pcap_parser::pcapng::Block;
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};
use rserpool::Ppid;
use rserpool::proto::wire::Bytes;

use super::link;
use super::sctp::Reassembler;
use super::tcp::{Segment, Streams};

/// The UDP port of encapsulated SCTP (RFC 6951).
const SCTP_OVER_UDP: u16 = 9899;
const ASAP_PORT: u16 = 3863;
const ENRP_PORT: u16 = 9901;
/// Maximum number of tunnels around a packet.
const MAX_TUNNELS: usize = 4;
/// Number of frames after which a fragment of IP is given up that has not been completed.
const FRAGMENTS_WAIT: u64 = 1_000;

/// The beginning of a file that gzip has compressed.
const GZIP: [u8; 2] = [0x1f, 0x8b];
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

/// The parts of a capture that were not read.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// Frames of links that are not understood, by the number of the link type.
    pub(crate) links: BTreeMap<i32, u64>,
    /// Frames of which the capture has only the beginning.
    pub(crate) cut_off: u64,
    /// Packets of which fragments are missing.
    pub(crate) fragments: u64,
    /// Directions of TCP connections of which a part is missing.
    pub(crate) streams: u64,
}

impl Unread {
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty() && self.cut_off + self.fragments + self.streams == 0
    }
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

/// Reads a capture, and calls `sink` with each ASAP and ENRP message in it. Returns what was not
/// read.
///
/// # Errors
///
/// Returns an error if the capture is damaged. `sink` has then been called with all messages before
/// the damage.
pub(crate) fn read(
    mut capture: impl Read + Send,
    sink: &mut dyn FnMut(Found),
) -> Result<Unread, CaptureError> {
    // The parser wants the header of the file in its first read.
    let mut begin = Vec::new();
    capture.by_ref().take(BUFFER as u64).read_to_end(&mut begin)?;
    if begin.starts_with(&GZIP) {
        // Not again within: a file that unpacks itself for ever ends here.
        let mut unpacked = MultiGzDecoder::new(begin.as_slice().chain(capture));
        let mut begin = Vec::new();
        unpacked.by_ref().take(BUFFER as u64).read_to_end(&mut begin)?;
        return read_plain(begin, unpacked, sink);
    }
    read_plain(begin, capture, sink)
}

fn read_plain(
    begin: Vec<u8>,
    capture: impl Read + Send,
    sink: &mut dyn FnMut(Found),
) -> Result<Unread, CaptureError> {
    let pcapng = begin.starts_with(&SECTION_HEADER);
    let whole = begin.as_slice().chain(capture);
    let mut parser = create_reader(BUFFER, whole).map_err(|_| CaptureError::NotACapture)?;
    let mut reader = Reader {
        frame: 0,
        reassembler: Reassembler::default(),
        fragments: IpDefragPool::new(),
        streams: Streams::default(),
        unread: Unread::default(),
        is_cut_off: false,
        sink,
    };
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
            Err(PcapError::Eof) => return Ok(reader.finish()),
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
    /// Fragments of IP packets, with the frames in which they came.
    fragments: IpDefragPool<u64>,
    streams: Streams,
    unread: Unread,
    /// True if the capture has only the beginning of the current frame.
    is_cut_off: bool,
    sink: &'s mut dyn FnMut(Found),
}

impl Reader<'_> {
    /// Reads a block; `links` are the link types of the interfaces so far.
    fn block(&mut self, block: &PcapBlockOwned<'_>, links: &mut Vec<Linktype>) {
        match block {
            PcapBlockOwned::LegacyHeader(header) => *links = vec![header.network],
            PcapBlockOwned::Legacy(packet) => {
                self.frame(links.first().copied(), packet.data, packet.origlen);
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => links.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                links.push(interface.linktype);
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let interface = usize::try_from(packet.if_id).unwrap_or(usize::MAX);
                self.frame(links.get(interface).copied(), packet.packet_data(), packet.origlen);
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                self.frame(links.first().copied(), packet.packet_data(), packet.origlen);
            }
            PcapBlockOwned::NG(_) => {}
        }
    }

    fn finish(mut self) -> Unread {
        self.give_up_fragments(u64::MAX);
        self.unread.streams = self.streams.finish();
        self.unread
    }

    /// Forgets packets whose last fragment came before the frame `oldest`.
    fn give_up_fragments(&mut self, oldest: u64) {
        let lost = Cell::new(0);
        self.fragments.retain(|frame| {
            lost.set(lost.get() + u64::from(*frame < oldest));
            *frame >= oldest
        });
        // The first packet to be forgotten is asked about twice.
        self.unread.fragments += u64::saturating_sub(lost.get(), 1);
    }

    fn damaged(&self, reason: &str) -> CaptureError {
        CaptureError::Damaged { frame: self.frame, reason: reason.to_owned() }
    }

    fn frame(&mut self, link: Option<Linktype>, data: &[u8], length: u32) {
        self.frame += 1;
        let Some(link) = link else { return };
        self.is_cut_off = (data.len() as u64) < u64::from(length);
        self.unread.cut_off += u64::from(self.is_cut_off);
        match link::ip_packet(link, data) {
            Ok(Some(packet)) => self.ip(packet, MAX_TUNNELS),
            Ok(None) => {}
            Err(link::NotUnderstood(link)) => *self.unread.links.entry(link).or_default() += 1,
        }
        if self.frame.is_multiple_of(FRAGMENTS_WAIT) {
            let oldest = self.frame.saturating_sub(FRAGMENTS_WAIT);
            self.give_up_fragments(oldest);
        }
    }

    /// Reads an IP packet, which may be in up to `tunnels` others.
    fn ip(&mut self, bytes: &[u8], tunnels: usize) {
        let Ok(packet) = LaxSlicedPacket::from_ip(bytes) else { return };
        let Some(ends) = packet.net.as_ref().and_then(addresses) else { return };
        let payload = packet.net.as_ref().and_then(LaxNetSlice::ip_payload_ref);
        let Some(payload) = payload else { return };
        if !payload.fragmented {
            return self.payload(ends, payload.ip_number, payload.payload, tunnels);
        }
        let Ok(fragment) = SlicedPacket::from_ip(bytes) else { return };
        match self.fragments.process_sliced_packet(&fragment, self.frame, ()) {
            Ok(Some(whole)) => self.payload(ends, whole.ip_number, &whole.payload, tunnels),
            Ok(None) => {}
            Err(_) => self.unread.fragments += 1,
        }
    }

    fn payload(&mut self, ends: (IpAddr, IpAddr), kind: IpNumber, bytes: &[u8], tunnels: usize) {
        let (source, destination) = ends;
        let inner = match kind {
            IpNumber::SCTP => {
                return self.sctp(source, destination, &Bytes::copy_from_slice(bytes));
            }
            IpNumber::UDP => return self.udp(source, destination, bytes),
            IpNumber::TCP => return self.tcp(source, destination, bytes),
            IpNumber::IPV4 | IpNumber::IPV6 => Some(bytes),
            IpNumber::GRE => link::gre(bytes),
            _ => None,
        };
        if let Some(inner) = inner.filter(|_| tunnels > 0) {
            self.ip(inner, tunnels - 1);
        }
    }

    fn udp(&mut self, source: IpAddr, destination: IpAddr, bytes: &[u8]) {
        let Ok(udp) = UdpSlice::from_slice_lax(bytes) else { return };
        let ports = [udp.source_port(), udp.destination_port()];
        let data = Bytes::copy_from_slice(udp.payload());
        if ports.contains(&SCTP_OVER_UDP) {
            return self.sctp(source, destination, &data);
        }
        let [source, destination] =
            [(source, ports[0]), (destination, ports[1])].map(SocketAddr::from);
        for (port, ppid) in [(ASAP_PORT, Ppid::ASAP), (ENRP_PORT, Ppid::ENRP)] {
            if ports.contains(&port) {
                return self.found(source, destination, Ok((ppid, data)));
            }
        }
    }

    fn tcp(&mut self, source: IpAddr, destination: IpAddr, bytes: &[u8]) {
        let Ok(tcp) = TcpSlice::from_slice(bytes) else { return };
        let source = SocketAddr::new(source, tcp.source_port());
        let destination = SocketAddr::new(destination, tcp.destination_port());
        let segment = Segment {
            source,
            destination,
            number: tcp.sequence_number(),
            is_first: tcp.syn(),
            is_last: tcp.fin() || tcp.rst(),
            payload: tcp.payload(),
        };
        let mut messages = Vec::new();
        self.streams.segment(&segment, |ppid, message| messages.push((ppid, message)));
        for message in messages {
            self.found(source, destination, Ok(message));
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
        if let Err(error) = result
            && !self.is_cut_off
        {
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
