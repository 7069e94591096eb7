//! Reconnecting: when the next attempt to open a link is made.
//!
//! ```text
//!            attempt failed: retry × uniform(0.5, 1.5)
//!          ┌───────────────┐
//!          ▼               │   link up                     lasting: uniform(0, span), or at once
//!   ┌─ Attempting ─────────┴───────────▶ Up ─ link lost ──┬─────────────────────────────────────┐
//!   │      ▲                                              └ brief: doubling × uniform(0.5, 1.5) │
//!   │      └────────────────────────────────────────────────────────────────────────────────────┘
//!   └─ shut down ──▶ no further attempt
//! ```
//!
//! - The pause between failed attempts starts at [`failed_ms_min`](ReconnectSettings::failed_ms_min) and
//!   doubles up to [`retry_ms`](ReconnectSettings::retry_ms). The pause after brief links starts at
//!   [`brief_ms_min`](ReconnectSettings::brief_ms_min) and doubles up to the same limit. Each pause is
//!   multiplied by a random factor from 0.5 to 1.5, so a fleet does not reconnect in step.
//! - A lasting link resets both pauses. The first attempt after it follows at a random time within
//!   `max(min(retry, 1 s), retry / 5)`, or at once where all clients are on the server's host.
//! - GOAWAY on a lasting link is no failure of the server: the next attempt follows at once.
//! - While locks are held, the server's grace period bounds the pauses, whatever `retry_ms` says: the first
//!   attempt follows within a tenth of it, and further pauses are an eighth of it, times the same factor.
//!
//! The policy knows neither clock nor random numbers: both are arguments. It keeps no connection and never
//! panics.

use crate::time::Time;

/// Upper bound of the window for the first attempt after a lasting link, in milliseconds, unless `retry_ms`
/// is long.
const FIRST_SPAN_MS: u64 = 1_000;
/// The first attempt after a lasting link follows within this fraction of a long `retry_ms`.
const FIRST_SPAN_FRACTION: u64 = 5;
/// While locks are held, the first attempt follows within this fraction of the grace period.
const HELD_FIRST_FRACTION: u64 = 10;
/// While locks are held, pauses before the random factor are at most this fraction of the grace period.
const HELD_PAUSE_FRACTION: u64 = 8;

/// The figures of a [`ReconnectPolicy`]. All times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconnectSettings {
    /// Upper bound of the pauses, before the random factor.
    pub retry_ms: u64,
    /// The first pause between failed attempts. `retry_ms` or more makes all of them equal.
    pub failed_ms_min: u64,
    /// The first pause after a brief link.
    pub brief_ms_min: u64,
    /// A link that was up for at least this long is lasting, any other one brief.
    pub lasting_ms: u64,
    /// Whether the first attempt after a lasting link follows at once: for `UNIX:` and `FD:` addresses.
    pub at_once: bool,
}

/// Pause after the first brief link of an agent, in milliseconds.
const AGENT_BRIEF_MS_MIN: u64 = 10;

impl ReconnectSettings {
    /// The figures of an agent: all pauses between failed attempts have the length of `-retry`, and a link is
    /// lasting if it was up for that long.
    #[must_use]
    pub const fn agent(retry_ms: u64, at_once: bool) -> Self {
        Self {
            retry_ms,
            failed_ms_min: retry_ms,
            brief_ms_min: AGENT_BRIEF_MS_MIN,
            lasting_ms: retry_ms,
            at_once,
        }
    }
}

/// Why a link that was up has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLoss {
    /// The connection broke, the peer was silent or broke the protocol.
    Lost,
    /// The server sent GOAWAY.
    GoAway,
}

/// Decides when the next attempt to open a link is made.
#[derive(Clone, Debug)]
pub struct ReconnectPolicy {
    settings: ReconnectSettings,
    failed_ms: u64,
    brief_ms: u64,
    up_since: Option<Time>,
    /// When the link was lost, or the first attempt failed.
    lost_at: Option<Time>,
    held_grace_ms: Option<u64>,
    /// The message of the last failed attempt since the link was up.
    last_error: String,
    is_shut_down: bool,
}

impl ReconnectPolicy {
    /// A policy before its first attempt, which is made at once.
    #[must_use]
    pub const fn new(settings: ReconnectSettings) -> Self {
        Self {
            settings,
            failed_ms: settings.failed_ms_min,
            brief_ms: settings.brief_ms_min,
            up_since: None,
            lost_at: None,
            held_grace_ms: None,
            last_error: String::new(),
            is_shut_down: false,
        }
    }

