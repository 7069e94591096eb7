//! The protocol of a local connection: frames or lines. Its first byte decides.

use crate::proto::agent::frames::take_frames;
use crate::proto::agent::lines::take_lines;
use crate::proto::agent::local::{LocalCloseReason, LocalConnection, LocalContext};
use crate::wire::detect::Protocol;

/// The protocol of a local connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalProtocol {
    /// Nothing has been received.
    Unknown,
    Frames,
    Lines,
}

impl LocalProtocol {
    fn detect(first: u8) -> Result<Self, LocalCloseReason> {
        match Protocol::detect(first) {
            Protocol::Text => Ok(Self::Lines),
            Protocol::Tls => Err(LocalCloseReason::Tls),
            // The error of the first frame names what is wrong with unknown input.
            Protocol::Frames | Protocol::Unknown(_) => Ok(Self::Frames),
        }
    }
}

/// Takes every whole request from `input` for which there is capacity. Returns whether there was one.
pub(crate) fn handle_requests(
    local: &mut LocalConnection,
    cx: &mut LocalContext<'_>,
    input: &mut &[u8],
) -> Result<bool, LocalCloseReason> {
    if local.protocol == LocalProtocol::Unknown
        && let Some(first) = input.first()
    {
        local.protocol = LocalProtocol::detect(*first)?;
    }
    match local.protocol {
        _ if local.is_closing() => {
            *input = &[];
            Ok(false)
        }
        LocalProtocol::Frames => Ok(take_frames(local, cx, input)?),
        LocalProtocol::Lines => Ok(take_lines(local, cx, input)),
        LocalProtocol::Unknown => Ok(false),
    }
}
