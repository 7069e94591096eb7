//! What a local connection speaks: frames, or the lines of the text protocol. Its first byte tells.

use crate::proto::link::Link;
use crate::proto::local::{Local, LocalFault, LocalId};
use crate::proto::local_frames::take_frames;
use crate::proto::local_text::take_lines;
use crate::proto::multiplexer::MultiplexerSettings;
use crate::time::Time;
use crate::wire::opening::Opening;

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
        match Opening::of(first) {
            Opening::Text => Ok(Self::Lines),
            Opening::Tls => Err(LocalFault::Tls),
            // Of what is unknown the first frame's corruption says what is wrong.
            Opening::Frames | Opening::Unknown(_) => Ok(Self::Frames),
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
