//! A connection of the simulated server: the real machine, its end of a simulated connection, and its
//! mailbox. A turn follows the order given in `libdc::proto::machine`, as in the tokio driver.

use super::network::{Network, NetworkEnd};
use super::original::ExtensionSniffer;
use super::pipe::Incoming;
use super::planted_bug::PlantedBug;
use super::tampering::StreamTamperer;
use super::turn_env::{TurnEnv, note_end};
use super::violation::Violation;
use libdc::proto::machine::MachineState;
use libdc::proto::server::{Notification, ServerConnection};
use std::collections::VecDeque;

/// A connection of the server.
pub(crate) struct SimConnection {
    pub(crate) end: NetworkEnd,
    /// The agent, if this is its link; `None` for a direct connection.
    pub(crate) agent: Option<usize>,
    /// Whether the peer is a direct client, which may send malformed frames.
    is_direct: bool,
    pub(crate) mail: VecDeque<Notification>,
    pub(crate) machine: ServerConnection,
    sniffer: ExtensionSniffer,
    planted: PlantedBug,
    tamperer: StreamTamperer,
}

/// The connection is broken.
struct Broken;

impl SimConnection {
    /// A connection without any traffic yet.
    pub(crate) fn new(
        end: NetworkEnd,
        (agent, is_direct): (Option<usize>, bool),
        machine: ServerConnection,
        planted: PlantedBug,
    ) -> Self {
        let (mail, sniffer) = (VecDeque::new(), ExtensionSniffer::default());
        Self {
            end,
            agent,
            is_direct,
            mail,
            machine,
            sniffer,
            planted,
            tamperer: StreamTamperer::new(planted),
        }
    }

    /// Whether no request or answer is pending.
    pub(crate) fn is_idle(&self) -> bool {
        self.machine.is_idle() && self.mail.is_empty()
    }

    /// Runs one turn. Returns whether the connection is open.
    pub(crate) fn turn(&mut self, net: &mut Network, env: &mut TurnEnv<'_>) -> bool {
        if self.run(net, env).is_err() {
            return false;
        }
        match self.machine.state() {
            MachineState::Closed(reason) => {
                note_end(net, self.agent, self.is_direct, reason);
                return false;
            }
            MachineState::Open { more: true, .. } if self.planted != PlantedBug::ForgetMore => {
                net.trace.count("server connections with more to do", 1);
                net.call(self.end);
            }
            _ => {
                let deadlines = [self.machine.deadline(), self.tamperer.due()];
                net.set_timer(self.end, deadlines.into_iter().flatten().min());
            }
        }
        true
    }

    fn run(&mut self, net: &mut Network, env: &mut TurnEnv<'_>) -> Result<(), Broken> {
        self.machine.begin_turn(&mut env.context(net));
        self.write(net, env)?;
        while let Some(notification) = self.mail.pop_front() {
            self.machine.handle_mail(&mut env.context(net), notification);
            self.write(net, env)?;
            match (self.planted, notification) {
                (PlantedBug::LoseAnswersAtEnd, Notification::Drain) => return Err(Broken),
                (PlantedBug::IgnoreKernelInput, Notification::Drain) => {
                    self.machine.handle_timeout(&mut env.context(net));
                }
                _ => {}
            }
        }
        let mut input = Vec::new();
        while self.wants_input(net, env) && self.read(net, &mut input)? {
            if env.original && self.sniffer.detects_extensions(&input) {
                net.fail(Violation::NotForOriginals { agent: self.agent.unwrap_or(usize::MAX) });
            }
            let is_end = input.is_empty() && !self.tamperer.is_due(net.now());
            self.tamperer.receive(net, self.end, &mut input);
            if is_end || !input.is_empty() {
                self.machine.handle_input(&mut env.context(net), &input);
                self.write(net, env)?;
            }
        }
        let is_due = self.machine.deadline().is_some_and(|deadline| deadline <= net.now());
        let has_more = matches!(self.machine.state(), MachineState::Open { more: true, .. });
        if is_due && !has_more {
            self.machine.handle_timeout(&mut env.context(net));
            self.write(net, env)?;
        }
        Ok(())
    }

    fn wants_input(&mut self, net: &Network, env: &mut TurnEnv<'_>) -> bool {
        match self.machine.state() {
            MachineState::Open { more: true, .. } if self.planted == PlantedBug::IgnoreBudget => {
                self.machine.begin_turn(&mut env.context(net));
                true
            }
            state => matches!(state, MachineState::Open { wants_input: true, more: false }),
        }
    }

    /// Reads once; zero bytes mean the end of input. Returns whether there is something to process.
    fn read(&mut self, net: &mut Network, input: &mut Vec<u8>) -> Result<bool, Broken> {
        input.clear();
        match net.read(self.end, input) {
            Incoming::Bytes(_) | Incoming::Finished => Ok(true),
            Incoming::Nothing => Ok(self.tamperer.is_due(net.now())),
            Incoming::Broken => Err(Broken),
        }
    }

    fn write(&mut self, net: &mut Network, env: &mut TurnEnv<'_>) -> Result<(), Broken> {
        loop {
            // Only new output: output offered before is already in the outbox.
            env.rewrite_answers(net, &mut self.tamperer, self.planted);
            let cx = env.context(net);
            let output = self.machine.poll_output(&cx);
            if output.is_empty() {
                return Ok(());
            }
            let count = net.write(self.end, output).map_err(|_| Broken)?;
            self.machine.wrote(&mut env.context(net), count);
            if count == 0 {
                return Ok(());
            }
        }
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self, net: &Network, env: &mut TurnEnv<'_>) {
        if self.planted != PlantedBug::ForgetToClose {
            self.machine.close(&mut env.context(net));
        }
        env.output.clear();
    }
}
