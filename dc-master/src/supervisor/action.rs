//! Actions of the supervisor for the driver to carry out.

/// A child, by the number of its start: 1 is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChildId(pub(crate) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SupervisorAction {
    /// Start the command. The driver reports the result to the supervisor.
    Start {
        /// The number of the new child.
        child: ChildId,
    },
    /// Send the signal of `-stop-signal`.
    Stop {
        child: ChildId,
    },
    /// Forward the signal that the master received.
    Pass {
        child: ChildId,
        signal: StopSignal,
    },
    Kill {
        child: ChildId,
    },
    /// Write it to the log.
    Report(SupervisorEvent),
    /// Notify the service manager that a child is serving.
    TellReady {
        child: ChildId,
    },
    /// Notify the service manager that a reload has failed and an old child keeps serving.
    TellServesOn {
        child: ChildId,
        /// How the new child failed.
        after: StartFailure,
    },
    /// Notify the service manager of a reload.
    TellReloading,
    /// Notify the service manager that no child is serving, and when the next one starts.
    TellRestarting {
        /// When, in milliseconds from now.
        in_ms: u64,
    },
    /// Notify the service manager that the master is stopping.
    TellStopping,
    /// End: no child is left.
    End(MasterExit),
}

/// How the start of a child failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartFailure {
    /// It ended, or could not be started.
    DiedEarly { child: ChildId },
    /// It was not ready in time and is being stopped.
    NotReady { child: ChildId },
}

/// A signal that ends the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopSignal {
    Interrupt,
    Terminate,
    Quit,
}

/// How the master ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MasterExit {
    /// A signal ended it.
    Success,
    /// The first child's command could not be executed.
    CommandFailed,
    /// Children died too often.
    TooManyRestarts,
}

/// An event for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SupervisorEvent {
    /// A child is ready.
    Ready { child: ChildId },
    /// A child is being stopped, since another is ready.
    Stopping { child: ChildId },
    /// A serving child has ended.
    Died { child: ChildId },
    /// A child failed to start.
    Failed {
        setback: StartFailure,
        /// The child that keeps serving.
        serves_on: Option<ChildId>,
    },
    /// A child did not stop in time and is killed.
    Killed { child: ChildId },
    /// Another child will be started.
    Restarting {
        /// When, in milliseconds from now.
        in_ms: u64,
    },
    /// Children died too often: the master ends.
    TooManyRestarts,
    /// The master is ending.
    Ending {
        /// Because of this signal.
        signal: StopSignal,
    },
    /// A child is already starting: the request for another is postponed.
    HangupPostponed,
    /// The master is ending: the request for a new child is ignored.
    HangupIgnored,
}
