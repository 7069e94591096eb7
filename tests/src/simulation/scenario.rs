//! The scenario of a seed: the participants, their behaviour, and the faults.
//!
//! Every seed has a few kinds of faults and a few extremes, rather than a little of everything. Some runs are
//! therefore entirely calm, and some are one long outage.

use super::direct::DirectPlan;
use super::faults::FaultKind;
use super::lock::{LockerPlan, LockerProtocol};
use super::pipe::{PipePieces, PipeQuality};
use super::random::SeededRng;
use libdc::limits::{DRAIN_GRACE_MS, LOCAL_IN_FLIGHT_MAX, SESSION_ID_BYTES_MAX};
use libdc::table::SessionLimits;

/// All decisions made before a run begins.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) server: ServerPlan,
    pub(crate) agents: Vec<AgentPlan>,
    pub(crate) applications: Vec<ApplicationPlan>,
    pub(crate) lockers: Vec<LockerPlan>,
    pub(crate) direct: Vec<DirectPlan>,
    pub(crate) network: NetworkPlan,
    pub(crate) faults: FaultPlan,
    /// The ids of all sessions.
    pub(crate) ids: Vec<Vec<u8>>,
}

/// The server's options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerPlan {
    pub(crate) shards: usize,
    pub(crate) limits: SessionLimits,
    pub(crate) hash_seed: [u64; 2],
    /// It may answer out of order, unless it is a distcache 1.x server.
    pub(crate) answers_in_any_order: bool,
    /// It is a distcache 1.x server.
    pub(crate) original: bool,
    /// It may be of the other kind after a restart.
    pub(crate) may_change: bool,
    /// It has a state directory.
    pub(crate) keeps_state: bool,
    pub(crate) grace_ms: u32,
    /// Time that the worker spends on a request, in microseconds.
    pub(crate) request_us: u64,
}

impl ServerPlan {
    /// Whether sessions may be evicted before they expire.
    pub(crate) const fn evicts(&self) -> bool {
        self.limits.sessions > 0 || self.limits.bytes > 0
    }
}

/// An agent's options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AgentPlan {
    pub(crate) timeout_ms: u64,
    pub(crate) idle_ms: u64,
    pub(crate) retry_ms: u64,
    /// The server's address is of a kind that is retried immediately.
    pub(crate) at_once: bool,
}

/// The behaviour of an application.
#[derive(Clone, Debug)]
pub(crate) struct ApplicationPlan {
    /// The index of its agent.
    pub(crate) agent: usize,
    /// It opens a connection for each operation.
    pub(crate) temporary: bool,
    /// Maximum number of requests in flight.
    pub(crate) depth: usize,
    /// Total number of operations.
    pub(crate) operations: usize,
    /// Longest pause between two turns.
    pub(crate) think_ms: u64,
    /// Probability per mille of misbehaviour in a turn.
    pub(crate) misbehaves: u64,
    /// Patch level of its requests: 0 as in distcache 1.x, 1 as in ours.
    pub(crate) patch_level: u16,
    /// Weights of the operations: ADD, GET, REMOVE, HAVE, other.
    pub(crate) weights: [u64; 5],
    /// Ranges of the session size in bytes, one of which is chosen for each session.
    pub(crate) sizes: Vec<(u64, u64)>,
    /// Ranges of the session timeout in milliseconds, one of which is chosen for each session.
    pub(crate) timeouts_ms: Vec<(u64, u64)>,
}

/// The properties of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkPlan {
    local_delay_ms: u64,
    link_delay_ms: u64,
    small_buffers: bool,
    broken_pieces: bool,
    /// Probability per mille that an agent's attempt to connect fails.
    pub(crate) attempts_failing: u64,
    /// Longest time of an attempt, in milliseconds.
    pub(crate) connect_ms: u64,
    /// Probability per mille that an application's attempt to connect fails.
    pub(crate) refusals: u64,
}

/// The faults of a run.
#[derive(Clone, Debug)]
pub(crate) struct FaultPlan {
    pub(crate) kinds: Vec<FaultKind>,
    /// The longest time between two faults, in milliseconds.
    pub(crate) interval_ms: u64,
}

