//! Operations: bytes 9 and 10 of every frame of a message.
//!
//! Class 0 is that of distcache 1.x. Classes 1 and 2 are extensions of this project and are not sent to a
//! peer at patch level 0, which does not implement them. The discriminants are the numbers on the wire.

use crate::limits::{FRAME_DATA_BYTES_MAX, LINK_FRAMES_MAX, LINK_REQUEST_BYTES_MAX, SESSION_FRAMES_MAX};

/// The direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the requester to the responder.
    Request = 0,
    /// From the responder to the requester.
    Response = 1,
}

impl Direction {
    /// The direction opposite to this one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Request => Self::Response,
            Self::Response => Self::Request,
        }
    }
}

/// Class and number of a message's operation: bytes 9 and 10 of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Class 0: the session table.
    Session(SessionOperation),
    /// Class 1: the lock table.
    Lock(LockOperation),
    /// Class 2: the link between agent and server.
    Link(LinkOperation),
}

impl Operation {
    /// The operation of class `class` with number `number`; `None` if it does not exist.
    #[must_use]
    pub const fn from_wire(class: u8, number: u8) -> Option<Self> {
        Some(match (class, number) {
            (0, 0) => Self::Session(SessionOperation::Add),
            (0, 1) => Self::Session(SessionOperation::Get),
            (0, 2) => Self::Session(SessionOperation::Remove),
            (0, 3) => Self::Session(SessionOperation::Have),
            (1, 0) => Self::Lock(LockOperation::Acquire),
            (1, 1) => Self::Lock(LockOperation::Enqueue),
            (1, 2) => Self::Lock(LockOperation::Wait),
            (1, 3) => Self::Lock(LockOperation::Release),
            (1, 4) => Self::Lock(LockOperation::Renew),
            (1, 5) => Self::Lock(LockOperation::Cancel),
            (1, 6) => Self::Lock(LockOperation::Stats),
            (2, 0) => Self::Link(LinkOperation::Hello),
            (2, 1) => Self::Link(LinkOperation::Claim),
            (2, 2) => Self::Link(LinkOperation::Open),
            (2, 3) => Self::Link(LinkOperation::Ping),
            (2, 4) => Self::Link(LinkOperation::Detach),
            (2, 5) => Self::Link(LinkOperation::Bye),
            (2, 6) => Self::Link(LinkOperation::GoAway),
            _ => return None,
        })
    }

    /// The class and the number, as on the wire.
    #[must_use]
    pub const fn to_wire(self) -> (u8, u8) {
        match self {
            Self::Session(operation) => (0, operation as u8),
            Self::Lock(operation) => (1, operation as u8),
            Self::Link(operation) => (2, operation as u8),
        }
    }

    /// The name that documents use, such as `ADD`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session(SessionOperation::Add) => "ADD",
            Self::Session(SessionOperation::Get) => "GET",
            Self::Session(SessionOperation::Remove) => "REMOVE",
            Self::Session(SessionOperation::Have) => "HAVE",
            Self::Lock(LockOperation::Acquire) => "ACQUIRE",
            Self::Lock(LockOperation::Enqueue) => "ENQUEUE",
            Self::Lock(LockOperation::Wait) => "WAIT",
            Self::Lock(LockOperation::Release) => "RELEASE",
            Self::Lock(LockOperation::Renew) => "RENEW",
            Self::Lock(LockOperation::Cancel) => "CANCEL",
            Self::Lock(LockOperation::Stats) => "STATS",
            Self::Link(LinkOperation::Hello) => "HELLO",
            Self::Link(LinkOperation::Claim) => "CLAIM",
            Self::Link(LinkOperation::Open) => "OPEN",
            Self::Link(LinkOperation::Ping) => "PING",
            Self::Link(LinkOperation::Detach) => "DETACH",
            Self::Link(LinkOperation::Bye) => "BYE",
            Self::Link(LinkOperation::GoAway) => "GOAWAY",
        }
    }

    /// The maximum number of frames of a message with this operation.
    #[must_use]
    pub const fn frames_max(self) -> usize {
        match self {
            Self::Session(_) => SESSION_FRAMES_MAX,
            Self::Lock(_) | Self::Link(_) => LINK_FRAMES_MAX,
        }
    }

    /// The maximum number of frames of a request with this operation. No request needs to be longer, so a
    /// server need not buffer longer ones.
    #[must_use]
    pub const fn request_frames_max(self) -> usize {
        match self {
            Self::Session(_) => SESSION_FRAMES_MAX,
            Self::Link(LinkOperation::Claim) => LINK_FRAMES_MAX,
            Self::Lock(_) | Self::Link(_) => LINK_REQUEST_BYTES_MAX / FRAME_DATA_BYTES_MAX,
        }
    }
}

/// An operation on a session (class 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionOperation {
    /// Stores a session under its id.
    Add = 0,
    /// Returns the session with an id.
    Get = 1,
    /// Removes the session with an id.
    Remove = 2,
    /// Checks whether a session exists.
    Have = 3,
}

/// An operation on a lock (class 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockOperation {
    /// Acquires a lock, waiting if necessary.
    Acquire = 0,
    /// Joins the queue of a lock.
    Enqueue = 1,
    /// Waits until the position in the queue becomes a lock.
    Wait = 2,
    /// Releases a lock that is held.
    Release = 3,
    /// Extends the lease of a lock.
    Renew = 4,
    /// Cancels a request that is blocked.
    Cancel = 5,
    /// Returns the state of the table.
    Stats = 6,
}

/// An operation on the link itself (class 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkOperation {
    /// Opens or resumes a link.
    Hello = 0,
    /// Claims locks that local connections still hold.
    Claim = 1,
    /// Ends the claims and opens the link for requests.
    Open = 2,
    /// Checks whether the peer is alive.
    Ping = 3,
    /// Reports that a local connection has closed.
    Detach = 4,
    /// Announces that the agent shuts the link down.
    Bye = 5,
    /// The server requests that the agent reconnect.
    GoAway = 6,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_numbers_match_their_names() {
        let classes: [&[&str]; 3] = [
            &["ADD", "GET", "REMOVE", "HAVE"],
            &["ACQUIRE", "ENQUEUE", "WAIT", "RELEASE", "RENEW", "CANCEL", "STATS"],
            &["HELLO", "CLAIM", "OPEN", "PING", "DETACH", "BYE", "GOAWAY"],
        ];
        for class in 0..=u8::MAX {
            for number in 0..=u8::MAX {
                let names = classes.get(usize::from(class)).copied().unwrap_or(&[]);
                let operation = Operation::from_wire(class, number);
                assert_eq!(operation.map(Operation::name), names.get(usize::from(number)).copied());
                assert!(operation.is_none_or(|it| it.to_wire() == (class, number)));
            }
        }
    }

    #[test]
    fn frame_limits_depend_on_operation() {
        assert_eq!(Operation::Session(SessionOperation::Add).frames_max(), 16);
        assert_eq!(Operation::Lock(LockOperation::Stats).frames_max(), 4096);
        assert_eq!(Operation::Link(LinkOperation::Claim).frames_max(), 4096);
        assert_eq!(Operation::Session(SessionOperation::Add).request_frames_max(), 16);
        assert_eq!(Operation::Lock(LockOperation::Acquire).request_frames_max(), 1);
        assert_eq!(Operation::Link(LinkOperation::Claim).request_frames_max(), 4096);
    }
}
