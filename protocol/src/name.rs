//! Names that may stand in a subject: nodes, methods, domains.
//!
//! One rule for all of them (design section 4.1): `[A-Za-z0-9][A-Za-z0-9_-]{0,62}`. A value of one
//! of these types has passed it, so nothing behind the border checks again.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest token of a subject, in bytes.
pub const MAX_TOKEN: usize = 63;

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("is empty; write 1 to {MAX_TOKEN} letters, digits, '_' or '-'")]
    Empty,
    /// The text is longer than [`MAX_TOKEN`] bytes.
    #[error("is {length} bytes long; at most {MAX_TOKEN} are allowed")]
    TooLong {
        /// Length found, in bytes.
        length: usize,
    },
    /// A character that may not stand there.
    #[error(
        "has {character:?} at position {position}; allowed are letters, digits, '_' and '-', and the first must be a letter or digit"
    )]
    Character {
        /// The offending character.
        character: char,
        /// Its place, counted in characters from 1.
        position: usize,
    },
}

/// Checks the token rule of design section 4.1.
///
/// # Errors
///
/// Names the first character that breaks the rule and its position, or the length.
pub fn check_token(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let allowed = |index: usize, character: char| {
        character.is_ascii_alphanumeric() || (index > 0 && matches!(character, '_' | '-'))
    };
    if let Some((index, character)) = text
        .chars()
        .enumerate()
        .find(|(index, character)| !allowed(*index, *character))
    {
        return Err(NameError::Character {
            character,
            position: index + 1,
        });
    }
    if text.len() > MAX_TOKEN {
        return Err(NameError::TooLong { length: text.len() });
    }
    Ok(())
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check_token(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, formatter)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|error| de::Error::custom(format!("{text:?} {error}")))
            }
        }
    };
}

token! {
    /// Who receives, or who sends: the first token of a subject.
    NodeName
}
token! {
    /// The functionality asked for, as text. [`crate::Method`] is the closed set of known ones.
    MethodName
}
token! {
    /// What a method is for, so that one method can serve several things side by side.
    Domain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_accepted_or_refused_with_the_place() {
        let long = "a".repeat(MAX_TOKEN);
        let longer = "a".repeat(MAX_TOKEN + 1);
        for (text, expected) in [
            ("ship1", Ok(())),
            ("0", Ok(())),
            ("a_b-C", Ok(())),
            (long.as_str(), Ok(())),
            (
                longer.as_str(),
                Err(NameError::TooLong {
                    length: MAX_TOKEN + 1,
                }),
            ),
            ("", Err(NameError::Empty)),
            (
                "-a",
                Err(NameError::Character {
                    character: '-',
                    position: 1,
                }),
            ),
            (
                "a.b",
                Err(NameError::Character {
                    character: '.',
                    position: 2,
                }),
            ),
            (
                "ab c",
                Err(NameError::Character {
                    character: ' ',
                    position: 3,
                }),
            ),
            (
                "ab\t",
                Err(NameError::Character {
                    character: '\t',
                    position: 3,
                }),
            ),
            (
                "a*",
                Err(NameError::Character {
                    character: '*',
                    position: 2,
                }),
            ),
            (
                "a>",
                Err(NameError::Character {
                    character: '>',
                    position: 2,
                }),
            ),
            (
                "æb",
                Err(NameError::Character {
                    character: 'æ',
                    position: 1,
                }),
            ),
        ] {
            assert_eq!(check_token(text), expected, "{text:?}");
        }
    }
}
