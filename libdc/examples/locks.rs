//! Takes a lock through the agent of this host, stores a report while it holds the lock, and releases it.
//!
//! ```text
//! dc_server -daemon -listen IP:127.0.0.1:9001
//! dc_client -daemon -server IP:127.0.0.1:9001
//! cargo run -p libdc --example locks
//! ```
//!
//! README.md and docs/locks.md show the marked part, and a test runs the whole.

use libdc::client::lock::{AcquireOptions, LockClient, LockOptions};
use std::error::Error;
use std::future::ready;
use std::io;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // docs: begin
    let client = LockClient::connect("UNIX:/tmp/scache".parse()?, LockOptions::default()).await?;
    let guard = client.acquire("nightly", &AcquireOptions::default()).await?;
    tokio::select! {
        done = store("report", guard.fence()) => done?,
        loss = guard.lost() => return Err(loss.into()), // before another client can have the lock
    }
    guard.release().await?;
    // docs: end
    Ok(())
}

/// Stands for a store that refuses a fence smaller than the greatest one it has seen.
fn store(name: &str, fence: u64) -> impl Future<Output = io::Result<()>> {
    println!("stored {name} with fence {fence}");
    ready(Ok(()))
}