    /// An attempt failed before the link was up. Returns the time of the next attempt, `None` after
    /// [`shut_down`](Self::shut_down).
    pub fn attempt_failed(&mut self, now: Time, random: u64) -> Option<Time> {
        self.up_since = None;
        self.lost_at.get_or_insert(now);
        let pause_ms = next_pause(&mut self.failed_ms, self.settings.retry_ms);
        self.next_attempt(now, self.jittered(pause_ms, random))
    }

    /// The link is up. Returns the length of the outage before it, in milliseconds; 0 for the first link,
    /// unless an attempt failed before it.
    pub fn link_up(&mut self, now: Time) -> u64 {
        self.up_since = Some(now);
        self.last_error.clear();
        self.lost_at.take().map_or(0, |lost_at| now.ms_since(lost_at))
    }

    /// The link has ended. A link that was never up counts as a failed attempt. Returns the time of the next
    /// attempt, `None` after [`shut_down`](Self::shut_down).
    pub fn link_lost(&mut self, now: Time, loss: LinkLoss, random: u64) -> Option<Time> {
        let Some(up_since) = self.up_since.take() else {
            return self.attempt_failed(now, random);
        };
        self.lost_at.get_or_insert(now);
        if now.ms_since(up_since) < self.settings.lasting_ms {
            let pause_ms = next_pause(&mut self.brief_ms, self.settings.retry_ms);
            return self.next_attempt(now, self.jittered(pause_ms, random));
        }
        self.failed_ms = self.settings.failed_ms_min;
        self.brief_ms = self.settings.brief_ms_min;
        let is_immediate = self.settings.at_once || loss == LinkLoss::GoAway;
        let pause_ms = if is_immediate { 0 } else { random_up_to(self.first_span_ms(), random) };
        self.next_attempt(now, pause_ms)
    }

    /// The grace period of the server in milliseconds while locks are held over the link, else `None`. It
    /// applies to the attempts that are decided from now on.
    pub const fn set_held_grace_ms(&mut self, grace_ms: Option<u64>) {
        self.held_grace_ms = grace_ms;
    }

    /// The program ends: no further attempt is made.
    pub const fn shut_down(&mut self) {
        self.is_shut_down = true;
    }

    /// Whether the message of a failed attempt differs from that of the attempt before it. The first failure
    /// since the link was up is new. Logs need not repeat the others.
    pub fn is_new_error(&mut self, error: &str) -> bool {
        if self.last_error == error {
            return false;
        }
        error.clone_into(&mut self.last_error);
        true
    }

    fn first_span_ms(&self) -> u64 {
        let retry_ms = self.settings.retry_ms;
        let span_ms = retry_ms.min(FIRST_SPAN_MS).max(retry_ms / FIRST_SPAN_FRACTION);
        self.held_grace_ms.map_or(span_ms, |grace_ms| span_ms.min(grace_ms / HELD_FIRST_FRACTION))
    }

    /// Multiplies a pause by a random factor from 0.5 to 1.5.
    fn jittered(&self, pause_ms: u64, random: u64) -> u64 {
        let pause_ms =
            self.held_grace_ms.map_or(pause_ms, |grace_ms| pause_ms.min(grace_ms / HELD_PAUSE_FRACTION));
        let (least_ms, most_ms) = (pause_ms.div_ceil(2), pause_ms.saturating_add(pause_ms / 2));
        least_ms + random_up_to(most_ms - least_ms, random)
    }

    fn next_attempt(&self, now: Time, pause_ms: u64) -> Option<Time> {
        (!self.is_shut_down).then(|| now.after_ms(pause_ms))
    }
}

/// The pause to make now; the next one is twice as long.
fn next_pause(pause_ms: &mut u64, retry_ms: u64) -> u64 {
    let now_ms = (*pause_ms).min(retry_ms);
    *pause_ms = now_ms.saturating_mul(2);
    now_ms
}

