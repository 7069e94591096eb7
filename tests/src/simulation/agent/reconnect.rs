//! The loss of a simulated agent's link and its reconnect attempts, as in the agent's driver.

use super::{AgentPhase, SimAgent};
use crate::simulation::event_queue::SimEvent;
use crate::simulation::network::Network;
use crate::simulation::planted_bug::PlantedBug;
use crate::simulation::trace::TraceEvent;
use crate::simulation::violation::Violation;
use libdc::proto::agent::multiplexer::LinkCloseReason;
use libdc::proto::link::{LinkError, LinkState};
use libdc::proto::reconnect::LinkLoss;
use libdc::time::Time;

impl SimAgent {
    /// Starts an attempt to connect.
    pub(crate) fn note_attempt(&mut self, net: &mut Network) {
        if let Err(violation) = self.attempts.attempt(net.now(), net.agenda.leapt_ms()) {
            net.fail(violation);
        }
    }

    /// Handles a failed attempt to connect.
    pub(crate) fn attempt_failed(&mut self, net: &mut Network) {
        let now = net.now();
        let held_grace_ms = self.multiplexer.held_grace_ms(now);
        self.attempts.ended(now, held_grace_ms, LinkLoss::Lost, &mut net.trace);
        self.reconnect.set_held_grace_ms(held_grace_ms);
        let random = self.draw(net);
        let next = self.reconnect.attempt_failed(now, random);
        self.plan_attempt(net, next);
    }

    /// Lets the next links break as soon as they are up.
    pub(crate) fn flap(&mut self, net: &mut Network, links: u64) {
        self.flaps = links;
        if let Some(link) = &self.link {
            net.cut(link.end.connection);
        }
    }

    fn plan_attempt(&mut self, net: &mut Network, next: Option<Time>) {
        let Some(next) = next else { return };
        self.attempts.set_leapt_ms(net.agenda.leapt_ms());
        let next = if self.bug == PlantedBug::NoRetryPause { net.now() } else { next };
        net.agenda.at(next, SimEvent::Attempt(self.number, self.generation));
    }

    fn draw(&self, net: &mut Network) -> u64 {
        if self.bug == PlantedBug::AgentsInStep { u64::MAX / 2 } else { net.random.next() }
    }

    pub(super) fn lose_link(&mut self, net: &mut Network, reason: Option<LinkCloseReason>) {
        let Some(link) = self.link.take() else { return };
        let now = net.now();
        let silent_for_ms = now.ms_since(link.heard_at);
        let mut loss = LinkLoss::Lost;
        match reason {
            None | Some(LinkCloseReason::PeerClosed) => {}
            Some(LinkCloseReason::Left) => net.trace.count("agents that said goodbye", 1),
            Some(LinkCloseReason::Error(LinkError::GoAway)) if link.goaway => {
                loss = LinkLoss::GoAway;
                net.trace.count("links left for GOAWAY", 1);
            }
            Some(LinkCloseReason::Error(fault @ LinkError::Silent { silent_ms }))
                if silent_ms <= silent_for_ms =>
            {
                net.note(TraceEvent::LinkFault { agent: self.number, fault });
                let is_up = matches!(self.state, LinkState::Up { .. });
                net.trace.count("attempts hung", u64::from(!is_up));
            }
            Some(LinkCloseReason::Error(fault)) => {
                net.fail(Violation::BadLink { agent: self.number, fault });
            }
        }
        self.losses += 1;
        self.multiplexer.link_close(now);
        self.note_state(net);
        self.deliver(net);
        net.close(link.end);
        if self.phase == AgentPhase::Leaving {
            self.stop(net);
            return;
        }
        self.attempts.ended(now, self.multiplexer.held_grace_ms(now), loss, &mut net.trace);
        self.reconnect.set_held_grace_ms(self.multiplexer.held_grace_ms(now));
        let loss = if self.bug == PlantedBug::GoAwayAsLoss { LinkLoss::Lost } else { loss };
        let random = self.draw(net);
        let next = self.reconnect.link_lost(now, loss, random);
        self.plan_attempt(net, next);
    }

    pub(super) fn note_state(&mut self, net: &mut Network) {
        let state = self.multiplexer.link_phase();
        if std::mem::replace(&mut self.state, state) == state {
            return;
        }
        net.note(TraceEvent::Link { agent: self.number, state });
        if matches!(state, LinkState::Up { .. }) {
            self.attempts.is_up(net.now());
            if self.bug != PlantedBug::PauseNeverReset {
                self.reconnect.link_up(net.now());
            }
            if let Some(link) = &self.link
                && self.flaps > 0
            {
                self.flaps -= 1;
                net.trace.count("links broken as soon as they are up", 1);
                net.cut(link.end.connection);
            }
        }
    }
}