impl Scenario {
    /// Draws a scenario.
    pub(crate) fn draw(random: &mut SeededRng) -> Self {
        if random.chance(25) {
            return Self::draw_crowd(random);
        }
        if random.chance(30) {
            return Self::draw_shutdowns(random);
        }
        let heavy = random.chance(10);
        let count = if heavy { 1 } else { random.between(1..=3) };
        let agents: Vec<AgentPlan> = (0..count).map(|_| AgentPlan::draw(heavy, random)).collect();
        let per_agent = if heavy { 6 } else { random.between(1..=4) };
        let busy = random.chance(500);
        let count = agents.len() * per_agent as usize;
        let server = ServerPlan::draw(random);
        let locks = !heavy && !server.original && !server.may_change && random.chance(800);
        let lockers = if locks { draw_lockers(agents.len(), random) } else { Vec::new() };
        let most = if locks { 300 } else { 900 };
        let operations = random.between(most / 6..=most) as usize / count + 1;
        let draw = |number: usize, random: &mut SeededRng| {
            let plan = ApplicationPlan::draw(number % agents.len(), operations, busy, random);
            match heavy {
                true if number.is_multiple_of(2) => plan.heavy(),
                true => plan.beside_heavy(),
                false => plan,
            }
        };
        let applications = (0..count).map(|number| draw(number, random)).collect();
        Self {
            server,
            applications,
            lockers,
            direct: if heavy { Vec::new() } else { draw_direct(random) },
            network: NetworkPlan::draw(random),
            faults: if heavy { FaultPlan::heavy() } else { FaultPlan::draw(random) },
            ids: draw_ids(random),
            agents,
        }
    }
}

impl Scenario {
    /// A server that shuts down repeatedly while direct clients are connected.
    fn draw_shutdowns(random: &mut SeededRng) -> Self {
        let plan = DirectPlan {
            operations: random.between(50..=150) as usize,
            think_ms: 100,
            ..DirectPlan::draw(random)
        };
        let draw = |_| DirectPlan { silent_ms: DirectPlan::draw(random).silent_ms, ..plan };
        let direct = (0..5).map(draw).collect();
        Self {
            server: ServerPlan { original: false, may_change: false, ..ServerPlan::draw(random) },
            agents: vec![AgentPlan::draw(false, random)],
            applications: Vec::new(),
            direct,
            lockers: draw_lockers(1, random),
            network: NetworkPlan::draw(random),
            faults: FaultPlan {
                kinds: vec![FaultKind::EndServer],
                interval_ms: random.pick(&[1_000, 10_000]),
            },
            ids: draw_ids(random),
        }
    }

    /// One client that pipelines continuously beside a hundred clients with small requests. There are no
    /// faults, and requests cost time.
    fn draw_crowd(random: &mut SeededRng) -> Self {
        let small = DirectPlan {
            operations: random.between(3..=10) as usize,
            depth: 1,
            data_bytes: 32,
            think_ms: random.pick(&[100, 400]),
            silent_ms: 0,
            leaves: 100,
            latency_ms_max: Some(CROWD_LATENCY_MS_MAX),
            deaf: 0,
            spoils: 0,
            capacity: None,
        };
        // Its budget for one turn takes a sixteenth of a second, all its requests several seconds.
        let pipelining = DirectPlan {
            operations: 4_000,
            depth: 4_000,
            data_bytes: 4_000,
            latency_ms_max: Some(PIPELINE_LATENCY_MS_MAX),
            // All its requests fit into the kernel's buffers.
            capacity: Some(16 << 20),
            ..small
        };
        let mut direct = vec![small; 100];
        direct.insert(random.below(100) as usize, pipelining);
        Self {
            server: ServerPlan { request_us: 500, ..ServerPlan::draw(random) },
            agents: vec![AgentPlan::draw(false, random)],
            applications: Vec::new(),
            lockers: Vec::new(),
            direct,
            network: NetworkPlan {
                link_delay_ms: random.below(20),
                small_buffers: false,
                ..NetworkPlan::draw(random)
            },
            faults: FaultPlan { kinds: Vec::new(), interval_ms: 1_000 },
            ids: draw_ids(random),
        }
    }
}

/// Longest time for the last of the pipelined requests: five times the cost of all requests.
const PIPELINE_LATENCY_MS_MAX: u64 = 15_000;
/// Longest time for a small request in a crowd: two turns of the pipelining client, one of each other client,
/// and the network delay.
const CROWD_LATENCY_MS_MAX: u64 = 400;

impl ServerPlan {
    fn draw(random: &mut SeededRng) -> Self {
        let limits = match random.below(10) {
            0 => SessionLimits { sessions: random.between(1..=8), bytes: 0 },
            1 => SessionLimits { sessions: 0, bytes: random.between(100..=50_000) },
            _ => SessionLimits::default(),
        };
        Self {
            shards: random.pick(&[1, 1, 2, 8]),
            limits,
            hash_seed: [random.next(), random.next()],
            answers_in_any_order: random.chance(300),
            original: random.chance(250),
            may_change: random.chance(300),
            keeps_state: random.chance(600),
            grace_ms: random.pick(&[2_000, 4_000, 10_000]),
            request_us: 0,
        }
    }
}

