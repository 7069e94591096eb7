//! `dc_master` with good and faulty children under constant load: each call must be answered.
//!
//! | | |
//! |---|---|
//! | `restart` | no faults: fifty restarts of servers of several kinds, hundreds of one |
//! | `new_child` | a new child that dies, is not ready, or claims to be |
//! | `old_child` | an old child that does not stop, or dies before |
//! | `signals` | signals at any time, to the master and forwarded to the children |
//! | `command` | a program that is missing, not executable, or replaced |
//! | `given` | no faults: the environment that a child inherits from its master |
//! | `store` | no faults: descriptors that children leave to their successors |
//! | `sockets` | paths that are stale, taken, removed; inherited sockets |
//! | `left_behind` | grandchildren, orphans, children of a master that was killed |
//! | `supervised` | no faults: notifications to systemd |
//! | `process` | pidfiles, daemons, users, the first process of a container |

#![allow(clippy::unwrap_used, reason = "so a test fails")]

mod command;
mod given;
mod left_behind;
mod load;
mod new_child;
mod old_child;
mod process;
mod restart;
mod signals;
mod sockets;
mod store;
mod supervised;
mod syslog;
