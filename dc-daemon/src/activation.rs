//! Socket activation: sockets and other descriptors that a service manager opens and passes to the process at
//! its start.
//!
//! | variables | from | meaning |
//! |---|---|---|
//! | `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES` | systemd, `dc_master` | number of descriptors from 3 on, for this process only; their names |
//! | `EINHORN_FD_COUNT`, `EINHORN_FD_0` ... | einhorn, `dc_master` | one descriptor in each variable |
//! | `EINHORN_FDS` | einhorn, socketmaster | a list of descriptors, separated by white space |
//!
//! The first row that is set and meant for this process is used and the others are ignored: `dc_master`
//! passes the same sockets in all three ways. Child processes inherit the variables, so they are honoured
//! only if `LISTEN_PID` is this process, or `EINHORN_MASTER_PID`, if set, is its parent. They are read before
//! a daemon forks.
//!
//! A claimed descriptor is close-on-exec, and its original number is closed. The path of a Unix socket is
//! neither changed nor removed. Listening on a socket that other processes share makes it non-blocking for
//! all of them. A service of any service manager begins like this:
//!
//! ```no_run
//! # use dc_daemon::{activation::SocketActivation, notify::Notifier};
//! let manager = Notifier::from_environment()?;
//! let listeners = SocketActivation::from_environment()?.listeners()?;
//! manager.ready();
//! // ... accept connections; at a shutdown signal:
//! manager.stopping();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here panics.

use crate::fds::{InheritedFd, InheritedFdError};
use crate::listen::{ListenError, Listener, SocketPermissions};
use libdc::net::address::Address;
use std::env;
use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::parent_id;
use std::process;

/// The maximum number of passed descriptors.
pub const PASSED_MAX: usize = 4096;

/// The first passed descriptor, after the standard streams, as in systemd, einhorn and socketmaster.
pub const PASSED_FIRST: RawFd = 3;
/// The name of a descriptor without a name, as in systemd.
pub const UNNAMED: &str = "unknown";

/// The passed descriptors, in the order of the service manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketActivation {
    descriptors: Vec<PassedFd>,
}

impl SocketActivation {
    /// Reads the descriptors passed to this process from the environment. Does not claim them.
    ///
    /// # Errors
    /// [`ActivationError`], in one line that names the variable.
    pub fn from_environment() -> Result<Self, ActivationError> {
        Self::from_variables(|name| env::var_os(name), process::id(), parent_id())
    }

    /// Reads the descriptors that these variables pass to the process `pid`, whose parent is `parent`.
    ///
    /// # Errors
    /// As [`SocketActivation::from_environment`].
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
        pid: u32,
        parent: u32,
    ) -> Result<Self, ActivationError> {
        let variables = ActivationEnv(variable);
        let descriptors = match variables.of_systemd(pid)? {
            Some(descriptors) => descriptors,
            None => variables.of_einhorn(parent)?,
        };
        for (at, descriptor) in descriptors.iter().enumerate() {
            if descriptors[..at].iter().any(|before| before.number == descriptor.number) {
                return Err(ActivationError::Twice { number: descriptor.number });
            }
        }
        Ok(Self { descriptors })
    }

    /// Whether no descriptors were passed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
    }

    /// The descriptors in the order of the service manager.
    #[must_use]
    pub fn as_slice(&self) -> &[PassedFd] {
        &self.descriptors
    }

    /// Claims all descriptors as listeners.
    ///
    /// # Errors
    /// [`ListenError`] for the first descriptor that is not a listening stream socket, or was claimed before.
    pub fn listeners(&self) -> Result<Vec<Listener>, ListenError> {
        self.descriptors.iter().map(PassedFd::listen).collect()
    }
}

/// A passed descriptor, not yet claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedFd {
    /// The number of the descriptor.
    pub number: RawFd,
    /// The name that the service manager gives it: the name of the unit or the one configured there for a
    /// socket; for a stored descriptor, the name that it was [stored](crate::notify::Notifier::store) under;
    /// [`UNNAMED`] without a name.
    pub name: String,
}

impl PassedFd {
    /// The address that listens on it: `FD:n`.
    #[must_use]
    pub const fn address(&self) -> Address {
        Address::Descriptor(self.number)
    }

