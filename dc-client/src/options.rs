//! The options of `dc_client`.

mod tls;

use self::tls::AgentTlsOptions;
use dc_cli::address::{Address, address, peer_address};
use dc_cli::duration::milliseconds;
use dc_cli::{CommandOptions, ProgramInfo, UsageError};
use dc_daemon::{AuthOptions, DaemonOptions};
use libdc::limits::AGENT_TIME_MS_MAX;
use libdc::net::address::SocketPath;
use std::path::Path;
use std::time::Duration;

pub(crate) const PROGRAM: ProgramInfo = ProgramInfo {
    name: "dc_client",
    env_prefix: "DC_CLIENT_",
    about: "the agent between the applications of a host and the server of its fleet",
    variables: &[],
};

/// Default listen address, as in distcache 1.x.
const LISTEN_DEFAULT: &str = "/tmp/scache";

#[derive(clap::Args, Debug)]
pub(crate) struct AgentOptions {
    /// Where to listen, besides inherited sockets; without either, on the Unix socket /tmp/scache.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) listen: Vec<Address>,
    /// The server.
    #[arg(long, visible_alias = "connect", value_name = "ADDR", required = true, value_parser = peer_address)]
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
    #[command(flatten)]
    pub(crate) tls: AgentTlsOptions,
    #[command(flatten)]
    pub(crate) auth: AuthOptions,
    #[command(flatten)]
    pub(crate) daemon: DaemonOptions,
}

impl AgentOptions {
    /// The default listen address, if neither options nor inherited sockets give one.
    pub(crate) fn listen_default() -> Option<Address> {
        SocketPath::new(Path::new(LISTEN_DEFAULT)).ok().map(Address::from)
    }
}

impl CommandOptions for AgentOptions {
    fn check(&self) -> Result<(), UsageError> {
        self.tls.check(&self.server)?;
        self.daemon.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_says_what_is_taken() {
        let page = include_str!("../../man/dc_client.1");
        let differences = dc_tests::man_page::differences(page, &PROGRAM, &PROGRAM.options::<AgentOptions>());
        assert!(differences.is_empty(), "{differences:#?}");
    }

    fn options(line: &[&str]) -> Result<AgentOptions, String> {
        let line = [&["-server", "IP:cache.example:9001"], line].concat();
        let options = PROGRAM.try_parse::<AgentOptions>(line.into_iter().map(Into::into), |_| None);
        options.map_err(|stop| {
            assert_eq!(stop.status(), 64);
            stop.text().trim_end().strip_prefix("dc_client: ").unwrap_or_default().to_owned()
        })
    }

    #[test]
    fn a_server_is_where_something_can_listen() {
        for server in ["FD:3", "IP:0", "IP:127.0.0.1:0"] {
            let line = ["-server", server].map(Into::into);
            let stop = PROGRAM.try_parse::<AgentOptions>(line, |_| None).unwrap_err();
            assert_eq!(stop.status(), 64);
            assert!(stop.text().starts_with(&format!("dc_client: -server \"{server}\" ")), "{}", stop.text());
        }
    }

    #[test]
    fn the_options_of_tls_belong_together() {
        for option in ["tls-ca", "tls-name", "tls-cert", "tls-key"] {
            let mistake = options(&[&format!("-{option}"), "x"]).unwrap_err();
            assert_eq!(mistake, format!("-{option} needs -tls"));
        }
        assert_eq!(options(&["-tls", "-tls-cert", "c"]).unwrap_err(), "-tls-cert needs -tls-key");
        assert_eq!(options(&["-tls", "-tls-key", "k"]).unwrap_err(), "-tls-key needs -tls-cert");
        assert_eq!(
            options(&["-tls", "-tls-name", "a b"]).unwrap_err(),
            "-tls-name \"a b\" is no name of a host; it takes the name or address of a host"
        );
        let line = ["-server", "UNIX:/s", "-tls"].map(Into::into);
        let stop = PROGRAM.try_parse::<AgentOptions>(line, |_| None).unwrap_err();
        assert!(stop.text().contains("-tls requires a TCP address in -server"), "{}", stop.text());
    }

    #[test]
    fn the_files_of_tls_are_read_where_it_is_wanted() {
        assert!(options(&[]).unwrap().tls.load().unwrap().is_none());
        let tls = options(&["-tls", "-tls-ca", "/absent/ca", "-tls-name", "127.0.0.1"]).unwrap().tls;
        assert!(tls.load().unwrap_err().to_string().starts_with("cannot read /absent/ca: "));
    }
}
