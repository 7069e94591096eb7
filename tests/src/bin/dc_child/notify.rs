//! The `sd_notify` messages of a child: datagrams to `NOTIFY_SOCKET`. Without that variable nothing is sent.

use crate::plan::StorePlan;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use std::env;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

/// Sends `text` as one message.
///
/// # Errors
/// The errors of the socket calls.
pub(crate) fn send(text: &[u8]) -> io::Result<()> {
    send_with(text, &[])
}

/// Stores a descriptor with the master. The other end of a pipe stays open until the process exits.
///
/// # Errors
/// The errors of the system calls.
pub(crate) fn store(stored: &StorePlan) -> io::Result<()> {
    let name = if stored.name.is_empty() { String::new() } else { format!("\nFDNAME={}", stored.name) };
    let descriptor: OwnedFd = if let Some(text) = &stored.text {
        let mut file = File::from(memfd_create(c"stored", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(text.as_bytes())?;
        file.into()
    } else {
        let (reader, writer) = io::pipe()?;
        std::mem::forget(writer);
        reader.into()
    };
    let poll = if stored.polled { "" } else { "\nFDPOLL=0" };
    send_with(format!("FDSTORE=1{name}{poll}").as_bytes(), &[descriptor.as_raw_fd()])
}

fn send_with(text: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    let Ok(path) = env::var("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
        None => UnixAddr::new(path.as_str())?,
    };
    let socket = UnixDatagram::unbound()?;
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() { &[][..] } else { &rights };
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(text)], rights, MsgFlags::empty(), Some(&address))?;
    Ok(())
}
