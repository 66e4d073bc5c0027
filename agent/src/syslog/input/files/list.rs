//! Finds the files that patterns stand for, and those beside them, which may be rotated ones. It knows nothing of what is
//! in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

use super::{
    book::{Key, Packing},
    settle::{Entry, Listing},
};
use crate::config::syslog::Files;

/// Most directories of an input: each is listed again and again, and watched.
const MAX_DIRS: usize = 1024;

/// How deep `**` goes.
const MAX_DEPTH: usize = 16;

/// Most files of all those directories together that are looked at.
const MAX_ENTRIES: usize = 100_000;

/// As a shell does it, but with differences between large and small letters.
const AS_A_SHELL: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// One step of a path.
#[derive(Debug, Clone)]
enum Step {
    Name(String),
    Any(Pattern),
    /// Directories, as deep as there are any.
    Deep,
}

/// The patterns of an input.
#[derive(Debug)]
pub(super) struct Patterns {
    paths: Vec<(Vec<Step>, Pattern)>,
    exclude: Vec<Pattern>,
}

impl Patterns {
    /// Takes patterns that were checked before; one that is none stands for nothing.
    pub(super) fn new(files: &Files) -> Self {
        let path = |text: &String| {
            let (dir, name) = text.rsplit_once('/')?;
            let dir = dir.split('/').filter(|step| !step.is_empty());
            let steps = dir.map(step).collect::<Option<Vec<Step>>>()?;
            Some((steps, Pattern::new(name).ok()?))
        };
        let exclude = files.exclude.iter();
        Self {
            paths: files.patterns.iter().filter_map(path).collect(),
            exclude: exclude.filter_map(|text| Pattern::new(text).ok()).collect(),
        }
    }

    /// Lists what is there now.
    pub(super) fn list(&self) -> Listing {
        let mut listing = Listing::default();
        let (mut dirs, mut looked) = (BTreeMap::<PathBuf, Vec<&Pattern>>::new(), BTreeSet::new());
        for (steps, name) in &self.paths {
            let mut found = Vec::new();
            walk(Path::new("/"), steps, 0, &mut found, &mut looked);
            for dir in found {
                dirs.entry(dir).or_default().push(name);
            }
        }
        listing.is_cut = dirs.len() > MAX_DIRS;
        for (dir, names) in dirs.iter().take(MAX_DIRS) {
            looked.insert(dir.clone());
            if let Err(error) = self.look(dir, names, &mut listing)
                && error.kind() != ErrorKind::NotFound
            {
                listing.unread.push((dir.clone(), error.to_string()));
            }
        }
        listing.dirs = looked.into_iter().take(MAX_DIRS).collect();
        listing
            .entries
            .sort_by(|one, other| one.path.cmp(&other.path));
        listing
    }

    fn look(&self, dir: &Path, names: &[&Pattern], listing: &mut Listing) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                continue;
            }
            if listing.entries.len() >= MAX_ENTRIES {
                listing.is_cut = true;
                return Ok(());
            }
            let path = entry.path();
            // It may be gone meanwhile, or lead nowhere.
            let Ok(found) = fs::metadata(&path) else {
                continue;
            };
            if !found.is_file() {
                continue;
            }
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_wanted = names.iter().any(|one| one.matches_with(&name, AS_A_SHELL))
                && Packing::of(&name).0 == Packing::Plain
                && !self.is_excluded(&path);
            listing.has_links |= is_wanted && kind.is_symlink();
            listing.entries.push(Entry {
                path,
                key: key(&found),
                size: found.len(),
                modified: modified(&found),
                is_wanted,
            });
        }
        Ok(())
    }

    fn is_excluded(&self, path: &Path) -> bool {
        let options = MatchOptions {
            require_literal_leading_dot: false,
            ..AS_A_SHELL
        };
        let mut patterns = self.exclude.iter();
        patterns.any(|one| one.matches_path_with(path, options))
    }
}

pub(super) fn key(found: &Metadata) -> Key {
    Key(found.dev(), found.ino())
}

pub(super) fn modified(found: &Metadata) -> i64 {
    const NANOS: i64 = 1_000_000_000;
    let seconds = found.mtime().saturating_mul(NANOS);
    seconds.saturating_add(found.mtime_nsec())
}

fn step(text: &str) -> Option<Step> {
    Some(match text {
        "**" => Step::Deep,
        text if text.contains(['*', '?', '[']) => Step::Any(Pattern::new(text).ok()?),
        text => Step::Name(text.to_owned()),
    })
}

