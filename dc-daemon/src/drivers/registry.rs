//! The connections of a worker thread.
//!
//! Each thread has a table of its connections: machine, socket and mailbox. The task of a connection holds a
//! `ConnectionHandle` only, so all connections of a thread can be walked without waking their tasks, and
//! frozen: while the table is frozen, a polled task does nothing. Thawing wakes all tasks.
//!
//! A slot is used again with another generation, so a handle that outlived its connection finds nothing. A
//! connection never leaves its thread: a handle used on another thread finds nothing either.
//!
//! The table is kept by hand: `slab` has no generations, and `slotmap` would be a dependency for thirty
//! lines.

use crate::drivers::mailbox::Mailbox;
use libdc::id::ConnectionId;
use libdc::net::socket::Socket;
use libdc::proto::server::ServerConnection;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};

/// The connections of one thread.
#[derive(Debug)]
pub struct Registry {
    thread: u32,
    slots: Vec<ConnectionSlot>,
    free: Vec<u32>,
    frozen: bool,
}

/// A connection in the registry of its thread.
#[derive(Debug)]
pub struct RegisteredConnection {
    pub(crate) id: ConnectionId,
    pub(crate) machine: ServerConnection,
    pub(crate) socket: Socket,
    pub(crate) mailbox: Arc<Mailbox>,
    /// The task of the connection, once it was polled.
    pub(crate) waker: Option<Waker>,
}

#[derive(Debug)]
struct ConnectionSlot {
    generation: u32,
    connection: Option<Box<RegisteredConnection>>,
}

/// Names a connection of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionHandle {
    thread: u32,
    slot: u32,
    generation: u32,
}

static THREADS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::new(Registry::new());
}

impl Registry {
    fn new() -> Self {
        let thread = THREADS.fetch_add(1, Ordering::Relaxed);
        Self { thread, slots: Vec::new(), free: Vec::new(), frozen: false }
    }

    /// Lends the registry of this thread; `None` while the thread ends.
    ///
    /// # Panics
    /// If called within itself.
    pub fn with<T>(use_it: impl FnOnce(&mut Self) -> T) -> Option<T> {
        REGISTRY.try_with(|registry| use_it(&mut registry.borrow_mut())).ok()
    }

    /// Calls `visit` with every connection, in the order of the slots. No task is woken.
    pub fn for_each(&mut self, visit: impl FnMut(&mut RegisteredConnection)) {
        self.slots.iter_mut().filter_map(|slot| slot.connection.as_deref_mut()).for_each(visit);
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on tasks that are polled do nothing.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// Tasks work again. All of them are woken, since each may have missed something.
    pub fn thaw(&mut self) {
        self.frozen = false;
        self.for_each(|connection| {
            if let Some(waker) = &connection.waker {
                waker.wake_by_ref();
            }
        });
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen
    }

    pub(crate) fn insert(&mut self, connection: RegisteredConnection) -> ConnectionHandle {
        let connection = Some(Box::new(connection));
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize].connection = connection;
            slot
        } else {
            self.slots.push(ConnectionSlot { generation: 0, connection });
            (self.slots.len() - 1) as u32
        };
        ConnectionHandle { thread: self.thread, slot, generation: self.slots[slot as usize].generation }
    }

    pub(crate) fn find(&mut self, handle: ConnectionHandle) -> Option<&mut RegisteredConnection> {
        let slot =
            self.slots.get_mut(handle.slot as usize).filter(|slot| slot.generation == handle.generation)?;
        if handle.thread == self.thread { slot.connection.as_deref_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, handle: ConnectionHandle) -> Option<Box<RegisteredConnection>> {
        self.find(handle)?;
        let slot = &mut self.slots[handle.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(handle.slot);
        slot.connection.take()
    }
}

impl RegisteredConnection {
    /// Notifications and thawing wake this task from now on.
    pub(crate) fn register_waker(&mut self, task: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
            self.mailbox.register(task.waker());
            self.waker = Some(task.waker().clone());
        }
    }

    /// The number of the connection.
    #[must_use]
    pub const fn id(&self) -> ConnectionId {
        self.id
    }

    /// The machine.
    #[must_use]
    pub const fn machine(&self) -> &ServerConnection {
        &self.machine
    }

    /// The socket.
    #[must_use]
    pub const fn socket(&self) -> &Socket {
        &self.socket
    }
}
