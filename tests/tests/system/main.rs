//! The running programs, as their users and their enemies meet them.
//!
//! What each file breaks, and what must hold all the same:
//!
//! | | |
//! |---|---|
//! | `vectors` | nothing: what an original server answered, ours answers, also through an agent |
//! | `lock_vectors` | nothing: what an original dflockd answered, ours answers, also through an agent |
//! | `lock_command` | `dc_lock` on two hosts, without its agent, without the server |
//! | `lock_counter` | everything, under lockers whose counter must not lose an update |
//! | `lock_links` | links with locks break, servers restart, agents end and are killed |
//! | `lock_tls` | certificates and tokens of authentication that are right and wrong |
//! | `ending` | the server, and an agent, are told to end while others wait for locks, or have only just connected |
//! | `fleet` | nothing: sessions stored on one host are resumed on another |
//! | `outage` | the server is absent, killed, stopped, silent; the network between it and the agent fails |
//! | `load` | the server is killed and restarted under load |
//! | `lock_load` | nothing, or the server; and servers that break a promise about locks |
//! | `original` | the server is one of distcache 1.x |
//! | `hostile` | what comes is no request; requests that never end; answers that nobody reads |
//! | `crowd` | thousands of connections; no descriptors left; clients that vanish |
//! | `demo` | nothing: what a newcomer sees |
//! | `limits` | more connections than allowed; idle ones |
//! | `life` | starting that fails, signals, pidfiles, sockets of others |
//! | `passed` | sockets and a supervisor from outside, and variables that make no sense |
//! | `user` | root's rights given up (only as root) |

#![allow(clippy::unwrap_used, reason = "so a test fails")]

mod crowd;
mod demo;
mod ending;
mod fleet;
mod hostile;
mod life;
mod limits;
mod load;
mod lock_command;
mod lock_counter;
mod lock_links;
mod lock_load;
mod lock_tls;
mod lock_vectors;
mod original;
mod outage;
mod passed;
mod user;
mod vectors;
