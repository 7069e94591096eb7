//! Sockets: addresses, connecting, framing, the clock, and TLS.

pub mod address;
#[cfg(feature = "async")]
pub mod clock;
#[cfg(feature = "async")]
pub mod codec;
#[cfg(feature = "async")]
pub mod connect;
#[cfg(feature = "async")]
pub mod runtime;
#[cfg(feature = "async")]
pub mod socket;
#[cfg(feature = "async")]
pub mod timer;
#[cfg(feature = "tls")]
pub mod tls;

#[cfg(all(feature = "async", not(feature = "tls")))]
mod no_tls;
#[cfg(all(feature = "async", not(feature = "tls")))]
use no_tls::TlsSocket;
#[cfg(feature = "tls")]
use tls::stream::TlsSocket;
