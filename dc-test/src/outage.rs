//! Outages: times in which operations fail.
//!
//! One begins with a failure and ends when an operation is answered that was asked after the last failure. It
//! is tolerated for as long as the options say, and not before anything was answered at all: then the server
//! was never there.

use libdc::time::Time;

/// The outages of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outages {
    tolerated_ms: u64,
    reached: bool,
    /// First and last failure of the outage that lasts.
    current: Option<(Time, Time)>,
    last_failure: Option<Time>,
    /// How many there were.
    pub(crate) count: u64,
    /// How long the longest was, in milliseconds.
    pub(crate) longest_ms: u64,
    /// How long they were together, in milliseconds.
    pub(crate) total_ms: u64,
}

impl Outages {
    pub(crate) fn new(tolerated_ms: u64) -> Self {
        Self { tolerated_ms, ..Self::default() }
    }

    /// When the last failure was seen.
    pub(crate) const fn last_failure(&self) -> Option<Time> {
        self.last_failure
    }

    /// Whether any is tolerated.
    pub(crate) const fn are_tolerated(&self) -> bool {
        self.tolerated_ms > 0
    }

    /// Records a failure. Returns whether the run may continue.
    pub(crate) fn note_failure(&mut self, now: Time) -> bool {
        let begun = self.current.map_or(now, |(begun, _)| begun);
        self.current = Some((begun, now));
        self.last_failure = Some(now);
        self.reached && self.tolerated_ms > 0 && now.ms_since(begun) <= self.tolerated_ms
    }

    /// Notes that what was asked at `asked` is answered now.
    pub(crate) fn note_answer(&mut self, asked: Time, now: Time) {
        self.reached = true;
        if self.current.is_some_and(|(_, last)| last < asked) {
            self.close(now);
        }
    }

    /// Ends the outage that lasts, if one does.
    pub(crate) fn close(&mut self, now: Time) {
        if let Some((begun, _)) = self.current.take() {
            let lasted_ms = now.ms_since(begun);
            self.count += 1;
            self.longest_ms = self.longest_ms.max(lasted_ms);
            self.total_ms += lasted_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    #[test]
    fn outage_ends_with_answer_to_request_after_last_failure() {
        let mut outages = Outages::new(1000);
        outages.note_answer(at(0), at(1));
        assert!(outages.note_failure(at(10)));
        assert!(outages.note_failure(at(200)));
        // Asked before the last failure: says nothing about now.
        outages.note_answer(at(150), at(210));
        assert_eq!(outages.count, 0);
        outages.note_answer(at(220), at(240));
        assert_eq!((outages.count, outages.longest_ms, outages.total_ms), (1, 230, 230));
        assert_eq!(outages.last_failure(), Some(at(200)));
        assert!(outages.note_failure(at(300)));
        outages.note_answer(at(301), at(400));
        assert_eq!((outages.count, outages.longest_ms, outages.total_ms), (2, 230, 330));
    }

    #[test]
    fn outage_is_tolerated_up_to_the_limit() {
        let mut outages = Outages::new(1000);
        assert!(!outages.note_failure(at(0)), "the server was never there");
        let mut outages = Outages::new(0);
        outages.note_answer(at(0), at(0));
        assert!(!outages.note_failure(at(1)));
        let mut outages = Outages::new(1000);
        outages.note_answer(at(0), at(0));
        assert!(outages.note_failure(at(1)));
        assert!(outages.note_failure(at(1001)));
        assert!(!outages.note_failure(at(1002)));
    }
}
