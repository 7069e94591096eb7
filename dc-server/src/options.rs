//! The options of `dc_server`.

mod dflockd;
mod locks;
mod tls;

pub(crate) use self::locks::LockTableOptions;
use self::tls::ServerTlsOptions;
use dc_cli::address::{Address, address};
use dc_cli::count::count;
use dc_cli::duration::seconds;
use dc_cli::size::bytes;
use dc_cli::{CommandOptions, EnvExtra, ProgramInfo, UsageError};
use dc_daemon::{AuthOptions, DaemonOptions};
use std::ffi::OsString;
use std::num::NonZero;
use std::time::Duration;

pub(crate) const PROGRAM: ProgramInfo = ProgramInfo {
    name: "dc_server",
    env_prefix: "DC_SERVER_",
    about: "keeps the sessions and locks of a fleet of servers",
    variables: dflockd::VARIABLES,
};

/// Maximum of `-threads`, and of its default.
const THREADS_MAX: u64 = 64;
const THREADS_DEFAULT_MAX: usize = 8;
/// Longest time that an option in seconds takes: a day.
const SECONDS_MAX: u64 = 86_400;

#[derive(clap::Args, Debug)]
pub(crate) struct ServerOptions {
    /// Where to listen for agents, besides inherited sockets; required if there are none.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) listen: Vec<Address>,
    /// Keep at most this many sessions; 0 is no limit.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = count::<u64>(0..))]
    pub(crate) sessions: u64,
    /// Keep at most this much session data, ids included; 0 is no limit.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = bytes(0..))]
    pub(crate) memory: u64,
    /// Threads that serve; without it, one for each core, at most 8.
    #[arg(long, value_name = "N", value_parser = count::<usize>(1..=THREADS_MAX))]
    pub(crate) threads: Option<usize>,
    /// Log the totals every N operations, besides once a second while something changes; 0 is only that.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count::<u64>(0..))]
    pub(crate) progress: u64,
    /// Time to receive the rest of a message; 0 is no limit.
    #[arg(long, value_name = "SECS", default_value = "23", value_parser = seconds(0..=SECONDS_MAX))]
    pub(crate) read_timeout: Duration,
    /// Time for a peer to read some of its answers; 0 is no limit.
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds(0..=SECONDS_MAX))]
    pub(crate) write_timeout: Duration,
    #[command(flatten)]
    pub(crate) locks: LockTableOptions,
    #[command(flatten)]
    pub(crate) tls: ServerTlsOptions,
    #[command(flatten)]
    pub(crate) auth: AuthOptions,
    #[command(flatten)]
    pub(crate) daemon: DaemonOptions,
}

impl ServerOptions {
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.threads.unwrap_or_else(|| cores().min(THREADS_DEFAULT_MAX))
    }
}

impl CommandOptions for ServerOptions {
    fn check(&self) -> Result<(), UsageError> {
        self.tls.check()?;
        self.daemon.check()
    }

