//! How people say which severities they mean, and what they are told of gaps. Pure.

use steward_protocol::logs::{Gap, Severities};

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

/// Says what is missing and why. What a detail says may be hostile.
pub fn missing(gap: &Gap) -> String {
    let many = match gap.count {
        Some(1) => "1 message missing".to_owned(),
        Some(count) => format!("{count} messages missing"),
        None => "messages missing, nobody knows how many".to_owned(),
    };
    let detail = gap.detail.as_deref().map(|detail| format!(" ({detail})"));
    let reason = reason(gap).replace('_', " ");
    format!("{many}: {reason}{}", detail.unwrap_or_default())
}

/// Returns the word for why something is missing.
pub fn reason(gap: &Gap) -> String {
    let word = serde_json::to_value(gap.reason).ok();
    let word = word.as_ref().and_then(|word| word.as_str());
    word.unwrap_or("other").to_owned()
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
