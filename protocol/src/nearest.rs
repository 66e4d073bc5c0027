//! "Did you mean …?": the one word of a list that a slip was probably meant to be.

/// Letters looked at: no word of ours is longer, and what is found may be a whole file.
const MAX_LETTERS: usize = 64;

/// Returns the candidate closest to `found`, if one is close enough to be what was meant.
pub fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = fold(found);
    // One slip in a short word, two or three in a longer one; more is another word.
    let allowed = (written.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&written, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Case and the spelling of word borders are the commonest slips and count for nothing.
fn fold(text: &str) -> Vec<char> {
    text.chars()
        .filter(|character| !matches!(character, '_' | '-'))
        .flat_map(char::to_lowercase)
        .take(MAX_LETTERS)
        .collect()
}

/// Levenshtein distance with swapped neighbours counted once.
fn distance(one: &[char], other: &[char]) -> usize {
    let width = other.len() + 1;
    let mut table = vec![0; (one.len() + 1) * width];
    for row in 0..=one.len() {
        for column in 0..=other.len() {
            let at = |up: usize, left: usize| (row - up) * width + column - left;
            table[row * width + column] = match (row, column) {
                (0, distance) | (distance, 0) => distance,
                _ => {
                    let differs = usize::from(one[row - 1] != other[column - 1]);
                    let mut least = (table[at(1, 0)] + 1)
                        .min(table[at(0, 1)] + 1)
                        .min(table[at(1, 1)] + differs);
                    if row > 1
                        && column > 1
                        && one[row - 1] == other[column - 2]
                        && one[row - 2] == other[column - 1]
                    {
                        least = least.min(table[at(2, 2)] + 1);
                    }
                    least
                }
            };
        }
    }
    table[one.len() * width + other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_nothing() {
        let words = ["name", "state_dir", "nats", "inbox.rescan", "http"];
        for (found, expected) in [
            ("nmae", Some("name")),
            ("Name", Some("name")),
            ("stateDir", Some("state_dir")),
            ("state-dir", Some("state_dir")),
            ("inbox.recsan", Some("inbox.rescan")),
            ("htp", Some("http")),
            ("nat", Some("nats")),
            ("colour", None),
            ("nat s", Some("nats")),
            ("", None),
        ] {
            assert_eq!(nearest(found, words), expected, "{found:?}");
        }
    }

    #[test]
    fn the_longer_the_word_the_more_slips_it_may_hold() {
        for (found, word, is_meant) in [
            ("x", "y", true),
            ("xy", "ab", false),
            ("abxyz", "abcde", false),
            ("abcxyf", "abcdef", true),
            ("abxyzf", "abcdef", false),
            ("abcdefxyz", "abcdefghi", true),
            ("abcdewxyz", "abcdefghi", false),
            ("abcdefghwxyz", "abcdefghijkl", false),
            ("abcdefghixyz", "abcdefghijkl", true),
        ] {
            let expected = is_meant.then_some(word);
            assert_eq!(nearest(found, [word]), expected, "{found} for {word}");
        }
    }

    #[test]
    fn the_closest_word_is_chosen_and_of_two_the_first() {
        for (found, words, expected) in [
            ("timeoot", ["timeouts", "timeout", "timeline"], "timeout"),
            ("timeou", ["timeoux", "timeouy", "timeouz"], "timeoux"),
        ] {
            assert_eq!(nearest(found, words), Some(expected), "{found}");
        }
    }

    #[test]
    fn only_the_beginning_of_a_long_text_is_compared() {
        let long = "x".repeat(MAX_LETTERS);
        let found = format!("{long}and so on");
        assert_eq!(nearest(&found, [long.as_str()]), Some(long.as_str()));
        let shorter = &long[..MAX_LETTERS - 4];
        assert_eq!(nearest(&found, [shorter]), None);
    }

    #[test]
    fn the_distance_is_the_number_of_slips() {
        for (one, other, expected) in [
            ("", "", 0),
            ("abc", "", 3),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("a", "b", 1),
            ("abc", "abcd", 1),
            ("abcd", "abc", 1),
            ("abc", "xabc", 1),
            ("ab", "ba", 1),
            ("abcd", "acbd", 1),
            ("abcd", "abdc", 1),
            ("abcde", "badce", 2),
            ("ab", "cd", 2),
            ("abc", "bca", 2),
            ("ca", "abc", 3),
            ("aab", "aba", 1),
            ("abb", "bba", 2),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("saturday", "sunday", 3),
            ("abcdef", "ghijkl", 6),
        ] {
            let letters = |text: &str| text.chars().collect::<Vec<char>>();
            let (one, other) = (letters(one), letters(other));
            assert_eq!(distance(&one, &other), expected, "{one:?} {other:?}");
            assert_eq!(distance(&other, &one), expected, "{other:?} {one:?}");
        }
    }
}