    fn additions(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<EnvExtra> {
        dflockd::listener(variable).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_says_what_is_taken() {
        let page = include_str!("../../man/dc_server.1");
        let differences =
            dc_tests::man_page::differences(page, &PROGRAM, &PROGRAM.options::<ServerOptions>());
        assert!(differences.is_empty(), "{differences:#?}");
    }

    /// Parses a command line and variables; the error is the line on stderr.
    fn options(line: &[&str], variables: &[(&str, &str)]) -> Result<ServerOptions, String> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        let options = PROGRAM.try_parse::<ServerOptions>(line.iter().map(OsString::from), variable);
        options.map_err(|stop| {
            assert_eq!(stop.status(), 64);
            stop.text().trim_end().strip_prefix("dc_server: ").unwrap_or_default().to_owned()
        })
    }

    fn listening(line: &[&str], variables: &[(&str, &str)]) -> ServerOptions {
        options(&[&["-listen", "IP:1"], line].concat(), variables).unwrap()
    }

    fn mistake(line: &[&str], variables: &[(&str, &str)]) -> String {
        options(&[&["-listen", "IP:1"], line].concat(), variables).unwrap_err()
    }

    fn token(options: &ServerOptions) -> Option<String> {
        options.auth.token().unwrap().map(|token| String::from_utf8_lossy(token.as_bytes()).into_owned())
    }

    fn listeners(options: &ServerOptions) -> Vec<String> {
        options.listen.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn locks_have_the_defaults_of_dflockd() {
        let locks = listening(&[], &[]).locks;
        let seconds = [
            locks.default_lease_ttl,
            locks.gc_interval,
            locks.gc_max_idle,
            locks.lease_sweep_interval,
            locks.grace,
        ];
        assert_eq!(seconds.map(|time| time.as_secs()), [33, 5, 60, 1, 10]);
        assert_eq!((locks.max_locks, locks.max_waiters, locks.auto_release_on_disconnect), (1024, 0, true));
        assert_eq!(locks.state, None);
    }

    #[test]
    fn auto_release_on_disconnect_is_turned_off_in_three_ways() {
        let is_on = |line: &[&str]| listening(line, &[]).locks.auto_release_on_disconnect;
        assert!(!is_on(&["-no-auto-release-on-disconnect"]));
        assert!(!is_on(&["--auto-release-on-disconnect=false"]));
        assert!(!is_on(&["-auto-release-on-disconnect=0"]));
        assert!(is_on(&["-auto-release-on-disconnect"]));
        assert!(is_on(&["-no-auto-release-on-disconnect=no"]));
        assert!(
            mistake(&["-auto-release-on-disconnect=maybe"], &[])
                .starts_with("-auto-release-on-disconnect \"maybe\" is neither on nor off")
        );
    }

    #[test]
    fn the_variables_of_dflockd_win_over_the_command_line() {
        let line = ["-default-lease-ttl", "1", "-read-timeout=1", "-debug", "-max-connections", "1"];
        let variables = [
            ("DFLOCKD_DEFAULT_LEASE_TTL_S", "40"),
            ("DFLOCKD_LEASE_SWEEP_INTERVAL_S", "2"),
            ("DFLOCKD_GC_LOOP_SLEEP", "6"),
            ("DFLOCKD_GC_MAX_UNUSED_TIME", "61"),
            ("DFLOCKD_MAX_LOCKS", "7"),
            ("DFLOCKD_MAX_CONNECTIONS", "8"),
            ("DFLOCKD_MAX_WAITERS", "9"),
            ("DFLOCKD_READ_TIMEOUT_S", "24"),
            ("DFLOCKD_WRITE_TIMEOUT_S", "6"),
            ("DFLOCKD_SHUTDOWN_TIMEOUT_S", "0"),
            ("DFLOCKD_TLS_CERT", "/c"),
            ("DFLOCKD_TLS_KEY", "/k"),
            ("DFLOCKD_AUTO_RELEASE_ON_DISCONNECT", "on"),
            ("DFLOCKD_DEBUG", "no"),
            ("DC_SERVER_MAX_LOCKS", "1"),
        ];
        let ServerOptions { locks, tls, daemon, read_timeout, write_timeout, .. } =
            listening(&line, &variables);
        let seconds = [
            locks.default_lease_ttl,
            locks.lease_sweep_interval,
            locks.gc_interval,
            locks.gc_max_idle,
            read_timeout,
            write_timeout,
            daemon.shutdown_timeout,
        ];
        assert_eq!(seconds.map(|time| time.as_secs()), [40, 2, 6, 61, 24, 6, 0]);
        assert_eq!((locks.max_locks, daemon.max_connections, locks.max_waiters), (7, 8, 9));
        assert_eq!((tls.tls_cert, tls.tls_key), (Some("/c".into()), Some("/k".into())));
        assert!(!locks.auto_release_on_disconnect, "on is no word of dflockd");
        assert!(!daemon.log.debug);
        for on in ["1", "YES", "True"] {
            assert!(listening(&[], &[("DFLOCKD_DEBUG", on)]).daemon.log.debug);
        }
        assert!(
            mistake(&[], &[("DFLOCKD_MAX_LOCKS", "many")])
                .starts_with("-max-locks (from DFLOCKD_MAX_LOCKS) \"many\" is not a number")
        );
    }

    #[test]
    fn the_variables_of_dflockd_add_a_listener() {
        let of = |line: &[&str], variables: &[_]| options(line, variables).map(|options| listeners(&options));
        assert_eq!(of(&[], &[("DFLOCKD_PORT", "7000")]).unwrap(), ["IP:127.0.0.1:7000"]);
        assert_eq!(of(&[], &[("DFLOCKD_HOST", "0.0.0.0")]).unwrap(), ["IP:0.0.0.0:6388"]);
        let both = [("DFLOCKD_HOST", "::1"), ("DFLOCKD_PORT", "7000")];
        assert_eq!(of(&["-listen", "UNIX:/s"], &both).unwrap(), ["UNIX:/s", "IP:[::1]:7000"]);
        let both = [("DFLOCKD_HOST", "[::1]"), ("DC_SERVER_LISTEN", "IP:1 IP:2")];
        let mut found = of(&[], &both).unwrap();
        found.sort();
        assert_eq!(found, ["IP:1", "IP:2", "IP:[::1]:6388"]);
        assert_eq!(of(&[], &[("DFLOCKD_HOST", "")]).unwrap(), Vec::<String>::new());
        let wrong = of(&[], &[("DFLOCKD_HOST", "h"), ("DFLOCKD_PORT", "x")]).unwrap_err();
        assert!(wrong.starts_with("-listen (from DFLOCKD_HOST and DFLOCKD_PORT) \"IP:h:x\" "), "{wrong}");
    }

    #[test]
    fn the_token_is_taken_from_the_first_of_its_places() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("{name}\n")).unwrap();
            path.into_os_string().into_string().unwrap()
        };
        let (of_option, of_variable) = (file("of-option"), file("of-variable"));
        let line = ["-auth-token", "itself", "-auth-token-file", &of_option];
        let variables =
            [("DFLOCKD_AUTH_TOKEN", "dflockd"), ("DFLOCKD_AUTH_TOKEN_FILE", of_variable.as_str())];
        let said = |line: &[&str], variables: &[_]| token(&listening(line, variables));
        assert_eq!(said(&line, &variables).as_deref(), Some("dflockd"));
        assert_eq!(said(&line, &variables[1..]).as_deref(), Some("itself"));
        assert_eq!(said(&line[2..], &variables).as_deref(), Some("dflockd"));
        assert_eq!(said(&line[2..], &variables[1..]).as_deref(), Some("of-option"));
        assert_eq!(said(&[], &variables[1..]).as_deref(), Some("of-variable"));
        let own = [("DC_SERVER_AUTH_TOKEN", "own"), variables[1]];
        assert_eq!(said(&[], &own).as_deref(), Some("own"));
        assert_eq!(said(&line[2..], &own).as_deref(), Some("of-option"), "the command line wins");
    }

    #[test]
    fn a_wrong_token_is_not_shown() {
        let long = "s3cret".repeat(50);
        let variables = [("DFLOCKD_AUTH_TOKEN", long.as_str())];
        let says = "is longer than 256 bytes; it takes 1 to 256 bytes of one line";
        assert_eq!(mistake(&["-auth-token", &long], &[]), format!("-auth-token {says}"));
        assert_eq!(mistake(&[], &variables), format!("-auth-token (from DFLOCKD_AUTH_TOKEN) {says}"));
        assert_eq!(
            mistake(&["-auth-token=s3\ncret"], &[]),
            "-auth-token has more than one line; it takes 1 to 256 bytes of one line"
        );
        assert!(!format!("{:?}", listening(&["-auth-token", "s3cret"], &[])).contains("s3cret"));
    }

    #[test]
    fn the_files_of_tls_belong_together() {
        assert_eq!(mistake(&["-tls-cert", "c"], &[]), "-tls-cert needs -tls-key");
        assert_eq!(mistake(&["-tls-key", "k"], &[]), "-tls-key needs -tls-cert");
        assert_eq!(mistake(&["-tls-client-ca", "a"], &[]), "-tls-client-ca needs -tls-cert and -tls-key");
        assert!(listening(&[], &[]).tls.load().unwrap().is_none());
        let files = ["-tls-cert", "/absent/c", "-tls-key", "k", "-tls-client-ca", "a"];
        let tls = listening(&files, &[]).tls;
        assert!(
            tls.tls_key.as_ref().is_some_and(|path| path.is_absolute()),
            "a daemon changes its directory"
        );
        assert!(tls.load().unwrap_err().to_string().starts_with("cannot read /absent/c: "));
    }
}
