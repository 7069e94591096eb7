//! The environment of a turn of the simulated server, and the handling of the answers made in it.

use super::network::Network;
use super::original::{set_patch_level_0, split_messages};
use super::planted_bug::PlantedBug;
use super::tampering::StreamTamperer;
use super::violation::Violation;
use libdc::proto::server::{ServerCloseReason, ServerContext};
use libdc::service::{Effects, RequestCounters, Service};

/// The state shared by the turns of all connections.
pub(crate) struct TurnEnv<'a> {
    pub(crate) service: &'a Service,
    /// Whether it is a distcache 1.x server.
    pub(crate) original: bool,
    /// Whether answers to the requests of one read may be reordered.
    pub(crate) any_order: bool,
    pub(crate) output: Vec<u8>,
    pub(crate) effects: Effects,
    pub(crate) counters: RequestCounters,
}

impl TurnEnv<'_> {
    /// The context of a call to the machine.
    pub(crate) fn context(&mut self, net: &Network) -> ServerContext<'_> {
        ServerContext {
            now: net.now(),
            service: self.service,
            output: &mut self.output,
            effects: &mut self.effects,
            counters: &mut self.counters,
        }
    }

    /// Changes new answers as the scenario or a planted bug requires.
    pub(crate) fn rewrite_answers(
        &mut self,
        net: &mut Network,
        tamperer: &mut StreamTamperer,
        planted: PlantedBug,
    ) {
        if self.output.is_empty() {
            return;
        }
        let speaks_frames = self.output.first() == Some(&0);
        let mut output = std::mem::take(&mut self.output);
        tamperer.answer(net, self, &mut output);
        if speaks_frames && self.original && planted != PlantedBug::OriginalPretends {
            set_patch_level_0(&mut output);
        }
        if speaks_frames && self.any_order {
            let mut answers = split_messages(&output);
            net.random.shuffle(&mut answers);
            output = answers.concat();
        }
        self.output = output;
    }
}

/// Counts the reason for which a connection ended. A protocol error of an agent or a locker is a violation of
/// the run.
pub(crate) fn note_end(net: &mut Network, agent: Option<usize>, is_direct: bool, reason: ServerCloseReason) {
    match reason {
        ServerCloseReason::Corruption(_) if is_direct => net.trace.count("malformed frames refused", 1),
        ServerCloseReason::TakenOver => net.trace.count("links taken over", 1),
        ServerCloseReason::Bye => net.trace.count("links that said goodbye", 1),
        ServerCloseReason::Silent => net.trace.count("silent links closed by the server", 1),
        ServerCloseReason::WriteTimeout(_) => {
            net.trace.count("peers that read nothing closed by the server", 1);
        }
        ServerCloseReason::Drained => net.trace.count("connections drained", 1),
        ServerCloseReason::ReadTimeout | ServerCloseReason::Idle | ServerCloseReason::PeerClosed => {}
        ServerCloseReason::Corruption(_)
        | ServerCloseReason::LineTooLong(_)
        | ServerCloseReason::Tls
        | ServerCloseReason::NotAuthenticated(_)
        | ServerCloseReason::WrongToken => net.fail(Violation::BadRequest { agent, fault: reason }),
    }
}
