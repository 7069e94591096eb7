//! Operations: what a message is about, bytes 9 and 10 of every frame of it.
//!
//! Class 0 is that of distcache 1.x. Classes 1 and 2 are ours, and are not sent to a peer at patch level 0,
//! which would not know them. The numbers are those of the bytes.

use crate::limits::{FRAME_DATA_BYTES_MAX, LINK_FRAMES_MAX, LINK_REQUEST_BYTES_MAX, SESSION_FRAMES_MAX};

/// What a message is about: bytes 9 and 10 of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Class 0.
    Session(SessionOperation),
    /// Class 1.
    Lock(LockOperation),
    /// Class 2.
    Link(LinkOperation),
}

impl Operation {
    /// The operation of class `class` with number `number`; `None` if there is none.
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

    /// Class and number.
    #[must_use]
    pub const fn to_wire(self) -> (u8, u8) {
        match self {
            Self::Session(operation) => (0, operation as u8),
            Self::Lock(operation) => (1, operation as u8),
            Self::Link(operation) => (2, operation as u8),
        }
    }

    /// The name, as the documents write it.
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

    /// Most frames that a message about this operation may have.
    #[must_use]
    pub const fn frames_max(self) -> usize {
        match self {
            Self::Session(_) => SESSION_FRAMES_MAX,
            Self::Lock(_) | Self::Link(_) => LINK_FRAMES_MAX,
        }
    }

    /// Most frames that a request for this operation may have: there is no use for longer ones, and who takes
    /// requests from anybody need not gather them.
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
    /// Store a session.
    Add = 0,
    /// Fetch a session.
    Get = 1,
    /// Forget a session.
    Remove = 2,
    /// Ask whether a session is there.
    Have = 3,
}

/// An operation on a lock (class 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockOperation {
    /// Take a lock, waiting for it.
    Acquire = 0,
    /// Take a place in the queue of a lock.
    Enqueue = 1,
    /// Wait for the place to become the lock.
    Wait = 2,
    /// Give a lock back.
    Release = 3,
    /// Extend a lease.
    Renew = 4,
    /// Give up a blocked request.
    Cancel = 5,
    /// Ask for the state of the table.
    Stats = 6,
}

/// An operation on the link itself (class 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkOperation {
    /// Open or resume a link.
    Hello = 0,
    /// Claim what local connections still hold.
    Claim = 1,
    /// The claims are complete.
    Open = 2,
    /// Are you there?
    Ping = 3,
    /// A local connection is gone.
    Detach = 4,
    /// The orderly end of the link.
    Bye = 5,
    /// The server asks to reconnect.
    GoAway = 6,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operations_have_these_numbers() {
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
    fn session_messages_are_the_short_ones() {
        assert_eq!(Operation::Session(SessionOperation::Add).frames_max(), 16);
        assert_eq!(Operation::Lock(LockOperation::Stats).frames_max(), 4096);
        assert_eq!(Operation::Link(LinkOperation::Claim).frames_max(), 4096);
        assert_eq!(Operation::Session(SessionOperation::Add).request_frames_max(), 16);
        assert_eq!(Operation::Lock(LockOperation::Acquire).request_frames_max(), 1);
        assert_eq!(Operation::Link(LinkOperation::Claim).request_frames_max(), 4096);
    }
}
