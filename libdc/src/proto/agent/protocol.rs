//! What a local connection speaks: frames, or the lines of the text protocol. Its first byte tells.

use crate::proto::agent::frames::take_frames;
use crate::proto::agent::lines::take_lines;
use crate::proto::agent::local::{LocalCloseReason, LocalConnection, LocalId};
use crate::proto::agent::multiplexer::MultiplexerSettings;
use crate::proto::agent::origin::AgentLink;
use crate::time::Time;
use crate::wire::detect::Protocol;

/// What a local connection speaks, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalProtocol {
    Unknown,
    Frames,
    Lines,
}

impl LocalProtocol {
    /// What begins with this byte.
    pub(crate) fn detect(first: u8) -> Result<Self, LocalCloseReason> {
        match Protocol::detect(first) {
            Protocol::Text => Ok(Self::Lines),
            Protocol::Tls => Err(LocalCloseReason::Tls),
            // Of what is unknown the first frame's corruption says what is wrong.
            Protocol::Frames | Protocol::Unknown(_) => Ok(Self::Frames),
        }
    }
}

/// Takes every whole request from `input` for which there is room, in what the connection speaks.
pub(crate) fn handle_requests(
    now: Time,
    id: LocalId,
    local: &mut LocalConnection,
    input: &mut &[u8],
    link: &mut AgentLink,
    settings: &MultiplexerSettings,
    took: &mut bool,
) -> Result<(), LocalCloseReason> {
    if local.speech == LocalProtocol::Unknown
        && let Some(first) = input.first()
    {
        local.speech = LocalProtocol::detect(*first)?;
    }
    match local.speech {
        LocalProtocol::Frames => take_frames(now, id, local, input, link, settings, took)?,
        LocalProtocol::Lines if local.is_ending() => *input = &[],
        LocalProtocol::Lines => *took = take_lines(now, id, local, input, link),
        LocalProtocol::Unknown => {}
    }
    Ok(())
}
