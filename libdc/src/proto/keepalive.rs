//! Keepalive: pings a quiet connection, and ends a connection whose peer is silent.
//!
//! ```text
//!              interval without traffic                    timeout without a message
//!   heard ─────────────────────────────▶ ping sent ──────────────────────────────────▶ Silent
//!     ▲                                      │
//!     └────────────── any message ◀──────────┘
//! ```
//!
//! A peer is silent if a request that is answered at once was sent, and no message at all arrived for the
//! whole timeout. A request that may block does not count. So a busy connection needs no ping, and a blocked
//! one stays open.
//!
//! At most one ping is in flight. A side for which only incoming messages count never calls
//! [`sent`](Keepalive::sent): the server pings a link that it has not heard for an interval. The other side
//! pings also when it has sent nothing, so that its peer hears from it.

use crate::time::Time;

/// When to ping, and when to give up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    interval_ms: u64,
    timeout_ms: u64,
    last_received: Time,
    /// `None` if outgoing messages do not count.
    last_sent: Option<Time>,
    /// Since when an answer is due and no message has come.
    silent_since: Option<Time>,
    is_ping_in_flight: bool,
}

/// The action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepaliveAction {
    /// Nothing.
    Wait,
    /// A ping is to be sent: [`Keepalive::ping_sent`].
    Ping,
    /// The connection is to be given up.
    Silent {
        /// How long no message has come, in milliseconds.
        silent_ms: u64,
    },
}

impl Keepalive {
    /// The keepalive of a connection that stands since `now`. Times are in milliseconds.
    pub(crate) const fn new(now: Time, interval_ms: u64, timeout_ms: u64) -> Self {
        Self {
            interval_ms,
            timeout_ms,
            last_received: now,
            last_sent: None,
            silent_since: None,
            is_ping_in_flight: false,
        }
    }

    /// The same times, for a new connection.
    pub(crate) const fn restart(&mut self, now: Time) {
        *self = Self::new(now, self.interval_ms, self.timeout_ms);
    }

    /// A message was sent. `is_prompt`: it is a request that is answered at once.
    #[inline]
    pub(crate) fn sent(&mut self, now: Time, is_prompt: bool) {
        self.last_sent = Some(now);
        if is_prompt {
            self.silent_since.get_or_insert(now);
        }
    }

    /// Messages came. `is_answer_due`: some requests that are answered at once have no answer so far.
    #[inline]
    pub(crate) fn received(&mut self, now: Time, is_answer_due: bool) {
        self.last_received = now;
        self.silent_since = is_answer_due.then_some(now);
    }

    /// A ping was sent.
    pub(crate) fn ping_sent(&mut self, now: Time) {
        self.is_ping_in_flight = true;
        self.silent_since.get_or_insert(now);
    }

    /// The ping was answered.
    pub(crate) const fn ping_answered(&mut self) {
        self.is_ping_in_flight = false;
    }

    /// When [`check`](Self::check) has to be called. `may_ping`: the peer answers pings.
    pub(crate) fn deadline(&self, may_ping: bool) -> Option<Time> {
        let silence = self.silent_since.map(|since| since.after_ms(self.timeout_ms));
        [silence, self.ping_at(may_ping)].into_iter().flatten().min()
    }

    /// The action that is due at `now`.
    pub(crate) fn check(&self, now: Time, may_ping: bool) -> KeepaliveAction {
        let silent_ms = self.silent_since.map_or(0, |since| now.ms_since(since));
        if silent_ms >= self.timeout_ms {
            return KeepaliveAction::Silent { silent_ms };
        }
        match self.ping_at(may_ping) {
            Some(ping_at) if ping_at <= now => KeepaliveAction::Ping,
            _ => KeepaliveAction::Wait,
        }
    }

    fn ping_at(&self, may_ping: bool) -> Option<Time> {
        let quiet_since = self.last_sent.map_or(self.last_received, |sent| sent.min(self.last_received));
        (may_ping && !self.is_ping_in_flight).then(|| quiet_since.after_ms(self.interval_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: KeepaliveAction = KeepaliveAction::Wait;

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    #[test]
    fn quiet_connection_is_pinged_and_given_up_without_answer() {
        let mut keepalive = Keepalive::new(at(0), 5_000, 3_000);
        assert_eq!((keepalive.deadline(true), keepalive.deadline(false)), (Some(at(5_000)), None));
        assert_eq!(keepalive.check(at(4_999), true), WAIT);
        assert_eq!(keepalive.check(at(5_000), true), KeepaliveAction::Ping);
        assert_eq!(keepalive.check(at(5_000), false), WAIT);
        keepalive.ping_sent(at(5_000));
        assert_eq!((keepalive.deadline(true), keepalive.check(at(7_999), true)), (Some(at(8_000)), WAIT));
        assert_eq!(keepalive.check(at(8_001), true), KeepaliveAction::Silent { silent_ms: 3_001 });
        keepalive.received(at(8_001), false);
        assert_eq!(keepalive.deadline(true), None, "one ping at a time");
        keepalive.ping_answered();
        assert_eq!(keepalive.deadline(true), Some(at(13_001)));
    }

    #[test]
    fn connection_without_outgoing_messages_is_pinged() {
        let mut keepalive = Keepalive::new(at(0), 5_000, 3_000);
        keepalive.sent(at(1_000), false);
        keepalive.received(at(4_000), false);
        assert_eq!(keepalive.deadline(true), Some(at(6_000)));
        keepalive.sent(at(4_500), false);
        assert_eq!(keepalive.deadline(true), Some(at(9_000)));
    }

    #[test]
    fn only_requests_answered_at_once_make_silence() {
        let mut keepalive = Keepalive::new(at(0), 50_000, 3_000);
        keepalive.sent(at(1_000), false);
        assert_eq!(keepalive.check(at(40_000), true), WAIT);
        keepalive.sent(at(40_000), true);
        keepalive.sent(at(41_000), true);
        assert_eq!(keepalive.deadline(true), Some(at(43_000)), "since the first of them");
        keepalive.received(at(42_000), true);
        assert_eq!(keepalive.deadline(true), Some(at(45_000)), "an answer is due still");
        keepalive.received(at(43_000), false);
        assert_eq!(keepalive.check(at(90_000), false), WAIT);
        keepalive.sent(at(90_000), true);
        keepalive.restart(at(91_000));
        assert_eq!(keepalive.deadline(true), Some(at(141_000)), "nothing is due on a new connection");
    }
}
