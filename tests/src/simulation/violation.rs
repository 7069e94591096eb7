//! What must not happen.

use super::lock::LockViolation;
use libdc::proto::agent::local::LocalCloseReason;
use libdc::proto::link::LinkError;
use thiserror::Error;

/// What happened in a run that must not. Operations are named by their number in the trace.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Violation {
    /// An answer does not belong to a request without one: mixed up, or a second one.
    #[error("application {application} was answered uid {uid}, for which it has no open request")]
    NotAsked {
        /// Who was answered.
        application: usize,
        /// The uid of the answer.
        uid: u32,
    },
    /// An answer names another operation than the request with its uid.
    #[error("operation {operation} was answered as if it were another one")]
    OtherOperation {
        /// The request.
        operation: usize,
    },
    /// An answer has a form that no answer to its request has.
    #[error("operation {operation} has an answer that can't be: {len} bytes, beginning with {first:?}")]
    Malformed {
        /// The request.
        operation: usize,
        /// Bytes of the answer.
        len: usize,
        /// The first of them.
        first: Option<u8>,
    },
    /// An application can't read what the agent sent.
    #[error("application {application} can't read its answers: {fault}")]
    Unreadable {
        /// The application.
        application: usize,
        /// What is wrong.
        fault: libdc::wire::frame::DecodeError,
    },
    /// A request has no answer, and its connection did not end.
    #[error("operation {operation} was never answered")]
    Unanswered {
        /// The request.
        operation: usize,
    },
    /// The agent closed a connection without need that had a request under way.
    #[error(
        "operation {operation} was taken by the agent, which closed the connection without an answer ({fault:?})"
    )]
    Abandoned {
        /// The request.
        operation: usize,
        /// The agent's reason.
        fault: Option<LocalCloseReason>,
    },
    /// An answer took longer than the agent may take.
    #[error("operation {operation} was answered after {after_ms} ms, with -timeout {timeout_ms}")]
    Late {
        /// The request.
        operation: usize,
        /// Time from the request's reaching the agent to the answer.
        after_ms: u64,
        /// The agent's setting.
        timeout_ms: u64,
    },
    /// DISCONNECTED was answered though the link was up all the time, and that was not too long.
    #[error("operation {operation} was answered DISCONNECTED while the link was up, after {after_ms} ms")]
    NeedlesslyDisconnected {
        /// The request.
        operation: usize,
        /// Time from the request's reaching the agent to the answer.
        after_ms: u64,
    },
    /// The link was down, and the answer was not DISCONNECTED, or not there at once.
    #[error(
        "operation {operation} was not answered DISCONNECTED at once while the link was down, but after {after_ms} ms"
    )]
    Delayed {
        /// The request.
        operation: usize,
        /// Time from the request's reaching the agent to the answer.
        after_ms: u64,
    },
    /// A GET returned what was never stored under any id.
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
    /// A GET returned a session that was stored once and can't be there any more, or yet.
    #[error("operation {operation} got the session of operation {stored_by}, which was gone: {reason}")]
    Gone {
        /// The GET.
        operation: usize,
        /// The ADD.
        stored_by: usize,
        /// Why it can't be there.
        reason: Absence,
    },
    /// An answer says that a session is there, and none can be.
    #[error("operation {operation} found a session where there can be none")]
    Phantom {
        /// The HAVE, REMOVE or ADD.
        operation: usize,
    },
    /// More were removed than were ever stored.
    #[error("operation {operation} removed a session that another one had removed")]
    RemovedTwice {
        /// The REMOVE.
        operation: usize,
    },
    /// An answer says that no session is there, and there must be one.
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
        /// Sessions.
        sessions: u64,
        /// Bytes.
        bytes: u64,
    },
    /// An original server was sent what it does not understand.
    #[error("agent {agent} sent a server at patch level 0 what it does not understand")]
    NotForOriginals {
        /// The agent.
        agent: usize,
    },
    /// The agent found fault with what a good server sent over a good network.
    #[error("agent {agent} lost its link: {fault}")]
    BadLink {
        /// The agent.
        agent: usize,
        /// What it found.
        fault: LinkError,
    },
    /// The server found fault with what a good agent, or locker, sent over a good network.
    #[error("the server refused agent {agent:?}: {fault}")]
    BadRequest {
        /// The agent; none if it was a locker.
        agent: Option<usize>,
        /// What it found.
        fault: libdc::proto::server::ServerCloseReason,
    },
    /// An agent tried to reach its server too soon after a failure.
    #[error("agent {agent} tried again after {after_ms} ms instead of at least {least_ms} ms")]
    RetriedTooSoon {
        /// The agent.
        agent: usize,
        /// Time since the failure.
        after_ms: u64,
        /// Least pause after this failure.
        least_ms: u64,
    },
    /// An agent tried to reach its server too late after a failure.
    #[error("agent {agent} tried again after {after_ms} ms instead of at most {most_ms} ms")]
    RetriedTooLate {
        /// The agent.
        agent: usize,
        /// Time since the failure.
        after_ms: u64,
        /// Greatest pause after this failure.
        most_ms: u64,
    },
    /// The pauses of an agent do not vary, so that all agents would come at the same time.
    #[error("agent {agent} made {pauses} pauses of {pause_ms} ms in a row")]
    RetriedInStep {
        /// The agent.
        agent: usize,
        /// How many were equal.
        pauses: usize,
        /// Their length.
        pause_ms: u64,
    },
    /// An agent ended gracefully, and had a link, but did not say BYE.
    #[error("agent {agent} ended without BYE")]
    EndedWithoutBye {
        /// The agent.
        agent: usize,
    },
    /// An agent sent what belongs behind the answer to HELLO before it had come.
    #[error("agent {agent} did not wait for the answer to HELLO")]
    DidNotAwaitWelcome {
        /// The agent.
        agent: usize,
    },
    /// An agent that ends closed a connection whose request had arrived, or that was still in its drain grace.
    #[error("agent {agent} drained a connection {age_ms} ms old, with {unread} bytes unread")]
    DrainedTooSoon {
        /// The agent.
        agent: usize,
        /// Age of the connection.
        age_ms: u64,
        /// Bytes that had arrived and were not read.
        unread: u64,
    },
    /// An agent wrote on a connection that had taken nothing for longer than the write timeout.
    #[error("agent {agent} waited {blocked_ms} ms for an application that does not read")]
    WaitedForDeaf {
        /// The agent.
        agent: usize,
        /// How long the application took nothing.
        blocked_ms: u64,
    },
    /// An agent that ends kept a connection without a request beyond its drain grace.
    #[error("agent {agent} keeps a connection {age_ms} ms old that has asked nothing, though it ends")]
    KeptBeyondGrace {
        /// The agent.
        agent: usize,
        /// Age of the connection.
        age_ms: u64,
    },
    /// The server closed a connection gracefully though a whole request had arrived and was not answered.
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
    /// A direct client received an answer to nothing that it has in flight.
    #[error("direct client {client} was answered uid {uid}, for which it has no open request")]
    DirectNotAsked {
        /// The client.
        client: usize,
        /// The uid of the answer.
        uid: u32,
    },
    /// A small request waited too long behind others.
    #[error("direct client {client} was answered after {after_ms} ms: others had more than their share")]
    Starved {
        /// The client.
        client: usize,
        /// How long it took.
        after_ms: u64,
    },
    /// A direct client was never answered, and its connection did not end.
    #[error("direct client {client} is still waiting")]
    DirectUnanswered {
        /// The client.
        client: usize,
    },
    /// A connection that had received nothing was closed before its drain grace was over.
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
        /// How much too late.
        after_ms: u64,
    },
    /// A shutdown had not come to its end when its time was over, and nothing kept it from that.
    #[error("the server has not shut down in time: #{connection} is still open")]
    ShutdownOverdue {
        /// A connection.
        connection: u32,
    },
    /// About locks.
    #[error("{0}")]
    Locking(LockViolation),
    /// Events follow each other without end, and time does not pass.
    #[error("{events} events, and no end")]
    Endless {
        /// How many there were.
        events: u64,
    },
    /// A machine panicked; its message has been printed.
    #[error("a machine panicked")]
    Panicked,
    /// Everything is over, and a machine still holds something.
    #[error("all is over, but {0}")]
    NotIdle(#[from] Remnant),
}

