//! Texts made safe and readable: escapes, times, ages, sizes.
//!
//! What nodes and files say is hostile: it must not move the cursor, forge a line or turn the
//! writing direction. Pure.

use std::{fmt::Write as _, time::Duration};

use jiff::{SignedDuration, Timestamp};

/// Tells whether a character may act on a terminal or hide in a text.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{feff}'
            // Zero width, direction marks, line and paragraph separators, embeddings, isolates.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            // Interlinear annotations, tags.
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn push_escaped(text: &mut String, character: char) {
    match character {
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\0'..='\x7f' => push_byte(text, character as u8),
        _ => text.extend(character.escape_unicode()),
    }
}

fn push_byte(text: &mut String, byte: u8) {
    write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail");
}

/// Returns `text` on one line, with everything escaped that could act on a terminal.
pub(crate) fn escape(text: &str) -> String {
    escape_except(text, |_| false)
}

/// Returns `text` with everything escaped that could act on a terminal, except line ends and tabs.
pub(crate) fn escape_block(text: &str) -> String {
    let joined = text.replace("\r\n", "\n");
    escape_except(&joined, |character| matches!(character, '\n' | '\t'))
}

fn escape_except(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) && !keep(character) {
            push_escaped(&mut escaped, character);
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Returns a command's output as lines for a terminal; bytes that are not UTF-8 as `\xNN`.
pub(crate) fn escape_output(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        escaped.push_str(&escape_block(chunk.valid()));
        for byte in chunk.invalid() {
            push_byte(&mut escaped, *byte);
        }
    }
    escaped
}

/// Returns the same JSON document with unsafe characters in its strings spelled `\uNNNN`.
///
/// Outside its strings JSON has no such character but line ends, so the document's value stays.
pub(crate) fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if !is_unsafe(character) || character == '\n' {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            write!(escaped, "\\u{unit:04x}").expect("writing to a String cannot fail");
        }
    }
    escaped
}

/// Returns a time in RFC 3339, UTC, to the second.
pub(crate) fn time(at: Timestamp) -> String {
    let seconds = Timestamp::from_second(at.as_second()).unwrap_or(at);
    seconds.to_string()
}

/// Returns a time with its age: `2026-11-21T08:00:00Z (3m ago)`.
pub(crate) fn time_and_age(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", time(at), age(at, now))
}

/// Returns how long ago `at` was, or how far ahead it is.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    let since = now.duration_since(at);
    match since.as_secs() {
        0 => "now".to_owned(),
        1.. => format!("{} ago", rough(since)),
        _ => format!("in {}", rough(since)),
    }
}

/// Returns a span in its largest unit: `45s`, `3m`, `5h`, `12d`.
fn rough(span: SignedDuration) -> String {
    let seconds = span.as_secs().unsigned_abs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// Returns how long something took: `0.42s`, `1m 5s`.
pub(crate) fn took(span: SignedDuration) -> String {
    let millis = span.as_millis().max(0);
    match millis {
        0..60_000 => format!("{}.{:02}s", millis / 1000, millis % 1000 / 10),
        _ => {
            let seconds = u64::try_from(millis / 1000).unwrap_or(u64::MAX);
            humantime::format_duration(Duration::from_secs(seconds)).to_string()
        }
    }
}

/// Returns a count with its noun: `1 byte`, `2 bytes`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// Returns `text` cut to at most `width` characters, with `…` where something is missing.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.extend((width > 0).then_some('…'));
    short
}

/// Returns `text` with line ends instead of spaces where it would be wider than `width`.
pub(crate) fn wrap(text: &str, width: usize) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            wrapped.push('\n');
            used = 0;
        } else if used > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += length;
    }
    wrapped
}

/// Returns `text` with every line moved in.
pub(crate) fn indent(text: &str, by: usize) -> String {
    text.lines()
        .map(|line| format!("{:by$}{line}\n", ""))
        .collect()
}

/// Returns names and values below each other, the values lined up.
pub(crate) fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_node_says_can_act_on_a_terminal() {
        for (text, line, block) in [
            ("plain ü 漢", "plain ü 漢", "plain ü 漢"),
            ("a\nb\tc", "a\\nb\\tc", "a\nb\tc"),
            ("a\r\nb\rc", "a\\r\\nb\\rc", "a\nb\\rc"),
            ("\x1b[31mred\x07", "\\x1b[31mred\\x07", "\\x1b[31mred\\x07"),
            ("\u{9b}2J\x7f", "\\u{9b}2J\\x7f", "\\u{9b}2J\\x7f"),
            (
                "a\u{202e}b\u{2066}c",
                "a\\u{202e}b\\u{2066}c",
                "a\\u{202e}b\\u{2066}c",
            ),
            (
                "\u{200b}\u{2060}\u{feff}",
                "\\u{200b}\\u{2060}\\u{feff}",
                "\\u{200b}\\u{2060}\\u{feff}",
            ),
            ("\0", "\\x00", "\\x00"),
        ] {
            assert_eq!(escape(text), line, "{text:?}");
            assert_eq!(escape_block(text), block, "{text:?}");
        }
        assert_eq!(escape_output(b"a\xff\xfeb\x1b\n"), "a\\xff\\xfeb\\x1b\n");
    }

    #[test]
    fn escaped_json_is_safe_and_means_the_same() {
        let value = serde_json::json!({"a": "\u{9b}\u{202e}\u{e0041}\u{7f}\n ü"});
        let json = serde_json::to_string_pretty(&value).expect("it serialises");
        let escaped = escape_json(&json);
        assert!(
            escaped.contains("\\u009b\\u202e\\udb40\\udc41\\u007f\\n ü"),
            "{escaped}"
        );
        let back: serde_json::Value = serde_json::from_str(&escaped).expect("still JSON");
        assert_eq!(back, value);
    }

    #[test]
    fn times_come_with_their_age() {
        let now: Timestamp = "2026-11-21T08:00:00.9Z".parse().expect("a time");
        for (at, expected) in [
            ("2026-11-21T08:00:00.5Z", "2026-11-21T08:00:00Z (now)"),
            ("2026-11-21T07:59:15Z", "2026-11-21T07:59:15Z (45s ago)"),
            ("2026-11-21T07:57:00Z", "2026-11-21T07:57:00Z (3m ago)"),
            ("2026-11-20T08:00:00Z", "2026-11-20T08:00:00Z (24h ago)"),
            ("2026-11-01T08:00:00Z", "2026-11-01T08:00:00Z (20d ago)"),
            ("2026-11-22T08:00:00.9Z", "2026-11-22T08:00:00Z (in 24h)"),
        ] {
            let at = at.parse().expect("a time");
            assert_eq!(time_and_age(at, now), expected);
        }
        assert_eq!(took(SignedDuration::from_millis(425)), "0.42s");
        assert_eq!(took(SignedDuration::from_millis(65_000)), "1m 5s");
        assert_eq!(took(SignedDuration::from_millis(-5)), "0.00s");
    }

    #[test]
    fn a_cut_text_says_that_it_was_cut() {
        assert_eq!(cut("hello", 5), "hello");
        assert_eq!(cut("hello", 4), "hel…");
        assert_eq!(cut("hello", 0), "");
    }
}
