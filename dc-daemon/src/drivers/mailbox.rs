//! Where connections leave what concerns another one: the answer to its blocked request, or that its link was
//! taken over.
//!
//! A connection belongs to one task on one thread. Whoever causes something for it, perhaps on another thread,
//! puts a letter into its box and wakes that task. What comes for a connection that is gone is dropped: its end
//! has released, or will, what it was granted.

use foldhash::fast::RandomState;
use libdc::id::ConnectionId;
use libdc::service::Effects;
use libdc::table::Completion;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// Parts of the register, so that threads seldom meet.
const PARTS: u64 = 16;

/// What is in a box.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notification {
    /// The answer to a blocked request.
    Answer(Completion),
    /// Another connection resumed the link of this one.
    TakenOver,
}

/// The boxes of all connections.
#[derive(Debug)]
pub(crate) struct Mailboxes {
    parts: Box<[Mutex<MailboxShard>]>,
}

type MailboxShard = HashMap<ConnectionId, Arc<Mailbox>, RandomState>;

/// The box of one connection.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inside: Mutex<MailboxState>,
}

#[derive(Debug, Default)]
struct MailboxState {
    letters: Vec<Notification>,
    waker: Option<Waker>,
}

impl Mailboxes {
    pub(crate) fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect() }
    }

    /// A box for a connection, until [`close`](Self::close).
    pub(crate) fn open(&self, id: ConnectionId) -> Arc<Mailbox> {
        let postbox = Arc::new(Mailbox::default());
        self.part(id).insert(id, Arc::clone(&postbox));
        postbox
    }

    /// The connection is gone.
    pub(crate) fn close(&self, id: ConnectionId) {
        let mut part = self.part(id);
        part.remove(&id);
        if part.capacity() > 64 && part.len() < part.capacity() / 4 {
            part.shrink_to_fit();
        }
    }

    /// Delivers everything, and empties `effects`.
    pub(crate) fn deliver(&self, effects: &mut Effects) {
        for answer in effects.answers.drain(..) {
            self.push(answer.reply.connection, Notification::Answer(answer));
        }
        for id in effects.taken_over.drain(..) {
            self.push(id, Notification::TakenOver);
        }
    }

    fn push(&self, to: ConnectionId, letter: Notification) {
        let Some(postbox) = self.part(to).get(&to).cloned() else { return };
        let mut inside = postbox.lock();
        inside.letters.push(letter);
        if let Some(waker) = &inside.waker {
            waker.wake_by_ref();
        }
    }

    fn part(&self, id: ConnectionId) -> MutexGuard<'_, MailboxShard> {
        self.parts[(id.number() % PARTS) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// Takes the letters out, into `letters`, which is empty; if there are none, the task of `cx` is woken when
    /// one comes.
    pub(crate) fn drain(&self, cx: &Context<'_>, letters: &mut Vec<Notification>) {
        let mut inside = self.lock();
        if inside.letters.is_empty() {
            if !inside.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                inside.waker = Some(cx.waker().clone());
            }
        } else {
            letters.append(&mut inside.letters);
        }
    }

    fn lock(&self) -> MutexGuard<'_, MailboxState> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn link_taken_over(id: ConnectionId) -> Effects {
        Effects { taken_over: vec![id], ..Effects::new() }
    }

    #[test]
    fn a_letter_wakes_who_waits_for_it() {
        let boxes = Mailboxes::new();
        let (one, other) = (ConnectionId::new(1), ConnectionId::new(1 + PARTS));
        let postbox = boxes.open(one);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        let take = || {
            let mut letters = Vec::new();
            postbox.drain(&cx, &mut letters);
            letters
        };
        assert!(take().is_empty());
        boxes.deliver(&mut link_taken_over(other));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "it was for somebody else, who is not there");
        boxes.deliver(&mut link_taken_over(one));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(matches!(take()[..], [Notification::TakenOver]));
        assert!(take().is_empty());
        boxes.close(one);
        boxes.deliver(&mut link_taken_over(one));
        assert!(take().is_empty(), "closed");
    }

    #[test]
    fn a_letter_that_came_before_is_found() {
        let boxes = Mailboxes::new();
        let postbox = boxes.open(ConnectionId::new(5));
        boxes.deliver(&mut link_taken_over(ConnectionId::new(5)));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut letters = Vec::new();
        postbox.drain(&Context::from_waker(&waker), &mut letters);
        assert_eq!(letters.len(), 1);
    }
}
