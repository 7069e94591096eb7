//! Signals, by name or number.

use dc_cli::ValueError;
use nix::sys::signal::Signal;

const TAKES: &str = "a signal, such as HUP, SIGTERM or 15";
const TAKES_OR_NONE: &str = "a signal, such as TERM, SIGKILL or 9, or none";

/// The signal that children receive when the master is killed, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrphanSignal(pub(crate) Option<Signal>);

/// The signal that `text` names.
///
/// # Errors
///
/// There is no such signal.
pub(super) fn stop_signal(text: &str) -> Result<Signal, ValueError> {
    signal(text).ok_or_else(|| ValueError::new("is not a signal", TAKES))
}

/// The signal that `text` names, or none.
///
/// # Errors
///
/// There is no such signal.
pub(super) fn orphan_signal(text: &str) -> Result<OrphanSignal, ValueError> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(OrphanSignal(None));
    }
    let signal = signal(text).ok_or_else(|| ValueError::new("is not a signal", TAKES_OR_NONE))?;
    Ok(OrphanSignal(Some(signal)))
}

/// The signal called `text`, as kill(1) has it.
pub(crate) fn signal(text: &str) -> Option<Signal> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Signal::try_from(text.parse::<i32>().ok()?).ok();
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_signals() {
        for text in ["HUP", "SIGHUP", "hup", "sighup", "1"] {
            assert_eq!(stop_signal(text), Ok(Signal::SIGHUP), "{text}");
        }
        assert_eq!(orphan_signal("KILL"), Ok(OrphanSignal(Some(Signal::SIGKILL))));
        assert_eq!(orphan_signal("None"), Ok(OrphanSignal(None)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "0", "65", "-1", "HUB", "SIG", "none", "99999999999"] {
            assert!(stop_signal(text).is_err(), "{text}");
        }
        assert!(orphan_signal("").is_err());
    }
}
