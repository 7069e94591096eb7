//! Buffers that all connections of a thread share while they are being served.
//!
//! A connection needs a large buffer only for the moment between a read and a write, and on one thread one
//! connection is served at a time. So idle connections own no buffers.

use crate::drivers::mailbox::Notification;
use libdc::limits::{OUTBOX_BYTES_MAX, READ_BUDGET_BYTES};
use libdc::service::Effects;
use std::cell::RefCell;

/// The buffers of a thread.
#[derive(Debug)]
pub(crate) struct ThreadBuffers {
    /// For what is read.
    pub(crate) input: Box<[u8]>,
    /// For answers to it; empty between two uses.
    pub(crate) output: Vec<u8>,
    /// For what follows for other connections; empty between two uses.
    pub(crate) effects: Effects,
    /// For what others left for this connection; empty between two uses.
    pub(crate) letters: Vec<Notification>,
}

thread_local! {
    static SCRATCH: RefCell<ThreadBuffers> = RefCell::new(ThreadBuffers {
        input: vec![0; READ_BUDGET_BYTES].into_boxed_slice(),
        output: Vec::with_capacity(2 * OUTBOX_BYTES_MAX),
        effects: Effects::new(),
        letters: Vec::new(),
    });
}

impl ThreadBuffers {
    /// Lends the buffers of this thread. Not to be called within itself.
    pub(crate) fn with<T>(use_them: impl FnOnce(&mut Self) -> T) -> T {
        SCRATCH.with_borrow_mut(use_them)
    }
}
