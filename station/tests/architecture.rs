//! Holds the layout: what may stand where, read from the sources themselves.
//!
//! The rules are the table in [`RULES`]; a rule that is broken is named with file and line.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Longest file, tests not counted.
const MAX_LINES: usize = 600;

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
        why: "what is secret on the way to the broker has one home",
        words: &["tokio_rustls", "rustls_native_certs"],
        only_in: &["station/src/bus/dial"],
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
        words: &["tokio::signal", "unix::signal"],
        only_in: &["agent/src/signals", "station/src/signals"],
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
            "station/src/broker",
            "station/src/demo",
            "station/src/cli/demo",
            "simulator/src/lab/child",
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
        only_in: &["agent/", "simulator/src/sim/"],
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
    "station/src/delivery",
    "station/src/courier",
    "station/src/roster",
    "station/src/view",
    "station/src/why",
    "station/src/station/uplink",
    "station/src/station/offenders",
    "station/src/bus/wire",
    "station/src/bus/intake",
    "station/src/nearest",
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

    /// Lines of code before the file's own tests, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| *line != "#[cfg(test)]")
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn names(&self, word: &str) -> Vec<String> {
        let found = self.code().filter(|(_, line)| line.contains(word));
        found
            .map(|(line, _)| format!("{}:{line} has {word:?}", self.place))
            .collect()
    }
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

fn sources() -> Vec<Source> {
    let top = top();
    let mut found = Vec::new();
    for member in ["protocol", "agent", "station", "simulator"] {
        collect(&top, &top.join(member), &mut found);
    }
    assert!(found.len() > 30, "the sources were not found");
    found
}

fn collect(top: &Path, directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(top, &path, found);
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

#[test]
fn layout_what_decides_does_not_act() {
    let sources = sources();
    for home in PURE {
        assert!(
            sources.iter().any(|source| source.place.starts_with(home)),
            "nothing at {home}"
        );
    }
    let mut broken = Vec::new();
    let decides = |source: &&Source| !source.is_test() && source.place != TIMED;
    for source in sources.iter().filter(decides) {
        if PURE.iter().any(|home| source.place.starts_with(home)) {
            broken.extend(IMPURE.iter().flat_map(|word| source.names(word)));
        }
    }
    check(broken);
}

#[test]
fn layout_every_file_says_its_job_and_stays_readable() {
    let mut broken = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!") {
            broken.push(format!("{} does not begin with its one job", source.place));
        }
        let lines = source
            .text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .count();
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
    let manifest = |member: &str| {
        fs::read_to_string(top().join(member).join("Cargo.toml")).expect("a readable manifest")
    };
    for (member, forbidden) in [
        (
            "protocol",
            &[
                "steward-agent",
                "steward-station",
                "tokio",
                "async-nats",
                "rusqlite",
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
    for member in ["protocol", "agent", "station", "simulator"] {
        let own_version = manifest(member).lines().any(|line| {
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
