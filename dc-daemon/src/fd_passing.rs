//! Descriptors sent from one process to another with the bytes of a message, over a Unix socket
//! (`SCM_RIGHTS`, unix(7)), and the credentials of the sender.
//!
//! On a datagram or seqpacket socket the descriptors belong to the message. On a stream they belong to its
//! first byte: a read never goes beyond the bytes that were sent with them, but it may end earlier. A
//! received descriptor is close-on-exec from the start, and is owned or closed: errors leave no descriptor
//! open.
//!
//! A sent message carries up to [`DESCRIPTORS_MAX`] descriptors; a received one up to 253, the limit of
//! Linux. Control messages are parsed in the layout of the Linux kernel, cmsg(3):
//!
//! ```text
//!  0                 8           12          16                aligned to 8; on 32 bits the length has 4 bytes, aligned to 4
//!  ├ length, inclusive ┼ level   ┼ type      ┼ content ...  ┼ padding ┤
//! ```
//!
//! Nothing here panics.

use nix::errno::Errno;
use nix::sys::socket::{self, ControlMessage, MsgFlags, sockopt};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The maximum number of descriptors in a sent message.
pub const DESCRIPTORS_MAX: usize = 250;

/// The word size of the kernel. Control messages are aligned to it.
const WORD: usize = size_of::<usize>();
/// Length, level and type in front of the content of a control message.
const HEADER: usize = WORD + 8;
/// Process id, user id and group id, 4 bytes each.
const CREDENTIALS: usize = 12;
/// The maximum number of descriptors that the kernel allows in a message: `SCM_MAX_FD`.
const DESCRIPTORS_SENT_MAX: usize = 253;
/// Size of the buffer for the control messages of the largest message.
const CONTROL: usize =
    HEADER + aligned(DESCRIPTORS_SENT_MAX * size_of::<RawFd>()) + HEADER + aligned(CREDENTIALS);
const _: () = assert!(DESCRIPTORS_MAX <= DESCRIPTORS_SENT_MAX);

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;

/// A received message.
#[derive(Debug)]
pub struct ReceivedMessage {
    /// The number of bytes written to the buffer. 0 is the end of a stream, or an empty datagram.
    pub bytes: usize,
    /// The descriptors in the order in which they were sent; close-on-exec.
    pub descriptors: Vec<OwnedFd>,
    /// The sender, if [`receive_senders`] was called before.
    pub sender: Option<PeerCredentials>,
    /// Whether further descriptors were sent that cannot be received. Only [`receive_in_part`] returns such a
    /// message.
    pub descriptors_lost: bool,
}

impl ReceivedMessage {
    fn complete(self) -> Result<Self, ReceiveError> {
        if self.descriptors_lost { Err(ReceiveError::DescriptorsLost) } else { Ok(self) }
    }
}

/// The process that sent a message, as verified by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// The process id; 0 for a process outside our pid namespace.
    pub pid: u32,
    /// The user id of the process.
    pub uid: u32,
    /// The group id of the process.
    pub gid: u32,
}

/// Sends `bytes` with duplicates of `descriptors`, and returns the number of bytes sent. On a stream this may
/// be fewer than given: the descriptors were sent with the first byte, and the rest must be sent without
/// them. Blocks if the socket is blocking.
///
/// # Errors
/// `InvalidInput` for more than [`DESCRIPTORS_MAX`] descriptors, or for descriptors without a byte to carry
/// them. `WouldBlock` if nothing can be sent now. Otherwise the errors of the system; a closed peer is
/// `BrokenPipe`, without a signal.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_with(socket.as_fd(), bytes, descriptors, MsgFlags::empty())
}

