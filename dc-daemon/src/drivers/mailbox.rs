//! Mailboxes deliver notifications to a connection of another task, possibly on another thread.
//!
//! Other tasks push a notification into the mailbox of a connection and wake its task. A notification for a
//! connection that is gone is dropped: the end of the connection releases what it was granted.
//!
//! A mailbox is bounded by the requests of its connection: it holds at most one completion for each blocked
//! request, one takeover, and one drain. Taking from an empty mailbox costs one load, no lock.

use foldhash::fast::RandomState;
use libdc::id::ConnectionId;
use libdc::proto::server::Notification;
use libdc::service::Effects;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Shards of the map, so that threads seldom meet.
const SHARDS: u64 = 16;

/// The mailboxes of all connections.
#[derive(Debug)]
pub(crate) struct Mailboxes {
    shards: Box<[Mutex<MailboxShard>]>,
}

type MailboxShard = HashMap<ConnectionId, Arc<Mailbox>, RandomState>;

/// The mailbox of one connection.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    has_mail: AtomicBool,
    state: Mutex<MailboxState>,
}

#[derive(Debug, Default)]
struct MailboxState {
    notifications: Vec<Notification>,
    waker: Option<Waker>,
}

impl Mailboxes {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// A mailbox for a connection, until [`close`](Self::close).
    pub(crate) fn open(&self, id: ConnectionId) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::default());
        self.shard(id).insert(id, Arc::clone(&mailbox));
        mailbox
    }

    /// The connection is gone.
    pub(crate) fn close(&self, id: ConnectionId) {
        let mut shard = self.shard(id);
        shard.remove(&id);
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
            shard.shrink_to_fit();
        }
    }

    /// Delivers the effects on other connections, and empties them.
    pub(crate) fn deliver(&self, effects: &mut Effects) {
        for completion in effects.completions.drain(..) {
            self.push(completion.reply.connection, Notification::Completion(completion));
        }
        for id in effects.taken_over.drain(..) {
            self.push(id, Notification::LinkTakenOver);
        }
    }

    /// Notifies every connection that is open now.
    pub(crate) fn broadcast(&self, notification: Notification) {
        for shard in &self.shards {
            for mailbox in shard.lock().unwrap_or_else(PoisonError::into_inner).values() {
                mailbox.push(notification);
            }
        }
    }

    fn push(&self, to: ConnectionId, notification: Notification) {
        let mailbox = self.shard(to).get(&to).cloned();
        if let Some(mailbox) = mailbox {
            mailbox.push(notification);
        }
    }

    fn shard(&self, id: ConnectionId) -> MutexGuard<'_, MailboxShard> {
        self.shards[(id.number() % SHARDS) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// From now on a notification wakes this task.
    pub(crate) fn register(&self, waker: &Waker) {
        self.lock().waker = Some(waker.clone());
    }

    /// Moves the notifications into `notifications`, which is empty.
    pub(crate) fn take(&self, notifications: &mut Vec<Notification>) {
        if self.has_mail.load(Ordering::Acquire) {
            let mut state = self.lock();
            notifications.append(&mut state.notifications);
            self.has_mail.store(false, Ordering::Release);
        }
    }

    fn push(&self, notification: Notification) {
        let mut state = self.lock();
        state.notifications.push(notification);
        self.has_mail.store(true, Ordering::Release);
        if let Some(waker) = &state.waker {
            waker.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, MailboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl WakeCount {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn link_taken_over(id: ConnectionId) -> Effects {
        Effects { taken_over: vec![id], ..Effects::new() }
    }

    fn taken(mailbox: &Mailbox) -> Vec<Notification> {
        let mut notifications = Vec::new();
        mailbox.take(&mut notifications);
        notifications
    }

    #[test]
    fn mailbox_push_wakes_task() {
        let mailboxes = Mailboxes::new();
        let (one, other) = (ConnectionId::new(1), ConnectionId::new(1 + SHARDS));
        let mailbox = mailboxes.open(one);
        let woken = Arc::new(WakeCount::default());
        mailbox.register(&Waker::from(Arc::clone(&woken)));
        assert!(taken(&mailbox).is_empty());
        mailboxes.deliver(&mut link_taken_over(other));
        assert_eq!(woken.count(), 0, "it was for another connection, which does not exist");
        mailboxes.deliver(&mut link_taken_over(one));
        assert_eq!(woken.count(), 1);
        assert!(matches!(taken(&mailbox)[..], [Notification::LinkTakenOver]));
        assert!(taken(&mailbox).is_empty());
        mailboxes.close(one);
        mailboxes.deliver(&mut link_taken_over(one));
        assert!(taken(&mailbox).is_empty(), "closed");
    }

    #[test]
    fn mail_pushed_before_registration_is_taken() {
        let mailboxes = Mailboxes::new();
        let mailbox = mailboxes.open(ConnectionId::new(5));
        mailboxes.deliver(&mut link_taken_over(ConnectionId::new(5)));
        mailbox.register(&Waker::from(Arc::new(WakeCount::default())));
        assert_eq!(taken(&mailbox).len(), 1);
    }

    #[test]
    fn broadcast_reaches_every_open_mailbox() {
        let mailboxes = Mailboxes::new();
        let woken = Arc::new(WakeCount::default());
        let open: Vec<_> = (1..=40).map(|number| mailboxes.open(ConnectionId::new(number))).collect();
        for mailbox in &open {
            mailbox.register(&Waker::from(Arc::clone(&woken)));
        }
        mailboxes.close(ConnectionId::new(1));
        mailboxes.broadcast(Notification::Drain);
        assert_eq!(woken.count(), 39);
        assert!(taken(&open[0]).is_empty());
        assert!(open[1..].iter().all(|mailbox| matches!(taken(mailbox)[..], [Notification::Drain])));
    }
}
