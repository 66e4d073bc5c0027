//! The parsed text of a message file: values as they were written, repeated keys included.
//!
//! It knows JSON and YAML and where things stand in the text. It knows nothing of messages.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    Spanned, budget,
    options::{DuplicateKeyPolicy, MergeKeyPolicy},
};

/// Deepest nesting of a file: a value inside this many arrays and objects is refused.
pub const MAX_DEPTH: usize = 128;

/// Deepest nesting of a YAML file. Its parser needs far more stack for each level than JSON's: at 128
/// levels an unoptimised build overflowed a 2 MiB stack, which no caller can catch.
const MAX_YAML_DEPTH: usize = 32;

/// Aliases a YAML file may replay, in parser events. Message files have no use for more, and a
/// "billion laughs" file is stopped here.
const MAX_REPLAYED: usize = 10_000;

/// Bytes of text a YAML file may grow to when its aliases are written out.
const MAX_REPLAYED_BYTES: usize = 4 * 1024 * 1024;

/// A place in a text, counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// A value and, where the parser tells (YAML), its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Option<Place>,
}

/// One key of an object and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Option<Place>,
    pub(super) node: Node,
}

/// A value as written. Objects keep their keys in order, and every repetition of one.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Entry>),
}

impl Value {
    /// Returns what the value is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Why a text is not JSON or YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SyntaxError {
    /// It ends too early.
    Incomplete,
    /// It is nested too deep.
    Depth(Option<Place>),
    /// It is wrong at this place.
    Wrong {
        place: Option<Place>,
        reason: String,
    },
}

/// Parses JSON text.
pub(super) fn parse_json(text: &str) -> Result<Node, SyntaxError> {
    serde_json::from_str(text)
        .map(|JsonNode(node)| node)
        .map_err(|error| {
            if error.is_eof() {
                return SyntaxError::Incomplete;
            }
            let place = byte_place(text, error.line(), error.column());
            let reason = error.to_string();
            let reason = match reason.rfind(" at line ") {
                Some(end) => reason[..end].to_owned(),
                None => reason,
            };
            if reason.starts_with("recursion limit") {
                SyntaxError::Depth(place)
            } else {
                SyntaxError::Wrong { place, reason }
            }
        })
}

/// Turns serde_json's line and byte column into a line and a character column.
fn byte_place(text: &str, line: usize, column: usize) -> Option<Place> {
    let found = text.split('\n').nth(line.checked_sub(1)?)?;
    let before = column.saturating_sub(1).min(found.len());
    let characters = found
        .char_indices()
        .take_while(|(start, _)| *start < before)
        .count();
    Some(Place {
        line: line as u64,
        column: characters as u64 + 1,
    })
}

/// Parses YAML text holding exactly one document.
pub(super) fn parse_yaml(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: budget! {
            max_depth: MAX_YAML_DEPTH,
            flow_nesting_limit: MAX_YAML_DEPTH,
            max_documents: 1,
            max_inclusion_depth: 0,
            max_total_scalar_bytes: MAX_REPLAYED_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
        .map(|YamlNode(node)| node)
        .map_err(|error| SyntaxError::Wrong {
            place: error.location().and_then(known),
            reason: yaml_reason(error.without_snippet()),
        })
}

fn yaml_reason(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::AliasError { error, .. } => yaml_reason(error),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => {
            "it is nested too deep, or grows too large when its aliases are written out".to_owned()
        }
        Error::MultipleDocuments { .. } => {
            "it holds several documents; write several messages as one list".to_owned()
        }
        // The place is told apart from the reason.
        other => {
            let reason = other.to_string();
            let end = reason.find(" at line ").unwrap_or(reason.len());
            reason[..end].to_owned()
        }
    }
}

fn known(location: serde_saphyr::Location) -> Option<Place> {
    (location.line() > 0).then(|| Place {
        line: location.line(),
        column: location.column(),
    })
}

/// How one language writes values and keys down, so that one visitor serves both.
trait Language {
    type Child: for<'de> Deserialize<'de> + Into<Node>;
    type Key: for<'de> Deserialize<'de> + Into<(String, Option<Place>)>;
}

struct Json;

impl Language for Json {
    type Child = JsonNode;
    type Key = JsonKey;
}

struct JsonNode(Node);

impl From<JsonNode> for Node {
    fn from(node: JsonNode) -> Self {
        node.0
    }
}

