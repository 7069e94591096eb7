//! `dc_snoop` over real sockets: what it relays, what it prints, what it writes.

mod capture;
mod output;
mod program;
mod relay;
