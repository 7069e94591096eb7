//! The differences of a simulated distcache 1.x server: its answers carry patch level 0, and it must be sent
//! only messages of class 0.

use libdc::limits::FRAME_HEADER_BYTES;
use libdc::wire::frame::{Direction, Operation};
use libdc::wire::message::MessageReader;

/// Monitors the messages sent to a distcache 1.x server.
#[derive(Default)]
pub(crate) struct ExtensionSniffer {
    reader: MessageReader,
    unread: Vec<u8>,
}

impl ExtensionSniffer {
    /// Whether these bytes complete a message that such a server does not understand.
    pub(crate) fn detects_extensions(&mut self, bytes: &[u8]) -> bool {
        self.unread.extend_from_slice(bytes);
        let mut input = self.unread.as_slice();
        let mut detected = false;
        while let Ok(Some(message)) = self.reader.next(&mut input) {
            let is_request = message.head.direction == Direction::Request;
            detected |= !(is_request && matches!(message.head.operation, Operation::Session(_)));
        }
        let used = self.unread.len() - input.len();
        self.unread.drain(..used);
        detected
    }
}

/// Splits the bytes into complete messages.
pub(crate) fn split_messages(messages: &[u8]) -> Vec<&[u8]> {
    let mut split = Vec::new();
    let (mut start, mut end) = (0, 0);
    while let Some(header) = messages.get(end..).and_then(|rest| rest.first_chunk::<FRAME_HEADER_BYTES>()) {
        end += FRAME_HEADER_BYTES + usize::from(u16::from_be_bytes([header[12], header[13]]));
        if end > messages.len() {
            break;
        }
        let complete = header[11] == 1;
        if complete {
            split.push(&messages[start..end]);
            start = end;
        }
    }
    split
}

/// Writes patch level 0 into every frame of complete messages.
pub(crate) fn set_patch_level_0(messages: &mut [u8]) {
    let mut rest = messages;
    while let Some((header, behind)) = rest.split_first_chunk_mut::<FRAME_HEADER_BYTES>() {
        header[2..4].fill(0);
        let len = usize::from(u16::from_be_bytes([header[12], header[13]]));
        rest = &mut behind[len..];
    }
}
