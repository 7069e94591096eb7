//! Relayed bytes as the packets of a TCP connection: handshake, data with sequence numbers, and the end.
//!
//! Sequence numbers count all bytes of a direction, so dropped data appears as a gap. Every packet
//! acknowledges all bytes of the other direction until then.

use super::packet::{PacketError, SEGMENT_BYTES_MAX, TcpEndpoints, TcpSegment};
use dc_snoop::observe::Endpoint;

/// One connection in a capture file.
#[derive(Debug)]
pub(crate) struct CapturedConnection {
    ends: TcpEndpoints,
    /// The next sequence number in each direction, including the handshake.
    next: [u32; 2],
}

impl CapturedConnection {
    pub(crate) const fn new(ends: TcpEndpoints) -> Self {
        Self { ends, next: [0; 2] }
    }

    pub(crate) fn syn(&mut self) -> Result<Vec<u8>, PacketError> {
        self.next = [1, 0];
        let syn = self.segment(Endpoint::Client);
        TcpSegment { sequence: 0, acknowledged: None, syn: true, ..syn }.to_packet()
    }

    /// The server's answer and the client's acknowledgement.
    pub(crate) fn accepted(&mut self) -> Result<[Vec<u8>; 2], PacketError> {
        self.next = [1, 1];
        let answer = self.segment(Endpoint::Server);
        let answer = TcpSegment { sequence: 0, syn: true, ..answer }.to_packet()?;
        Ok([answer, self.segment(Endpoint::Client).to_packet()?])
    }

    /// Data of `sender`, before which it sent `offset` bytes.
    pub(crate) fn data(
        &mut self,
        sender: Endpoint,
        offset: u64,
        data: &[u8],
    ) -> Result<Vec<Vec<u8>>, PacketError> {
        self.next[sender as usize] = (offset as u32).wrapping_add(1);
        let mut packets = Vec::new();
        for data in data.chunks(SEGMENT_BYTES_MAX) {
            packets.push(TcpSegment { data, ..self.segment(sender) }.to_packet()?);
            self.next[sender as usize] = self.next[sender as usize].wrapping_add(data.len() as u32);
        }
        Ok(packets)
    }

    /// `sender` closed its direction.
    pub(crate) fn fin(&mut self, sender: Endpoint, offset: u64) -> Result<[Vec<u8>; 2], PacketError> {
        self.next[sender as usize] = (offset as u32).wrapping_add(1);
        let fin = TcpSegment { fin: true, ..self.segment(sender) }.to_packet()?;
        self.next[sender as usize] = self.next[sender as usize].wrapping_add(1);
        Ok([fin, self.segment(sender.opposite()).to_packet()?])
    }

    /// `sender` broke the connection off, or refused it.
    pub(crate) fn reset(&self, sender: Endpoint) -> Result<Vec<u8>, PacketError> {
        TcpSegment { rst: true, ..self.segment(sender) }.to_packet()
    }

    const fn segment(&self, sender: Endpoint) -> TcpSegment<'static> {
        let TcpEndpoints { client, server } = self.ends;
        let (from, to) = match sender {
            Endpoint::Client => (client, server),
            Endpoint::Server => (server, client),
        };
        TcpSegment {
            from,
            to,
            sequence: self.next[sender as usize],
            acknowledged: Some(self.next[sender.opposite() as usize]),
            syn: false,
            fin: false,
            rst: false,
            data: &[],
        }
    }
}
