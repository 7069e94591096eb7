//! The violations that fail a run.

use super::lock::LockViolation;
use libdc::proto::agent::local::LocalCloseReason;
use libdc::proto::link::LinkError;
use thiserror::Error;

/// A violation in a run. Operations are identified by their number in the trace.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Violation {
    /// An answer without a matching request: misdelivered, or a duplicate.
    #[error("application {application} was answered uid {uid}, for which it has no open request")]
    NotAsked {
        /// The receiver of the answer.
        application: usize,
        /// The uid of the answer.
        uid: u32,
    },
    /// The operation of an answer differs from that of the request with the same uid.
    #[error("operation {operation} was answered as if it were another one")]
    OtherOperation {
        /// The request.
        operation: usize,
    },
    /// An answer has a form that is not valid for its request.
    #[error("operation {operation} has an invalid answer: {len} bytes, beginning with {first:?}")]
    Malformed {
        /// The request.
        operation: usize,
        /// The length of the answer in bytes.
        len: usize,
        /// Its first bytes.
        first: Option<u8>,
    },
    /// An application received malformed bytes from the agent.
    #[error("application {application} received malformed answers: {fault}")]
    Unreadable {
        /// The application.
        application: usize,
        /// The decoding error.
        fault: libdc::wire::frame::DecodeError,
    },
    /// A request was never answered, and its connection did not end.
    #[error("operation {operation} was never answered")]
    Unanswered {
        /// The request.
        operation: usize,
    },
    /// The agent closed a connection with a request in flight, without need.
    #[error(
        "operation {operation} was taken by the agent, which closed the connection without an answer ({fault:?})"
    )]
    Abandoned {
        /// The request.
        operation: usize,
        /// The agent's reason.
        fault: Option<LocalCloseReason>,
    },
    /// An answer took longer than the agent's timeout.
    #[error("operation {operation} was answered after {after_ms} ms, with -timeout {timeout_ms}")]
    Late {
        /// The request.
        operation: usize,
        /// Time from the arrival of the request at the agent to the answer.
        after_ms: u64,
        /// The agent's timeout.
        timeout_ms: u64,
    },
    /// DISCONNECTED was answered before the timeout, although the link was up all the time.
    #[error("operation {operation} was answered DISCONNECTED while the link was up, after {after_ms} ms")]
    NeedlesslyDisconnected {
        /// The request.
        operation: usize,
        /// Time from the arrival of the request at the agent to the answer.
        after_ms: u64,
    },
    /// The link was down, and the answer was not an immediate DISCONNECTED.
    #[error(
        "operation {operation} was not answered DISCONNECTED at once while the link was down, but after {after_ms} ms"
    )]
    Delayed {
        /// The request.
        operation: usize,
        /// Time from the arrival of the request at the agent to the answer.
        after_ms: u64,
    },
    /// A GET returned data that was never stored under any id.
    #[error("operation {operation} got a session that was never stored")]
    Invented {
        /// The GET.
        operation: usize,
    },
    /// A GET returned a session stored under another id.
    #[error("operation {operation} got the session that operation {stored_by} stored under another id")]
    OtherId {
        /// The GET.
        operation: usize,
        /// The ADD.
        stored_by: usize,
    },
    /// A GET returned a session that was no longer present, or not yet.
    #[error("operation {operation} got the session of operation {stored_by}, which was gone: {reason}")]
    Gone {
        /// The GET.
        operation: usize,
        /// The ADD.
        stored_by: usize,
        /// The reason why it cannot be present.
        reason: Absence,
    },
    /// An answer reports a session although none can be present.
    #[error("operation {operation} found a session where there can be none")]
    Phantom {
        /// The HAVE, REMOVE or ADD.
        operation: usize,
    },
    /// More sessions were removed than stored.
    #[error("operation {operation} removed a session that another one had removed")]
    RemovedTwice {
        /// The REMOVE.
        operation: usize,
    },
    /// An answer reports no session although one must be present.
    #[error("operation {operation} did not find the session that operation {stored_by} had stored")]
    Lost {
        /// The operation that found nothing.
        operation: usize,
        /// The ADD.
        stored_by: usize,
    },
    /// The server holds more than its limits allow.
    #[error("the server holds {sessions} sessions of {bytes} bytes, more than its limits")]
    LimitExceeded {
        /// Number of sessions.
        sessions: u64,
        /// Their total size in bytes.
        bytes: u64,
    },
    /// A distcache 1.x server was sent a message that it does not understand.
    #[error("agent {agent} sent a server at patch level 0 a message that it does not understand")]
    NotForOriginals {
        /// The agent.
        agent: usize,
    },
    /// The agent reported a protocol error of a correct server over a working network.
    #[error("agent {agent} lost its link: {fault}")]
    BadLink {
        /// The agent.
        agent: usize,
        /// The reported error.
        fault: LinkError,
    },
    /// The server reported a protocol error of a correct agent or locker over a working network.
    #[error("the server refused agent {agent:?}: {fault}")]
    BadRequest {
        /// The agent; `None` for a locker.
        agent: Option<usize>,
        /// The reported error.
        fault: libdc::proto::server::ServerCloseReason,
    },
    /// An agent reconnected too soon after a failure.
    #[error("agent {agent} tried again after {after_ms} ms instead of at least {least_ms} ms")]
    RetriedTooSoon {
        /// The agent.
        agent: usize,
        /// Time since the failure.
        after_ms: u64,
        /// The minimum pause after this failure.
        least_ms: u64,
    },
    /// An agent reconnected too late after a failure.
    #[error("agent {agent} tried again after {after_ms} ms instead of at most {most_ms} ms")]
    RetriedTooLate {
        /// The agent.
        agent: usize,
        /// Time since the failure.
        after_ms: u64,
        /// The maximum pause after this failure.
        most_ms: u64,
    },
    /// The pauses of an agent do not vary, so all agents would reconnect at the same time.
    #[error("agent {agent} made {pauses} pauses of {pause_ms} ms in a row")]
    RetriedInStep {
        /// The agent.
        agent: usize,
        /// Number of equal pauses.
        pauses: usize,
        /// Their length.
        pause_ms: u64,
    },
    /// An agent with a link shut down gracefully without sending BYE.
    #[error("agent {agent} ended without BYE")]
    EndedWithoutBye {
        /// The agent.
        agent: usize,
    },
    /// An agent sent messages before the answer to HELLO that must follow it.
    #[error("agent {agent} did not wait for the answer to HELLO")]
    DidNotAwaitWelcome {
        /// The agent.
        agent: usize,
    },
    /// During its shutdown, an agent closed a connection whose request had arrived, or whose drain grace was
    /// not over.
    #[error("agent {agent} drained a connection {age_ms} ms old, with {unread} bytes unread")]
    DrainedTooSoon {
        /// The agent.
        agent: usize,
        /// Age of the connection.
        age_ms: u64,
        /// Bytes that had arrived and were unread.
        unread: u64,
    },
    /// An agent kept writing on a connection that had accepted nothing for longer than the write timeout.
    #[error("agent {agent} waited {blocked_ms} ms for an application that does not read")]
    WaitedForDeaf {
        /// The agent.
        agent: usize,
        /// Time during which the application read nothing.
        blocked_ms: u64,
    },
    /// During its shutdown, an agent kept a connection without a request beyond its drain grace.
    #[error("agent {agent} keeps a connection without a request, {age_ms} ms old, during its shutdown")]
    KeptBeyondGrace {
        /// The agent.
        agent: usize,
        /// Age of the connection.
        age_ms: u64,
    },
    /// The server closed a connection gracefully although a complete request had arrived unanswered.
    #[error(
        "direct client {client} was not answered: uid {uid}, which had reached the server before it closed #{connection}"
    )]
    Unserved {
        /// The client.
        client: usize,
        /// Its connection.
        connection: u32,
        /// The request.
        uid: u32,
    },
    /// A direct client received an answer without a matching request in flight.
    #[error("direct client {client} was answered uid {uid}, for which it has no open request")]
    DirectNotAsked {
        /// The client.
        client: usize,
        /// The uid of the answer.
        uid: u32,
    },
    /// A small request waited too long behind those of others.
    #[error("direct client {client} was answered after {after_ms} ms: others had more than their share")]
    Starved {
        /// The client.
        client: usize,
        /// Time to the answer.
        after_ms: u64,
    },
    /// A direct client never received an answer, and its connection did not end.
    #[error("direct client {client} is still waiting")]
    DirectUnanswered {
        /// The client.
        client: usize,
    },
    /// A connection that had received nothing was closed before the end of its drain grace.
    #[error("#{connection} was closed {after_ms} ms after it was accepted, before its drain grace was over")]
    DrainGraceCut {
        /// The connection.
        connection: u32,
        /// Its age.
        after_ms: u64,
    },
    /// A connection that had received nothing was kept beyond its drain grace.
    #[error("#{connection} was closed {after_ms} ms after its drain grace was over")]
    DrainGraceExceeded {
        /// The connection.
        connection: u32,
        /// Time beyond the end of the drain grace.
        after_ms: u64,
    },
    /// A shutdown exceeded its timeout without a cause in the network.
    #[error("the server has not shut down in time: #{connection} is still open")]
    ShutdownOverdue {
        /// A connection that was still open.
        connection: u32,
    },
    /// A violation concerning locks.
    #[error("{0}")]
    Locking(LockViolation),
    /// The run exceeded its maximum number of events, as when the clock does not advance.
    #[error("{events} events, and the run has not ended")]
    Endless {
        /// Number of events.
        events: u64,
    },
    /// A machine panicked; the panic message has been printed.
    #[error("a machine panicked")]
    Panicked,
    /// The run has ended, and a machine is not idle.
    #[error("not idle at the end: {0}")]
    NotIdle(#[from] Remnant),
}

