//! Which names belong to a log when it is rotated: `app.log.1`, `app.log-20261121.gz`, `app-20261121.log`. It looks at
//! names only.

use std::path::{Path, PathBuf};

use super::book::Packing;

/// How a name is related to that of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kin {
    /// Not at all.
    None,
    /// It begins like it: a copy that somebody made, perhaps.
    Copy,
    /// As rotation names what was there before.
    Rotated,
}

/// Tells how a name is related to that of a log.
pub(super) fn kin(log: &Path, other: &Path) -> Kin {
    if log.parent() != other.parent() {
        return Kin::None;
    }
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let (Some(log), Some(other)) = (name(log), name(other)) else {
        return Kin::None;
    };
    let (_, other) = Packing::of(&other);
    if let Some(rest) = other.strip_prefix(&log) {
        return match rest.chars().next() {
            // Itself, packed.
            None => Kin::Rotated,
            Some('.' | '-' | '_' | '~') if is_count(rest) => Kin::Rotated,
            Some('.' | '-' | '_' | '~') => Kin::Copy,
            Some(_) => Kin::None,
        };
    }
    let Some((stem, ending)) = log.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) else {
        return Kin::None;
    };
    let middle = other
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_suffix(ending)?.strip_suffix('.'));
    match middle {
        Some(middle) if middle.starts_with('.') && is_count(middle) => Kin::Rotated,
        // worker-1.log is another worker's.
        Some(middle) if middle.starts_with(['-', '_']) && is_date(middle) => Kin::Rotated,
        Some(_) | None => Kin::None,
    }
}

/// Returns the names of which a file may be a rotated one or a copy; what [`kin`] says of them is to be asked.
pub(super) fn origins(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy()) else {
        return Vec::new();
    };
    let (_, plain) = Packing::of(&name);
    let ending = plain.rsplit_once('.').map(|(_, ending)| ending);
    let mut names = vec![plain.to_owned()];
    for (at, _) in plain
        .match_indices(['.', '-', '_', '~'])
        .filter(|(at, _)| *at > 0)
    {
        names.push(plain[..at].to_owned());
        names.extend(ending.map(|ending| format!("{}.{ending}", &plain[..at])));
    }
    names.retain(|one| *one != name);
    names
        .into_iter()
        .map(|name| path.with_file_name(name))
        .collect()
}

/// Tells whether this is what rotation adds: a number, a date, or a word for the one before.
fn is_count(added: &str) -> bool {
    let word = added.trim_start_matches(['.', '-', '_', '~']);
    if matches!(word, "old" | "prev" | "previous" | "bak" | "last") {
        return true;
    }
    let fits = |one: char| one.is_ascii_digit() || "-_.:+TZ".contains(one);
    word.contains(|one: char| one.is_ascii_digit()) && word.chars().all(fits)
}

fn is_date(added: &str) -> bool {
    const DIGITS: usize = 6;
    let digits = added.chars().filter(char::is_ascii_digit).count();
    digits >= DIGITS && is_count(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_names_are_told_from_other_logs() {
        for (log, other, wanted) in [
            ("app.log", "app.log.1", Kin::Rotated),
            ("app.log", "app.log.12.gz", Kin::Rotated),
            ("app.log", "app.log-20261121", Kin::Rotated),
            ("app.log", "app.log-20261121-1732186800.zst", Kin::Rotated),
            ("app.log", "app.log.2026-11-21T10:00:00Z", Kin::Rotated),
            ("app.log", "app-20261121.log", Kin::Rotated),
            ("app.log", "app.1.log.gz", Kin::Rotated),
            ("app.log", "app.log.old", Kin::Rotated),
            ("app.log", "app.log.gz", Kin::Rotated),
            ("app.log", "app.log.copy", Kin::Copy),
            ("app.log", "app.log~", Kin::Copy),
            ("app.log", "app-errors.log", Kin::None),
            ("app.log", "app2.log", Kin::None),
            ("app.log", "app-1.log", Kin::None),
            ("app.log", "app.logs", Kin::None),
            ("app.log", "other.log.1", Kin::None),
            ("syslog", "syslog.1", Kin::Rotated),
            ("syslog", "syslog-ng", Kin::Copy),
            (".log", "a.log", Kin::None),
        ] {
            let path = |name: &str| Path::new("/var/log").join(name);
            assert_eq!(kin(&path(log), &path(other)), wanted, "{log} {other}");
            let origins = origins(&path(other));
            let is_found = origins.contains(&path(log));
            assert!(is_found || wanted == Kin::None, "{other}: {origins:?}");
        }
        let elsewhere = Path::new("/tmp/app.log.1");
        assert_eq!(kin(Path::new("/var/log/app.log"), elsewhere), Kin::None);
    }
}
