//! Checks that a program's man page agrees with its options, for the tests of the programs.
//!
//! A page is mdoc and follows a form that can be parsed:
//!
//! ```text
//! .It Fl server Ar ADDR , Fl connect Ar ADDR      all names, the main one first; Op Ar where the value may be left out
//! ... 1 to 3600000 milliseconds ...               the range
//! The default is
//! .Cm 5000 .
//! ```
//!
//! "Required" and "several times" appear only where they are true. Every other `Fl` on the page must also be
//! an option of the program; an option of another program is written `.Ic dc_client -retry`. Nothing here
//! panics.

use dc_cli::{FURTHER, OptionHelp, ProgramInfo};

/// The sections that every page has, in order.
const SECTIONS: [&str; 11] = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "OPTIONS",
    "ENVIRONMENT",
    "FILES",
    "EXIT STATUS",
    "EXAMPLES",
    "DIAGNOSTICS",
    "COMPATIBILITY",
    "SEE ALSO",
];
/// The items that every program has besides its options.
const ALWAYS: [&str; 3] = ["Fl h , Fl help , Fl \\&?", "Fl version", "Fl completions Ar SHELL"];
/// The exit statuses that every program documents.
const STATUSES: [&str; 3] = [".It 0", ".It 1", ".It 64"];

/// Compares `page`, the mdoc man page of `program`, with its `options` ([`ProgramInfo::options`]), and
/// returns the differences.
#[must_use]
pub fn differences(page: &str, program: &ProgramInfo, options: &[OptionHelp]) -> Vec<String> {
    let page = ManPage(page.lines().collect());
    let mut found = page.lacks_sections();
    let items = page.items();
    for option in options.iter().filter(|option| !option.hidden) {
        match items.iter().find(|item| item.names.first() == option.names.first()) {
            Some(item) => found.extend(item.differences(option)),
            None => found.push(format!("-{} is not among the options", option.names[0])),
        }
    }
    let known = |name: &str| options.iter().any(|option| option.names.iter().any(|known| known == name));
    for item in items.iter().filter(|item| !ALWAYS.contains(&item.head)) {
        if !item.names.first().is_some_and(|name| known(name)) {
            found.push(format!("\"{}\" is not an option", item.head));
        }
    }
    for always in ALWAYS.iter().filter(|always| !items.iter().any(|item| item.head == **always)) {
        found.push(format!("\"{always}\" is not among the options"));
    }
    for name in page.0.iter().flat_map(|line| flags(line)) {
        if !known(name) && !["h", "help", "\\&?", "version", "completions"].contains(&name) {
            found.push(format!("-{name} is mentioned and is not an option"));
        }
    }
    found.extend(page.wrong_synopsis(options));
    for always in ALWAYS.iter().filter(|always| !page.shows(always)) {
        found.push(format!("SYNOPSIS does not show \"{always}\""));
    }
    found.extend(page.wrong_environment(program, options));
    found
}

/// A page, as a list of lines.
struct ManPage<'p>(Vec<&'p str>);

impl<'p> ManPage<'p> {
    /// The lines of a section.
    fn section(&self, name: &str) -> impl Iterator<Item = &'p str> {
        let mut lines = self.0.iter().copied();
        lines.by_ref().find(|line| line.strip_prefix(".Sh ") == Some(name));
        lines.take_while(|line| !line.starts_with(".Sh "))
    }

    fn lacks_sections(&self) -> Vec<String> {
        let mut headings = self.0.iter().filter_map(|line| line.strip_prefix(".Sh "));
        let lacking = SECTIONS.iter().filter(|name| !headings.any(|heading| heading == **name));
        let mut found: Vec<String> =
            lacking.map(|name| format!("section {name} is missing or out of order")).collect();
        for status in STATUSES {
            if !self.section("EXIT STATUS").any(|line| line == status) {
                found.push(format!("EXIT STATUS has no \"{status}\""));
            }
        }
        found
    }

    /// The items of OPTIONS, without those of nested lists.
    fn items(&self) -> Vec<ManItem<'p>> {
        let mut items: Vec<ManItem<'p>> = Vec::new();
        let mut depth = 0_usize;
        for line in self.section("OPTIONS") {
            if let Some(head) = line.strip_prefix(".It ").filter(|_| depth == 1) {
                items.push(ManItem::new(head));
            } else if let Some(item) = items.last_mut().filter(|_| depth > 0) {
                item.body.push(line);
            }
            if line.starts_with(".Bl") {
                depth += 1;
            } else if line.starts_with(".El") {
                depth = depth.saturating_sub(1);
            }
        }
        items
    }

    /// Checks that SYNOPSIS shows every option, in brackets unless it is required.
    fn wrong_synopsis(&self, options: &[OptionHelp]) -> Vec<String> {
        let wrong = |option: &&OptionHelp| {
            let shown =
                |line: &&str| flags(line).any(|name| option.names.first().is_some_and(|it| it == name));
            let mut lines = self.section("SYNOPSIS").filter(shown).peekable();
            lines.peek().is_none() || option.required && lines.any(|line| line.starts_with(".Op"))
        };
        let wrong = options.iter().filter(|option| !option.hidden).filter(wrong);
        wrong.map(|option| format!("SYNOPSIS does not show -{} correctly", option.names[0])).collect()
    }

    /// Whether SYNOPSIS has the first name of the item `head`, on a separate line or with its aliases.
    fn shows(&self, head: &str) -> bool {
        let first = flags_of(head).next();
        self.section("SYNOPSIS").any(|line| first.is_some_and(|first| flags(line).any(|name| name == first)))
    }

    /// Checks that ENVIRONMENT names the prefix, the further variables, and no unknown variable.
    fn wrong_environment(&self, program: &ProgramInfo, options: &[OptionHelp]) -> Vec<String> {
        let mentioned: Vec<&str> = self.0.iter().flat_map(|line| arguments(line, "Ev")).collect();
        let mut found = Vec::new();
        let prefix = self
            .section("ENVIRONMENT")
            .any(|line| line.starts_with(&format!(".It Ev {}", program.env_prefix)));
        if !prefix {
            found.push(format!("ENVIRONMENT does not name the prefix {}", program.env_prefix));
        }
        for variable in [program.variables, FURTHER].concat() {
            let applies = options.iter().any(|option| option.names[0] == variable.option);
            if applies && !mentioned.contains(&variable.name) {
                found.push(format!("{} is not among the variables", variable.name));
            }
        }
        let own = mentioned
            .iter()
            .filter(|name| name.starts_with(program.env_prefix) && **name != program.env_prefix);
        let unknown = own.filter(|name| !options.iter().any(|option| option.variable == **name));
        found.extend(unknown.map(|name| format!("{name} is not the variable of an option")));
        found
    }
}

