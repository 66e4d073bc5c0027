//! The fields of a message file: one table per shape.
//!
//! The tables drive the check for unknown fields, its did-you-mean, and the JSON Schema, so that
//! these cannot disagree. What a field means is read in `canonical_shape` and `older_shapes`.

use serde_json::{Map, Value, json};
use steward_protocol::{Method, limits, name::MAX_TOKEN};

use super::bodies;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holds {
    /// A UUID.
    Id,
    /// One line of text for people.
    Name,
    /// `node.command|event.method.domain`.
    Subject,
    /// Node names, one or several, or `*`.
    Targets,
    /// One node name, in the older shapes.
    Node,
    /// Node names, in the older shapes.
    Nodes,
    /// Labels a node must carry.
    Labels,
    /// A token of a subject.
    Token,
    /// `command` or `event`.
    Kind,
    /// A command or event, in the older spellings.
    OldKind,
    /// A program and its arguments.
    Command,
    /// The same; a single word may stand alone, in the older shapes.
    OldCommand,
    /// A directory.
    Directory,
    /// Environment variables.
    Environment,
    /// Any text.
    Text,
    /// A duration such as `30s`.
    Duration,
    /// A number of seconds or a duration, in the older shapes.
    OldDuration,
    /// `true` or `false`.
    Flag,
    /// Exit codes.
    Codes,
    /// A whole number from 0.
    Count,
    /// What belongs to the body of a method; its JSON Schema.
    Body(&'static str),
    /// Anything; not looked at.
    Ignored,
    /// An object with fields of its own.
    Shape(&'static Shape),
}

/// One field of a shape.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) holds: Holds,
    about: &'static str,
}

/// One way of writing a message, or a part of it.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    /// The fields, in groups that shapes share.
    pub(super) groups: &'static [&'static [Field]],
    /// The one method it is for; none if it is for those that have no shape of their own.
    pub(super) method: Option<Method>,
    /// Sets of fields of which one must be complete.
    pub(super) required: &'static [&'static [&'static str]],
}

impl Shape {
    /// Tells whether it is the form of today.
    fn is_canonical(&self) -> bool {
        OLDER.iter().all(|older| older.title != self.title) && self.title != OLD_SUBJECT.title
    }

    /// Returns its fields in the order they are shown.
    pub(super) fn fields(&self) -> impl Iterator<Item = &'static Field> + use<> {
        self.groups.iter().copied().flatten()
    }

    /// Returns the field called `name`.
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields().find(|field| field.name == name)
    }
}

pub(super) const fn field(name: &'static str, holds: Holds, about: &'static str) -> Field {
    Field { name, holds, about }
}

const SCHEMA: Field = field(
    "$schema",
    Holds::Ignored,
    "Where editors find the schema of message files; ignored otherwise.",
);
const ID: Field = field(
    "id",
    Holds::Id,
    "The message's id, a UUID. The same id with the same content is recognised and not run again; left out, the station draws one.",
);
const NAME: Field = field(
    "name",
    Holds::Name,
    "What people call it; shown in every list.",
);
const METHOD: Field = field(
    "method",
    Holds::Token,
    "What to do: shellcommand, hello, ping, filewrite and so on.",
);
const DOMAIN: Field = field(
    "domain",
    Holds::Token,
    "What it is for, such as operatingsystem; messages of one domain run one after the other on a node.",
);

/// Who and what: the beginning of every message in canonical form.
pub(super) const HEAD: &[Field] = &[
    SCHEMA,
    ID,
    NAME,
    field(
        "subject",
        Holds::Subject,
        "For one node: <node>.<command|event>.<method>.<domain>, all in one.",
    ),
    field(
        "to",
        Holds::Targets,
        "For one node or a list of nodes; \"*\" means every node the station knows.",
    ),
    field(
        "labels",
        Holds::Labels,
        "For every known node that carries all of these labels.",
    ),
    field(
        "kind",
        Holds::Kind,
        "Whether it is a command (default) or an event.",
    ),
    METHOD,
    DOMAIN,
];

/// How it is carried and judged: the end of every message in canonical form.
pub(super) const OPTIONS: &[Field] = &[
    field(
        "timeout",
        Holds::Duration,
        "How long the command may run, such as \"30s\"; default 5m, at most 1d.",
    ),
    field(
        "expires",
        Holds::Duration,
        "How long the message may wait for its node, such as \"24h\"; default 1d, at most 90d.",
    ),
    field(
        "ordered",
        Holds::Flag,
        "Whether it waits for earlier messages of its subject (default true).",
    ),
    field(
        "idempotent",
        Holds::Flag,
        "Whether it may be started again when its end is unknown (default false).",
    ),
    field(
        "success_codes",
        Holds::Codes,
        "Exit codes that count as success (default [0]).",
    ),
    field(
        "stream",
        Holds::Flag,
        "Whether its output comes to the station while it runs (default false).",
    ),
    field(
        "reply",
        Holds::Body(REPLY),
        "Where the result goes at the station besides the ledger, below results/<directory>/<node>/.",
    ),
];

