//! Sockets and other descriptors that a supervisor has opened and passes to the process at its start.
//!
//! | variables | from | means |
//! |---|---|---|
//! | `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES` | systemd, `dc_master` | so many from 3 on, for this process alone; their names |
//! | `EINHORN_FD_COUNT`, `EINHORN_FD_0` ... | einhorn, `dc_master` | these |
//! | `EINHORN_FDS` | einhorn, socketmaster | these, separated by white space |
//!
//! The first row that is there and meant for this process counts, the others then don't: `dc_master` passes the same sockets in all
//! three ways. Variables stay in the environment of a process's children, so they are believed only if `LISTEN_PID` is this
//! process, or `EINHORN_MASTER_PID`, where there is one, its parent. They are read before a process forks, as a daemon does.
//!
//! A descriptor that is taken over is close-on-exec, and its number is free. The path of a Unix socket is neither changed nor removed.
//! A socket that others have too is non-blocking for all of them, once it is listened on here. A service of any
//! supervisor begins like this:
//!
//! ```no_run
//! # use crate::{notify::Notifier, passed::Passed};
//! let supervisor = Notifier::from_environment()?;
//! let listeners = Passed::from_environment()?.listeners()?;
//! supervisor.ready();
//! // ... accept; and when told to end:
//! supervisor.stopping();
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

/// Most descriptors that may be passed.
pub const PASSED_MAX: usize = 4096;

/// The first descriptor that is passed, behind the standard streams, as systemd, einhorn and socketmaster have it.
pub const PASSED_FIRST: RawFd = 3;
/// The name of a descriptor that was given none, as systemd has it.
pub const UNNAMED: &str = "unknown";

/// What was passed, in the order of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketActivation {
    descriptors: Vec<PassedFd>,
}

impl SocketActivation {
    /// What was passed to this process. Nothing is taken over yet.
    ///
    /// # Errors
    /// [`ActivationError`], in one line that names the variable.
    pub fn from_environment() -> Result<Self, ActivationError> {
        Self::from_variables(|name| env::var_os(name), process::id(), parent_id())
    }

    /// What these variables pass to the process `pid`, whose parent is `parent`.
    ///
    /// # Errors
    /// The same.
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

    /// Whether nothing was passed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
    }

    /// The descriptors.
    #[must_use]
    pub fn as_slice(&self) -> &[PassedFd] {
        &self.descriptors
    }

    /// Takes all of them over, to listen on them.
    ///
    /// # Errors
    /// For the first that is not a listening stream socket, or was taken over before.
    pub fn listeners(&self) -> Result<Vec<Listener>, ListenError> {
        self.descriptors.iter().map(PassedFd::listen).collect()
    }
}

/// A descriptor that was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedFd {
    /// Its number.
    pub number: RawFd,
    /// What the supervisor calls it: of a socket, the name of its unit or the one chosen there; of a stored descriptor, the one that it was
    /// [stored](crate::notify::Notifier::store) under; `unknown` if there is none.
    pub name: String,
}

impl PassedFd {
    /// The address to listen on it: `FD:n`.
    #[must_use]
    pub const fn address(&self) -> Address {
        Address::Descriptor(self.number)
    }

    /// Takes it over, to listen on it.
    ///
    /// # Errors
    /// If it is not a listening stream socket, or was taken over before.
    pub fn listen(&self) -> Result<Listener, ListenError> {
        Listener::bind(&self.address(), &SocketPermissions::default())
    }

    /// Takes it over, whatever it is.
    ///
    /// # Errors
    /// If it is not there, or was taken over before.
    pub fn claim(&self) -> Result<OwnedFd, InheritedFdError> {
        InheritedFd::find(self.number)?.claim()
    }
}

/// The variables of the environment.
struct ActivationEnv<F>(F);

impl<F: Fn(&str) -> Option<OsString>> ActivationEnv<F> {
    /// `None` if they are not there, or meant for another process.
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

    /// A number of descriptors.
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