/// One option, as documented on the page.
struct ManItem<'p> {
    head: &'p str,
    names: Vec<String>,
    body: Vec<&'p str>,
}

impl<'p> ManItem<'p> {
    fn new(head: &'p str) -> Self {
        Self { head, names: flags_of(head).map(str::to_owned).collect(), body: Vec::new() }
    }

    fn differences(&self, option: &OptionHelp) -> Vec<String> {
        let value = match &option.metavariable {
            Some(name) if option.value_optional => format!(" Op Ar {name}"),
            Some(name) => format!(" Ar {name}"),
            None => String::new(),
        };
        let head: Vec<String> = option.names.iter().map(|name| format!("Fl {name}{value}")).collect();
        let head = head.join(" , ");
        let body = self.body.join(" ");
        let mut found = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                found.push(format!("-{}: {what}", option.names[0]));
            }
        };
        check(self.head == head, format!("\"{}\" should be \"{head}\"", self.head));
        let default = self.default();
        let expected = option.default.as_deref();
        check(default == expected, format!("the default is {expected:?}, not {default:?}"));
        check(body.contains("Required") == option.required, "\"Required\" must match the option".to_owned());
        check(
            body.contains("several times") == option.repeatable,
            "\"several times\" must match the option".to_owned(),
        );
        if let Some(range) = option.takes.as_deref().and_then(range) {
            check(body.contains(range), format!("takes {range}"));
        }
        found
    }

    fn default(&self) -> Option<&'p str> {
        let at = self.body.iter().position(|line| *line == "The default is")?;
        self.body.get(at + 1)?.strip_prefix(".Cm ")?.strip_suffix(" .")
    }
}

/// The range in the text of an option's value: `1 to 64` in `a number, 1 to 64`. A range without an end
/// counts if it does not begin with 0.
fn range(takes: &str) -> Option<&str> {
    let words: Vec<&str> = takes.split([' ', ',', ';']).collect();
    let number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let found = words.windows(3).find(|three| {
        number(three[0]) && (three[1] == "to" && number(three[2]) || three[1] == "or" && three[0] != "0")
    })?;
    let text = found.join(" ");
    takes.find(&text).map(|at| &takes[at..at + text.len()])
}

/// The names in the head of an item.
fn flags_of(head: &str) -> impl Iterator<Item = &str> {
    head.split(" , ").filter_map(|part| part.strip_prefix("Fl ")?.split(' ').next())
}

/// The options that a line of mdoc names, without their dashes.
fn flags(line: &str) -> impl Iterator<Item = &str> {
    arguments(line, "Fl").map(|name| name.trim_start_matches('-'))
}