/// As [`send`], with additional flags.
pub(super) fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: MsgFlags,
) -> io::Result<usize> {
    if descriptors.len() > DESCRIPTORS_MAX || (bytes.is_empty() && !descriptors.is_empty()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    let content = [IoSlice::new(bytes)];
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    let sent = uninterrupted(|| socket::sendmsg::<()>(socket.as_raw_fd(), &content, control, flags, None))?;
    Ok(sent)
}

/// Receives a message, or the available bytes of a stream, into `buffer`. Blocks if the socket is blocking.
/// Descriptors received with an error are closed.
///
/// # Errors
/// [`ReceiveError`].
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<ReceivedMessage, ReceiveError> {
    receive_with(socket.as_fd(), buffer, CONTROL).and_then(ReceivedMessage::complete)
}

/// As [`receive`], but also returns a message of which some descriptors cannot be received, with the ones
/// that were.
///
/// # Errors
/// [`ReceiveError`], except for [`ReceiveError::DescriptorsLost`].
pub fn receive_in_part(socket: impl AsFd, buffer: &mut [u8]) -> Result<ReceivedMessage, ReceiveError> {
    receive_with(socket.as_fd(), buffer, CONTROL)
}

/// Makes the kernel attach the sender to each message received from now on ([`ReceivedMessage::sender`]).
/// Must be called before the first message is sent.
///
/// # Errors
/// The errors of setsockopt(2).
pub fn receive_senders(socket: impl AsFd) -> io::Result<()> {
    Ok(socket::setsockopt(&socket, sockopt::PassCred, &true)?)
}

/// As [`receive`], with a buffer of `control` bytes for control messages.
fn receive_with(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    control: usize,
) -> Result<ReceivedMessage, ReceiveError> {
    // Zeros terminate the control messages, wherever the kernel stopped writing.
    let mut control = vec![0; control];
    let (bytes, flags) = uninterrupted(|| {
        let content = &mut [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = socket::recvmsg::<()>(socket.as_raw_fd(), content, Some(&mut control), flags)?;
        Ok((received.bytes, received.flags))
    })
    .map_err(|error| match error {
        Errno::EAGAIN => ReceiveError::NothingYet,
        other => ReceiveError::System(other.into()),
    })?;
    let mut received = ReceivedMessage {
        bytes,
        descriptors: Vec::new(),
        sender: None,
        descriptors_lost: flags.contains(MsgFlags::MSG_CTRUNC),
    };
    for message in control_messages(&control) {
        match message {
            (SOL_SOCKET, SCM_RIGHTS, content) => received.descriptors.extend(descriptors(content)),
            (SOL_SOCKET, SCM_CREDENTIALS, content) => received.sender = sender(content),
            _ => {}
        }
    }
    if flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(ReceiveError::TooLong);
    }
    Ok(received)
}

/// Takes ownership of the descriptors that the kernel wrote into the content of a message.
fn descriptors(content: &[u8]) -> impl Iterator<Item = OwnedFd> {
    let numbers = content.as_chunks().0.iter().copied().map(RawFd::from_ne_bytes);
    numbers.map(|number| {
        #[allow(unsafe_code, reason = "std converts a number to a descriptor only by an unsafe function")]
        // SAFETY: the kernel opened it for this message, which is read once, so the number has no other
        // owner.
        unsafe {
            OwnedFd::from_raw_fd(number)
        }
    })
}

fn sender(content: &[u8]) -> Option<PeerCredentials> {
    let [pid, uid, gid] = content.as_chunks().0 else { return None };
    let number = |bytes: &[u8; 4]| u32::from_ne_bytes(*bytes);
    Some(PeerCredentials { pid: number(pid), uid: number(uid), gid: number(gid) })
}

/// The control messages in `rest`: level, type and content of each.
fn control_messages(mut rest: &[u8]) -> impl Iterator<Item = (i32, i32, &[u8])> {
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk().map(|(it, rest)| (usize::from_ne_bytes(*it), rest))?;
        let (level, after) = after.split_first_chunk().map(|(it, rest)| (i32::from_ne_bytes(*it), rest))?;
        let (kind, _) = after.split_first_chunk().map(|(it, rest)| (i32::from_ne_bytes(*it), rest))?;
        let content = rest.get(HEADER..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((level, kind, content))
    })
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(WORD)
}

