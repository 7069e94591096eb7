//! The table of all options of the daemons, made from the pages that they print for `-help`.

use std::fmt::Write as _;

/// The daemons, in the order of the table's columns.
pub(crate) const DAEMONS: [&str; 3] = ["dc_server", "dc_client", "dc_master"];

const BEGIN: &str = "<!-- options: begin";
/// The line below the table.
pub(crate) const END: &str = "<!-- options: end -->";
/// Options of every program that print something and exit.
const ASKING: [&str; 3] = ["-h", "-version", "-completions"];

/// An option as a page of `-help` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HelpLine {
    /// All names and the value: `-server, -connect ADDR`.
    heading: String,
    /// The effect, with "(repeatable)" where it is.
    text: String,
    /// `100000`, `required`, `off` for a flag, or `none`.
    default: String,
}

impl HelpLine {
    /// The option of a line; `None` if the line shows none.
    fn parse(line: &str) -> Option<Self> {
        let (heading, text) = line.strip_prefix("  -")?.split_once("  ")?;
        let (heading, mut text) = (format!("-{heading}"), text.trim().to_owned());
        if ASKING.contains(&heading.split([',', ' ']).next()?) {
            return None;
        }
        let takes_value = heading.ends_with(']') || heading.ends_with(|c: char| c.is_ascii_uppercase());
        let default = if let Some(rest) = text.strip_suffix(" (required)") {
            text = rest.to_owned();
            "*required*".to_owned()
        } else if let Some((rest, default)) = text.strip_suffix(']').and_then(|text| text.rsplit_once(" [")) {
            let default =
                if matches!(default, "on" | "off") { format!("*{default}*") } else { format!("`{default}`") };
            text = rest.to_owned();
            default
        } else if takes_value {
            "*none*".to_owned()
        } else {
            "*off*".to_owned()
        };
        Some(Self { heading, text, default })
    }

    /// The name that the variable is made of.
    fn name(&self) -> &str {
        self.heading.trim_start_matches('-').split([',', ' ']).next().unwrap_or_default()
    }
}

/// An option with its default for each daemon that has it.
struct Row {
    option: HelpLine,
    defaults: [Option<String>; DAEMONS.len()],
}

fn rows(pages: &[String; DAEMONS.len()]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (daemon, page) in pages.iter().enumerate() {
        for option in page.lines().filter_map(HelpLine::parse) {
            let is_same =
                |row: &&mut Row| row.option.heading == option.heading && row.option.text == option.text;
            let default = Some(option.default.clone());
            match rows.iter_mut().find(is_same) {
                Some(row) => row.defaults[daemon] = default,
                None => {
                    let mut defaults = [const { None }; DAEMONS.len()];
                    defaults[daemon] = default;
                    rows.push(Row { option, defaults });
                }
            }
        }
    }
    rows.sort_by(|one, other| one.option.name().cmp(other.option.name()));
    rows
}

/// The program's part of its variables, `SERVER` of `DC_SERVER_LISTEN`, from the example at the end of its
/// page.
fn variable_prefix(page: &str) -> Option<&str> {
    let (_, variable) = page.split_once(" as DC_")?;
    Some(variable.split_once('_')?.0)
}

/// The table, from the pages of [`DAEMONS`].
pub(crate) fn table(pages: &[String; DAEMONS.len()]) -> String {
    let mut table = String::from("\n| option | dc_server | dc_client | dc_master | variable | effect |\n");
    table.push_str("|---|---|---|---|---|---|\n");
    for row in rows(pages) {
        let daemons = pages.iter().zip(&row.defaults).filter(|(_, default)| default.is_some());
        let prefixes: Vec<_> = daemons.filter_map(|(page, _)| variable_prefix(page)).collect();
        let prefix = match prefixes.as_slice() {
            [one] => (*one).to_owned(),
            several => format!("{{{}}}", several.join(",")),
        };
        let name = row.option.name().replace('-', "_").to_uppercase();
        let [server, client, master] = row.defaults.map(Option::unwrap_or_default);
        let (heading, text) = (&row.option.heading, row.option.text.replace('|', "\\|"));
        // Writing to a String does not fail.
        writeln!(table, "| `{heading}` | {server} | {client} | {master} | `DC_{prefix}_{name}` | {text} |")
            .ok();
    }
    table.push('\n');
    table
}

/// The table between the marks of `text`, with the line breaks around it.
pub(crate) fn stated(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(BEGIN)?;
    let (_, rest) = rest.split_once("-->\n")?;
    Some(rest.split_once(END)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &str) -> (String, String, String) {
        let option = HelpLine::parse(line).expect("an option");
        (option.heading, option.text, option.default)
    }

    #[test]
    fn help_line_yields_names_default_and_effect() {
        let parts = |heading: &str, text: &str, default: &str| (heading.into(), text.into(), default.into());
        assert_eq!(row("  -retry MS   Pause [5000]"), parts("-retry MS", "Pause", "`5000`"));
        assert_eq!(row("  -daemon     Detach"), parts("-daemon", "Detach", "*off*"));
        assert_eq!(row("  -user USER  Become it"), parts("-user USER", "Become it", "*none*"));
        assert_eq!(row("  -x, -no-x  Do [on]"), parts("-x, -no-x", "Do", "*on*"));
        assert_eq!(
            row("  -server, -connect ADDR  The server (required)"),
            parts("-server, -connect ADDR", "The server", "*required*")
        );
        assert!(HelpLine::parse("  -h, -help, -?  Print this page").is_none());
        assert!(HelpLine::parse("usage: dc_server [options]").is_none());
    }

    #[test]
    fn option_of_several_daemons_has_one_row() {
        let page = |daemon: &str, line: &str| {
            format!(
                "usage\n\n  -log FILTER  What to log [info]\n{line}\n\ntoo, -log as DC_{daemon}_LOG; ...\n"
            )
        };
        let pages = [page("SERVER", "  -b N  B [1]"), page("CLIENT", "  -a  A"), page("MASTER", "")];
        let table = table(&pages);
        let lines: Vec<_> = table.trim_end().lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "| `-a` |  | *off* |  | `DC_CLIENT_A` | A |",
                "| `-b N` | `1` |  |  | `DC_SERVER_B` | B |",
                "| `-log FILTER` | `info` | `info` | `info` | `DC_{SERVER,CLIENT,MASTER}_LOG` | What to log |",
            ]
        );
    }

    #[test]
    fn stated_table_is_between_the_marks() {
        assert_eq!(stated("a\n<!-- options: begin; x -->\nb\n<!-- options: end -->\nc"), Some("b\n"));
        assert_eq!(stated("a\n<!-- options: end -->"), None);
    }
}
