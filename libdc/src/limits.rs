//! Every bound of the system, with the relations between them asserted at compile time.

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 14;
/// Most data bytes of one frame.
pub const FRAME_DATA_BYTES_MAX: usize = 2048;
/// Most frames of one session message (class 0).
pub const SESSION_FRAMES_MAX: usize = 16;
/// Most frames of one lock or link message (classes 1 and 2).
pub const LINK_FRAMES_MAX: usize = 4096;
/// Most data bytes of one session message.
pub const SESSION_MESSAGE_BYTES_MAX: usize = SESSION_FRAMES_MAX * FRAME_DATA_BYTES_MAX;

/// Most bytes of a session id; the least is 1.
pub const SESSION_ID_BYTES_MAX: usize = 64;
/// Most bytes of a session.
pub const SESSION_BYTES_MAX: usize = 32_768;
/// Bytes before the id in the data of an ADD: timeout and length of the id.
pub const ADD_PREFIX_BYTES: usize = 8;
/// Most bytes of id and session of an ADD together: a message has no room for more.
pub const SESSION_ADD_BYTES_MAX: usize = SESSION_MESSAGE_BYTES_MAX - ADD_PREFIX_BYTES;
/// Longest time a session may be kept: seven days, in milliseconds.
pub const SESSION_TIMEOUT_MS_MAX: u32 = 604_800_000;

/// Most bytes of the key of a lock.
pub const LOCK_KEY_BYTES_MAX: usize = 256;
/// Most bytes of a line of the text protocol, its newline not counted.
pub const LINE_BYTES_MAX: usize = 256;
/// Most bytes of a request of class 1 or 2 but CLAIM: the longest are those with a key or a token of
/// authentication. Longer ones are refused before they are gathered.
pub const LINK_REQUEST_BYTES_MAX: usize = FRAME_DATA_BYTES_MAX;
/// Most bytes of a CLAIM that an agent makes; what does not fit goes into another.
pub const CLAIM_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a token of authentication.
pub const AUTH_TOKEN_BYTES_MAX: usize = 256;
/// Longest lease and longest wait for a lock, in milliseconds: a hundred years, which no sum overflows.
pub const LOCK_MS_MAX: u64 = 100 * 366 * 24 * 3_600_000;
/// Most entries in each list of the statistics of locks.
pub const STATS_ENTRIES_MAX: usize = 10_000;
/// Pause before a connection that gave a wrong token of authentication is closed, in milliseconds.
pub const AUTH_FAILURE_DELAY_MS: u64 = 100;

/// Most requests that one local connection of the agent may have on their way to the server.
/// A connection that has as many is not read until some are answered.
pub const LOCAL_IN_FLIGHT_MAX: usize = 128;
/// Most requests on their way to the server, of all local connections together.
pub const LINK_IN_FLIGHT_MAX: usize = 1 << 20;
/// Most requests for a lock of one local connection that may be blocked at the server. They don't count among those
/// above, so that others are read behind them; one more is answered `error_max_waiters`.
pub const LOCAL_BLOCKED_MAX: usize = 1024;
/// Most blocked requests of all local connections together, so that sessions always have room beside them.
pub const LINK_BLOCKED_MAX: usize = 1 << 19;
/// While this many bytes wait behind a blocked request of the text protocol, its connection is not read.
pub const LOCAL_HELD_BACK_BYTES_MAX: usize = 64 << 10;
/// While this many bytes wait to be written to the server, no local connection is read.
pub const LINK_OUTBOX_BYTES_MAX: usize = 4 << 20;
/// While this many bytes of answers wait for a connection to read them, no request of it is read.
pub const OUTBOX_BYTES_MAX: usize = 256 << 10;
/// Bytes read from a socket at once, and the most handled for one connection before another has its turn.
pub const READ_BUDGET_BYTES: usize = 128 << 10;
/// Longest time that a local connection of the agent may take to end a message it began, in milliseconds.
pub const LOCAL_READ_TIMEOUT_MS: u64 = 23_000;
/// Longest time that a local connection of the agent may leave its answers unread, in milliseconds.
pub const LOCAL_WRITE_TIMEOUT_MS: u64 = 5_000;
/// How often an idle link is asked whether the server is there, in milliseconds.
pub const PING_INTERVAL_MS: u64 = 5_000;
/// A link over which nothing came for this long although something was asked is broken, in milliseconds:
/// as long as the agent's `-timeout`, but no less than this,
pub const PING_TIMEOUT_MS_MIN: u64 = 1_000;
/// and no more than this.
pub const PING_TIMEOUT_MS_MAX: u64 = 2 * PING_INTERVAL_MS;
/// Longest value of the agent's `-retry`, `-idle` and `-timeout`, in milliseconds.
pub const AGENT_TIME_MS_MAX: u64 = 3_600_000;

/// How long after its beginning a connection may ask for the first time while the program ends, in milliseconds: who
/// connected a moment before is answered, as who connects a moment later is by the next process.
pub const DRAIN_GRACE_MS: u64 = 3_000;

/// Most expired or surplus sessions that one step removes, so that no step takes long.
pub const EXPIRY_BATCH: usize = 64;

const _: () = {
    assert!(SESSION_BYTES_MAX == SESSION_MESSAGE_BYTES_MAX, "a whole session fits the answer to a GET");
    assert!(FRAME_DATA_BYTES_MAX <= u16::MAX as usize, "a frame's length has two bytes");
    assert!(SESSION_FRAMES_MAX <= LINK_FRAMES_MAX);
    assert!(SESSION_ID_BYTES_MAX <= u8::MAX as usize, "the table keeps the length of an id in a byte");
    assert!(OUTBOX_BYTES_MAX > SESSION_MESSAGE_BYTES_MAX + SESSION_FRAMES_MAX * FRAME_HEADER_BYTES);
    assert!(READ_BUDGET_BYTES > SESSION_MESSAGE_BYTES_MAX + SESSION_FRAMES_MAX * FRAME_HEADER_BYTES);
    assert!(LOCK_KEY_BYTES_MAX <= LINE_BYTES_MAX, "a key fits its line");
    assert!(
        LOCK_KEY_BYTES_MAX + 64 <= LINK_REQUEST_BYTES_MAX
            && AUTH_TOKEN_BYTES_MAX + 64 <= LINK_REQUEST_BYTES_MAX
    );
    assert!(
        LINK_REQUEST_BYTES_MAX.is_multiple_of(FRAME_DATA_BYTES_MAX)
            && CLAIM_BYTES_MAX.is_multiple_of(FRAME_DATA_BYTES_MAX)
    );
    assert!(LOCAL_IN_FLIGHT_MAX < LINK_IN_FLIGHT_MAX);
    assert!(LOCAL_BLOCKED_MAX < LINK_BLOCKED_MAX && LINK_BLOCKED_MAX < LINK_IN_FLIGHT_MAX);
    assert!(LINK_IN_FLIGHT_MAX <= 1 << 24, "a uid on the link is 24 bits of place and 8 of generation");
    assert!(PING_INTERVAL_MS < PING_TIMEOUT_MS_MAX && PING_TIMEOUT_MS_MIN < PING_INTERVAL_MS);
};