/// Repeats `call` while it is interrupted by a signal.
fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Why no message was received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// No message is available, and the socket is non-blocking.
    #[error("no message is available")]
    NothingYet,
    /// Some descriptors of the message cannot be received: there are more than a message may carry, or than
    /// this process may open. The message is lost, and the received descriptors are closed.
    #[error("cannot receive all descriptors of a message")]
    DescriptorsLost,
    /// The message exceeds the buffer. It is lost, and its descriptors are closed.
    #[error("a message exceeds the receive buffer")]
    TooLong,
    /// Another error of the system.
    #[error("cannot receive: {0}")]
    System(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use std::io::{PipeReader, Read, Write};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn datagrams() -> (UnixDatagram, UnixDatagram) {
        let (near, far) = UnixDatagram::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        (near, far)
    }

    /// Sends a message of three bytes with `copies` of the writing end of a pipe, and returns the reading
    /// end.
    fn send_writers(near: &UnixDatagram, copies: usize) -> PipeReader {
        let (reader, writer) = io::pipe().unwrap();
        assert_eq!(send(near, b"abc", &vec![writer.as_fd(); copies]).unwrap(), 3);
        fcntl(&reader, FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        reader
    }

    /// Whether all writing ends are closed.
    fn all_closed(reader: &mut PipeReader) -> bool {
        match reader.read(&mut [0]) {
            Ok(0) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn descriptors_arrive_in_order_and_close_on_exec() {
        let (near, far) = datagrams();
        let (first, second) = (io::pipe().unwrap(), io::pipe().unwrap());
        send(&near, b"two", &[first.1.as_fd(), second.1.as_fd()]).unwrap();
        let mut buffer = [0; 8];
        let received = receive(&far, &mut buffer).unwrap();
        assert_eq!((&buffer[..received.bytes], received.sender), (b"two".as_slice(), None));
        for (descriptor, mut reader) in received.descriptors.into_iter().zip([first.0, second.0]) {
            let flags = FdFlag::from_bits_truncate(fcntl(&descriptor, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
            std::fs::File::from(descriptor).write_all(b"x").unwrap();
            reader.read_exact(&mut [0]).unwrap();
        }
        assert!(matches!(receive(&far, &mut buffer), Err(ReceiveError::NothingYet)));
    }

    #[test]
    fn send_takes_at_most_the_maximum_of_descriptors() {
        let (near, far) = datagrams();
        receive_senders(&far).unwrap();
        let mut reader = send_writers(&near, DESCRIPTORS_MAX);
        let received = receive(&far, &mut [0; 3]).unwrap();
        assert_eq!((received.bytes, received.descriptors.len()), (3, DESCRIPTORS_MAX));
        assert!(received.sender.is_some());
        assert!(!all_closed(&mut reader));
        drop(received);
        assert!(all_closed(&mut reader));

        let many = vec![near.as_fd(); DESCRIPTORS_MAX + 1];
        assert_eq!(send(&near, b"a", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(send(&near, b"", &many[..1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(matches!(receive(&far, &mut [0]), Err(ReceiveError::NothingYet)));
    }

    #[test]
    fn receive_takes_the_kernel_maximum_of_descriptors() {
        let (near, far) = datagrams();
        receive_senders(&far).unwrap();
        let numbers = vec![near.as_raw_fd(); DESCRIPTORS_SENT_MAX];
        let rights = [ControlMessage::ScmRights(&numbers)];
        let content = [IoSlice::new(b"abc")];
        socket::sendmsg::<()>(near.as_raw_fd(), &content, &rights, MsgFlags::empty(), None).unwrap();
        let received = receive(&far, &mut [0; 8]).unwrap();
        assert_eq!((received.bytes, received.descriptors.len()), (3, DESCRIPTORS_SENT_MAX));
        assert!(received.sender.is_some());
    }

    #[test]
    fn partial_descriptors_are_closed() {
        let (near, far) = datagrams();
        for (copies, room) in [(3, HEADER + 8), (1, HEADER), (250, CONTROL / 2)] {
            let mut reader = send_writers(&near, copies);
            let received = receive_with(far.as_fd(), &mut [0; 8], room).unwrap();
            assert!(received.descriptors_lost && received.bytes == 3, "{copies} in {room}");
            assert!(received.descriptors.len() < copies);
            let error = received.complete().unwrap_err();
            assert!(matches!(error, ReceiveError::DescriptorsLost), "{error}");
            assert!(all_closed(&mut reader), "{copies} in {room}");
        }
    }

    #[test]
    fn truncated_message_is_an_error_and_closes_descriptors() {
        let (near, far) = datagrams();
        let mut reader = send_writers(&near, 2);
        assert!(matches!(receive(&far, &mut [0; 2]), Err(ReceiveError::TooLong)));
        assert!(all_closed(&mut reader));
        assert!(matches!(receive(&far, &mut [0; 2]), Err(ReceiveError::NothingYet)));
    }

    #[test]
    fn sender_credentials_are_received() {
        let (near, far) = datagrams();
        receive_senders(&far).unwrap();
        send(&near, b"me", &[]).unwrap();
        let received = receive(&far, &mut [0; 8]).unwrap();
        let me = PeerCredentials {
            pid: std::process::id(),
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        };
        assert_eq!((received.bytes, received.sender), (2, Some(me)));
        assert!(received.descriptors.is_empty());
    }

    #[test]
    fn sender_in_another_pid_namespace_has_pid_zero() {
        // As the kernel reports a process in another pid namespace.
        let content = [0_u32, 65_534, 65_534].map(u32::to_ne_bytes).concat();
        assert_eq!(sender(&content), Some(PeerCredentials { pid: 0, uid: 65_534, gid: 65_534 }));
        assert_eq!(sender(&content[..11]), None);
    }

    #[test]
    fn stream_descriptors_arrive_with_the_first_byte() {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        send(&near, b"abc", &[writer.as_fd()]).unwrap();
        let received = receive(&far, &mut [0]).unwrap();
        assert_eq!((received.bytes, received.descriptors.len()), (1, 1));
        let received = receive(&far, &mut [0; 8]).unwrap();
        assert_eq!((received.bytes, received.descriptors.len()), (2, 0));
        drop(near);
        assert_eq!(receive(&far, &mut [0; 8]).unwrap().bytes, 0);
        assert_eq!(send(&far, b"a", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn malformed_control_messages_end_the_iteration() {
        let header = |length: usize| [&length.to_ne_bytes()[..], &[1, 0, 0, 0, 2, 0, 0, 0]].concat();
        for (bytes, count) in [
            (vec![], 0),
            (vec![0; 100], 0),
            (header(HEADER - 1), 0),
            (header(HEADER + 1), 0),
            (header(usize::MAX), 0),
            (header(HEADER), 1),
            ([header(HEADER + 4), vec![7; WORD.max(4)], header(HEADER)].concat(), 2),
        ] {
            assert_eq!(control_messages(&bytes).count(), count, "{bytes:?}");
        }
    }
}
