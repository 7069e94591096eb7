//! The local connections of a simulated agent: the driver that moves bytes between the network and the
//! machine, in the order given in [`libdc::proto::machine`], and the observations by which the agent is
//! judged.

use super::{AgentPhase, SimAgent};
use crate::simulation::network::{Network, NetworkEnd, Party};
use crate::simulation::pipe::{Incoming, PipeBroken, PipeQuality};
use crate::simulation::planted_bug::PlantedBug;
use libdc::proto::agent::local::{LocalCloseReason, LocalId};
use libdc::proto::machine::MachineState;
use libdc::time::Time;

/// The socket of a local connection.
#[derive(Clone, Copy)]
pub(super) struct SimLocalSocket {
    pub(super) id: LocalId,
    pub(super) end: NetworkEnd,
    pub(super) opened_at: Time,
    pub(super) received: u64,
    pub(super) written: u64,
    finished: bool,
    /// Since when the application has read nothing, and the time skipped by leaps before that.
    pub(super) blocked_since: Option<(Time, u64)>,
}

impl SimAgent {
    /// Accepts a connection from an application.
    pub(crate) fn accept(
        &mut self,
        net: &mut Network,
        application: Party,
        quality: [PipeQuality; 2],
    ) -> NetworkEnd {
        let id = self.multiplexer.local_open(net.now());
        let connection = net.connect(application, Party::Local { agent: self.number, id }, quality);
        let end = NetworkEnd { connection, side: 1 };
        let opened_at = net.now();
        let socket = SimLocalSocket {
            id,
            end,
            opened_at,
            received: 0,
            written: 0,
            finished: false,
            blocked_since: None,
        };
        if self.locals.len() <= id.slot() {
            self.locals.resize(id.slot() + 1, None);
        }
        self.locals[id.slot()] = Some(socket);
        net.call(end);
        end.peer()
    }

    /// Runs a turn of a local connection.
    pub(crate) fn turn_local(&mut self, net: &mut Network, id: LocalId) {
        let Some(mut local) = self.locals.get_mut(id.slot()).and_then(|it| it.take_if(|it| it.id == id))
        else {
            return;
        };
        let state = self.serve_local(net, &mut local);
        match state {
            Err(PipeBroken) => self.close_local(net, &local, None),
            Ok(MachineState::Closed(reason)) => self.close_local(net, &local, Some(reason)),
            Ok(state) => {
                if matches!(state, MachineState::Open { more: true, .. }) {
                    net.trace.count("local budgets spent", 1);
                    if self.bug != PlantedBug::ForgetMoreLocal {
                        net.call(local.end);
                    }
                } else if !self.keeps_wrongly(&local) {
                    net.set_timer(local.end, self.multiplexer.local_deadline(id));
                }
                self.locals[id.slot()] = Some(local);
            }
        }
        self.wake_link(net);
        self.leave_if_drained(net);
    }

    fn serve_local(
        &mut self,
        net: &mut Network,
        local: &mut SimLocalSocket,
    ) -> Result<MachineState<LocalCloseReason>, PipeBroken> {
        let (now, id) = (net.now(), local.id);
        self.multiplexer.local_begin_turn(now, id);
        self.write_local(net, local)?;
        if self.drains_wrongly(local) {
            return Ok(MachineState::Closed(LocalCloseReason::Drained));
        }
        while let MachineState::Open { wants_input: true, more } = self.multiplexer.local_state(id) {
            if more {
                return Ok(MachineState::Open { wants_input: true, more });
            }
            self.input.clear();
            match net.read(local.end, &mut self.input) {
                Incoming::Nothing => break,
                Incoming::Broken => return Err(PipeBroken),
                Incoming::Finished => local.finished = true,
                Incoming::Bytes(count) => {
                    if local.received == 0 && self.phase == AgentPhase::Draining {
                        net.trace.count("first requests after the drain began", 1);
                    }
                    local.received += count as u64;
                }
            }
            self.multiplexer.local_handle_input(now, id, &self.input);
            self.write_local(net, local)?;
        }
        let is_due = self.multiplexer.local_deadline(id).is_some_and(|deadline| deadline <= now);
        if is_due && !self.keeps_wrongly(local) {
            self.multiplexer.local_handle_timeout(now, id);
            self.write_local(net, local)?;
        }
        let state = self.multiplexer.local_state(id);
        if !local.finished && matches!(state, MachineState::Open { wants_input: false, .. }) {
            net.trace.count("applications held back", 1);
        }
        Ok(state)
    }

    pub(super) fn close_local(
        &mut self,
        net: &mut Network,
        local: &SimLocalSocket,
        reason: Option<LocalCloseReason>,
    ) {
        if let Some(reason) = reason.filter(|reason| *reason != LocalCloseReason::PeerFinished) {
            self.judge_end(net, local, reason);
        }
        self.multiplexer.local_close(net.now(), local.id);
        net.close(local.end);
        self.wake_link(net);
    }

    /// Writes until the connection would block.
    fn write_local(&mut self, net: &mut Network, local: &mut SimLocalSocket) -> Result<(), PipeBroken> {
        loop {
            let output = self.multiplexer.local_poll_output(net.now(), local.id).to_vec();
            self.observe(net, local, output.len());
            if output.is_empty() {
                return Ok(());
            }
            let written = net.write(local.end, &output);
            let count = written.unwrap_or(0);
            self.judge_patience(net, local, count, output.len());
            local.written += count as u64;
            self.multiplexer.local_wrote(net.now(), local.id, count);
            written?;
            if count < output.len() {
                return Ok(());
            }
        }
    }

    /// Writes the pending output of all local connections.
    pub(super) fn deliver(&mut self, net: &mut Network) {
        while let Some(id) = self.multiplexer.poll_ready() {
            let Some(mut local) = self.locals.get_mut(id.slot()).and_then(|it| it.take_if(|it| it.id == id))
            else {
                continue;
            };
            // Errors are handled in the connection's next turn.
            let is_broken = self.write_local(net, &mut local).is_err();
            if is_broken || self.multiplexer.local_needs_turn(id) {
                net.call(local.end);
            }
            self.locals[id.slot()] = Some(local);
        }
    }
}
