//! `-read`: observes the connections in a capture as if their traffic were relayed now.
//!
//! The capture may be ours or tcpdump's. Connections are numbered in the order in which they begin. A
//! connection whose beginning is missing is picked up at the first segment that begins with a frame or with a
//! line: either distinguishes the client from the server.

use crate::capture::packet::TcpSegment;
use crate::capture::reassembly::{Piece, Reassembly};
use crate::decoder::Decoder;
use crate::record::ConnectionClose;
use dc_snoop::observe::{Endpoint, sender_of_text};
use libdc::wire::frame::{Direction, Expected, FrameHeader};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Puts the connections of a capture together.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    connections: HashMap<[SocketAddr; 2], ReplayedConnection>,
    opened: u64,
}

#[derive(Debug)]
struct ReplayedConnection {
    number: u64,
    client: SocketAddr,
    /// The number of the client's SYN, if that was captured.
    syn: Option<u32>,
    accepted: bool,
    halves: [Reassembly; 2],
}

impl Replay {
    /// Shows a segment to the tap.
    pub(crate) fn segment(&mut self, tap: &mut Decoder, at: Duration, segment: &TcpSegment<'_>) {
        let mut key = [segment.from, segment.to];
        key.sort_unstable();
        let is_first = segment.syn && segment.acknowledged.is_none();
        if is_first
            && let Some(before) = self.connections.get(&key)
            && before.syn != Some(segment.sequence)
        {
            // The port is used again.
            tap.close(at, before.number, ConnectionClose::Cut);
            self.connections.remove(&key);
        }
        if !self.connections.contains_key(&key) {
            let Some(client) = client_of(segment) else { return };
            self.opened += 1;
            let (number, halves) = (self.opened, [Reassembly::default(), Reassembly::default()]);
            tap.open(at, number, client.to_string());
            self.connections
                .insert(key, ReplayedConnection { number, client, syn: None, accepted: false, halves });
        }
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if let Some(how) = connection.segment(tap, at, segment) {
            match how {
                ConnectionClose::Reset(Endpoint::Server) if !connection.accepted => {
                    tap.refuse(at, connection.number, "the server refused the connection".to_owned());
                }
                _ => tap.close(at, connection.number, how),
            }
            self.connections.remove(&key);
        }
    }

    /// The capture is at its end.
    pub(crate) fn finish(&mut self, tap: &mut Decoder, at: Duration) {
        let mut connections: Vec<ReplayedConnection> = self.connections.drain().map(|(_, it)| it).collect();
        connections.sort_by_key(|connection| connection.number);
        for mut connection in connections {
            for sender in [Endpoint::Client, Endpoint::Server] {
                connection.drain(tap, at, sender, true);
            }
            tap.close(at, connection.number, ConnectionClose::Cut);
        }
    }
}

impl ReplayedConnection {
    fn segment(
        &mut self,
        tap: &mut Decoder,
        at: Duration,
        segment: &TcpSegment<'_>,
    ) -> Option<ConnectionClose> {
        let sender = if segment.from == self.client { Endpoint::Client } else { Endpoint::Server };
        let half = &mut self.halves[sender as usize];
        let first_byte = segment.sequence.wrapping_add(u32::from(segment.syn));
        if segment.syn {
            half.begin(first_byte);
            match sender {
                Endpoint::Client => self.syn = Some(segment.sequence),
                Endpoint::Server => self.accepted = true,
            }
        } else if half.is_new() && !segment.data.is_empty() {
            tap.gap(at, self.number, sender, 0);
            self.accepted = true;
        }
        half.segment(first_byte, segment.data);
        if segment.fin {
            half.end(first_byte.wrapping_add(segment.data.len() as u32));
        }
        self.drain(tap, at, sender, segment.rst);
        if segment.rst {
            self.drain(tap, at, sender.opposite(), true);
            return Some(ConnectionClose::Reset(sender));
        }
        self.halves.iter().all(Reassembly::is_complete).then_some(ConnectionClose::Orderly)
    }

    fn drain(&mut self, tap: &mut Decoder, at: Duration, sender: Endpoint, force: bool) {
        while let Some(piece) = self.halves[sender as usize].next_piece(force) {
            match piece {
                Piece::Data(data) => tap.bytes(at, self.number, sender, &data),
                Piece::Gap(count) => tap.gap(at, self.number, sender, count.into()),
            }
        }
    }
}