impl<'de> Deserialize<'de> for JsonNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor(std::marker::PhantomData::<Json>))?;
        Ok(Self(Node { value, place: None }))
    }
}

#[derive(Deserialize)]
struct JsonKey(String);

impl From<JsonKey> for (String, Option<Place>) {
    fn from(key: JsonKey) -> Self {
        (key.0, None)
    }
}

struct Yaml;

impl Language for Yaml {
    type Child = YamlNode;
    type Key = YamlKey;
}

struct YamlNode(Node);

impl From<YamlNode> for Node {
    fn from(node: YamlNode) -> Self {
        node.0
    }
}

struct YamlValue(Value);

impl<'de> Deserialize<'de> for YamlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(ValueVisitor(std::marker::PhantomData::<Yaml>))
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<YamlValue>::deserialize(deserializer)?;
        Ok(Self(Node {
            value: spanned.value.0,
            place: known(spanned.referenced),
        }))
    }
}

#[derive(Deserialize)]
struct YamlKey(Spanned<String>);

impl From<YamlKey> for (String, Option<Place>) {
    fn from(key: YamlKey) -> Self {
        let place = known(key.0.referenced);
        (key.0.value, place)
    }
}

struct ValueVisitor<L>(std::marker::PhantomData<L>);

impl<'de, L: Language> Visitor<'de> for ValueVisitor<L> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Integer))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Integer))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<L::Child>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Vec::new();
        while let Some(key) = entries.next_key::<L::Key>()? {
            let (key, place) = key.into();
            let node = entries.next_value::<L::Child>()?.into();
            object.push(Entry { key, place, node });
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn text(value: &str, line: u64, column: u64) -> Node {
        Node {
            value: Value::Text(value.to_owned()),
            place: Some(Place { line, column }),
        }
    }

    #[test]
    fn yaml_values_and_keys_carry_their_places() {
        let node = parse_yaml("- to: ship1\n  data: [uname, \"-a\"]\n").unwrap();
        let Value::List(items) = node.value else {
            panic!("not a list")
        };
        let Value::Object(entries) = &items[0].value else {
            panic!("not an object")
        };
        assert_eq!(entries[0].key, "to");
        assert_eq!(entries[0].place, Some(Place { line: 1, column: 3 }));
        assert_eq!(entries[0].node, text("ship1", 1, 7));
        let Value::List(data) = &entries[1].node.value else {
            panic!("not a list")
        };
        assert_eq!(data[1], text("-a", 2, 17));
    }

    #[test]
    fn yaml_keeps_words_that_other_readers_take_for_booleans() {
        let node = parse_yaml("data: [yes, on, off]").unwrap();
        let Value::Object(entries) = node.value else {
            panic!("not an object")
        };
        let Value::List(items) = &entries[0].node.value else {
            panic!("not a list")
        };
        assert!(
            items
                .iter()
                .all(|item| matches!(item.value, Value::Text(_)))
        );
    }

    #[test]
    fn yaml_that_could_mean_something_else_is_refused() {
        let bomb = (1..9).fold(
            "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned(),
            |text, n| {
                let before = format!("*a{}, ", n - 1).repeat(8);
                format!("{text}a{n}: &a{n} [{before}]\n")
            },
        );
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), "*a, ".repeat(9));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let blocks = "- ".repeat(MAX_YAML_DEPTH + 1) + "x";
        for text in [
            "a: 1\na: 2\n",
            "a: 1\n---\nb: 2\n",
            "a: &x {b: 1}\nc:\n  <<: *x\n",
            "a: !include other\n",
            "a: [1\n",
            &bomb,
            &long,
            &deep,
            &blocks,
        ] {
            assert!(parse_yaml(text).is_err(), "{text:.60}");
        }
    }

    #[test]
    fn yaml_at_its_depth_limit_fits_on_the_stack() {
        for depth in [MAX_YAML_DEPTH - 1, MAX_YAML_DEPTH] {
            assert!(parse_yaml(&("- ".repeat(depth) + "x")).is_ok(), "{depth}");
            let flow = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            assert!(parse_yaml(&flow).is_ok(), "{depth}");
        }
    }

    #[test]
    fn json_syntax_errors_say_where_in_characters() {
        let error = parse_json("{\"æøå\": tru }").unwrap_err();
        let SyntaxError::Wrong { place, reason } = error else {
            panic!("{error:?}")
        };
        assert_eq!(
            place,
            Some(Place {
                line: 1,
                column: 12
            })
        );
        assert_eq!(reason, "expected ident");
    }
}
