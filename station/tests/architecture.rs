//! Holds the layout: what may stand where, read from the sources themselves.
//!
//! The rules are the table in [`RULES`]; a rule that is broken is named with file and line.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Longest file, tests not counted.
const MAX_LINES: usize = 600;

/// Longest function, from the line it begins with to its closing brace.
const MAX_FUNCTION: usize = 70;

/// Folders that hold what programs made.
const MADE: &[&str] = &["target", "corpus", "artifacts", "coverage"];

/// Names that make a module impure: time, chance, files, network, tasks.
const IMPURE: &[&str] = &[
    "tokio",
    "async_nats",
    "rusqlite",
    "axum",
    "hyper",
    "std::fs",
    "std::net",
    "std::process",
    "Instant::now",
    "Timestamp::now",
    "SystemTime",
    "now_v7",
    "new_v4",
    "async fn",
    "std::thread",
    "std::env",
];

/// What may stand only in some places: the words, and the files they may stand in.
struct Rule {
    why: &'static str,
    words: &'static [&'static str],
    only_in: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        why: "the broker's client has one home in each program",
        words: &["async_nats"],
        only_in: &["agent/src/bus", "station/src/bus"],
    },
    Rule {
        why: "TLS has one home in each program",
        words: &["tokio_rustls", "rustls_native_certs"],
        only_in: &[
            "station/src/bus/dial",
            "station/src/logs/relay/link",
            "agent/src/work/httpget",
            "agent/src/syslog/input/tls",
        ],
    },
    Rule {
        why: "addresses are fetched in one place",
        words: &["ureq"],
        only_in: &["agent/src/work/httpget"],
    },
    Rule {
        why: "the database has one home in each program",
        words: &["rusqlite"],
        only_in: &["agent/src/store", "station/src/store"],
    },
    Rule {
        why: "the web framework has one home, its client another",
        words: &["axum", "hyper::", "hyper_util"],
        only_in: &["station/src/http", "station/src/cli/client"],
    },
    Rule {
        why: "signals of the operating system have one home in each program",
        words: &["tokio::signal", "unix::signal", "signal_hook"],
        only_in: &[
            "agent/src/signals",
            "agent/src/child",
            "station/src/signals",
        ],
    },
    Rule {
        why: "children of the operating system have one home in each program",
        words: &[
            "process::Command",
            "process::Child",
            "process::{Child",
            "process::{Command",
        ],
        only_in: &[
            "agent/src/child",
            "agent/benches/warden",
            "station/benches/logs",
            "station/src/broker",
            "station/src/demo",
            "station/src/cli/demo",
            "simulator/src/lab/child",
            "simulator/src/lab/logs/store",
        ],
    },
    Rule {
        why: "only main ends the program",
        words: &["process::exit", "process::abort"],
        only_in: &["agent/src/main.rs", "station/src/main.rs"],
    },
    Rule {
        why: "the station never knows the agent",
        words: &["steward_agent"],
        only_in: &[
            "agent/",
            "simulator/src/sim/",
            "simulator/src/lab/forwarding/",
        ],
    },
    Rule {
        why: "the agent never knows the station",
        words: &["steward_station"],
        only_in: &["station/", "simulator/"],
    },
];

/// Modules that decide and never act.
const PURE: &[&str] = &[
    "protocol/src/",
    "agent/src/journal",
    "agent/src/check",
    "agent/src/dispatch",
    "agent/src/supervisor/kernel",
    "agent/src/syslog/input/files/book",
    "agent/src/syslog/input/files/kin",
    "agent/src/syslog/input/files/lines",
    "agent/src/syslog/input/files/settle",
    "agent/src/syslog/route",
    "agent/src/syslog/send",
    "station/src/delivery",
    "station/src/courier",
    "station/src/roster",
    "station/src/view",
    "station/src/why",
    "station/src/station/uplink",
    "station/src/station/offenders",
    "station/src/bus/wire",
    "station/src/bus/intake",
    "station/src/logs/follow/cursor",
    "station/src/logs/follow/walk",
    "station/src/logs/index",
    "station/src/logs/mirror/text",
    "station/src/logs/name",
    "station/src/logs/relay/wire",
    "station/src/logs/take",
    "station/src/inbox/intake",
    "station/src/inbox/canonical",
    "station/src/inbox/tree",
    "station/src/inbox/locate",
    "station/src/inbox/shapes",
    "simulator/src/sim",
    "simulator/src/lab/judge",
    "simulator/src/lab/traffic",
    "simulator/src/lab/figures",
    "simulator/src/lab/dice",
    "simulator/src/lab/proxy/frame",
];