    /// The value of a variable; an empty one is as good as none.
    fn text(&self, name: &str) -> Result<Option<String>, ActivationError> {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let text = value
            .into_string()
            .map_err(|value| ActivationError::NotText { variable: name.to_owned(), value });
        text.map(Some)
    }
}

/// The descriptor that `word`, of the variable `variable`, names.
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

/// Why the variables say nothing that can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActivationError {
    /// A variable is no text.
    #[error("{variable}={}: not a text", value.display())]
    NotText {
        /// The variable.
        variable: String,
        /// Its value.
        value: OsString,
    },
    /// A variable is no number.
    #[error("{variable}={value}: not a number")]
    NotANumber {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
    },
    /// A variable names what can be no passed descriptor.
    #[error("{variable}: {value:?} is no descriptor; one that is passed is a number from {PASSED_FIRST} on")]
    NotADescriptor {
        /// The variable.
        variable: String,
        /// The word of its value.
        value: String,
    },
    /// There are more descriptors than are taken.
    #[error("{variable}: more than {PASSED_MAX} descriptors")]
    TooMany {
        /// The variable.
        variable: String,
    },
    /// A variable that is counted is not there.
    #[error("{variable} is not set, and EINHORN_FD_COUNT counts it")]
    Missing {
        /// The variable.
        variable: String,
    },
    /// A descriptor is named twice.
    #[error("descriptor {number} is passed twice")]
    Twice {
        /// The descriptor.
        number: RawFd,
    },
    /// There are more or fewer names than descriptors.
    #[error("LISTEN_FDNAMES has {names} names for {descriptors} descriptors")]
    Names {
        /// How many names there are.
        names: usize,
        /// How many descriptors there are.
        descriptors: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fds::tests::{alone, inheritable};
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    /// What is passed to the process 7 of the parent 6, as `number name` each, or the error.
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
    fn systemd_counts_from_three_for_one_process() {
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
    fn einhorn_lists_them_for_its_children() {
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
    fn what_is_meant_for_this_process_counts() {
        let both = |pid| passed(&[("LISTEN_PID", pid), ("LISTEN_FDS", "2"), ("EINHORN_FDS", "3")]);
        assert_eq!(both("7").unwrap(), ["3 unknown", "4 unknown"]);
        assert_eq!(both("8").unwrap(), ["3 unknown"]);
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_variable() {
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
                "EINHORN_FDS: \"x\" is no descriptor; one that is passed is a number from 3 on",
            ),
            (
                vec![("EINHORN_FDS", "2")],
                "EINHORN_FDS: \"2\" is no descriptor; one that is passed is a number from 3 on",
            ),
            (
                vec![("EINHORN_FDS", "99999999999")],
                "EINHORN_FDS: \"99999999999\" is no descriptor; one that is passed is a number from 3 on",
            ),
            (vec![("EINHORN_FDS", "3 4 3")], "descriptor 3 is passed twice"),
            (vec![("EINHORN_FD_COUNT", "many")], "EINHORN_FD_COUNT=many: not a number"),
            (vec![("EINHORN_FD_COUNT", "5000")], "EINHORN_FD_COUNT: more than 4096 descriptors"),
            (
                vec![("EINHORN_FD_COUNT", "2"), ("EINHORN_FD_0", "3")],
                "EINHORN_FD_1 is not set, and EINHORN_FD_COUNT counts it",
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
    fn listeners_are_taken_over_and_leave_their_path_alone() {
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
    fn anything_can_be_passed_but_only_a_listening_socket_be_listened_on() {
        let _alone = alone();
        let (near, _far) = UnixStream::pair().unwrap();
        let descriptor = PassedFd { number: inheritable(near), name: "stored".to_owned() };
        let error = descriptor.listen().unwrap_err();
        assert!(matches!(error, ListenError::NotListening { .. }), "{error}");
        descriptor.claim().unwrap();
        assert!(descriptor.claim().is_err());
    }
}