/// The arguments of a macro wherever it stands in a line, without punctuation.
fn arguments<'l>(line: &'l str, name: &str) -> impl Iterator<Item = &'l str> {
    let mut within = false;
    let words = line.strip_prefix('.').unwrap_or_default().split(' ');
    words.filter(move |word| {
        let is_macro = word.len() == 2 && word.starts_with(|c: char| c.is_ascii_uppercase());
        if is_macro {
            within = *word == name;
        }
        within
            && !is_macro
            && !word.is_empty()
            && !matches!(*word, "," | "." | ";" | ":" | "|" | "(" | ")" | "=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dc_cli::CommandOptions;
    use dc_cli::duration::milliseconds;
    use std::time::Duration;

    const PROGRAM: ProgramInfo =
        ProgramInfo { name: "dc_it", env_prefix: "DC_IT_", about: "it", variables: &[] };

    #[derive(clap::Args)]
    #[allow(dead_code, reason = "only the declaration of the options is read")]
    struct It {
        /// Where.
        #[arg(long, visible_alias = "connect", required = true)]
        server: String,
        /// How often.
        #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds(1..=3_600_000))]
        retry: Duration,
        /// Whose.
        #[arg(long, num_args = 0..=1)]
        owner: Option<String>,
        /// Log filter.
        #[arg(long)]
        log: Vec<String>,
    }

    impl CommandOptions for It {}

    const PAGE: &str = "\
.Sh NAME
.Sh SYNOPSIS
.Fl server Ar SERVER
.Op Fl retry Ar MS
.Op Fl owner Op Ar OWNER
.Op Fl log Ar LOG
.Fl h | help | \\&?
.Fl version
.Fl completions Ar SHELL
.Sh DESCRIPTION
.Sh OPTIONS
.Fl retry Ns = Ns Ar 5
.Bl -tag -width Ds
.It Fl server Ar SERVER , Fl connect Ar SERVER
Required.
.It Fl retry Ar MS
1 to 3600000 milliseconds:
.Bl -tag -width Ds
.It Fl owner
not a separate item
.El
The default is
.Cm 5000 .
.It Fl owner Op Ar OWNER
Whose.
.It Fl log Ar LOG
May be given several times, as
.Fl server , retry .
.It Fl h , Fl help , Fl \\&?
.It Fl version
.It Fl completions Ar SHELL
.El
.Sh ENVIRONMENT
.It Ev DC_IT_ Ns Ar OPTION
As
.Ev DC_IT_RETRY , RUST_LOG .
.Sh FILES
.Sh EXIT STATUS
.It 0
.It 1
.It 64
.Sh EXAMPLES
.Sh DIAGNOSTICS
.Sh COMPATIBILITY
.Sh SEE ALSO
";

    fn parse(page: &str) -> Vec<String> {
        differences(page, &PROGRAM, &PROGRAM.options::<It>())
    }

    #[test]
    fn accurate_page_has_no_differences() {
        assert_eq!(parse(PAGE), Vec::<String>::new());
    }

    #[test]
    fn inaccurate_page_yields_its_difference() {
        let cases = [
            (".Cm 5000 .", ".Cm 500 .", "-retry: the default"),
            ("The default is", "By default", "-retry: the default"),
            ("Whose.", "The default is\n.Cm me .", "-owner: the default"),
            ("1 to 3600000", "1 to 360000", "-retry: takes 1 to 3600000"),
            (".It Fl retry Ar MS", ".It Fl retry Ar SECS", "-retry: \"Fl retry Ar SECS\" should be"),
            (".It Fl retry Ar MS", ".It Fl redo Ar MS", "-retry is not among the options"),
            (".It Fl retry Ar MS", ".It Fl redo Ar MS", "\"Fl redo Ar MS\" is not an option"),
            (" , Fl connect Ar SERVER", "", "-server: \"Fl server Ar SERVER\" should be"),
            ("owner Op Ar OWNER\nWhose", "owner Ar OWNER\nWhose", "-owner: \"Fl owner Ar OWNER\" should be"),
            ("Required.", "", "-server: \"Required\" must"),
            ("several times", "once", "-log: \"several times\" must"),
            (".Fl server , retry .", ".Fl server , nothing .", "-nothing is mentioned"),
            (".It Fl version\n", "", "\"Fl version\" is not among the options"),
            (".It Fl completions Ar SHELL\n", "", "\"Fl completions Ar SHELL\" is not among the options"),
            (".Fl completions Ar SHELL\n", "", "SYNOPSIS does not show \"Fl completions Ar SHELL\""),
            (".Op Fl retry Ar MS\n", "", "SYNOPSIS does not show -retry"),
            (".Fl server Ar SERVER\n.Op", ".Op Fl server Ar SERVER\n.Op", "SYNOPSIS does not show -server"),
            (".It Ev DC_IT_ Ns", ".It Ev DC_ Ns", "the prefix DC_IT_"),
            ("DC_IT_RETRY", "DC_IT_RETRIES", "DC_IT_RETRIES is not the variable"),
            (" , RUST_LOG", "", "RUST_LOG is not among the variables"),
            (".Sh FILES\n", "", "section FILES is missing"),
            (".It 64\n", "", "\".It 64\""),
        ];
        for (from, to, expected) in cases {
            let broken = PAGE.replacen(from, to, 1);
            assert_ne!(broken, PAGE, "{from} is not in the page");
            let found = parse(&broken);
            assert!(found.iter().any(|it| it.contains(expected)), "{from} -> {to}: {found:?}");
        }
    }
}