/// Names of what waits for others, runs beside others or reaches beyond the files.
const ASYNCHRONOUS: &[&str] = &[
    "tokio",
    "futures",
    "async_nats",
    "rusqlite",
    "axum",
    "hyper",
    "tracing",
    "async fn",
    ".await",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
];

/// What works on files for both programs, and knows of nothing else.
const SYNCHRONOUS: &[&str] = &["protocol/files/src/"];

/// What stands among them and is not pure: it takes the time of whole runs.
const TIMED: &str = "simulator/src/sim/run.rs";

/// One source file: its place below the top, and its lines without comments.
struct Source {
    place: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.place.contains("/tests/") || self.place.ends_with("tests.rs")
    }

    /// Lines without the file's own tests, with their numbers.
    fn lines(&self) -> Vec<(usize, &str)> {
        let mut lines = Vec::new();
        let mut all = (1..).zip(self.text.lines());
        while let Some((number, line)) = all.next() {
            if line == "#[cfg(test)]" {
                // The tests end where their module does, which may be in another file.
                all.by_ref().find(|(_, line)| {
                    *line == "}" || line.ends_with(';') && !line.starts_with(' ')
                });
            } else {
                lines.push((number, line));
            }
        }
        lines
    }

    /// The same without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_code = |line: &str| !line.trim_start().starts_with("//");
        self.lines()
            .into_iter()
            .filter(move |(_, line)| is_code(line))
    }

    /// Functions: the line each begins in, its name, and how many lines it has. Relies on the format
    /// that rustfmt gives: what closes a function stands as far in as what opens it.
    fn functions(&self) -> Vec<(usize, &str, usize)> {
        let lines = self.lines();
        let mut found = Vec::new();
        for (index, (number, line)) in lines.iter().enumerate() {
            let Some(name) = function(line) else {
                continue;
            };
            let indent = line.len() - line.trim_start().len();
            let is_end = |line: &str| {
                let depth = line.len() - line.trim_start().len();
                depth == indent && (line.ends_with('}') || line.ends_with(';'))
            };
            let length = lines[index..].iter().position(|(_, line)| is_end(line));
            let length = length.map_or(lines.len() - index, |last| last + 1);
            found.push((*number, name, length));
        }
        found
    }

    fn names(&self, word: &str) -> Vec<String> {
        let found = self.code().filter(|(_, line)| line.contains(word));
        found
            .map(|(line, _)| format!("{}:{line} has {word:?}", self.place))
            .collect()
    }
}

/// Returns the name of the function that a line begins, if it begins one.
fn function(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_prefix = |word: &str| {
        [
            "pub", "const", "async", "unsafe", "extern", "\"C\"", "default",
        ]
        .contains(&word)
            || word.starts_with("pub(")
            || word.ends_with(')')
    };
    let name = after
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()?;
    (!name.is_empty() && before.split_whitespace().all(is_prefix)).then_some(name)
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

fn manifest(member: &str) -> String {
    fs::read_to_string(top().join(member).join("Cargo.toml")).expect("a readable manifest")
}

/// The crates of the workspace, by their folders.
fn members() -> Vec<String> {
    let manifest = manifest("");
    let (_, list) = manifest.split_once("members = [").expect("a workspace");
    let (list, _) = list.split_once(']').expect("an end of the list");
    let names = list.split(',').map(|name| name.trim().trim_matches('"'));
    let names: Vec<_> = names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 3, "the crates were not found");
    names
}

fn sources() -> Vec<Source> {
    let top = top();
    let mut found = Vec::new();
    let members = members();
    for member in &members {
        // A crate within another one is found there.
        let within = |other: &String| member.starts_with(&format!("{other}/"));
        if !members.iter().any(within) {
            collect(&top, &top.join(member), &mut found);
        }
    }
    assert!(found.len() > 30, "the sources were not found");
    found
}

fn collect(top: &Path, directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str());
        if path.is_dir() {
            if !name.is_some_and(|name| MADE.contains(&name)) {
                collect(top, &path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let place = path
                .strip_prefix(top)
                .expect("below the top")
                .display()
                .to_string();
            found.push(Source {
                place,
                text: fs::read_to_string(&path).expect("a readable file"),
            });
        }
    }
}

fn check(broken: Vec<String>) {
    assert!(
        broken.is_empty(),
        "the layout is broken:\n{}",
        broken.join("\n")
    );
}

