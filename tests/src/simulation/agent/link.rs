//! The link of a simulated agent: the driver that moves bytes between the network and the machine, in the
//! order given in [`libdc::proto::machine`].

use super::SimAgent;
use super::monitor::{LinkMonitor, goaway, welcome};
use crate::simulation::event_queue::SimEvent;
use crate::simulation::network::{Network, NetworkEnd};
use crate::simulation::pipe::{Incoming, PipeBroken};
use crate::simulation::planted_bug::PlantedBug;
use crate::simulation::violation::Violation;
use libdc::limits::LINK_OUTBOX_BYTES_MAX;
use libdc::proto::agent::multiplexer::LinkCloseReason;
use libdc::proto::link::LinkState;
use libdc::proto::machine::MachineState;
use libdc::time::Time;

/// The socket of the link.
pub(super) struct SimLinkSocket {
    pub(super) end: NetworkEnd,
    /// The time of the last input.
    pub(super) heard_at: Time,
    pub(super) monitor: LinkMonitor,
    /// The server has sent GOAWAY.
    pub(super) goaway: bool,
}

impl SimAgent {
    /// Handles an established connection to the server.
    pub(crate) fn link_connected(&mut self, net: &mut Network, end: NetworkEnd) {
        let mut probe_id = [0; 32];
        net.random.fill(&mut probe_id);
        let monitor = LinkMonitor::default();
        self.link = Some(SimLinkSocket { end, heard_at: net.now(), monitor, goaway: false });
        self.multiplexer.link_connected(net.now(), &probe_id);
        self.note_state(net);
        net.call(end);
    }

    /// Runs a turn of the link, if there is one.
    pub(crate) fn turn_link(&mut self, net: &mut Network) {
        self.link_called = false;
        let Some(end) = self.link.as_ref().map(|link| link.end) else {
            return;
        };
        if self.multiplexer.link_poll_output().len() >= LINK_OUTBOX_BYTES_MAX {
            net.trace.count("links full", 1);
        }
        match self.serve_link(net, end) {
            Err(PipeBroken) => self.lose_link(net, None),
            Ok(MachineState::Closed(reason)) => self.lose_link(net, Some(reason)),
            Ok(MachineState::Open { more: true, .. }) => net.call(end),
            Ok(_) if self.bug == PlantedBug::DeafAgent => {}
            Ok(_) => net.set_timer(end, self.multiplexer.link_deadline()),
        }
    }

    fn serve_link(
        &mut self,
        net: &mut Network,
        end: NetworkEnd,
    ) -> Result<MachineState<LinkCloseReason>, PipeBroken> {
        self.multiplexer.link_begin_turn();
        self.write_link(net, end)?;
        while let MachineState::Open { wants_input: true, more } = self.multiplexer.link_state() {
            if more {
                return Ok(MachineState::Open { wants_input: true, more });
            }
            self.input.clear();
            let incoming = net.read(end, &mut self.input);
            let Some(link) = &mut self.link else { break };
            match incoming {
                Incoming::Broken => return Err(PipeBroken),
                Incoming::Nothing if link.goaway && link.monitor.is_between_answers() => {
                    self.input = goaway();
                }
                Incoming::Nothing => break,
                Incoming::Finished => {}
                Incoming::Bytes(_) => link.heard_at = net.now(),
            }
            link.monitor.received(&self.input);
            self.multiplexer.link_handle_input(net.now(), &self.input);
            self.note_state(net);
            self.write_link(net, end)?;
        }
        let is_due = self.multiplexer.link_deadline().is_some_and(|deadline| deadline <= net.now());
        if is_due && self.bug != PlantedBug::DeafAgent {
            self.multiplexer.link_handle_timeout(net.now());
            self.write_link(net, end)?;
        }
        Ok(self.multiplexer.link_state())
    }

    fn write_link(&mut self, net: &mut Network, end: NetworkEnd) -> Result<(), PipeBroken> {
        loop {
            self.deliver(net);
            let output = self.multiplexer.link_poll_output();
            if output.is_empty() {
                return Ok(());
            }
            let count = net.write(end, output)?;
            let Some(link) = &mut self.link else { return Ok(()) };
            if link.monitor.sent(&output[..count]) {
                net.fail(Violation::DidNotAwaitWelcome { agent: self.number });
            }
            let unanswered_hello = link.monitor.unanswered_hello();
            self.multiplexer.link_wrote(net.now(), count);
            if count == 0 {
                return Ok(());
            }
            if let Some(uid) = unanswered_hello.filter(|_| self.bug == PlantedBug::ClaimBeforeWelcome) {
                self.multiplexer.link_handle_input(net.now(), &welcome(uid));
            }
        }
    }

    /// Sends GOAWAY from the server, once it is between two messages.
    pub(crate) fn send_goaway(&mut self, net: &mut Network) {
        if let Some(link) =
            self.link.as_mut().filter(|_| matches!(self.state, LinkState::Up { patch_level: 1.. }))
        {
            net.trace.count("GOAWAY sent", 1);
            link.goaway = true;
            net.call(link.end);
        }
    }

    pub(super) fn wake_link(&mut self, net: &mut Network) {
        if !self.multiplexer.link_poll_output().is_empty()
            && self.link.is_some()
            && !std::mem::replace(&mut self.link_called, true)
        {
            net.agenda.after_ms(0, SimEvent::LinkTurn(self.number));
        }
    }
}
