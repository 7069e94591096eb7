//! Planted bugs of a lock server: its requests are delayed, and its answers changed.
//!
//! It changes frames only, except for swapping lines of the line protocol.

use super::network::{Network, NetworkEnd};
use super::original::split_messages;
use super::planted_bug::PlantedBug;
use super::turn_env::TurnEnv;
use libdc::id::LockKey;
use libdc::time::Time;
use libdc::wire::frame::{Direction, LinkOperation, LockOperation, MessageHead, Operation};
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use libdc::wire::message::{Message, MessageReader, write_message};
use std::collections::BTreeMap;

/// Delay of a request, in milliseconds.
const HELD_BACK_MS: u64 = 1_500;
/// Interval between answers that are tampered with, counted in answers.
const ANSWERS_BETWEEN: u64 = 4;

/// Tampers with the traffic between a connection and the server.
pub(crate) struct StreamTamperer {
    sabotage: PlantedBug,
    requests: MessageReader,
    answers: MessageReader,
    unread: Vec<u8>,
    /// Keys of requests, by uid.
    keys: BTreeMap<u32, String>,
    held_back: Vec<u8>,
    due: Option<Time>,
    seen: u64,
}

impl StreamTamperer {
    pub(crate) fn new(sabotage: PlantedBug) -> Self {
        Self {
            sabotage,
            requests: MessageReader::new(Some(Direction::Request)),
            answers: MessageReader::link(Direction::Response),
            unread: Vec::new(),
            keys: BTreeMap::new(),
            held_back: Vec::new(),
            due: None,
            seen: 0,
        }
    }

    /// The time at which the delayed request is passed on.
    pub(crate) const fn due(&self) -> Option<Time> {
        self.due
    }

    /// Whether that time has come.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    const fn is_active(&self) -> bool {
        matches!(
            self.sabotage,
            PlantedBug::ReleaseOfOthers
                | PlantedBug::HoldBackWaiters
                | PlantedBug::ClaimsAlwaysGood
                | PlantedBug::RenewAlways
                | PlantedBug::RefuseGranted
        )
    }

    /// Delays a received request, where the bug requires it.
    pub(crate) fn receive(&mut self, net: &mut Network, end: NetworkEnd, input: &mut Vec<u8>) {
        let speaks_text = input.first().is_some_and(u8::is_ascii_lowercase) && self.keys.is_empty();
        if !self.is_active() || (speaks_text && self.unread.is_empty()) {
            return;
        }
        self.unread.append(input);
        let whole: usize = split_messages(&self.unread).iter().map(|message| message.len()).sum();
        let messages: Vec<u8> = self.unread.drain(..whole).collect();
        for bytes in split_messages(&messages) {
            let mut rest = bytes;
            let Ok(Some(message)) = self.requests.next(&mut rest) else {
                input.extend_from_slice(bytes);
                continue;
            };
            let mut holds_back = false;
            if let Operation::Lock(operation) = message.head.operation
                && let Ok(Ok(LockRequest { action, .. })) = LockRequest::parse(operation, message.data)
            {
                if let Some(key) = key_of(&action) {
                    self.keys.insert(message.head.uid, key.as_str().to_owned());
                }
                holds_back = self.sabotage == PlantedBug::HoldBackWaiters
                    && matches!(action, LockAction::Acquire { .. })
                    && action.may_block()
                    && self.due.is_none();
            }
            if holds_back {
                self.held_back = bytes.to_vec();
                let due = net.now().after_ms(HELD_BACK_MS);
                self.due = Some(due);
                net.set_timer(end, Some(due));
            } else {
                input.extend_from_slice(bytes);
            }
        }
        if self.is_due(net.now()) {
            self.due = None;
            input.append(&mut self.held_back);
        }
    }

    /// Tampers with the answers.
    pub(crate) fn answer(&mut self, net: &Network, env: &mut TurnEnv<'_>, output: &mut Vec<u8>) {
        if self.sabotage == PlantedBug::SwapLines && output.first().is_some_and(u8::is_ascii_lowercase) {
            let mut lines: Vec<&[u8]> = output.split_inclusive(|byte| *byte == b'\n').collect();
            lines.reverse();
            *output = lines.concat();
        }
        if !self.is_active() || output.first() != Some(&0) {
            return;
        }
        let mut changed = Vec::new();
        for bytes in split_messages(output) {
            let mut rest = bytes;
            match self.answers.next(&mut rest) {
                Ok(Some(answer)) => {
                    let answer = Message::from(answer);
                    let head = MessageHead::request(answer.head.uid, answer.head.operation);
                    if !self.change(net, env, &answer, head, &mut changed) {
                        changed.extend_from_slice(bytes);
                    }
                }
                _ => changed.extend_from_slice(bytes),
            }
        }
        *output = changed;
    }

    /// Appends a replacement for this answer, or returns that it stays unchanged.
    fn change(
        &mut self,
        net: &Network,
        env: &mut TurnEnv<'_>,
        answer: &Message,
        request: MessageHead,
        out: &mut Vec<u8>,
    ) -> bool {
        if answer.head.operation == Operation::Link(LinkOperation::Claim)
            && self.sabotage == PlantedBug::ClaimsAlwaysGood
        {
            let good = vec![LockStatus::Ok as u8; answer.data.len()];
            write_message(out, request.response(), &good);
            return true;
        }
        let Operation::Lock(operation) = answer.head.operation else { return false };
        let key = self.keys.remove(&answer.head.uid);
        match LockAnswer::parse(operation, &answer.data) {
            Ok(LockAnswer::Grant { grant, .. }) => {
                self.seen += 1;
                if !self.seen.is_multiple_of(ANSWERS_BETWEEN) {
                    return false;
                }
                if self.sabotage == PlantedBug::ReleaseOfOthers
                    && let Some(key) = key.as_deref().and_then(LockKey::new)
                {
                    let effects = &mut env.effects.completions;
                    env.service.locks().release(net.now(), key, grant.token, effects);
                }
                if self.sabotage == PlantedBug::RefuseGranted && operation == LockOperation::Acquire {
                    LockAnswer::Status(LockStatus::Timeout).write(request, out);
                    return true;
                }
                false
            }
            Ok(LockAnswer::Status(LockStatus::Error))
                if operation == LockOperation::Renew && self.sabotage == PlantedBug::RenewAlways =>
            {
                LockAnswer::Renewed { lease_ms: 1_000 }.write(request, out);
                true
            }
            _ => false,
        }
    }
}

const fn key_of<'a>(action: &LockAction<'a>) -> Option<LockKey<'a>> {
    match action {
        LockAction::Acquire { key, .. } | LockAction::Enqueue { key, .. } | LockAction::Wait { key, .. } => {
            Some(*key)
        }
        _ => None,
    }
}