    /// Claims it as a listener.
    ///
    /// # Errors
    /// [`ListenError`] if it is not a listening stream socket, or was claimed before.
    pub fn listen(&self) -> Result<Listener, ListenError> {
        Listener::bind(&self.address(), &SocketPermissions::default())
    }

    /// Claims it, whatever kind of descriptor it is.
    ///
    /// # Errors
    /// [`InheritedFdError`] if it does not exist, or was claimed before.
    pub fn claim(&self) -> Result<OwnedFd, InheritedFdError> {
        InheritedFd::find(self.number)?.claim()
    }
}

/// The environment, as a lookup function.
struct ActivationEnv<F>(F);

impl<F: Fn(&str) -> Option<OsString>> ActivationEnv<F> {
    /// `None` if the variables are not set, or meant for another process.
    fn of_systemd(&self, pid: u32) -> Result<Option<Vec<PassedFd>>, ActivationError> {
        if self.number("LISTEN_PID")? != Some(u64::from(pid)) {
            return Ok(None);
        }
        let Some(count) = self.count("LISTEN_FDS")? else { return Ok(None) };
        let names: Vec<String> = match self.text("LISTEN_FDNAMES")? {
            Some(names) => names.split(':').map(str::to_owned).collect(),
            None => vec![UNNAMED.to_owned(); count],
        };
        if count > 0 && names.len() != count {
            return Err(ActivationError::Names { names: names.len(), descriptors: count });
        }
        let numbered = names.into_iter().take(count).zip(PASSED_FIRST..);
        Ok(Some(numbered.map(|(name, number)| PassedFd { number, name }).collect()))
    }

    fn of_einhorn(&self, parent: u32) -> Result<Vec<PassedFd>, ActivationError> {
        if self.number("EINHORN_MASTER_PID")?.is_some_and(|master| master != u64::from(parent)) {
            return Ok(Vec::new());
        }
        if let Some(count) = self.count("EINHORN_FD_COUNT")? {
            let numbered = (0..count).map(|index| {
                let name = format!("EINHORN_FD_{index}");
                let value = self.text(&name)?;
                value.map_or_else(
                    || Err(ActivationError::Missing { variable: name.clone() }),
                    |it| unnamed(&name, &it),
                )
            });
            return numbered.collect();
        }
        let list = self.text("EINHORN_FDS")?.unwrap_or_default();
        let numbers: Vec<&str> = list.split_whitespace().take(PASSED_MAX + 1).collect();
        if numbers.len() > PASSED_MAX {
            return Err(ActivationError::TooMany { variable: "EINHORN_FDS".to_owned() });
        }
        numbers.into_iter().map(|word| unnamed("EINHORN_FDS", word)).collect()
    }

    /// Parses a number of descriptors.
    fn count(&self, name: &str) -> Result<Option<usize>, ActivationError> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        let count = usize::try_from(number).ok().filter(|count| *count <= PASSED_MAX);
        count.map(Some).ok_or_else(|| ActivationError::TooMany { variable: name.to_owned() })
    }

    fn number(&self, name: &str) -> Result<Option<u64>, ActivationError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number = digits(&text).and_then(|digits| digits.parse().ok());
        number.map(Some).ok_or_else(|| ActivationError::NotANumber { variable: name.to_owned(), value: text })
    }

    /// The value of a variable. An empty value counts as unset.
    fn text(&self, name: &str) -> Result<Option<String>, ActivationError> {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let text = value
            .into_string()
            .map_err(|value| ActivationError::NotText { variable: name.to_owned(), value });
        text.map(Some)
    }
}

/// Parses `word`, part of the value of `variable`, as a descriptor without a name.
fn unnamed(variable: &str, word: &str) -> Result<PassedFd, ActivationError> {
    let number = digits(word).and_then(|digits| digits.parse().ok()).filter(|number| *number >= PASSED_FIRST);
    let number = number.ok_or_else(|| ActivationError::NotADescriptor {
        variable: variable.to_owned(),
        value: word.to_owned(),
    })?;
    Ok(PassedFd { number, name: UNNAMED.to_owned() })
}

