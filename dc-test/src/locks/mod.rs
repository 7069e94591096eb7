//! `-locks`: clients that contend for a few keys, and a model that every answer about a lock is held against.

mod client;
mod key;
mod model;
#[cfg(test)]
mod model_tests;
mod question;
mod round;
mod workload;

pub(crate) use client::LockWorker;
pub(crate) use model::LockModel;
pub(crate) use question::{RELEASE, SHEET};
pub(crate) use workload::LockWorkload;
