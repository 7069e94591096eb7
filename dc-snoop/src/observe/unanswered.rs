//! Unanswered requests of one end.
//!
//! Messages are paired by their uid, however long the answer takes. Requests of the line protocol are
//! answered in order. Once their number is uncertain, because bytes were missed, pairing stops: a wrong
//! latency would be worse than none.

use crate::decode::{DecodedLines, DecodedMessage, MessageKind};
use libdc::limits::LINK_IN_FLIGHT_MAX;
use libdc::wire::frame::{LinkOperation, Operation};
use libdc::wire::lock::LockAction;
use libdc::wire::message::MessageRef;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The request that a response answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchedRequest {
    /// The kind of the request.
    pub topic: MessageKind,
    /// The session it was about, if it was about one.
    pub id: Option<Box<[u8]>>,
    /// The lock it was about, if it was about one.
    pub key: Option<Box<str>>,
    /// Whether it was ready to wait for others. Then most of the time may be theirs.
    pub may_block: bool,
    /// The time from the request to the response.
    pub took: Duration,
}

/// The requests of one end that wait for their answers.
#[derive(Debug, Default)]
pub(super) struct UnansweredRequests {
    by_uid: BTreeMap<u32, VecDeque<UnansweredRequest>>,
    /// How many that is.
    with_uid: usize,
    /// Requests of the line protocol.
    in_order: VecDeque<UnansweredRequest>,
    order_lost: bool,
}

#[derive(Debug)]
struct UnansweredRequest {
    topic: MessageKind,
    id: Option<Box<[u8]>>,
    key: Option<Box<str>>,
    may_block: bool,
    at: Duration,
}

impl UnansweredRequest {
    fn answered(self, at: Duration) -> MatchedRequest {
        let Self { topic, id, key, may_block, at: asked } = self;
        MatchedRequest { topic, id, key, may_block, took: at.saturating_sub(asked) }
    }
}

impl UnansweredRequests {
    pub(super) fn count(&self) -> usize {
        self.with_uid + self.in_order.len()
    }

    pub(super) fn ask(&mut self, message: MessageRef<'_>, at: Duration) {
        let operation = message.head.operation;
        // That one is never answered.
        if self.with_uid == LINK_IN_FLIGHT_MAX || operation == Operation::Link(LinkOperation::GoAway) {
            return;
        }
        let content = DecodedMessage::decode(message);
        let question = UnansweredRequest {
            topic: MessageKind::Operation(operation),
            id: content.id().map(Box::from),
            key: content.key().map(|key| key.as_str().into()),
            may_block: content.may_block(),
            at,
        };
        self.by_uid.entry(message.head.uid).or_default().push_back(question);
        self.with_uid += 1;
    }

    pub(super) fn answer(&mut self, uid: u32, at: Duration) -> Option<MatchedRequest> {
        let requests = self.by_uid.get_mut(&uid)?;
        let question = requests.pop_front()?;
        if requests.is_empty() {
            self.by_uid.remove(&uid);
        }
        self.with_uid -= 1;
        Some(question.answered(at))
    }

    /// Three lines ask, whether they make sense or not: all are answered.
    pub(super) fn ask_in_order(&mut self, content: &DecodedLines<'_>, at: Duration) {
        if self.order_lost {
            return;
        }
        if self.in_order.len() == LINK_IN_FLIGHT_MAX {
            self.lose_order();
            return;
        }
        self.in_order.push_back(UnansweredRequest {
            topic: content.command().map_or(MessageKind::Text, MessageKind::Command),
            id: None,
            key: content.key().map(|key| key.as_str().into()),
            may_block: content.action().is_some_and(LockAction::may_block),
            at,
        });
    }

    pub(super) fn answer_in_order(&mut self, at: Duration) -> Option<MatchedRequest> {
        self.in_order.pop_front().map(|question| question.answered(at))
    }

    /// Lines were missed, so answers can no longer be paired.
    pub(super) fn lose_order(&mut self) {
        self.order_lost = true;
        self.in_order = VecDeque::new();
    }
}