/// The client of a connection that begins in the capture with this segment; `None` for other segments.
fn client_of(segment: &TcpSegment<'_>) -> Option<SocketAddr> {
    let TcpSegment { from, to, .. } = *segment;
    if segment.syn {
        return Some(if segment.acknowledged.is_some() { to } else { from });
    }
    let from_client = match FrameHeader::parse(segment.data, &Expected::default()) {
        Ok(Some(header)) => header.head.direction == Direction::Request,
        _ => sender_of_text(segment.data)? == Endpoint::Client,
    };
    Some(if from_client { from } else { to })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::conversation::CapturedConnection;
    use crate::capture::file::{CaptureReader, PcapngBlocks};
    use crate::capture::packet::TcpEndpoints;
    use crate::decoder::DecoderOptions;
    use crate::record::{RecordKind, TrafficRecord};
    use libdc::wire::frame::{MessageHead, Operation, SessionOperation};
    use libdc::wire::message::write_message;
    use proptest::prelude::*;

    const GET: Operation = Operation::Session(SessionOperation::Get);

    fn tap() -> Decoder {
        Decoder::new(
            DecoderOptions { connections: true, keep_bytes: true, ..DecoderOptions::default() },
            Duration::ZERO,
        )
    }

    /// The records of packets with their times.
    fn replayed(packets: &[(Duration, Vec<u8>)]) -> Vec<TrafficRecord> {
        let mut blocks = PcapngBlocks::new("a test").unwrap();
        for (at, packet) in packets {
            blocks.packet(*at, packet, None).unwrap();
        }
        let (file, mut tap, mut replay) = (blocks.drain(), tap(), Replay::default());
        let mut reader = CaptureReader::new(&file[..]).unwrap();
        let mut last = Duration::ZERO;
        while let Some(captured) = reader.next().unwrap() {
            last = captured.at;
            replay.segment(&mut tap, last, &TcpSegment::of_packet(captured.link, &captured.packet).unwrap());
        }
        replay.finish(&mut tap, last);
        tap.drain()
    }

    fn request(uid: u32, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_message(&mut bytes, MessageHead::request(uid, GET), &vec![7; len]);
        bytes
    }

    fn answer(uid: u32, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_message(&mut bytes, MessageHead::request(uid, GET).response(), &vec![9; len]);
        bytes
    }

    #[test]
    fn a_capture_without_its_beginning_is_picked_up_at_a_frame() {
        let mut conversation = CapturedConnection::new(TcpEndpoints::stand_in(1));
        let at = Duration::from_secs;
        let mut packets = vec![];
        for (second, sender, offset, bytes) in [
            (1, Endpoint::Server, 100, answer(4, 10)[3..].to_vec()),
            (2, Endpoint::Client, 900, request(5, 10)),
            (3, Endpoint::Server, 200, answer(5, 10)),
        ] {
            let packet = conversation.data(sender, offset, &bytes).unwrap().remove(0);
            packets.push((at(second), packet));
        }
        let names: Vec<_> = replayed(&packets)
            .into_iter()
            .map(|record| match record.what {
                RecordKind::Opened { from } => from,
                RecordKind::Message(it) => format!("{:?} {:?}", it.sender, it.answers.map(|it| it.took)),
                other => format!("{other:?}"),
            })
            .collect();
        let closed = "Closed { how: Cut, unanswered: 0, unfinished: [(Client, 0), (Server, 0)] }";
        assert_eq!(names, ["10.0.0.1:1025", "Client None", "Server Some(1s)", closed]);
    }

    #[test]
    fn line_capture_without_beginning_is_picked_up_at_a_line() {
        let mut conversation = CapturedConnection::new(TcpEndpoints::stand_in(1));
        let at = Duration::from_secs;
        let mut packets = vec![];
        for (second, sender, offset, bytes) in [
            (1, Endpoint::Client, 800, &b"key\n10\n"[..]),
            (2, Endpoint::Server, 100, b"timeout\n"),
            (3, Endpoint::Client, 808, b"l\nk\n10\n"),
            (5, Endpoint::Server, 108, b"ok 00000000000000070000000000000009 33\n"),
        ] {
            packets.push((at(second), conversation.data(sender, offset, bytes).unwrap().remove(0)));
        }
        let took: Vec<_> = replayed(&packets)
            .into_iter()
            .filter_map(|record| match record.what {
                RecordKind::Opened { from } => Some(from),
                RecordKind::Text(it) => Some(format!("{:?} {:?}", it.sender, it.answers.map(|it| it.took))),
                _ => None,
            })
            .collect();
        assert_eq!(took, ["10.0.0.1:1025", "Server None", "Client None", "Server Some(2s)"]);
    }

    #[test]
    fn missing_segment_is_a_gap() {
        let mut conversation = CapturedConnection::new(TcpEndpoints::stand_in(1));
        let at = Duration::from_secs(1);
        let mut packets = vec![(at, conversation.syn().unwrap())];
        for (offset, bytes) in [(0, request(4, 10)), (100, request(5, 10))] {
            packets.push((at, conversation.data(Endpoint::Client, offset, &bytes).unwrap().remove(0)));
        }
        let whole = replayed(&packets);
        assert!(
            matches!(whole[2].what, RecordKind::Gap { sender: Endpoint::Client, count: 76 }),
            "{whole:?}"
        );
        assert!(matches!(whole[3].what, RecordKind::Message(_)), "{whole:?}");
    }

    #[test]
    fn a_port_that_is_used_again_is_another_connection() {
        let mut packets = vec![];
        for second in 0..2 {
            let mut conversation = CapturedConnection::new(TcpEndpoints::stand_in(1));
            let at = Duration::from_secs(second);
            packets.push((at, conversation.syn().unwrap()));
            packets.extend(conversation.accepted().unwrap().map(|packet| (at, packet)));
            packets.push((at, conversation.data(Endpoint::Client, 0, &request(1, 1)).unwrap().remove(0)));
            packets.extend(conversation.fin(Endpoint::Client, 15).unwrap().map(|packet| (at, packet)));
            packets.extend(conversation.fin(Endpoint::Server, 0).unwrap().map(|packet| (at, packet)));
        }
        let numbers: Vec<u64> = replayed(&packets)
            .iter()
            .filter(|record| matches!(record.what, RecordKind::Message(_)))
            .map(|record| record.connection)
            .collect();
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn a_refused_connection_and_a_reset_one_are_told_apart() {
        let mut refused = CapturedConnection::new(TcpEndpoints::stand_in(1));
        let mut reset = CapturedConnection::new(TcpEndpoints::stand_in(2));
        let at = Duration::from_secs(1);
        let mut packets = vec![(at, refused.syn().unwrap()), (at, refused.reset(Endpoint::Server).unwrap())];
        packets.push((at, reset.syn().unwrap()));
        packets.extend(reset.accepted().unwrap().map(|packet| (at, packet)));
        packets.push((at, reset.reset(Endpoint::Server).unwrap()));
        let records = replayed(&packets);
        assert!(matches!(records[1].what, RecordKind::Refused { .. }), "{records:?}");
        assert!(
            matches!(
                records[3].what,
                RecordKind::Closed { how: ConnectionClose::Reset(Endpoint::Server), .. }
            ),
            "{records:?}"
        );
    }

    fn pieces() -> impl Strategy<Value = Vec<(usize, Endpoint, Vec<u8>)>> {
        let bytes = prop_oneof![
            6 => (0..3_u32, 0..4000_usize).prop_map(|(uid, len)| request(uid, len)),
            6 => (0..3_u32, 0..4000_usize).prop_map(|(uid, len)| answer(uid, len)),
            1 => proptest::collection::vec(any::<u8>(), 1..40),
            2 => "(l\nk\n10\n|ok\n|timeout\n|x)".prop_map(String::into_bytes),
            1 => Just(answer(1, 100)[..50].to_vec()),
        ];
        let sender = prop_oneof![Just(Endpoint::Client), Just(Endpoint::Server)];
        proptest::collection::vec((0..3_usize, sender, bytes), 0..30)
    }

    proptest! {
        #[test]
        fn written_capture_replays_the_observed_records(pieces in pieces()) {
            let (mut live, mut packets, mut offsets) = (tap(), Vec::new(), [[0_u64; 2]; 3]);
            let mut conversations = [1, 2, 3].map(|number| CapturedConnection::new(TcpEndpoints::stand_in(number)));
            let mut at = Duration::from_nanos(1_772_366_401_204_117_391);
            for (index, conversation) in conversations.iter_mut().enumerate() {
                live.open(at, index as u64 + 1, TcpEndpoints::stand_in(index as u64 + 1).client.to_string());
                packets.push((at, conversation.syn().unwrap()));
                packets.extend(conversation.accepted().unwrap().map(|packet| (at, packet)));
            }
            for (index, sender, bytes) in pieces {
                at += Duration::from_nanos(1_234_567);
                live.bytes(at, index as u64 + 1, sender, &bytes);
                let offset = &mut offsets[index][sender as usize];
                for packet in conversations[index].data(sender, *offset, &bytes).unwrap() {
                    packets.push((at, packet));
                }
                *offset += bytes.len() as u64;
            }
            for (index, conversation) in conversations.iter_mut().enumerate() {
                for sender in [Endpoint::Server, Endpoint::Client] {
                    let fin = conversation.fin(sender, offsets[index][sender as usize]).unwrap();
                    packets.extend(fin.map(|packet| (at, packet)));
                }
                live.close(at, index as u64 + 1, ConnectionClose::Orderly);
            }
            prop_assert_eq!(replayed(&packets), live.drain());
        }
    }
}
