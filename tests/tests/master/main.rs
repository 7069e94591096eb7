//! `dc_master` with children that behave well and badly, while callers come all the time: each must be answered.
//!
//! | | |
//! |---|---|
//! | `restart` | nothing goes wrong: fifty restarts of servers of several kinds, hundreds of one |
//! | `new_child` | what starts dies, or is not ready, or claims to be |
//! | `old_child` | what is to end does not, or dies before |
//! | `signals` | signals at any time, to the master and on to the children |
//! | `command` | the program is not there, cannot be executed, is replaced |
//! | `given` | nothing: what a child has from its master |
//! | `store` | nothing: descriptors that children leave to their successors |
//! | `sockets` | paths that are stale, taken, removed; sockets that were passed in |
//! | `left_behind` | grandchildren, orphans, children of a master that was killed |
//! | `supervised` | nothing: what systemd is told |
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