/// Where a result goes at the station.
const REPLY: &str = r#"{"type": "object", "additionalProperties": false, "required": ["to"], "properties": {
    "to": {"enum": ["file", "append", "none"]},
    "directory": {"type": "string", "minLength": 1, "description": "Below results/; the domain if left out."},
    "file_name": {"type": "string", "minLength": 1, "description": "The message's id if left out."}}}"#;

/// What every message in canonical form needs to be addressed.
pub(super) const ADDRESSED: &[&[&str]] = &[
    &["subject"],
    &["to", "method", "domain"],
    &["labels", "method", "domain"],
];

const OLD_KIND: Holds = Holds::OldKind;
const OLD_DATA: Field = field("data", Holds::OldCommand, "The program and its arguments.");
const OLD_ARGS: Field = field(
    "methodArgs",
    Holds::OldCommand,
    "The program and its arguments.",
);
const OLD_TIMEOUT: Field = field(
    "methodTimeout",
    Holds::OldDuration,
    "How long the command may run, in seconds.",
);
const OLD_RETRIES: Field = field(
    "retries",
    Holds::Count,
    "Accepted and not used: the station keeps on until the message expires.",
);
const OLD_ACK: Field = field(
    "ACKTimeout",
    Holds::OldDuration,
    "Accepted and not used: the station keeps on until the message expires.",
);

/// The `subject` object of the older shape.
pub(super) static OLD_SUBJECT: Shape = Shape {
    title: "older subject",
    about: "Who and what, in the older shape.",
    required: &[&["node", "method"]],
    method: None,
    groups: &[&[
        field("node", Holds::Node, "The node."),
        field(
            "messageType",
            OLD_KIND,
            "Whether it is a command (default) or an event.",
        ),
        field(
            "commandOrEvent",
            OLD_KIND,
            "Whether it is a command (default) or an event.",
        ),
        METHOD,
        DOMAIN,
    ]],
};

/// The `message` object of the older shape.
pub(super) static OLD_MESSAGE: Shape = Shape {
    title: "older message",
    about: "With what, in the older shape.",
    required: &[],
    method: None,
    groups: &[&[OLD_DATA, OLD_ARGS, OLD_TIMEOUT, OLD_RETRIES, OLD_ACK]],
};

/// The older shape: a `subject` object beside a `message` object.
pub(super) static SUBJECT_OBJECT: Shape = Shape {
    title: "older shape: subject and message",
    about: "An older shape, accepted; steward check shows it in canonical form.",
    required: &[&["subject", "message"]],
    method: None,
    groups: &[&[
        SCHEMA,
        ID,
        NAME,
        field("subject", Holds::Shape(&OLD_SUBJECT), "Who and what."),
        field("message", Holds::Shape(&OLD_MESSAGE), "With what."),
    ]],
};

/// The flat older shape.
pub(super) static FLAT: Shape = Shape {
    title: "older shape: flat",
    about: "An older shape, accepted; steward check shows it in canonical form.",
    required: &[&["toNode", "method"], &["toNodes", "method"]],
    method: None,
    groups: &[&[
        SCHEMA,
        ID,
        NAME,
        field("toNode", Holds::Node, "The node."),
        field("toNodes", Holds::Nodes, "The nodes."),
        field(
            "commandOrEvent",
            OLD_KIND,
            "Whether it is a command (default) or an event.",
        ),
        METHOD,
        DOMAIN,
        OLD_ARGS,
        OLD_DATA,
        OLD_TIMEOUT,
        OLD_RETRIES,
        OLD_ACK,
    ]],
};

/// The older ways of writing a message.
pub(super) static OLDER: [&Shape; 2] = [&SUBJECT_OBJECT, &FLAT];

/// Returns every way of writing a message.
pub(super) fn shapes() -> impl Iterator<Item = &'static Shape> {
    bodies::SHAPES.into_iter().chain(OLDER)
}

/// Returns the JSON Schema (draft-07) of message files, for editors.
pub fn schema() -> Value {
    let shapes: Vec<Value> = shapes().map(shape_schema).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Steward message file",
        "description": "What to drop into a station's inbox: one message, or a list of them.",
        "definitions": { "message": { "anyOf": shapes } },
        "oneOf": [
            { "$ref": "#/definitions/message" },
            {
                "type": "array",
                "minItems": 1,
                "maxItems": super::intake::MAX_MESSAGES,
                "items": { "$ref": "#/definitions/message" }
            }
        ]
    })
}

