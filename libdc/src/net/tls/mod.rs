//! TLS, 1.2 or later: on the server's TCP listeners, and from the agent to the server.

#[cfg(test)]
mod authority;
pub mod client;
pub mod error;
mod pem;
mod reload;
pub mod server;
pub mod stream;

#[cfg(test)]
mod tests;