/// Finds the directories that steps lead to; `looked` are those that were listed on the way.
fn walk(
    dir: &Path,
    steps: &[Step],
    depth: usize,
    found: &mut Vec<PathBuf>,
    looked: &mut BTreeSet<PathBuf>,
) {
    if found.len() > MAX_DIRS {
        return;
    }
    let Some((step, rest)) = steps.split_first() else {
        found.push(dir.to_owned());
        return;
    };
    match step {
        Step::Name(name) => walk(&dir.join(name), rest, depth, found, looked),
        Step::Any(pattern) => {
            for (path, name) in directories(dir, looked) {
                if pattern.matches_with(&name, AS_A_SHELL) {
                    walk(&path, rest, depth, found, looked);
                }
            }
        }
        Step::Deep => {
            walk(dir, rest, depth, found, looked);
            if depth < MAX_DEPTH {
                for (path, name) in directories(dir, looked) {
                    if !name.starts_with('.') {
                        walk(&path, steps, depth + 1, found, looked);
                    }
                }
            }
        }
    }
}

fn directories(dir: &Path, looked: &mut BTreeSet<PathBuf>) -> Vec<(PathBuf, String)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    if looked.len() < MAX_DIRS {
        looked.insert(dir.to_owned());
    }
    let entries = entries.filter_map(Result::ok);
    let directory = |entry: fs::DirEntry| {
        let is_one = entry
            .file_type()
            .is_ok_and(|kind| kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()));
        is_one.then(|| {
            (
                entry.path(),
                entry.file_name().to_string_lossy().into_owned(),
            )
        })
    };
    entries.filter_map(directory).take(MAX_DIRS).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::syslog::Start;

    #[test]
    fn patterns_stand_for_what_a_shell_would_find() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        for path in [
            "a.log",
            "b.log",
            ".hidden.log",
            "a.log.1",
            "b.txt",
            "c.log.gz",
            "x/a.log",
            "y/b.log",
            "x/deep/er/d.log",
            "x/.secret/e.log",
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("it is made");
            fs::write(path, "x").expect("it is written");
        }
        let list = |patterns: &[&str], exclude: &[&str]| {
            let whole = |texts: &[&str]| {
                let texts = texts
                    .iter()
                    .map(|text| format!("{}/{text}", root.display()));
                texts.collect::<Vec<_>>()
            };
            let files = Files {
                patterns: whole(patterns),
                exclude: whole(exclude),
                from: Start::Beginning,
                multiline: None,
                pause: Duration::ZERO,
            };
            let listing = Patterns::new(&files).list();
            let wanted = listing.entries.into_iter().filter(|entry| entry.is_wanted);
            let name = |entry: Entry| {
                let path = entry.path.strip_prefix(root).expect("a path there");
                path.display().to_string()
            };
            wanted.map(name).collect::<Vec<_>>()
        };
        let none: &[&str] = &[];
        for (patterns, exclude, wanted) in [
            (&["*.log"][..], &[][..], &["a.log", "b.log"][..]),
            (&["*.log"], &["b*"], &["a.log"]),
            (&["[ab].*"], &[], &["a.log", "a.log.1", "b.log", "b.txt"]),
            (&["?/*.log"], &[], &["x/a.log", "y/b.log"]),
            (
                &["**/*.log"],
                &["**/a.log"],
                &["b.log", "x/deep/er/d.log", "y/b.log"],
            ),
            (&["a.log", "y/b.log"], &[], &["a.log", "y/b.log"]),
            (&["nothing/*"], &[], none),
            (&["*.gz"], &[], none),
        ] {
            assert_eq!(list(patterns, exclude), wanted, "{patterns:?}");
        }
    }

    #[test]
    fn what_lies_beside_is_listed_but_not_wanted() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["app.log", "app.log.1", "app.log.2.gz"] {
            fs::write(dir.path().join(name), name).expect("it is written");
        }
        let files = Files {
            patterns: vec![format!("{}/*.log", dir.path().display())],
            exclude: Vec::new(),
            from: Start::Beginning,
            multiline: None,
            pause: Duration::ZERO,
        };
        let listing = Patterns::new(&files).list();
        let wanted: Vec<bool> = listing
            .entries
            .iter()
            .map(|entry| entry.is_wanted)
            .collect();
        assert_eq!(wanted, [true, false, false]);
        assert!(listing.dirs.contains(&dir.path().to_owned()));
    }
}