fn shape_schema(shape: &Shape) -> Value {
    let properties: Map<String, Value> = shape
        .fields()
        .map(|field| {
            let mut schema = match field.name {
                "method" if shape.is_canonical() => method_schema(shape.method),
                _ => holds_schema(field.holds),
            };
            schema.insert("description".to_owned(), json!(field.about));
            (field.name.to_owned(), Value::Object(schema))
        })
        .collect();
    let required: Vec<Value> = shape
        .required
        .iter()
        .map(|names| json!({ "required": names }))
        .collect();
    let mut schema = Map::new();
    schema.insert("title".to_owned(), json!(shape.title));
    schema.insert("description".to_owned(), json!(shape.about));
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("additionalProperties".to_owned(), json!(false));
    if !required.is_empty() {
        schema.insert("oneOf".to_owned(), json!(required));
    }
    schema.insert("properties".to_owned(), Value::Object(properties));
    Value::Object(schema)
}

/// Returns what may stand as `method` in a shape: its own, or any that has no shape of its own.
fn method_schema(method: Option<Method>) -> Map<String, Value> {
    let mut schema = match method {
        Some(_) => Map::new(),
        None => holds_schema(Holds::Token),
    };
    match method {
        Some(method) => schema.insert("const".to_owned(), json!(method.as_str())),
        None => {
            let others: Vec<&str> = bodies::SHAPES
                .iter()
                .filter_map(|shape| shape.method.map(Method::as_str))
                .collect();
            schema.insert("not".to_owned(), json!({ "enum": others }))
        }
    };
    schema
}

fn holds_schema(holds: Holds) -> Map<String, Value> {
    let token = format!("[A-Za-z0-9][A-Za-z0-9_-]{{0,{}}}", MAX_TOKEN - 1);
    let name = json!({ "type": "string", "pattern": format!("^{token}$") });
    let strings = json!({ "type": "array", "items": { "type": "string" } });
    let schema = match holds {
        Holds::Id => json!({ "type": "string", "format": "uuid" }),
        Holds::Name => {
            json!({ "type": "string", "minLength": 1, "maxLength": super::values::MAX_NAME })
        }
        Holds::Subject => json!({
            "type": "string",
            "pattern": format!("^{token}\\.(command|event)\\.{token}\\.{token}$")
        }),
        Holds::Targets => json!({ "oneOf": [
            { "const": "*" },
            name,
            { "type": "array", "items": name, "minItems": 1, "uniqueItems": true }
        ] }),
        Holds::Node | Holds::Token => name,
        Holds::Nodes => {
            json!({ "type": "array", "items": name, "minItems": 1, "uniqueItems": true })
        }
        Holds::Labels => json!({
            "type": "object", "minProperties": 1, "additionalProperties": { "type": "string" }
        }),
        Holds::Kind => json!({ "enum": ["command", "event"] }),
        Holds::OldKind => json!({
            "type": "string", "pattern": "^([cC][oO][mM][mM][aA][nN][dD]|[eE][vV][eE][nN][tT])([nN]?[aA][cC][kK])?$"
        }),
        Holds::Command => strings,
        Holds::OldCommand => json!({ "oneOf": [strings, { "type": "string" }] }),
        Holds::Environment => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        Holds::Directory => json!({ "type": "string", "minLength": 1 }),
        Holds::Text => json!({ "type": "string" }),
        Holds::Duration => json!({ "type": "string", "examples": ["500ms", "30s", "1h 30m"] }),
        Holds::OldDuration => json!({ "type": ["number", "string"], "minimum": 0 }),
        Holds::Flag => json!({ "type": "boolean" }),
        Holds::Codes => json!({
            "type": "array", "minItems": 1, "uniqueItems": true,
            "items": { "type": "integer", "minimum": 0, "maximum": 255 }
        }),
        Holds::Count => json!({ "type": "integer", "minimum": 0 }),
        Holds::Ignored => json!({ "type": "string" }),
        Holds::Body(schema) => serde_json::from_str(schema)
            .expect("the schemas written in this program are JSON, see the test"),
        Holds::Shape(shape) => shape_schema(shape),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// The longest wait and the longest run stated in the tables above, as the limits have them.
const _: () = assert!(
    limits::DEFAULT_TIMEOUT.as_secs() == 300
        && limits::MAX_TIMEOUT.as_secs() == 24 * 3600
        && limits::DEFAULT_EXPIRY.as_secs() == 24 * 3600
        && limits::MAX_EXPIRY.as_secs() == 90 * 24 * 3600
);
