//! What a local connection speaks: frames, or the lines of the text protocol. Its first byte tells.

use crate::proto::link::Link;
use crate::proto::local::{Local, LocalFault, LocalId};
use crate::proto::local_frames::take_frames;
use crate::proto::local_text::take_lines;
use crate::proto::multiplexer::MultiplexerSettings;
use crate::time::Time;
use crate::wire::line::FIRST_BYTES;

/// The first byte of a TLS handshake.
const TLS_FIRST_BYTE: u8 = 0x16;

/// What a local connection speaks, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    Unknown,
    Frames,
    Lines,
}

impl Speech {
    /// What begins with this byte.
    pub(crate) fn of(first: u8) -> Result<Self, LocalFault> {
        if FIRST_BYTES.contains(&first) {
            Ok(Self::Lines)
        } else if first == TLS_FIRST_BYTE {
            Err(LocalFault::Tls)
        } else {
            // Or nothing that is known, which the first frame's corruption will say.
            Ok(Self::Frames)
        }
    }
}

/// Takes every whole request from `input` for which there is room, in what the connection speaks.
pub(crate) fn take_requests(
    now: Time,
    id: LocalId,
    local: &mut Local,
    input: &mut &[u8],
    link: &mut Link,
    settings: &MultiplexerSettings,
    took: &mut bool,
) -> Result<(), LocalFault> {
    if local.speech == Speech::Unknown
        && let Some(first) = input.first()
    {
        local.speech = Speech::of(*first)?;
    }
    match local.speech {
        Speech::Frames => take_frames(now, id, local, input, link, settings, took)?,
        Speech::Lines if local.is_ending() => *input = &[],
        Speech::Lines => *took = take_lines(now, id, local, input, link),
        Speech::Unknown => {}
    }
    Ok(())
}
