//! `-locks`: clients that contend for a few keys, and a model that every answer about a lock is held against.

mod client;
mod key;
mod model;
#[cfg(test)]
mod model_tests;
mod question;
mod round;

pub(crate) use client::LockWorker as Locker;
pub(crate) use model::{LockModel, LockWorkload};
pub(crate) use question::{RELEASE, SHEET};
