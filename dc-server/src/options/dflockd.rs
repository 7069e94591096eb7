//! The variables of dflockd, which override the command line as they do there.

use dc_cli::{EnvExtra, EnvPrecedence, EnvVar};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Variables that stand for an option.
pub(crate) const VARIABLES: &[EnvVar] = &[
    wins("DFLOCKD_DEFAULT_LEASE_TTL_S", "default-lease-ttl"),
    wins("DFLOCKD_LEASE_SWEEP_INTERVAL_S", "lease-sweep-interval"),
    wins("DFLOCKD_GC_LOOP_SLEEP", "gc-interval"),
    wins("DFLOCKD_GC_MAX_UNUSED_TIME", "gc-max-idle"),
    wins("DFLOCKD_MAX_LOCKS", "max-locks"),
    wins("DFLOCKD_MAX_CONNECTIONS", "max-connections"),
    wins("DFLOCKD_MAX_WAITERS", "max-waiters"),
    wins("DFLOCKD_READ_TIMEOUT_S", "read-timeout"),
    wins("DFLOCKD_WRITE_TIMEOUT_S", "write-timeout"),
    wins("DFLOCKD_SHUTDOWN_TIMEOUT_S", "shutdown-timeout"),
    wins("DFLOCKD_TLS_CERT", "tls-cert"),
    wins("DFLOCKD_TLS_KEY", "tls-key"),
    wins("DFLOCKD_AUTH_TOKEN", "auth-token"),
    EnvVar { name: "DFLOCKD_AUTH_TOKEN_FILE", option: "auth-token-file", rank: EnvPrecedence::Fallback },
    wins("DFLOCKD_AUTO_RELEASE_ON_DISCONNECT", "auto-release-on-disconnect"),
    wins("DFLOCKD_DEBUG", "debug"),
];

/// The listener of dflockd, set by one variable or both.
const HOST: &str = "DFLOCKD_HOST";
const PORT: &str = "DFLOCKD_PORT";
const HOST_DEFAULT: &str = "127.0.0.1";
const PORT_DEFAULT: &str = "6388";

const fn wins(name: &'static str, option: &'static str) -> EnvVar {
    EnvVar { name, option, rank: EnvPrecedence::Override }
}

/// The listener from the variables, if set: an additional `-listen`.
pub(crate) fn listener(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<EnvExtra> {
    let said = |name| variable(name).filter(|value| !value.is_empty());
    let (host, port) = (said(HOST), said(PORT));
    let names = [(HOST, &host), (PORT, &port)];
    let names: Vec<_> = names.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
    if names.is_empty() {
        return None;
    }
    let mut value = OsString::from("IP:");
    match host {
        None => value.push(HOST_DEFAULT),
        Some(host) if is_bare_ipv6(&host) => {
            value.push("[");
            value.push(host);
            value.push("]");
        }
        Some(host) => value.push(host),
    }
    value.push(":");
    value.push(port.unwrap_or_else(|| OsString::from(PORT_DEFAULT)));
    Some(EnvExtra { option: "listen", variables: names.join(" and "), value })
}

fn is_bare_ipv6(host: &OsStr) -> bool {
    host.as_bytes().contains(&b':') && !host.as_bytes().starts_with(b"[")
}