impl AgentPlan {
    fn draw(heavy: bool, random: &mut SeededRng) -> Self {
        if heavy {
            // Only the answers to earlier requests trigger further progress.
            return Self {
                timeout_ms: random.pick(&[0, 5_000, 30_000]),
                idle_ms: 0,
                retry_ms: 200,
                at_once: false,
            };
        }
        Self {
            timeout_ms: random.pick(&[0, 0, 40, 400, 2_000, 5_000, 5_000, 5_000, 30_000]),
            idle_ms: random.pick(&[0, 0, 0, 10, 300, 2_000, 10_000]),
            retry_ms: random.pick(&[5, 50, 200, 200, 1_000, 5_000]),
            at_once: random.chance(200),
        }
    }
}

impl ApplicationPlan {
    fn draw(agent: usize, operations: usize, busy: bool, random: &mut SeededRng) -> Self {
        let (temporary, depth) = match random.below(10) {
            0..3 => (true, 1),
            3..6 => (false, 1),
            6..9 => (false, random.between(2..=40) as usize),
            _ => (false, LOCAL_IN_FLIGHT_MAX + random.below(73) as usize),
        };
        let many = depth > LOCAL_IN_FLIGHT_MAX;
        Self {
            agent,
            temporary,
            depth,
            operations: if many { operations.max(2 * depth) } else { operations },
            think_ms: if busy { random.pick(&[0, 0, 1, 20]) } else { random.pick(&[0, 30, 300, 3_000]) },
            misbehaves: random.pick(&[0, 0, 0, 5, 20, 80]),
            patch_level: random.below(2) as u16,
            weights: random.pick(&[
                [30, 40, 10, 10, 10],
                [30, 30, 20, 20, 0],
                [10, 85, 2, 2, 1],
                [60, 30, 5, 5, 0],
                [25, 25, 25, 25, 0],
            ]),
            sizes: random.pick(&[
                vec![(1, 1), (2, 300), (100, 250)],
                vec![(100, 250)],
                vec![(100, 250), (1_980, 2_060), (100, 250)],
                vec![(1, 300), (100, 250), (100, 250), (100, 250), (2_000, 32_690), (32_690, 32_760)],
            ]),
            timeouts_ms: random.pick(&[
                vec![(60_000, 300_000)],
                vec![(0, 0), (1, 50), (60_000, 300_000)],
                vec![(100, 5_000), (1_000, 20_000)],
                vec![(0, 0), (1, 10), (10, 500), (500, 5_000), (300_000, 604_800_000)],
            ]),
        }
    }
}

impl ApplicationPlan {
    /// The same, with enough requests to fill every buffer.
    fn heavy(self) -> Self {
        let depth = LOCAL_IN_FLIGHT_MAX;
        let sizes = vec![(20_000, 32_760)];
        let weights = [75, 25, 0, 0, 0];
        Self { temporary: false, depth, operations: 3 * depth, think_ms: 300, sizes, weights, ..self }
    }

    /// The same, connecting and disconnecting while others fill the buffers.
    fn beside_heavy(self) -> Self {
        Self { depth: 1, think_ms: 200, sizes: vec![(100, 250)], ..self }
    }
}

impl NetworkPlan {
    fn draw(random: &mut SeededRng) -> Self {
        Self {
            local_delay_ms: random.pick(&[0, 0, 0, 1, 5]),
            link_delay_ms: random.pick(&[0, 0, 1, 10, 60]),
            small_buffers: random.chance(300),
            broken_pieces: random.chance(500),
            attempts_failing: random.pick(&[0, 0, 0, 100, 500]),
            connect_ms: random.pick(&[0, 3, 3, 50, 1_000]),
            refusals: random.pick(&[0, 0, 50]),
        }
    }

    /// The two directions of a new local connection.
    pub(crate) fn local(&self, random: &mut SeededRng) -> [PipeQuality; 2] {
        std::array::from_fn(|_| self.quality(self.local_delay_ms, random))
    }

    /// The two directions of a new link.
    pub(crate) fn link(&self, random: &mut SeededRng) -> [PipeQuality; 2] {
        std::array::from_fn(|_| self.quality(self.link_delay_ms, random))
    }

