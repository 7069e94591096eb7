//! IP packets with TCP segments, encoded from relayed bytes and decoded from captures.

use etherparse::err::packet::BuildVecWriteError;
use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, PacketBuilder, TcpOptionElement, TransportSlice};
use pcap_file::DataLink;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Most bytes of data in a packet we make. With its headers it is below the 65,535 bytes of an IP packet.
pub(crate) const SEGMENT_BYTES_MAX: usize = 65_000;
/// The window every packet announces; together with the scale it is a gigabyte, so that it is never full.
const WINDOW: u16 = u16::MAX;
const WINDOW_SCALE: u8 = 14;
const TIME_TO_LIVE: u8 = 64;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TcpEndpoints {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
}

impl TcpEndpoints {
    /// Placeholder addresses for a connection without any, such as that of a Unix socket: the client's
    /// address contains the connection's number.
    pub(crate) const fn stand_in(connection: u64) -> Self {
        let [.., a, b, c] = connection.to_be_bytes();
        let port = 1024 + (connection % 60_000) as u16;
        Self {
            client: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), port),
            server: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9001),
        }
    }

    /// Those of a TCP connection, or stand-ins where they are of two families.
    pub(crate) fn new(connection: u64, addresses: Option<(SocketAddr, SocketAddr)>) -> Self {
        let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
        match addresses.map(|(client, server)| (canonical(client), canonical(server))) {
            Some((client, server)) if client.is_ipv4() == server.is_ipv4() => Self { client, server },
            _ => Self::stand_in(connection),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpSegment<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) sequence: u32,
    /// Acknowledgment number; `None` without the flag.
    pub(crate) acknowledged: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) data: &'a [u8],
}

impl<'a> TcpSegment<'a> {
    /// The IP packet of this segment.
    ///
    /// # Errors
    /// If the addresses are of two families, or the data is longer than [`SEGMENT_BYTES_MAX`].
    pub(crate) fn to_packet(self) -> Result<Vec<u8>, PacketError> {
        let ip = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), TIME_TO_LIVE)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                PacketBuilder::ipv6(from.octets(), to.octets(), TIME_TO_LIVE)
            }
            _ => return Err(PacketError::Families),
        };
        let mut tcp = ip.tcp(self.from.port(), self.to.port(), self.sequence, WINDOW);
        if let Some(acknowledged) = self.acknowledged {
            tcp = tcp.ack(acknowledged);
        }
        if self.syn {
            let options =
                [TcpOptionElement::MaximumSegmentSize(u16::MAX), TcpOptionElement::WindowScale(WINDOW_SCALE)];
            tcp = tcp.syn().options(&options).map_err(|_| PacketError::Options)?;
        }
        if self.fin {
            tcp = tcp.fin();
        }
        if self.rst {
            tcp = tcp.rst();
        }
        if !self.data.is_empty() {
            tcp = tcp.psh();
        }
        let mut packet = Vec::with_capacity(tcp.size(self.data.len()));
        tcp.write_to_vec(&mut packet, self.data)?;
        Ok(packet)
    }

    /// The TCP segment in a captured packet; `None` for other protocols and malformed packets.
    pub(crate) fn of_packet(link: DataLink, packet: &'a [u8]) -> Option<Self> {
        let sliced = match link {
            DataLink::ETHERNET => LaxSlicedPacket::from_ethernet(packet).ok()?,
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => LaxSlicedPacket::from_ip(packet).ok()?,
            // Four bytes of address family, which the IP header repeats.
            DataLink::NULL | DataLink::LOOP => LaxSlicedPacket::from_ip(packet.get(4..)?).ok()?,
            // `tcpdump -i any`: the protocol is in the last two of 16 bytes, or the first two of 20.
            DataLink::LINUX_SLL => of_ether_type(packet.get(14..16)?, packet.get(16..)?),
            DataLink::LINUX_SLL2 => of_ether_type(packet.get(0..2)?, packet.get(20..)?),
            _ => return None,
        };
        let (from, to): (IpAddr, IpAddr) = match &sliced.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            _ => return None,
        };
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { return None };
        Some(Self {
            from: SocketAddr::new(from, tcp.source_port()),
            to: SocketAddr::new(to, tcp.destination_port()),
            sequence: tcp.sequence_number(),
            acknowledged: tcp.ack().then(|| tcp.acknowledgment_number()),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            data: tcp.payload(),
        })
    }
}

fn of_ether_type<'a>(ether_type: &[u8], rest: &'a [u8]) -> LaxSlicedPacket<'a> {
    let number = ether_type.iter().fold(0, |n, byte| n << 8 | u16::from(*byte));
    LaxSlicedPacket::from_ether_type(EtherType(number), rest)
}

/// Why a packet could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PacketError {
    /// An IPv4 address and an IPv6 address.
    #[error("the addresses are of two families")]
    Families,
    /// The options do not fit.
    #[error("too many options of TCP")]
    Options,
    /// The data does not fit.
    #[error(transparent)]
    Build(#[from] BuildVecWriteError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(from: &str, to: &str) -> TcpSegment<'static> {
        TcpSegment {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            sequence: 7,
            acknowledged: Some(9),
            syn: false,
            fin: true,
            rst: false,
            data: b"data",
        }
    }

    #[test]
    fn a_segment_is_the_same_after_packing() {
        for segment in
            [segment("10.0.0.1:1024", "192.0.2.1:9001"), segment("[2001:db8::1]:1024", "[2001:db8::2]:9001")]
        {
            let packet = segment.to_packet().unwrap();
            assert_eq!(TcpSegment::of_packet(DataLink::RAW, &packet), Some(segment));
            let ether_type = if segment.from.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
            let ethernet = [&[0; 12][..], &ether_type, &packet].concat();
            assert_eq!(TcpSegment::of_packet(DataLink::ETHERNET, &ethernet), Some(segment));
            let loopback = [&[2, 0, 0, 0][..], &packet].concat();
            assert_eq!(TcpSegment::of_packet(DataLink::NULL, &loopback), Some(segment));
            let cooked = [&[0; 14][..], &ether_type, &packet].concat();
            assert_eq!(TcpSegment::of_packet(DataLink::LINUX_SLL, &cooked), Some(segment));
            let cooked_2 = [&ether_type[..], &[0; 18], &packet].concat();
            assert_eq!(TcpSegment::of_packet(DataLink::LINUX_SLL2, &cooked_2), Some(segment));
        }
    }

    #[test]
    fn cut_packets_are_read_as_far_as_they_go() {
        let packet = segment("10.0.0.1:1024", "192.0.2.1:9001").to_packet().unwrap();
        for len in 0..40 {
            assert_eq!(TcpSegment::of_packet(DataLink::RAW, &packet[..len]), None, "{len}");
        }
        let cut = TcpSegment::of_packet(DataLink::RAW, &packet[..42]).unwrap();
        assert_eq!(cut.data, b"da");
    }

    #[test]
    fn ends_are_real_or_stand_ins() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mapped = Some((address("[::ffff:127.0.0.1]:5000"), address("[::ffff:127.0.0.1]:9001")));
        let ends = TcpEndpoints { client: address("127.0.0.1:5000"), server: address("127.0.0.1:9001") };
        assert_eq!(TcpEndpoints::new(1, mapped), ends);
        assert_eq!(TcpEndpoints::new(0x0001_0203, None).client, address("10.1.2.3:7075"));
    }
}
