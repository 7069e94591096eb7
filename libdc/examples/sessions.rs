//! Stores a session through the agent of this host and looks it up, as a TLS server does.
//!
//! ```text
//! dc_server -daemon -listen IP:127.0.0.1:9001
//! dc_client -daemon -server IP:127.0.0.1:9001
//! cargo run -p libdc --example sessions
//! ```
//!
//! docs/quick-start.md shows the marked part, and a test runs the whole.

use libdc::client::SessionOptions;
use libdc::client::blocking::Client;
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    // docs: begin
    let mut client = Client::new("UNIX:/tmp/scache".parse()?, SessionOptions::default());
    client.add(b"an id", b"a session", Duration::from_secs(300))?;
    match client.get(b"an id")? {
        Some(session) => println!("resume with {} bytes", session.len()),
        None => println!("do a full handshake"),
    }
    client.remove(b"an id")?;
    // docs: end
    Ok(())
}
