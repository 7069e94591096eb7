//! The times and limits that the options set.

/// How children are started, stopped and restarted. A time of 0 is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SupervisorSettings {
    /// A child that has lived this long is taken for ready, in milliseconds.
    pub(crate) start_ms: u64,
    /// A child that is not ready after this is given up, in milliseconds. At least `start_ms`.
    pub(crate) ready_timeout_ms: u64,
    /// A child that was told to stop is killed after this, in milliseconds.
    pub(crate) stop_timeout_ms: u64,
    /// Most restarts of children that died, in a minute.
    pub(crate) restarts_max: usize,
}
