//! Buffers that all connections of a thread share.
//!
//! A connection needs a large buffer only between a read and a write, and a thread handles one connection at
//! a time. So idle connections own no buffers.

use libdc::limits::{OUTBOX_BYTES_MAX, READ_BUDGET_BYTES};
use libdc::proto::server::Notification;
use libdc::service::Effects;
use std::cell::RefCell;

/// The buffers of a thread.
#[derive(Debug)]
pub(crate) struct ThreadBuffers {
    /// For bytes read.
    pub(crate) input: Box<[u8]>,
    /// For answers; empty between two turns.
    pub(crate) output: Vec<u8>,
    /// For effects on other connections; empty between two turns.
    pub(crate) effects: Effects,
    /// For the mail of a connection; empty between two turns.
    pub(crate) notifications: Vec<Notification>,
}

thread_local! {
    static BUFFERS: RefCell<ThreadBuffers> = RefCell::new(ThreadBuffers {
        input: vec![0; READ_BUDGET_BYTES].into_boxed_slice(),
        output: Vec::with_capacity(2 * OUTBOX_BYTES_MAX),
        effects: Effects::new(),
        notifications: Vec::new(),
    });
}

impl ThreadBuffers {
    /// Lends the buffers of this thread.
    ///
    /// # Panics
    /// If called within itself.
    pub(crate) fn with<T>(use_them: impl FnOnce(&mut Self) -> T) -> T {
        BUFFERS.with_borrow_mut(use_them)
    }
}
