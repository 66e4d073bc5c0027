//! What people are told of gaps. Pure.

use steward_protocol::logs::Gap;

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