#[test]
fn layout_every_outside_thing_has_one_home() {
    let sources = sources();
    let mut broken = Vec::new();
    for rule in RULES {
        for source in sources.iter().filter(|source| !source.is_test()) {
            if rule
                .only_in
                .iter()
                .any(|home| source.place.starts_with(home))
            {
                continue;
            }
            for word in rule.words {
                broken.extend(
                    source
                        .names(word)
                        .into_iter()
                        .map(|place| format!("{place}: {}", rule.why)),
                );
            }
        }
    }
    check(broken);
}

/// Checks that none of the words stands in any of the homes.
fn check_absent(words: &[&str], homes: &[&str]) {
    let sources = sources();
    for home in homes {
        assert!(
            sources.iter().any(|source| source.place.starts_with(home)),
            "nothing at {home}"
        );
    }
    let mut broken = Vec::new();
    let counts = |source: &&Source| !source.is_test() && source.place != TIMED;
    for source in sources.iter().filter(counts) {
        if homes.iter().any(|home| source.place.starts_with(home)) {
            broken.extend(words.iter().flat_map(|word| source.names(word)));
        }
    }
    check(broken);
}

#[test]
fn layout_what_decides_does_not_act() {
    check_absent(IMPURE, PURE);
}

#[test]
fn layout_work_on_files_is_synchronous_and_knows_nothing_else() {
    check_absent(ASYNCHRONOUS, SYNCHRONOUS);
}

#[test]
fn layout_no_function_is_too_long_to_read() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (line, name, length) in source.functions() {
            if length > MAX_FUNCTION {
                broken.push(format!(
                    "{}:{line} {name} has {length} lines; at most {MAX_FUNCTION}",
                    source.place
                ));
            }
        }
    }
    check(broken);
}

#[test]
fn layout_functions_are_found_and_measured() {
    let text = "\
pub(in crate::work) async fn first(
    argument: u8,
) -> u8 {
    let closure = || {
        1
    };
    argument
}
trait Shape {
    fn second(&self) -> u8;
    const fn third() {}
}
#[cfg(test)]
mod tests;
impl Shape for () {
    fn second(&self) -> u8
    where
        Self: Sized,
    {
        // fn commented() {
        call(|fn_pointer| fn_pointer)
    }
}
#[cfg(test)]
mod more {
    use super::*;

    fn of_a_test() {
    }
}
fn last() {
}
";
    let source = Source {
        place: String::new(),
        text: text.to_owned(),
    };
    assert_eq!(
        source.functions(),
        [
            (1, "first", 8),
            (10, "second", 1),
            (11, "third", 1),
            (16, "second", 7),
            (31, "last", 2),
        ]
    );
}

#[test]
fn layout_every_file_says_its_job_and_stays_readable() {
    let mut broken = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!") {
            broken.push(format!("{} does not begin with its one job", source.place));
        }
        let lines = source.lines().len();
        if lines > MAX_LINES && !source.is_test() {
            broken.push(format!(
                "{} has {lines} lines; at most {MAX_LINES}",
                source.place
            ));
        }
        let name = source.place.rsplit('/').next().unwrap_or_default();
        if ["mod.rs", "common.rs", "utils.rs", "helpers.rs"].contains(&name) {
            broken.push(format!("{} has a name that says nothing", source.place));
        }
    }
    check(broken);
}

#[test]
fn layout_dependencies_point_one_way() {
    for (member, forbidden) in [
        (
            "protocol",
            &[
                "steward-agent",
                "steward-files",
                "steward-station",
                "tokio",
                "async-nats",
                "rusqlite",
                "rustix",
            ][..],
        ),
        (
            "protocol/files",
            &[
                "steward-agent",
                "steward-station",
                "async-nats",
                "axum",
                "futures-util",
                "hyper",
                "rusqlite",
                "tokio",
                "tokio-util",
                "tracing",
            ][..],
        ),
        ("agent", &["steward-station", "axum"][..]),
        ("station", &["steward-agent"][..]),
    ] {
        for dependency in forbidden {
            let named = manifest(member)
                .lines()
                .any(|line| line.starts_with(&format!("{dependency}.")));
            assert!(!named, "{member} depends on {dependency}");
        }
    }
    for member in members() {
        let own_version = manifest(&member).lines().any(|line| {
            line.contains(" = \"")
                && line.contains('.')
                && line.starts_with(|c: char| c.is_ascii_lowercase())
                && line.contains("version = \"")
        });
        assert!(
            !own_version,
            "{member} declares a version of its own; versions stand once, at the top"
        );
    }
}