/// The reason why a session cannot be present.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Absence {
    /// The operation that would have stored it failed.
    #[error("it was not stored")]
    NotStored,
    /// It was only stored after the answer.
    #[error("it was stored later")]
    Later,
    /// It had expired.
    #[error("it had expired")]
    Expired,
    /// The server had been restarted.
    #[error("the server had lost it")]
    Restarted,
    /// Another operation proves its absence.
    #[error("operation {0} proves it")]
    Proven(usize),
}

/// A remnant at the end of a run, when everything should be idle.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Remnant {
    /// Requests without an answer.
    #[error("agent {agent} has {requests} requests in flight")]
    InFlight {
        /// The agent.
        agent: usize,
        /// Number of requests.
        requests: usize,
    },
    /// A link that was not re-established.
    #[error("agent {agent} has no link")]
    LinkDown {
        /// The agent.
        agent: usize,
    },
    /// A dead link that the agent should have detected by a ping.
    #[error("agent {agent} has not noticed that its link is dead")]
    DeadLink {
        /// The agent.
        agent: usize,
    },
    /// A local connection whose application is gone.
    #[error("agent {agent} has {connections} local connections")]
    Locals {
        /// The agent.
        agent: usize,
        /// Number of connections.
        connections: usize,
    },
    /// Bytes not yet written to the server.
    #[error("agent {agent} has {bytes} bytes for the server")]
    Unwritten {
        /// The agent.
        agent: usize,
        /// Number of bytes.
        bytes: usize,
    },
    /// A connection of the server that is not idle.
    #[error("a connection of the server is not idle")]
    Server,
    /// Connections of the server that no agent has.
    #[error("the server has {connections} connections, for {agents} agents")]
    ServerConnections {
        /// Number of connections.
        connections: usize,
        /// Number of agents.
        agents: usize,
    },
    /// Locks held or waited for by clients that are gone.
    #[error("the server knows {holders} holders and {waiters} waiters after all are gone")]
    Locks {
        /// Number of holders.
        holders: u64,
        /// Number of waiters.
        waiters: u64,
    },
    /// Expired sessions.
    #[error("the server holds {sessions} sessions after all have expired")]
    Sessions {
        /// Number of sessions.
        sessions: u64,
    },
}