/// Maps a random number to one from 0 to `most`, with equal chances.
fn random_up_to(most: u64, random: u64) -> u64 {
    (((u128::from(most) + 1) * u128::from(random)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RETRY_MS: u64 = 5_000;
    const LOCK_CLIENT: ReconnectSettings = ReconnectSettings {
        retry_ms: RETRY_MS,
        failed_ms_min: 50,
        brief_ms_min: 50,
        lasting_ms: 1_000,
        at_once: false,
    };

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    fn agent() -> ReconnectPolicy {
        ReconnectPolicy::new(ReconnectSettings::agent(RETRY_MS, false))
    }

    /// The next random number of a seed, by `SplitMix64`.
    fn random(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = *seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn pause(next: Option<Time>, now: Time) -> u64 {
        next.unwrap().ms_since(now)
    }

    #[test]
    fn failed_attempts_are_half_to_one_and_a_half_retry_apart() {
        let mut policy = agent();
        assert_eq!(policy.attempt_failed(at(7), 0), Some(at(7 + 2_500)));
        assert_eq!(policy.attempt_failed(at(7), u64::MAX), Some(at(7 + 7_500)));
        assert_eq!(policy.attempt_failed(at(7), u64::MAX / 2), Some(at(7 + 5_000)));
    }

    #[test]
    fn lock_client_pauses_double_up_to_retry() {
        let mut policy = ReconnectPolicy::new(LOCK_CLIENT);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            pauses.push(pause(policy.attempt_failed(at(0), 0), at(0)));
        }
        assert_eq!(pauses, [25, 50, 100, 200, 400, 800, 1_600, 2_500, 2_500]);
        policy.link_up(at(0));
        assert_eq!(pause(policy.link_lost(at(1_000), LinkLoss::Lost, 0), at(1_000)), 0);
        assert_eq!(pause(policy.attempt_failed(at(0), 0), at(0)), 25, "a lasting link resets the pause");
    }

    #[test]
    fn brief_links_have_doubling_pauses_until_one_lasts() {
        let mut policy = agent();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            policy.link_up(at(0));
            pauses.push(pause(policy.link_lost(at(RETRY_MS - 1), LinkLoss::Lost, 0), at(RETRY_MS - 1)));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_500, 2_500, 2_500]);
        policy.link_up(at(0));
        policy.link_lost(at(RETRY_MS), LinkLoss::Lost, 0);
        policy.link_up(at(0));
        assert_eq!(policy.link_lost(at(1), LinkLoss::Lost, 0), Some(at(6)), "the pause is reset");
    }

    #[test]
    fn lasting_link_is_followed_by_attempt_within_its_span() {
        for (retry_ms, span_ms) in [(300, 300), (1_000, 1_000), (5_000, 1_000), (60_000, 12_000)] {
            let mut policy = ReconnectPolicy::new(ReconnectSettings::agent(retry_ms, false));
            for (random, pause_ms) in [(0, 0), (u64::MAX, span_ms)] {
                policy.link_up(at(0));
                let next = policy.link_lost(at(retry_ms), LinkLoss::Lost, random);
                assert_eq!(next, Some(at(retry_ms + pause_ms)));
            }
        }
    }

    #[test]
    fn local_server_and_goaway_are_followed_by_attempt_at_once() {
        let mut local = ReconnectPolicy::new(ReconnectSettings::agent(RETRY_MS, true));
        local.link_up(at(0));
        assert_eq!(local.link_lost(at(RETRY_MS), LinkLoss::Lost, u64::MAX), Some(at(RETRY_MS)));
        let mut remote = agent();
        remote.link_up(at(0));
        assert_eq!(remote.link_lost(at(RETRY_MS), LinkLoss::GoAway, u64::MAX), Some(at(RETRY_MS)));
    }

    #[test]
    fn repeated_goaway_on_brief_links_has_growing_pauses() {
        let mut policy = agent();
        for pause_ms in [15, 30, 60] {
            policy.link_up(at(0));
            assert_eq!(policy.link_lost(at(0), LinkLoss::GoAway, u64::MAX), Some(at(pause_ms)));
        }
    }

    #[test]
    fn link_that_never_was_up_counts_as_failed_attempt() {
        let mut policy = agent();
        assert_eq!(policy.link_lost(at(0), LinkLoss::GoAway, 0), Some(at(2_500)));
        policy.link_up(at(10));
        policy.link_lost(at(10), LinkLoss::Lost, 0);
        assert_eq!(policy.link_lost(at(10), LinkLoss::Lost, 0), Some(at(10 + 2_500)));
    }

    #[test]
    fn held_locks_bound_the_pauses_by_the_grace() {
        let mut policy = ReconnectPolicy::new(ReconnectSettings::agent(60_000, false));
        policy.set_held_grace_ms(Some(10_000));
        policy.link_up(at(0));
        assert_eq!(policy.link_lost(at(60_000), LinkLoss::Lost, u64::MAX), Some(at(61_000)));
        assert_eq!(policy.attempt_failed(at(0), u64::MAX), Some(at(1_875)));
        assert_eq!(policy.attempt_failed(at(0), 0), Some(at(625)));
        policy.set_held_grace_ms(None);
        assert_eq!(policy.attempt_failed(at(0), 0), Some(at(30_000)));
    }

    #[test]
    fn shutdown_ends_the_attempts() {
        let mut policy = agent();
        policy.link_up(at(0));
        policy.shut_down();
        assert_eq!(policy.link_lost(at(9_000), LinkLoss::Lost, 0), None);
        assert_eq!(policy.attempt_failed(at(9_000), 0), None);
    }

    #[test]
    fn link_up_reports_the_outage_since_its_start() {
        let mut policy = agent();
        assert_eq!(policy.link_up(at(5)), 0, "the first link ends no outage");
        policy.link_lost(at(100), LinkLoss::Lost, 0);
        policy.attempt_failed(at(200), 0);
        assert_eq!(policy.link_up(at(700)), 600);
        assert_eq!(policy.link_up(at(900)), 0);
    }

    #[test]
    fn equal_error_is_new_only_once_between_links() {
        let mut policy = agent();
        assert!(policy.is_new_error("refused"));
        assert!(!policy.is_new_error("refused"));
        assert!(policy.is_new_error("timed out"));
        policy.link_up(at(0));
        assert!(policy.is_new_error("timed out"));
    }

    /// Attempts of a policy in the order of time, from the loss of its lasting link to the first after
    /// `until`.
    fn attempts_after_loss(settings: ReconnectSettings, seed: u64, until: Time) -> Vec<Time> {
        let (mut policy, mut seed) = (ReconnectPolicy::new(settings), seed);
        policy.link_up(at(0));
        let lost_at = at(settings.lasting_ms);
        let mut attempts = vec![policy.link_lost(lost_at, LinkLoss::Lost, random(&mut seed)).unwrap()];
        while let Some(last) = attempts.last().copied().filter(|last| *last < until) {
            attempts.push(policy.attempt_failed(last, random(&mut seed)).unwrap());
        }
        attempts
    }

    #[test]
    fn forty_clients_of_killed_server_return_spread_and_in_time() {
        const CLIENTS: u64 = 40;
        let settings = ReconnectSettings::agent(RETRY_MS, false);
        let back_at = at(RETRY_MS + 20_000);
        let fleet: Vec<_> =
            (0..CLIENTS).map(|seed| attempts_after_loss(settings, seed * 1_000, back_at)).collect();
        for attempt in [0, 2] {
            let times: Vec<u64> = fleet.iter().map(|attempts| attempts[attempt].as_ms()).collect();
            let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
            let span_ms = if attempt == 0 { 1_000 } else { RETRY_MS };
            assert!(last - first > span_ms / 2, "attempt {attempt} of the fleet within {} ms", last - first);
            for slot in times.iter().map(|time| time / (span_ms / 10)) {
                let together = times.iter().filter(|time| *time / (span_ms / 10) == slot).count();
                assert!(together <= 12, "{together} attempts in a tenth of the span");
            }
        }
        for attempts in &fleet {
            let successful = attempts.last().unwrap();
            assert!(successful.ms_since(back_at) <= RETRY_MS * 3 / 2, "back after {successful:?}");
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Failed,
        Up,
        Lost(LinkLoss),
        Held(Option<u64>),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Failed),
            Just(Event::Up),
            Just(Event::Lost(LinkLoss::Lost)),
            Just(Event::Lost(LinkLoss::GoAway)),
            prop::option::of(0_u64..100_000).prop_map(Event::Held),
        ]
    }

    proptest! {
        /// No pause exceeds one and a half `retry_ms`, and no failure is followed by an attempt at once.
        #[test]
        fn pauses_keep_their_bounds(
            retry_ms in 1_u64..100_000,
            failed_ms_min in 1_u64..100_000,
            lasting_ms in 0_u64..100_000,
            at_once: bool,
            steps in prop::collection::vec((event(), 0_u64..100_000, any::<u64>()), 1..60),
        ) {
            let settings =
                ReconnectSettings { retry_ms, failed_ms_min, brief_ms_min: 10, lasting_ms, at_once };
            let mut policy = ReconnectPolicy::new(settings);
            let (mut now, mut up, mut grace_ms) = (at(0), false, None);
            for (event, after_ms, random) in steps {
                now = now.after_ms(after_ms);
                let (next, was_up) = match event {
                    Event::Failed => (policy.attempt_failed(now, random), false),
                    Event::Lost(loss) => (policy.link_lost(now, loss, random), up),
                    Event::Up => {
                        policy.link_up(now);
                        up = true;
                        continue;
                    }
                    Event::Held(held) => {
                        policy.set_held_grace_ms(held);
                        grace_ms = held;
                        continue;
                    }
                };
                up = false;
                let pause_ms = pause(next, now);
                prop_assert!(pause_ms <= retry_ms + retry_ms / 2);
                if let Some(grace_ms) = grace_ms {
                    prop_assert!(pause_ms <= grace_ms / 8 + grace_ms / 16);
                } else if !was_up {
                    prop_assert!(pause_ms >= retry_ms.min(failed_ms_min).div_ceil(2));
                }
            }
        }
    }
}
