//! The programs, built before the first one is started.
//!
//! `cargo test -p dc-tests` builds nothing of other packages, so the harness runs cargo itself: once in each
//! process, with the profile and the target directory of the test. The cargo that started the tests has
//! released its lock by then. If `DC_PROGRAMS` names a directory, the programs there are used and nothing is
//! built.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The variable with the directory of prebuilt programs.
const PROGRAMS: &str = "DC_PROGRAMS";
const PACKAGES: [&str; 7] =
    ["dc-server", "dc-client", "dc-lock", "dc-master", "dc-snoop", "dc-test", "dc-tests"];
/// The examples that tests start, each with its package.
const EXAMPLES: [(&str, &str); 3] = [("dc-daemon", "good_child"), ("libdc", "locks"), ("libdc", "sessions")];

/// The directory of the programs, which are built on the first call.
#[must_use]
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| match env::var_os(PROGRAMS) {
        Some(directory) => PathBuf::from(directory),
        None => build(),
    })
}

/// The path of a program, such as `dc_server`, or of an example.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let is_example = EXAMPLES.iter().any(|(_, example)| *example == name);
    let path = if is_example { example(name) } else { directory().join(name) };
    assert!(path.exists(), "there is no {}: cargo build --workspace", path.display());
    path
}

/// The directory with the programs of the last release, built by `tests/last-release` on the first call.
/// `None` if the build fails, as in a clone without history; panics under `DISTCACHE_TESTS_REQUIRE=1`.
#[must_use]
pub fn last_release() -> Option<&'static Path> {
    static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/last-release"));
        let test = env::current_exe().expect("the path of this program");
        script.envs(ProgramBuild::from_path(&test).map(|build| ("CARGO_TARGET_DIR", build.target_directory)));
        let done = script.output().expect("tests/last-release to run");
        if done.status.success() {
            return Some(PathBuf::from(String::from_utf8_lossy(&done.stdout).trim_end()));
        }
        let reason = String::from_utf8_lossy(&done.stderr);
        assert!(
            env::var_os("DISTCACHE_TESTS_REQUIRE").is_none_or(|value| value != "1"),
            "{script:?}: {reason}"
        );
        println!("skipped, the programs of the last release cannot be built: {reason}");
        None
    };
    DIRECTORY.get_or_init(build).as_deref()
}

/// The path of an example, which is built on the first call.
fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    if env::var_os(PROGRAMS).is_some() {
        return directory().join(name);
    }
    BUILT.get_or_init(|| {
        // Built with `--workspace`, as `cargo test --workspace` does: a build of one package has other
        // features of the dependencies, and would rebuild most of them.
        let examples = EXAMPLES.iter().flat_map(|(_, name)| ["--example", name]);
        build_with(&["--workspace"].into_iter().chain(examples).collect::<Vec<_>>());
    });
    directory().join("examples").join(name)
}

/// Builds all programs. Returns their directory.
fn build() -> PathBuf {
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    build_with(&["--bins"].into_iter().chain(packages).collect::<Vec<_>>())
}

/// Runs `cargo build` with these arguments. Returns the directory of the programs.
fn build_with(what: &[&str]) -> PathBuf {
    let test = env::current_exe().expect("the path of this program");
    let build = ProgramBuild::from_path(&test).unwrap_or_else(|| {
        panic!(
            "{} is in no target directory of cargo: set {PROGRAMS} to the directory with dc_server",
            test.display()
        )
    });
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    cargo.arg("--target-dir").arg(&build.target_directory);
    cargo.arg("--profile").arg(&build.profile);
    cargo.args(build.triple.iter().flat_map(|triple| ["--target", triple]));
    cargo.args(what);
    let done = cargo.output().unwrap_or_else(|error| {
        panic!("cannot run cargo: {error}; set {PROGRAMS} to the directory with dc_server")
    });
    assert!(done.status.success(), "{cargo:?} failed:\n{}", String::from_utf8_lossy(&done.stderr));
    build.directory
}

/// How a program was built, derived from its path.
#[derive(Debug, PartialEq, Eq)]
struct ProgramBuild {
    directory: PathBuf,
    target_directory: PathBuf,
    triple: Option<String>,
    profile: String,
}

impl ProgramBuild {
    /// `TARGET/[TRIPLE/]PROFILE/[deps/]PROGRAM`, where cargo has marked TARGET.
    fn from_path(program: &Path) -> Option<Self> {
        let mut directory = program.parent()?;
        if directory.ends_with("deps") {
            directory = directory.parent()?;
        }
        let profile = match directory.file_name()?.to_str()? {
            "debug" => "dev",
            other => other,
        };
        let above = directory.parent()?;
        let is_target = |path: &Path| path.join(".rustc_info.json").exists();
        let (target_directory, triple) = if is_target(above) {
            (above, None)
        } else {
            (above.parent().filter(|path| is_target(path))?, Some(above.file_name()?.to_str()?.to_owned()))
        };
        Some(Self {
            directory: directory.to_owned(),
            target_directory: target_directory.to_owned(),
            triple,
            profile: profile.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::test_dir::TestDir;

    fn build_of(dir: &TestDir, path: &str) -> Option<(PathBuf, Option<String>, String)> {
        let build = ProgramBuild::from_path(&dir.file(path))?;
        assert_eq!(build.target_directory, dir.path());
        let directory = build.directory.strip_prefix(dir.path()).unwrap().to_owned();
        Some((directory, build.triple, build.profile))
    }

    #[test]
    fn program_path_reveals_profile_and_triple() {
        let dir = TestDir::new();
        std::fs::write(dir.file(".rustc_info.json"), "{}").unwrap();
        let triple = "x86_64-unknown-linux-musl";
        let dev = Some(("debug".into(), None, "dev".into()));
        assert_eq!(build_of(&dir, "debug/deps/system-0123"), dev);
        assert_eq!(build_of(&dir, "release/dc_demo"), Some(("release".into(), None, "release".into())));
        assert_eq!(
            build_of(&dir, &format!("{triple}/profiling/deps/system-0123")),
            Some((Path::new(triple).join("profiling"), Some(triple.into()), "profiling".into()))
        );
        assert_eq!(ProgramBuild::from_path(Path::new("/usr/bin/dc_demo")), None);
    }
}
