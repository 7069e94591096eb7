//! Why an address cannot be listened on.

use libdc::net::address::Address;
use std::fmt;
use std::io;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system refused a step.
    #[error("{address}: can't {step}: {source}")]
    Failed {
        /// The address.
        address: Address,
        /// What was tried.
        step: ListenStep,
        /// Why not.
        source: io::Error,
    },
    /// A process accepts connections on the path.
    #[error("{address}: a live process is listening there")]
    Live {
        /// The address.
        address: Address,
    },
    /// The path leads to something that is no socket. It is left as it is.
    #[error("{address}: there is a file that is not a socket")]
    NotASocket {
        /// The address.
        address: Address,
    },
    /// Another process replaced the socket while it was made.
    #[error("{address}: another process took the path at the same moment")]
    Lost {
        /// The address.
        address: Address,
    },
    /// The descriptor is not one that the process was started with.
    #[error("{address}: no such descriptor was inherited")]
    NotInherited {
        /// The address.
        address: Address,
    },
    /// The descriptor is not a socket that listens for stream connections.
    #[error("{address}: not a listening stream socket")]
    NotListening {
        /// The address.
        address: Address,
    },
}

impl ListenError {
    pub(super) fn failed(address: &Address, step: ListenStep, source: impl Into<io::Error>) -> Self {
        Self::Failed { address: address.clone(), step, source: source.into() }
    }
}

/// A step on the way to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenStep {
    /// Looking up a host name.
    Lookup,
    /// Making the socket and setting its options.
    Create,
    /// Giving it its address.
    Bind,
    /// Looking at the file at the path.
    Inspect,
    /// Finding out whether a process serves the path.
    Probe,
    /// Removing the socket of a dead process.
    Replace,
    /// Setting owner and group.
    Own,
    /// Setting the mode.
    Mode,
    /// Starting to listen.
    Listen,
    /// Taking over an inherited socket.
    Inherit,
}

impl fmt::Display for ListenStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "look up the host",
            Self::Create => "make a socket",
            Self::Bind => "bind",
            Self::Inspect => "inspect the path",
            Self::Probe => "find out whether a process is listening there",
            Self::Replace => "remove the socket of a dead process",
            Self::Own => "set owner and group of the socket",
            Self::Mode => "set the mode of the socket",
            Self::Listen => "listen",
            Self::Inherit => "take over the descriptor",
        })
    }
}
