//! Why an address cannot be listened on.

use libdc::net::address::Address;
use std::fmt;
use std::io;

/// Why a listener cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A step of the creation failed.
    #[error("{address}: cannot {step}: {source}")]
    Failed {
        /// The address as configured.
        address: Address,
        /// The step that failed.
        step: ListenStep,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process accepts connections on the path.
    #[error("{address}: a live process is listening there")]
    Live {
        /// The address as configured.
        address: Address,
    },
    /// The path leads to something other than a socket, which is kept.
    #[error("{address}: the path is a file that is not a socket")]
    NotASocket {
        /// The address as configured.
        address: Address,
    },
    /// Another process replaced the socket during its creation.
    #[error("{address}: another process replaced the socket concurrently")]
    Lost {
        /// The address as configured.
        address: Address,
    },
    /// The process was not started with the descriptor, or it was claimed before.
    #[error("{address}: no such descriptor was inherited")]
    NotInherited {
        /// The address as configured.
        address: Address,
    },
    /// The descriptor is not a listening stream socket.
    #[error("{address}: not a listening stream socket")]
    NotListening {
        /// The address as configured.
        address: Address,
    },
}

impl ListenError {
    pub(super) fn failed(address: &Address, step: ListenStep, source: impl Into<io::Error>) -> Self {
        Self::Failed { address: address.clone(), step, source: source.into() }
    }
}

/// A step in the creation of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenStep {
    /// Resolving a host name.
    Lookup,
    /// Creating the socket and setting its options.
    Create,
    /// Binding it to its address.
    Bind,
    /// Inspecting the file at the path.
    Inspect,
    /// Checking whether a process listens on the path.
    Probe,
    /// Removing the socket of a dead process.
    Replace,
    /// Setting owner and group.
    Own,
    /// Setting the mode of the socket.
    Mode,
    /// Starting to listen, listen(2).
    Listen,
    /// Claiming an inherited socket.
    Inherit,
}

impl fmt::Display for ListenStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "look up the host",
            Self::Create => "create a socket",
            Self::Bind => "bind",
            Self::Inspect => "inspect the path",
            Self::Probe => "check whether a process is listening there",
            Self::Replace => "remove the socket of a dead process",
            Self::Own => "set owner and group of the socket",
            Self::Mode => "set the mode of the socket",
            Self::Listen => "listen",
            Self::Inherit => "take over the descriptor",
        })
    }
}
