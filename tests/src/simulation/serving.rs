//! A connection of the server: the real machine, its socket, and what others have left for it.

use super::network::{Network, NetworkEnd};
use super::pipe::Incoming;
use super::planted_bug::PlantedBug;
use super::tampering::StreamTamperer;
use super::violation::Violation;
use libdc::id::ConnectionId;
use libdc::limits::FRAME_HEADER_BYTES;
use libdc::proto::outbox::Outbox;
use libdc::proto::server::{ServerCloseReason, ServerConnection, ServerContext};
use libdc::service::{Completion, Effects, RequestCounters, Service};
use libdc::time::Time;
use libdc::wire::frame::{Direction, Operation};
use libdc::wire::message::MessageReader;
use std::collections::VecDeque;

/// As the program's `-read-timeout` and `-write-timeout`.
pub(crate) const READ_TIMEOUT_MS: u64 = 23_000;
const WRITE_TIMEOUT_MS: u64 = 5_000;

/// A connection of the server.
pub(crate) struct Serving {
    pub(crate) end: NetworkEnd,
    /// Whose link it is, unless an application speaks for itself.
    pub(crate) agent: Option<usize>,
    /// What follows for it from what others did.
    pub(crate) letters: VecDeque<SimNotification>,
    machine: ServerConnection,
    outbox: Outbox,
    /// It ends then, when all is written.
    refused: Option<(ServerCloseReason, Time)>,
    overheard: ExtensionSniffer,
    input: Vec<u8>,
    output: Vec<u8>,
    sabotage: PlantedBug,
    tampering: StreamTamperer,
}

/// What others leave for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SimNotification {
    /// A blocked request has its answer.
    Answer(Completion),
    /// The link is on another connection now.
    TakenOver,
}

/// The server's part of a turn.
pub(crate) struct ServingStep<'a> {
    pub(crate) service: &'a Service,
    /// It is an original server.
    pub(crate) original: bool,
    /// Answers to what was read at once may change places.
    pub(crate) any_order: bool,
    pub(crate) effects: Effects,
    pub(crate) tally: RequestCounters,
}

enum Written {
    All,
    Blocked,
    Broken,
}

impl Serving {
    /// A connection on which nothing has happened.
    pub(crate) fn new(
        now: Time,
        end: NetworkEnd,
        agent: Option<usize>,
        id: ConnectionId,
        service: &Service,
        sabotage: PlantedBug,
    ) -> Self {
        Self {
            end,
            agent,
            letters: VecDeque::new(),
            machine: ServerConnection::new(now, id, service),
            outbox: Outbox::new(),
            refused: None,
            overheard: ExtensionSniffer::default(),
            input: Vec::new(),
            output: Vec::new(),
            sabotage,
            tampering: StreamTamperer::new(sabotage),
        }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.machine.is_idle() && self.outbox.is_empty() && self.letters.is_empty()
    }

    /// Reads, answers and writes until there is nothing more to do. Returns whether the connection is open.
    pub(crate) fn serve(&mut self, net: &mut Network, step: &mut ServingStep<'_>) -> bool {
        loop {
            match self.write(net) {
                Written::All => {}
                Written::Blocked => return true,
                Written::Broken => return false,
            }
            if let Some((_, end)) = self.refused {
                return end > net.now();
            }
            if let Some(letter) = self.letters.pop_front() {
                self.act(net, step, |machine, turn, _| match letter {
                    SimNotification::Answer(answer) => machine.handle_completion(turn, &answer),
                    SimNotification::TakenOver => Err(ServerCloseReason::TakenOver),
                });
                continue;
            }
            self.input.clear();
            if !self.machine.wants_input() && !self.machine.is_stalled() {
                return true;
            }
            if !self.machine.is_stalled() {
                match net.read(self.end, &mut self.input) {
                    Incoming::Bytes(_) => {}
                    Incoming::Nothing if self.tampering.is_due(net.now()) => {}
                    Incoming::Nothing => return true,
                    Incoming::Finished | Incoming::Broken => return false,
                }
            }
            if step.original && self.overheard.hears_of_extensions(&self.input) {
                net.fail(Violation::NotForOriginals { agent: self.agent.unwrap_or(usize::MAX) });
            }
            self.tampering.receive(net, self.end, &mut self.input);
            self.act(net, step, ServerConnection::handle_input);
        }
    }