fn digits(text: &str) -> Option<&str> {
    Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Why the variables of socket activation are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActivationError {
    /// A variable is not UTF-8.
    #[error("{variable}={}: not UTF-8", value.display())]
    NotText {
        /// The name of the variable.
        variable: String,
        /// The value of the variable.
        value: OsString,
    },
    /// The value of a variable is not a number.
    #[error("{variable}={value}: not a number")]
    NotANumber {
        /// The name of the variable.
        variable: String,
        /// The value of the variable.
        value: String,
    },
    /// A variable names a descriptor that cannot be a passed one.
    #[error("{variable}: {value:?} is not a passed descriptor (a number from {PASSED_FIRST} on)")]
    NotADescriptor {
        /// The name of the variable.
        variable: String,
        /// The offending word of its value.
        value: String,
    },
    /// There are more than [`PASSED_MAX`] descriptors.
    #[error("{variable}: more than {PASSED_MAX} descriptors")]
    TooMany {
        /// The name of the variable.
        variable: String,
    },
    /// `EINHORN_FD_COUNT` includes a variable that is not set.
    #[error("{variable} is not set, but EINHORN_FD_COUNT includes it")]
    Missing {
        /// The name of the missing variable.
        variable: String,
    },
    /// A descriptor is listed twice.
    #[error("descriptor {number} is passed twice")]
    Twice {
        /// The number of the descriptor.
        number: RawFd,
    },
    /// The number of names differs from the number of descriptors.
    #[error("LISTEN_FDNAMES has {names} names for {descriptors} descriptors")]
    Names {
        /// The number of names.
        names: usize,
        /// The number of descriptors.
        descriptors: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fds::tests::{alone, inheritable};
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    /// The descriptors passed to process 7 with parent 6, each as `number name`, or the error.
    fn passed(variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        let passed = SocketActivation::from_variables(variable, 7, 6).map_err(|error| error.to_string())?;
        assert_eq!(passed.is_empty(), passed.as_slice().is_empty());
        Ok(passed.descriptors.iter().map(|it| format!("{} {}", it.number, it.name)).collect())
    }

    const NOTHING: Result<Vec<String>, String> = Ok(Vec::new());

    #[test]
    fn systemd_descriptors_start_at_three_for_one_pid() {
        let of = |further: &[(&str, &str)]| passed(&[&[("LISTEN_PID", "7")], further].concat());
        assert_eq!(of(&[("LISTEN_FDS", "2")]).unwrap(), ["3 unknown", "4 unknown"]);
        let names = ("LISTEN_FDNAMES", "listener:sessions");
        assert_eq!(of(&[("LISTEN_FDS", "2"), names]).unwrap(), ["3 listener", "4 sessions"]);
        assert_eq!(of(&[("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a:")]).unwrap(), ["3 a", "4 "]);
        assert_eq!(of(&[("LISTEN_FDS", "0"), names]), NOTHING);
        assert_eq!(of(&[]), NOTHING);
        assert_eq!(passed(&[("LISTEN_FDS", "2")]), NOTHING);
        assert_eq!(passed(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "8")]), NOTHING);
        assert_eq!(passed(&[("LISTEN_FDS", "abc"), ("LISTEN_PID", "6"), names]), NOTHING);
    }

    #[test]
    fn einhorn_descriptors_are_for_children_of_the_master() {
        assert_eq!(passed(&[("EINHORN_FDS", "3")]).unwrap(), ["3 unknown"]);
        assert_eq!(passed(&[("EINHORN_FDS", " 5  4 ")]).unwrap(), ["5 unknown", "4 unknown"]);
        let counted = [("EINHORN_FD_COUNT", "2"), ("EINHORN_FD_0", "9"), ("EINHORN_FD_1", "3")];
        let both = [&counted[..], &[("EINHORN_FDS", "3")]].concat();
        assert_eq!(passed(&both).unwrap(), ["9 unknown", "3 unknown"]);
        let master = |pid| passed(&[&both[..], &[("EINHORN_MASTER_PID", pid)]].concat());
        assert_eq!(master("6").unwrap().len(), 2);
        assert_eq!(master("7"), NOTHING);
        assert_eq!(passed(&[("EINHORN_FD_COUNT", "0"), ("EINHORN_FDS", "3")]), NOTHING);
        assert_eq!(passed(&[("EINHORN_FDS", "")]), NOTHING);
        assert_eq!(passed(&[]), NOTHING);
    }

    #[test]
    fn variables_for_another_process_are_ignored() {
        let both = |pid| passed(&[("LISTEN_PID", pid), ("LISTEN_FDS", "2"), ("EINHORN_FDS", "3")]);
        assert_eq!(both("7").unwrap(), ["3 unknown", "4 unknown"]);
        assert_eq!(both("8").unwrap(), ["3 unknown"]);
    }

    #[test]
    fn invalid_variable_is_named_in_the_error() {
        let pid = ("LISTEN_PID", "7");
        for (variables, expected) in [
            (vec![pid, ("LISTEN_FDS", "abc")], "LISTEN_FDS=abc: not a number"),
            (vec![pid, ("LISTEN_FDS", "-1")], "LISTEN_FDS=-1: not a number"),
            (vec![pid, ("LISTEN_FDS", "+1")], "LISTEN_FDS=+1: not a number"),
            (vec![pid, ("LISTEN_FDS", "4097")], "LISTEN_FDS: more than 4096 descriptors"),
            (vec![("LISTEN_PID", "me"), ("LISTEN_FDS", "1")], "LISTEN_PID=me: not a number"),
            (
                vec![pid, ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a")],
                "LISTEN_FDNAMES has 1 names for 2 descriptors",
            ),
            (
                vec![("EINHORN_FDS", "3 x")],
                "EINHORN_FDS: \"x\" is not a passed descriptor (a number from 3 on)",
            ),
            (
                vec![("EINHORN_FDS", "2")],
                "EINHORN_FDS: \"2\" is not a passed descriptor (a number from 3 on)",
            ),
            (
                vec![("EINHORN_FDS", "99999999999")],
                "EINHORN_FDS: \"99999999999\" is not a passed descriptor (a number from 3 on)",
            ),
            (vec![("EINHORN_FDS", "3 4 3")], "descriptor 3 is passed twice"),
            (vec![("EINHORN_FD_COUNT", "many")], "EINHORN_FD_COUNT=many: not a number"),
            (vec![("EINHORN_FD_COUNT", "5000")], "EINHORN_FD_COUNT: more than 4096 descriptors"),
            (
                vec![("EINHORN_FD_COUNT", "2"), ("EINHORN_FD_0", "3")],
                "EINHORN_FD_1 is not set, but EINHORN_FD_COUNT includes it",
            ),
            (vec![("EINHORN_MASTER_PID", "x"), ("EINHORN_FDS", "3")], "EINHORN_MASTER_PID=x: not a number"),
        ] {
            assert_eq!(passed(&variables), Err(expected.to_owned()));
        }
        let many = "3 ".repeat(PASSED_MAX + 1);
        assert_eq!(
            passed(&[("EINHORN_FDS", &many)]),
            Err("EINHORN_FDS: more than 4096 descriptors".to_owned())
        );
        let no_text = |name: &str| (name == "EINHORN_FDS").then(|| OsString::from_vec(vec![0xff]));
        assert!(matches!(
            SocketActivation::from_variables(no_text, 7, 6),
            Err(ActivationError::NotText { .. })
        ));
    }

    #[test]
    fn claimed_listener_keeps_its_path() {
        let _alone = alone();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let number = inheritable(UnixListener::bind(&path).unwrap());
        let list = number.to_string();
        let variable = |name: &str| (name == "EINHORN_FDS").then(|| OsString::from(&list));
        let passed = SocketActivation::from_variables(variable, 7, 6).unwrap();
        let listeners = passed.listeners().unwrap();
        assert_eq!(listeners[0].actual_address().to_string(), format!("UNIX:{}", path.display()));
        assert!(passed.listeners().is_err());
        drop(listeners);
        assert!(path.exists());
        assert!(UnixStream::connect(&path).is_err());
    }

    #[test]
    fn passed_pipe_can_be_claimed_but_not_listened_on() {
        let _alone = alone();
        let (near, _far) = UnixStream::pair().unwrap();
        let descriptor = PassedFd { number: inheritable(near), name: "stored".to_owned() };
        let error = descriptor.listen().unwrap_err();
        assert!(matches!(error, ListenError::NotListening { .. }), "{error}");
        descriptor.claim().unwrap();
        assert!(descriptor.claim().is_err());
    }
}
