//! The options of `dc_client`.

use dc_options::address::{Address, address};
use dc_options::duration::milliseconds;
use dc_options::{DaemonOptions, Mistake, Options, Program};
use libdc::limits::AGENT_TIME_MS_MAX;
use std::time::Duration;

/// Who this is.
pub(crate) const PROGRAM: Program = Program {
    name: "dc_client",
    env_prefix: "DC_CLIENT_",
    about: "the agent between the applications of a host and the server of its fleet",
    variables: &[],
};

/// What the agent was asked to do.
#[derive(clap::Args, Debug)]
pub(crate) struct ClientOptions {
    /// Where to listen for applications; may be given several times.
    #[arg(long, value_name = "ADDR", default_value = "UNIX:/tmp/scache", value_parser = address)]
    pub(crate) listen: Vec<Address>,
    /// The server.
    #[arg(long, visible_alias = "connect", value_name = "ADDR", required = true, value_parser = address)]
    pub(crate) server: Address,
    /// Pause between two attempts to reach the server.
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds(1..=AGENT_TIME_MS_MAX))]
    pub(crate) retry: Duration,
    /// Close a local connection that has asked nothing for this long; 0 is never.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds(0..=AGENT_TIME_MS_MAX))]
    pub(crate) idle: Duration,
    /// Answer a request that the server has not answered for this long; 0 is never.
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds(0..=AGENT_TIME_MS_MAX))]
    pub(crate) timeout: Duration,
    /// What all daemons take.
    #[command(flatten)]
    pub(crate) daemon: DaemonOptions,
}

impl Options for ClientOptions {
    fn check(&self) -> Result<(), Mistake> {
        if matches!(self.server, Address::Descriptor(_)) {
            return Err(Mistake::inconsistent("server", "takes an address to connect to, not a descriptor"));
        }
        self.daemon.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_says_what_is_taken() {
        let page = include_str!("../../man/dc_client.1");
        let differences =
            dc_options::manual::differences(page, &PROGRAM, &PROGRAM.options::<ClientOptions>());
        assert!(differences.is_empty(), "{differences:#?}");
    }
}