    /// One step of the machine.
    fn act(
        &mut self,
        net: &mut Network,
        step: &mut ServingStep<'_>,
        act: impl FnOnce(&mut ServerConnection, &mut ServerContext<'_>, &[u8]) -> Result<(), ServerCloseReason>,
    ) {
        self.output.clear();
        let mut turn = ServerContext {
            now: net.now(),
            service: step.service,
            out: &mut self.output,
            effects: &mut step.effects,
            tally: &mut step.tally,
        };
        if let Err(fault) = act(&mut self.machine, &mut turn, &self.input) {
            self.refuse(net, fault);
        }
        let speaks_frames = self.output.first() == Some(&0);
        self.tampering.answer(net, step, &mut self.output);
        if speaks_frames && step.original && self.sabotage != PlantedBug::OriginalPretends {
            set_patch_level_0(&mut self.output);
        }
        if speaks_frames && step.any_order {
            let mut answers = split_messages(&self.output);
            net.random.shuffle(&mut answers);
            for answer in answers {
                self.outbox.buffer().extend_from_slice(answer);
            }
        } else if !self.output.is_empty() {
            self.outbox.buffer().extend_from_slice(&self.output);
        }
    }

    fn refuse(&mut self, net: &mut Network, fault: ServerCloseReason) {
        self.refused.get_or_insert((fault, net.now().after_ms(fault.delay_ms())));
        match fault {
            ServerCloseReason::TakenOver => net.trace.count("links taken over", 1),
            ServerCloseReason::Bye => net.trace.count("links that said goodbye", 1),
            ServerCloseReason::Silent => net.trace.count("silent links closed by the server", 1),
            ServerCloseReason::ReadTimeout | ServerCloseReason::Idle => {}
            ServerCloseReason::Corruption(_)
            | ServerCloseReason::LineTooLong(_)
            | ServerCloseReason::Tls
            | ServerCloseReason::NotAuthenticated(_)
            | ServerCloseReason::WrongToken => net.fail(Violation::BadRequest { agent: self.agent, fault }),
        }
    }

    /// The connection is gone.
    pub(crate) fn close(&mut self, now: Time, step: &mut ServingStep<'_>) {
        if self.sabotage == PlantedBug::ForgetToClose {
            return;
        }
        self.output.clear();
        let mut turn = ServerContext {
            now,
            service: step.service,
            out: &mut self.output,
            effects: &mut step.effects,
            tally: &mut step.tally,
        };
        self.machine.close(&mut turn);
    }

    fn write(&mut self, net: &mut Network) -> Written {
        if self.outbox.is_empty() {
            return Written::All;
        }
        match net.write(self.end, self.outbox.pending()) {
            Err(_) => return Written::Broken,
            Ok(0) => {}
            Ok(count) => self.outbox.advance(count),
        }
        if self.outbox.is_empty() {
            Written::All
        } else {
            self.outbox.block(net.now());
            Written::Blocked
        }
    }

    /// Does what is due, and sees to it that there is a next time. Returns whether the connection is open.
    pub(crate) fn keep_times(&mut self, net: &mut Network, step: &mut ServingStep<'_>) -> bool {
        let write = self.outbox.blocked_since().map(|since| since.after_ms(WRITE_TIMEOUT_MS));
        if write.is_some_and(|deadline| deadline <= net.now()) {
            return false;
        }
        if self.refused.is_none()
            && self.machine.deadline(READ_TIMEOUT_MS).is_some_and(|deadline| deadline <= net.now())
        {
            self.input.clear();
            self.act(net, step, |machine, turn, _| machine.handle_timeout(turn, READ_TIMEOUT_MS));
            net.call(self.end);
        }
        let read = match self.refused {
            Some((_, end)) => self.outbox.is_empty().then_some(end),
            None => self.machine.deadline(READ_TIMEOUT_MS),
        };
        let deadlines = [read, write, self.tampering.due()];
        net.set_timer(self.end, deadlines.into_iter().flatten().min());
        true
    }
}

/// Reads along with what an original server is sent.
#[derive(Default)]
struct ExtensionSniffer {
    reader: MessageReader,
    unread: Vec<u8>,
}

impl ExtensionSniffer {
    /// Whether there is something in it that an original server does not understand.
    fn hears_of_extensions(&mut self, bytes: &[u8]) -> bool {
        self.unread.extend_from_slice(bytes);
        let mut input = self.unread.as_slice();
        let mut heard = false;
        while let Ok(Some(message)) = self.reader.next(&mut input) {
            let right_way = message.head.direction == Direction::Request;
            heard |= !(right_way && matches!(message.head.operation, Operation::Session(_)));
        }
        let used = self.unread.len() - input.len();
        self.unread.drain(..used);
        heard
    }
}

/// The whole messages, each by itself.
pub(crate) fn split_messages(messages: &[u8]) -> Vec<&[u8]> {
    let mut split = Vec::new();
    let (mut start, mut end) = (0, 0);
    while let Some(header) = messages.get(end..).and_then(|rest| rest.first_chunk::<FRAME_HEADER_BYTES>()) {
        end += FRAME_HEADER_BYTES + usize::from(u16::from_be_bytes([header[12], header[13]]));
        if end > messages.len() {
            break;
        }
        let complete = header[11] == 1;
        if complete {
            split.push(&messages[start..end]);
            start = end;
        }
    }
    split
}

/// Writes patch level 0 into every frame of whole messages.
fn set_patch_level_0(messages: &mut [u8]) {
    let mut rest = messages;
    while let Some((header, behind)) = rest.split_first_chunk_mut::<FRAME_HEADER_BYTES>() {
        header[2..4].fill(0);
        let len = usize::from(u16::from_be_bytes([header[12], header[13]]));
        rest = &mut behind[len..];
    }
}
