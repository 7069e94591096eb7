//! The options of `dc_snoop`, and the actions they select.

use crate::filter::Filter;
use dc_cli::address::{Address, address, peer_address};
use dc_cli::count::count;
use dc_cli::duration::seconds;
use dc_cli::{CommandOptions, ProgramInfo, UsageError, ValueError};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const PROGRAM: ProgramInfo = ProgramInfo {
    name: "dc_snoop",
    env_prefix: "DC_SNOOP_",
    about: "relays distcache traffic unchanged and shows it",
    variables: &[],
};

#[derive(Debug, clap::Args)]
pub(crate) struct SnoopOptions {
    /// Where to listen.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    listen: Option<Address>,
    /// Where every connection that is accepted is relayed to.
    #[arg(long, visible_alias = "connect", value_name = "ADDR", value_parser = peer_address)]
    server: Option<Address>,
    /// Show what is in a capture (pcapng or pcap, - is the standard input) instead of relaying.
    #[arg(long, value_name = "FILE")]
    read: Option<PathBuf>,
    /// Write what passes to a capture for Wireshark, all of it whatever the filters.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Show only op=NAME, conn=N, id=HEX, key=PREFIX, status=NAME, failed; with commas all of them, given
    /// several times any.
    #[arg(long, value_name = "TERMS", value_parser = filter)]
    filter: Vec<Filter>,
    /// End after this many messages.
    #[arg(long, value_name = "N", value_parser = count::<u64>(1..))]
    count: Option<u64>,
    /// Show rates, hit ratio and latencies this often instead of messages.
    #[arg(long, value_name = "SECS", value_parser = seconds(..=86_400))]
    stats: Option<Duration>,
    /// Show connections being opened and closed too.
    #[arg(long)]
    connections: bool,
    /// Dump the bytes of each record.
    #[arg(long)]
    hex: bool,
    /// Print one object of JSON a line.
    #[arg(long)]
    json: bool,
    /// Show session data and tokens themselves, not their lengths and digests.
    #[arg(long)]
    secrets: bool,
}

#[derive(Debug)]
pub(crate) enum SnoopAction {
    /// Relay between two addresses, and write a capture if `write` is set.
    Relay { listen: Address, server: Address, write: Option<PathBuf> },
    /// Decode a capture file.
    Read(PathBuf),
}

/// The contents and format of the output.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) filters: Vec<Filter>,
    pub(crate) count: Option<u64>,
    pub(crate) stats: Option<Duration>,
    pub(crate) connections: bool,
    pub(crate) hex: bool,
    pub(crate) json: bool,
    pub(crate) secrets: bool,
}

impl CommandOptions for SnoopOptions {
    fn check(&self) -> Result<(), UsageError> {
        if self.stats.is_some_and(|time| time.is_zero()) {
            return Err(UsageError::inconsistent("stats", "is 0, which is no time; it takes 1ms to 24h"));
        }
        match (&self.read, &self.listen, &self.server, &self.write) {
            (None, None, _, _) => Err(UsageError::inconsistent("listen", "is missing (or -read)")),
            (None, _, None, _) => Err(UsageError::inconsistent("server", "is missing (or -read)")),
            (Some(_), Some(_), _, _) => Err(UsageError::inconsistent("listen", "does not go with -read")),
            (Some(_), _, Some(_), _) => Err(UsageError::inconsistent("server", "does not go with -read")),
            (Some(_), _, _, Some(_)) => Err(UsageError::inconsistent("write", "does not go with -read")),
            _ => Ok(()),
        }
    }
}

impl SnoopOptions {
    /// The action and the view. `None` for a combination that the check rejects.
    pub(crate) fn into_parts(self) -> Option<(SnoopAction, View)> {
        let action = match self.read {
            Some(file) => SnoopAction::Read(file),
            None => SnoopAction::Relay { listen: self.listen?, server: self.server?, write: self.write },
        };
        let view = View {
            filters: self.filter,
            count: self.count,
            stats: self.stats,
            connections: self.connections,
            hex: self.hex,
            json: self.json,
            secrets: self.secrets,
        };
        Some((action, view))
    }
}

fn filter(text: &str) -> Result<Filter, ValueError> {
    text.parse()
        .map_err(|error| ValueError { wrong: format!("is not a filter: {error}").into(), takes: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(SnoopAction, View), String> {
        let args = line.split_whitespace().map(Into::into);
        let options: SnoopOptions =
            PROGRAM.try_parse(args, |_| None).map_err(|stop| stop.text().to_owned())?;
        options.into_parts().ok_or_else(|| "refused by the check".to_owned())
    }

    #[test]
    fn relaying_takes_two_addresses_and_reading_a_file() {
        let (action, view) =
            parse("-listen IP:1 --server=UNIX:/x -filter op=GET,failed -filter conn=3 -count 5").unwrap();
        assert!(matches!(action, SnoopAction::Relay { write: None, .. }));
        assert_eq!((view.filters.len(), view.count), (2, Some(5)));
        let (action, view) = parse("-read x -stats 500ms -json").unwrap();
        assert!(matches!(action, SnoopAction::Read(path) if path.as_os_str() == "x"));
        assert_eq!((view.stats, view.json), (Some(Duration::from_millis(500)), true));
    }

    #[test]
    fn a_mistake_names_its_option() {
        let cases = [
            ("", "-listen is missing"),
            ("-listen IP:1", "-server is missing"),
            ("-read x -listen IP:1", "-listen does not go with -read"),
            ("-read x -server IP:1", "-server does not go with -read"),
            ("-read x -write y", "-write does not go with -read"),
            ("-listen IP:1 -server FD:3", "-server \"FD:3\" is a descriptor"),
            ("-listen IP:1 -server IP:0", "-server \"IP:0\" has port 0"),
            ("-read x -stats 0", "-stats is 0"),
            ("-read x -count 0", "-count"),
            ("-read x -filter op=PUT", "op= takes ADD, GET"),
            ("-listen 9001 -server IP:1", "-listen"),
        ];
        for (line, part) in cases {
            let text = parse(line).unwrap_err();
            assert!(text.contains(part), "{line}: {text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn the_manual_says_what_is_taken() {
        let page = include_str!("../../man/dc_snoop.1");
        let differences = dc_tests::man_page::differences(page, &PROGRAM, &PROGRAM.options::<SnoopOptions>());
        assert!(differences.is_empty(), "{differences:#?}");
    }
}
