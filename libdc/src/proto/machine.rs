//! The interface that all connection machines share.
//!
//! A machine is one value that owns everything about its connection. A driver moves bytes between it and a
//! socket, and keeps a timer; it decides nothing. All machines offer the methods of this table; `cx` carries
//! the time, the buffers of the thread and anything else the machine works on:
//!
//! | method | effect |
//! |---|---|
//! | `begin_turn()` | the budget of a turn is available again |
//! | `poll_output(cx) -> &[u8]` | the bytes to write next |
//! | `wrote(cx, n)` | the socket took n of them; fewer than offered starts the write timeout |
//! | `handle_input(cx, &[u8])` | bytes were read; an empty slice is the end of input |
//! | `handle_mail(cx, notification)` | another connection, or the program, caused something for this one |
//! | `deadline() -> Option<Time>` | when `handle_timeout` must be called |
//! | `handle_timeout(cx)` | does what is due |
//! | `state() -> MachineState` | whether to read, to call again soon, or to end |
//! | `close(cx)` | the socket is gone: releases everything |
//!
//! Every driver, tokio's or the simulation's, calls them in this order, which is one turn:
//!
//! 1. `begin_turn`; write: while `poll_output` is not empty, write and report with `wrote`. A socket that
//!    would block is reported as `wrote(0)`, and ends the writing.
//! 2. Mail: each notification to `handle_mail`, then write.
//! 3. While the state is `Open { wants_input: true, more: false }`: read. A socket that would block ends the
//!    reading; any other result goes to `handle_input`, then write.
//! 4. If the last read would have blocked, or no input is wanted, and `deadline` has passed:
//!    `handle_timeout`, then write. So a request received in time is answered before the connection could be
//!    closed for inactivity.
//! 5. `Closed`: end. `more`: call again soon, after other connections. Else: sleep until the socket, the
//!    mailbox or `deadline` wakes the task.

/// Whether a connection is open, closing or closed. `R` is the reason for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineState<R> {
    /// Serving requests.
    Open {
        /// Whether bytes should be read.
        wants_input: bool,
        /// Whether the budget of this turn is spent. Other connections go first, then this one has another
        /// turn without waiting for its socket.
        more: bool,
    },
    /// No more input is read. Output is still to be written, or a delay to pass.
    Closing,
    /// Ended: the socket must be closed.
    Closed(R),
}
