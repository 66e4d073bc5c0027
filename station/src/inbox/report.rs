//! Writes problems down for people: file, line, column, reason, hint, and the line itself.
//!
//! What it quotes comes from whoever wrote the file, so nothing a terminal would obey gets through.
//! It does not know where files lie.

use std::fmt::Write;

use crate::view::Problem;

/// Characters of the offending line shown on each side of the place.
const AROUND: usize = 60;

/// Returns `text` with control characters and direction marks escaped.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        push_printable(&mut shown, character);
    }
    shown
}

fn push_printable(shown: &mut String, character: char) {
    if is_hostile(character) {
        shown.extend(character.escape_unicode());
    } else {
        shown.push(character);
    }
}

/// Returns whether a terminal would obey the character, or hide text because of it.
pub(super) fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns the problems of `file` as text; `bytes` is what was in it, where that was read.
pub fn render(file: &str, bytes: Option<&[u8]>, problems: &[Problem]) -> String {
    let file = printable(file);
    let text = bytes.map(String::from_utf8_lossy);
    let text = text
        .as_deref()
        .map(|text| text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut out = String::new();
    for (index, problem) in problems.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        render_one(&mut out, &file, text, problem);
    }
    out
}

fn render_one(out: &mut String, file: &str, text: Option<&str>, problem: &Problem) {
    out.push_str(file);
    for number in [problem.line, problem.column].into_iter().flatten() {
        push(out, format_args!(":{number}"));
    }
    if !problem.path.is_empty() {
        push(out, format_args!(" at {}", printable(&problem.path)));
    }
    push(out, format_args!("\n  {}\n", printable(&problem.reason)));
    if let Some(hint) = &problem.hint {
        push(out, format_args!("  help: {}\n", printable(hint)));
    }
    if let (Some(text), Some(line), Some(column)) = (text, problem.line, problem.column)
        && let Some(found) = usize::try_from(line - 1)
            .ok()
            .and_then(|number| text.lines().nth(number))
    {
        let column = usize::try_from(column - 1).unwrap_or(usize::MAX);
        let (shown, caret) = around(found, column);
        push(out, format_args!("{line:>6} | {shown}\n"));
        push(out, format_args!("       | {:caret$}^\n", ""));
    }
}

/// Returns the printable part of `line` around `column`, and where in it the caret belongs.
fn around(line: &str, column: usize) -> (String, usize) {
    let first = column.saturating_sub(AROUND);
    let mut shown = String::new();
    if first > 0 {
        shown.push('…');
    }
    let mut caret = None;
    let mut characters = line.chars().enumerate().skip(first);
    for (index, character) in characters.by_ref().take(2 * AROUND) {
        if index == column {
            caret = Some(shown.chars().count());
        }
        // A tab is no danger, only wide.
        push_printable(&mut shown, if character == '\t' { ' ' } else { character });
    }
    let caret = caret.unwrap_or_else(|| shown.chars().count());
    if characters.next().is_some() {
        shown.push('…');
    }
    (shown, caret)
}

fn push(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what)
        .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: u64, column: u64) -> Problem {
        Problem {
            line: Some(line),
            column: Some(column),
            path: "/0/domian".to_owned(),
            reason: "there is no field \"domian\"".to_owned(),
            hint: Some("did you mean \"domain\"?".to_owned()),
        }
    }

    #[test]
    fn the_caret_stands_under_the_place_even_after_escaped_characters() {
        let text = "[\n\t\u{1b}{\"domian\": 1}\n]".as_bytes();
        assert_eq!(
            render("a\u{1b}.json", Some(text), &[problem(2, 4)]),
            [
                "a\\u{1b}.json:2:4 at /0/domian",
                "  there is no field \"domian\"",
                "  help: did you mean \"domain\"?",
                "     2 |  \\u{1b}{\"domian\": 1}",
                "       |         ^",
                ""
            ]
            .join("\n")
        );
    }

    #[test]
    fn only_the_neighbourhood_of_a_long_line_is_shown() {
        let text = format!("{}!{}", "a".repeat(1000), "b".repeat(1000));
        let (shown, caret) = around(&text, 1000);
        assert_eq!(shown.chars().count(), 2 * AROUND + 2);
        assert_eq!(shown.chars().nth(caret), Some('!'));
    }

    #[test]
    fn a_problem_without_a_place_names_the_file() {
        let mut problem = problem(1, 1);
        problem.line = None;
        problem.column = None;
        problem.path = String::new();
        problem.hint = None;
        assert_eq!(
            render("x.json", None, &[problem]),
            "x.json\n  there is no field \"domian\"\n"
        );
    }
}
