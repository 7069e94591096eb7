//! Records observations of an agent's local connections, and judges how they end.

use super::local::SimLocalSocket;
use super::{AgentPhase, SimAgent};
use crate::simulation::network::Network;
use crate::simulation::planted_bug::PlantedBug;
use crate::simulation::timeline::Mark;
use crate::simulation::trace::TraceEvent;
use crate::simulation::violation::Violation;
use libdc::limits::{DRAIN_GRACE_MS, LINK_OUTBOX_BYTES_MAX, LOCAL_WRITE_TIMEOUT_MS};
use libdc::proto::agent::local::LocalCloseReason;
use libdc::proto::link::LinkState;
use libdc::proto::machine::MachineState;

impl SimAgent {
    /// Records the progress of the connection.
    pub(super) fn observe(&self, net: &mut Network, local: &SimLocalSocket, unwritten: usize) {
        let mark = Mark {
            offset: local.received,
            at: net.now(),
            leapt_ms: net.agenda.leapt_ms(),
            link_up: matches!(self.state, LinkState::Up { .. }),
            link_losses: self.losses,
        };
        let ready = local.written + unwritten as u64;
        let state = self.multiplexer.local_state(local.id);
        let takes_more = matches!(state, MachineState::Open { wants_input: true, .. });
        let link_bytes = self.multiplexer.link_poll_output().len();
        if !takes_more && ready == 0 && link_bytes >= LINK_OUTBOX_BYTES_MAX {
            net.trace.count("applications held back by a full link", 1);
        }
        let witness = net.witness(local.end.connection);
        witness.handed.push(mark);
        if takes_more {
            witness.taken.push(mark);
        }
        witness.answered.push(Mark { offset: ready, ..mark });
    }

    /// Whether a planted bug closes this connection at the beginning of the shutdown.
    pub(super) fn drains_wrongly(&self, local: &SimLocalSocket) -> bool {
        let is_newcomer = local.received == 0;
        self.phase == AgentPhase::Draining
            && match self.bug {
                PlantedBug::NoDrainGrace => is_newcomer,
                PlantedBug::DrainUnread => !is_newcomer && self.multiplexer.in_flight() == 0,
                _ => false,
            }
    }

    /// Whether a planted bug keeps this connection open past its deadline.
    pub(super) fn keeps_wrongly(&self, local: &SimLocalSocket) -> bool {
        match self.bug {
            PlantedBug::EndlessDrainGrace => self.phase == AgentPhase::Draining && local.received == 0,
            PlantedBug::NoWriteTimeout => local.blocked_since.is_some(),
            _ => false,
        }
    }

    /// Checks whether the agent has written to an application that read nothing for too long. The connection
    /// ends at the write timeout, so a byte read later shows that the agent kept waiting.
    pub(super) fn judge_patience(
        &self,
        net: &mut Network,
        local: &mut SimLocalSocket,
        count: usize,
        offered: usize,
    ) {
        let (now, leapt_ms) = (net.now(), net.agenda.leapt_ms());
        if let Some((since, leapt_before_ms)) = local.blocked_since
            && count > 0
        {
            let blocked_ms = now.ms_since(since).saturating_sub(leapt_ms - leapt_before_ms);
            if blocked_ms > LOCAL_WRITE_TIMEOUT_MS {
                net.fail(Violation::WaitedForDeaf { agent: self.number, blocked_ms });
            }
            local.blocked_since = None;
        }
        if count < offered {
            local.blocked_since.get_or_insert((now, leapt_ms));
        }
    }

    /// Checks the reason and the time at which the agent closes a connection.
    pub(super) fn judge_end(&self, net: &mut Network, local: &SimLocalSocket, reason: LocalCloseReason) {
        let connection = local.end.connection;
        net.note(TraceEvent::LocalFault { connection, fault: reason });
        net.witness(connection).fault = Some(reason);
        let unread = net.arrived_total(local.end).saturating_sub(local.received);
        let age_ms = net.now().ms_since(local.opened_at);
        let is_in_grace = local.received == 0 && age_ms < DRAIN_GRACE_MS;
        if reason == LocalCloseReason::Drained && (unread > 0 || is_in_grace) {
            net.fail(Violation::DrainedTooSoon { agent: self.number, age_ms, unread });
        }
    }

    /// Checks that the agent has not closed a connection before its shutdown timeout.
    pub(super) fn judge_cut(&self, net: &mut Network, local: &SimLocalSocket) {
        let age_ms = net.now().ms_since(local.opened_at);
        let has_asked = net.arrived_total(local.end) > 0;
        let leapt_ms = net.agenda.leapt_ms() - self.drain_leapt_ms;
        if !has_asked && age_ms.saturating_sub(leapt_ms) > DRAIN_GRACE_MS {
            net.fail(Violation::KeptBeyondGrace { agent: self.number, age_ms });
        }
    }
}
