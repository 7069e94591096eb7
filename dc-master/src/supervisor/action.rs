//! What the supervisor decides, for the driver to carry out.

/// A child, by the number of its start: 1 is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChildId(pub(crate) u64);

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SupervisorAction {
    /// Start the command. What comes of it is told to the supervisor.
    Start {
        /// Which child it becomes.
        child: ChildId,
    },
    /// Send the signal of `-stop-signal`.
    Stop {
        /// To whom.
        child: ChildId,
    },
    /// Send the signal that the master got.
    Pass {
        /// To whom.
        child: ChildId,
        /// Which.
        signal: StopSignal,
    },
    /// Send `SIGKILL`.
    Kill {
        /// To whom.
        child: ChildId,
    },
    /// Write it to the log.
    Report(SupervisorEvent),
    /// Tell who supervises the master that a child serves.
    TellReady {
        /// Which.
        child: ChildId,
    },
    /// Tell who supervises the master that a reload is over, and an old child serves on.
    TellServesOn {
        /// Which.
        child: ChildId,
        /// What became of the new one.
        after: StartFailure,
    },
    /// Tell who supervises the master that it reloads.
    TellReloading,
    /// Tell who supervises the master that no child serves, and when the next one starts.
    TellRestarting {
        /// When, in milliseconds from now.
        in_ms: u64,
    },
    /// Tell who supervises the master that it ends.
    TellStopping,
    /// End: no child is left.
    End(MasterExit),
}

/// What became of a child that was to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartFailure {
    /// It died, or could not be started.
    DiedEarly {
        /// Which.
        child: ChildId,
    },
    /// It was not ready in time, and is told to stop.
    NotReady {
        /// Which.
        child: ChildId,
    },
}

/// A signal that ends the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// `SIGINT`.
    Interrupt,
    /// `SIGTERM`.
    Terminate,
    /// `SIGQUIT`.
    Quit,
}

/// How the master ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MasterExit {
    /// As it was told to.
    Success,
    /// The command can't be executed, and never could.
    CommandFailed,
    /// Children died too often.
    TooManyRestarts,
}

/// Something for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SupervisorEvent {
    /// A child is ready.
    Ready {
        /// Which.
        child: ChildId,
    },
    /// A child is told to stop, since another is ready.
    Stopping {
        /// Which.
        child: ChildId,
    },
    /// A child that served has died.
    Died {
        /// Which.
        child: ChildId,
    },
    /// A child that was to serve will not.
    Failed {
        /// Why.
        setback: StartFailure,
        /// The one that goes on serving.
        serves_on: Option<ChildId>,
    },
    /// A child that was told to stop did not, and is killed.
    Killed {
        /// Which.
        child: ChildId,
    },
    /// Another child will be started.
    Restarting {
        /// When, in milliseconds from now.
        in_ms: u64,
    },
    /// Children died too often: the master ends.
    TooManyRestarts,
    /// The master ends.
    Ending {
        /// Because of this signal.
        signal: StopSignal,
    },
    /// A child is starting: the wish for another has to wait.
    HangupPostponed,
    /// The master ends: the wish for a new child comes too late.
    HangupIgnored,
}
