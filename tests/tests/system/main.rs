//! Tests of the running programs, with well-behaved and hostile peers.
//!
//! Each file tests one kind of failure:
//!
//! | file | failure |
//! |---|---|
//! | `vectors` | none: the answers recorded from an original server, also through an agent |
//! | `lock_vectors` | none: the answers recorded from an original dflockd, also through an agent |
//! | `lock_command` | `dc_lock` on two hosts, after the loss of its agent or of the server |
//! | `lock_counter` | all of them, under clients whose counter must not lose an update |
//! | `lock_links` | links with locks break, servers restart, agents stop and are killed |
//! | `lock_tls` | valid and invalid certificates and auth tokens |
//! | `ending` | server and agent stop while clients wait for locks, or have only just connected |
//! | `fleet` | none: sessions stored on one host are resumed on another |
//! | `outage` | the server is absent, killed, stopped or silent; the network to it fails |
//! | `load` | the server is killed and restarted under load |
//! | `lock_load` | none, or the server; and lock servers with a known fault |
//! | `original` | the server is one of distcache 1.x |
//! | `hostile` | malformed requests; requests that never end; answers that are never read |
//! | `crowd` | thousands of connections; no free descriptors; clients that disconnect |
//! | `demo` | none: the first steps of a new user |
//! | `limits` | more connections than allowed; idle connections |
//! | `life` | a failing start, signals, pidfiles, sockets of other processes |
//! | `passed` | socket activation and a service manager, and malformed variables |
//! | `user` | dropping root privileges (only as root) |

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

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