/// Why a session can't be where it was found.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Absence {
    /// The operation that would have stored it did not.
    #[error("it was not stored")]
    NotStored,
    /// It was asked to be stored after the answer.
    #[error("it was stored later")]
    Later,
    /// Its time was up.
    #[error("it had expired")]
    Expired,
    /// The server had been restarted.
    #[error("the server had lost it")]
    Restarted,
    /// Another operation proves that it had gone.
    #[error("operation {0} proves it")]
    Proven(usize),
}

/// What is left when everything is over.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Remnant {
    /// Requests that no answer came for.
    #[error("agent {agent} has {requests} requests under way")]
    InFlight {
        /// The agent.
        agent: usize,
        /// How many.
        requests: usize,
    },
    /// A link that did not come back.
    #[error("agent {agent} has no link")]
    LinkDown {
        /// The agent.
        agent: usize,
    },
    /// A link that carries nothing any more, and could have been found out by asking.
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
        /// How many.
        connections: usize,
    },
    /// Bytes that were not written to the server.
    #[error("agent {agent} has {bytes} bytes for the server")]
    Unwritten {
        /// The agent.
        agent: usize,
        /// How many.
        bytes: usize,
    },
    /// A connection of the server in the middle of something.
    #[error("a connection of the server is not idle")]
    Server,
    /// Connections that the server has without an agent's having them.
    #[error("the server has {connections} connections, for {agents} agents")]
    ServerConnections {
        /// How many.
        connections: usize,
        /// Agents.
        agents: usize,
    },
    /// Locks that nobody is there to hold or to wait for.
    #[error("the server knows {holders} holders and {waiters} waiters after all are gone")]
    Locks {
        /// Holders.
        holders: u64,
        /// Waiters.
        waiters: u64,
    },
    /// Sessions whose time is up.
    #[error("the server holds {sessions} sessions after all have expired")]
    Sessions {
        /// How many.
        sessions: u64,
    },
}
