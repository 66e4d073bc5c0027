//! How people say which severities they mean. Pure.

use steward_protocol::logs::Severities;

/// The severities by their names, the gravest first, with what else they are called.
const NAMES: [&[&str]; 8] = [
    &["emerg", "emergency", "panic"],
    &["alert"],
    &["crit", "critical"],
    &["err", "error"],
    &["warning", "warn"],
    &["notice"],
    &["info"],
    &["debug"],
];

/// Returns the name of a severity.
pub fn severity_name(severity: u8) -> &'static str {
    let names = NAMES.get(usize::from(severity.min(7)));
    names
        .and_then(|names| names.first())
        .copied()
        .unwrap_or("debug")
}

/// Reads a severity, which means it and the graver ones, or a range such as `err..warning`.
///
/// # Errors
///
/// Says how severities are written.
pub fn severities(text: &str) -> Result<Severities, String> {
    let Some((one, other)) = text.split_once("..") else {
        return Ok(Severities::at_least(severity(text)?));
    };
    let (one, other) = (severity(one)?, severity(other)?);
    let mut set = Severities::default();
    for severity in one.min(other)..=one.max(other) {
        set.insert(severity);
    }
    Ok(set)
}

fn severity(text: &str) -> Result<u8, String> {
    let lower = text.trim().to_ascii_lowercase();
    let is_named = |names: &&[&str]| names.contains(&lower.as_str());
    let named = NAMES.iter().position(is_named);
    let number = named.or_else(|| lower.parse().ok().filter(|number| *number < 8));
    number.and_then(|number| u8::try_from(number).ok()).ok_or_else(|| {
        format!("{text:?} is not a severity; write emerg, alert, crit, err, warning, notice, info, debug or 0 to 7, or a range such as err..warning")
    })
}
