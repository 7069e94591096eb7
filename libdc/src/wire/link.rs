//! The payloads of class 2: the link between an agent and its server.
//!
//! | operation | asked by | data of the request | data of the response |
//! |---|---|---|---|
//! | 3 PING | either | none | none |
//!
//! A ping asks whether the other end is there; any answer with its uid will do, and it overtakes what else is
//! queued. Nothing of this class is sent to a peer at patch level 0. Nothing here panics.

use crate::wire::corruption::Corruption;
use crate::wire::frame::MessageHead;
use crate::wire::message::{MessageRef, write_message};
use crate::wire::operation::{LinkOperation, Operation};

/// Are you there? Or: I am.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Pairs the answer with the question.
    pub uid: u32,
}

impl Ping {
    /// Reads a ping or the answer to one: which of them, the head of the message says.
    ///
    /// # Errors
    /// [`Corruption`] if it carries data.
    pub fn parse(message: &MessageRef<'_>) -> Result<Self, Corruption> {
        if message.data.is_empty() {
            Ok(Self { uid: message.head.uid })
        } else {
            Err(Corruption::Data { operation: "PING", problem: "there is data" })
        }
    }

    /// Appends the question.
    pub fn write_request(self, out: &mut Vec<u8>) {
        write_message(out, self.request_head(), &[]);
    }

    /// Appends the answer.
    pub fn write_response(self, out: &mut Vec<u8>) {
        write_message(out, self.request_head().response(), &[]);
    }

    const fn request_head(self) -> MessageHead {
        MessageHead::request(self.uid, Operation::Link(LinkOperation::Ping))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Direction;
    use crate::wire::message::MessageReader;

    const REQUEST: [u8; 14] = [0, 0x11, 0, 1, 0, 0xfe, 0xdc, 0xba, 0x98, 2, 3, 1, 0, 0];
    const RESPONSE: [u8; 14] = [0, 0x11, 0, 1, 1, 0xfe, 0xdc, 0xba, 0x98, 2, 3, 1, 0, 0];
    const PING: Ping = Ping { uid: 0xfedc_ba98 };

    #[test]
    fn a_ping_and_its_answer_are_fourteen_bytes() {
        let mut out = Vec::new();
        PING.write_request(&mut out);
        assert_eq!(out, REQUEST);
        out.clear();
        PING.write_response(&mut out);
        assert_eq!(out, RESPONSE);
    }

    #[test]
    fn a_ping_is_read_in_both_directions_of_a_link() {
        for side in [Direction::Request, Direction::Response] {
            let mut reader = MessageReader::link(side);
            for bytes in [REQUEST, RESPONSE] {
                let message = reader.next(&mut bytes.as_slice()).unwrap().unwrap();
                assert_eq!(Ping::parse(&message), Ok(PING));
            }
        }
    }

    #[test]
    fn a_ping_with_data_is_corruption() {
        let head = PING.request_head();
        let corruption = Ping::parse(&MessageRef { head, data: &[0] }).unwrap_err();
        assert_eq!(corruption.to_string(), "PING: there is data");
    }
}