    fn quality(&self, delay_ms: u64, random: &mut SeededRng) -> PipeQuality {
        let capacity =
            if self.small_buffers { random.between(300..=20_000) } else { random.between(100_000..=400_000) };
        let pieces = match random.below(4) {
            0 if self.broken_pieces && capacity >= 2_000 => PipePieces::Bytes,
            1 | 2 if self.broken_pieces => PipePieces::Some,
            _ => PipePieces::Whole,
        };
        let jitter_ms = if random.chance(500) { delay_ms } else { 0 };
        PipeQuality { delay_ms: random.below(delay_ms + 1), jitter_ms, capacity: capacity as usize, pieces }
    }
}

impl FaultPlan {
    fn draw(random: &mut SeededRng) -> Self {
        let mut kinds = FaultKind::ALL.to_vec();
        if random.chance(200) {
            kinds.clear();
        } else {
            kinds.retain(|_| random.chance(350));
        }
        Self { kinds, interval_ms: random.pick(&[100, 2_000, 5_000, 20_000]) }
    }

    /// Faults that fill buffers, at short intervals.
    fn heavy() -> Self {
        Self { kinds: vec![FaultKind::StallLink, FaultKind::Stop], interval_ms: 300 }
    }
}

/// A few lockers, some with an agent and some without, over so few keys that they contend.
fn draw_lockers(agents: usize, random: &mut SeededRng) -> Vec<LockerPlan> {
    let count = random.between(2..=7) as usize;
    let keys = random.pick(&[1, 1, 2, 3, 6]);
    let operations = random.between(60..=250) as usize / count + 1;
    let direct = random.pick(&[0, 300, 1_000]);
    let think_ms = random.pick(&[20, 200, 1_500]);
    let draw = |random: &mut SeededRng| {
        let agent = (!random.chance(direct)).then(|| random.below(agents as u64) as usize);
        let speech = match random.below(3) {
            0 => LockerProtocol::Text,
            1 if agent.is_none() => LockerProtocol::Link,
            _ => LockerProtocol::Frames,
        };
        LockerPlan {
            agent,
            speech,
            operations,
            depth: random.pick(&[1, 1, 3, 6]),
            think_ms,
            vanishes: random.pick(&[0, 0, 20, 100]),
            keys,
            lease_s_max: random.pick(&[2, 8, 20]),
            timeout_s_max: random.pick(&[1, 5, 15]),
        }
    };
    (0..count).map(|_| draw(random)).collect()
}

/// A few direct clients, some of which stay silent for a while after connecting.
fn draw_direct(random: &mut SeededRng) -> Vec<DirectPlan> {
    if random.chance(600) {
        return Vec::new();
    }
    let count = random.between(1..=5);
    (0..count).map(|_| DirectPlan::draw(random)).collect()
}

impl DirectPlan {
    fn draw(random: &mut SeededRng) -> Self {
        let data_bytes = random.pick(&[32, 32, 3_000]);
        let plan = Self {
            operations: random.between(10..=60) as usize,
            depth: random.pick(&[1, 1, 4, 30]),
            data_bytes,
            think_ms: random.pick(&[1, 100, 2_000]),
            silent_ms: random.pick(&[0, 500, 2 * DRAIN_GRACE_MS, 90_000]),
            leaves: random.pick(&[20, 500, 1_000]),
            latency_ms_max: None,
            deaf: 0,
            spoils: random.pick(&[0, 0, 100]),
            // Large requests in single bytes would take longer than a shutdown can wait.
            capacity: if data_bytes > 100 { None } else { random.pick(&[None, None, Some(200)]) },
        };
        // More answers than fit into the network.
        let deaf = Self { depth: 30, data_bytes: 32, deaf: 200, capacity: Some(200), ..plan };
        if random.chance(250) { deaf } else { plan }
    }
}

/// A few ids, of all lengths; some are prefixes of others.
fn draw_ids(random: &mut SeededRng) -> Vec<Vec<u8>> {
    let count = random.pick(&[1, 3, 8, 16, 40]);
    let mut ids: Vec<Vec<u8>> = Vec::new();
    while ids.len() < count {
        let len = random.pick(&[1, 2, 16, 32, 32, 32, SESSION_ID_BYTES_MAX]);
        let mut id = vec![0; len];
        random.fill(&mut id);
        if let Some(other) = ids.last()
            && random.chance(100)
            && other.len() < SESSION_ID_BYTES_MAX
        {
            id = other.iter().copied().chain([0]).collect();
        }
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}
