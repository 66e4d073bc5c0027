//! The canonical form of each method: which fields make up its body, and reading them.
//!
//! What a body means and what contradicts itself in it is the vocabulary's business; this module
//! knows how it is written in a message file, and where in the file a problem is.

use serde_json::{Map, Value as Json};
use steward_protocol::{
    Body, Method, MethodName, Reply,
    body::{BodyError, Limits, Step},
};

use super::{
    fields::{ADDRESSED, Field, HEAD, Holds, OPTIONS, Shape, field},
    findings::{Findings, quote},
    locate::Path,
    tree::{Node, Value},
    values::{Fields, Slot},
};
use steward_protocol::nearest::nearest;

const STRING: Holds = Holds::Body(r#"{"type": "string", "minLength": 1}"#);
const STRINGS: Holds =
    Holds::Body(r#"{"type": "object", "additionalProperties": {"type": "string"}}"#);
const SPAN: Holds = Holds::Body(r#"{"type": "string", "examples": ["10s", "5m", "24h"]}"#);
const ABSOLUTE: Holds = Holds::Body(r#"{"type": "string", "pattern": "^/"}"#);
const FLAG: Holds = Holds::Body(r#"{"type": "boolean"}"#);
const MODE: Holds = Holds::Body(r#"{"type": "string", "pattern": "^[0-7]{3,4}$"}"#);
const IF_MATCH: Holds = Holds::Body(r#"{"type": "string", "pattern": "^(absent|[0-9a-f]{64})$"}"#);
const SIZE: Holds = Holds::Body(
    r#"{"oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)?$"}]}"#,
);
const LIMITS: Holds = Holds::Body(
    r#"{"type": "object", "additionalProperties": false, "properties": {
    "memory": {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)?$"}]},
    "cpu": {"type": "string", "pattern": "^[0-9]+%$"},
    "tasks": {"type": "integer", "minimum": 1}}}"#,
);
const RUN: Holds = Holds::Body(r#"{"type": "object", "required": ["method", "domain"]}"#);

/// The body of `shellcommand`, and of a method this station does not know.
const SHELL: &[Field] = &[
    field(
        "data",
        Holds::Command,
        "The program and its arguments; no shell looks at them unless the program is one.",
    ),
    field(
        "shell",
        STRING,
        "Instead of data: a text run by the shell that the node's config names.",
    ),
    field(
        "cwd",
        Holds::Directory,
        "The directory to run in; the agent's own if left out.",
    ),
    field(
        "env",
        Holds::Environment,
        "Variables added to the environment.",
    ),
    field(
        "stdin",
        Holds::Text,
        "Text for standard input; nothing if left out.",
    ),
    field(
        "user",
        STRING,
        "The user to run as; the agent's own if left out.",
    ),
    field(
        "group",
        STRING,
        "The group to run as; the user's own if left out.",
    ),
    field(
        "grace",
        SPAN,
        "How long it may take to obey TERM before it is killed (default 5s).",
    ),
    field(
        "nice",
        Holds::Body(r#"{"type": "integer", "minimum": -20, "maximum": 19}"#),
        "Its niceness.",
    ),
    field(
        "limits",
        LIMITS,
        "What it and its descendants may use together: memory, cpu, tasks.",
    ),
];

const MODE_FIELD: Field = field(
    "mode",
    MODE,
    "Its permissions in octal; those of the file that is there, or 0644.",
);
const OWNER_FIELD: Field = field(
    "owner",
    STRING,
    "Its owner: user, user:group or :group; as the file that is there if left out.",
);
const IF_MATCH_FIELD: Field = field(
    "if_match",
    IF_MATCH,
    "What must be there now: \"absent\", or the BLAKE3 digest of its content as b3sum prints it.",
);
const PARENTS_FIELD: Field = field(
    "parents",
    FLAG,
    "Whether missing directories above it are made (default false).",
);

/// The body of `filewrite` and `fileappend`.
const WRITE: &[Field] = &[
    field("path", ABSOLUTE, "The file on the node; absolute."),
    field(
        "content",
        Holds::Body(r#"{"type": "string"}"#),
        "The content as text.",
    ),
    field(
        "base64",
        Holds::Body(r#"{"type": "string", "contentEncoding": "base64"}"#),
        "Instead of content: the content in base64.",
    ),
    MODE_FIELD,
    OWNER_FIELD,
    IF_MATCH_FIELD,
    PARENTS_FIELD,
];

const SEND: &[Field] = &[
    field(
        "source",
        STRING,
        "The file's name below the station's files/ directory.",
    ),
    field("path", ABSOLUTE, "Where it goes on the node; absolute."),
    MODE_FIELD,
    OWNER_FIELD,
    IF_MATCH_FIELD,
    PARENTS_FIELD,
    field(
        "bytes",
        Holds::Body(r#"{"type": "integer", "minimum": 0}"#),
        "Its length; the station fills it in.",
    ),
    field(
        "blake3",
        Holds::Body(r#"{"type": "string", "pattern": "^[0-9a-f]{64}$"}"#),
        "Digest of its content; the station fills it in, and refuses another.",
    ),
];

const TAIL: &[Field] = &[
    field("path", ABSOLUTE, "The file on the node; absolute."),
    field(
        "from",
        STRING,
        "Where it begins: \"end\" (default), \"start\", or the position an earlier one ended at.",
    ),
    field(
        "lines",
        Holds::Body(r#"{"type": "integer", "minimum": 0}"#),
        "How many of the last lines come first.",
    ),
    field(
        "for",
        SPAN,
        "How long it is followed; until it is cancelled, or its timeout, if left out.",
    ),
];

const HTTP: &[Field] = &[
    field(
        "url",
        Holds::Body(r#"{"type": "string", "pattern": "^https?://"}"#),
        "The address.",
    ),
    field("headers", STRINGS, "Headers of the request."),
    field(
        "max_bytes",
        SIZE,
        "Most bytes of the answer's body that are kept (default 1 MiB).",
    ),
];

const PROCESSES: &[Field] = &[
    field(
        "action",
        Holds::Body(r#"{"enum": ["list", "stop", "start"]}"#),
        "What to do (default list).",
    ),
    field(
        "process",
        Holds::Body(r#"{"type": "string"}"#),
        "The subject of the process to stop or start.",
    ),
];

const SCHEDULE: &[Field] = &[
    field(
        "action",
        Holds::Body(r#"{"enum": ["set", "list", "remove"]}"#),
        "What to do (default set).",
    ),
    field("schedule", STRING, "The name of the schedule on the node."),
    field("every", SPAN, "Time from one run to the next."),
    field(
        "cron",
        STRING,
        "Instead of every: the five fields of a crontab, in the node's time zone.",
    ),
    field("jitter", SPAN, "Each run comes up to this much later."),
    field(
        "missed",
        Holds::Body(r#"{"enum": ["skip", "once"]}"#),
        "What becomes of runs missed while the agent did not run (default skip).",
    ),
    field(
        "run",
        RUN,
        "What runs: method, domain, timeout, and the fields of the method's body.",
    ),
];

const TEXT: &[Field] = &[field("data", Holds::Command, "The lines.")];

const fn shape(method: Method, title: &'static str, groups: &'static [&'static [Field]]) -> Shape {
    Shape {
        title,
        about: "A message in canonical form: who (subject, to or labels), what (method and domain, if there is no subject), and with what.",
        groups,
        method: Some(method),
        required: ADDRESSED,
    }
}

static SHELL_SHAPE: Shape = Shape {
    method: None,
    ..shape(
        Method::Shellcommand,
        "canonical form",
        &[HEAD, SHELL, OPTIONS],
    )
};
static HELLO_SHAPE: Shape = shape(Method::Hello, "hello", &[HEAD, OPTIONS]);
static PING_SHAPE: Shape = shape(Method::Ping, "ping", &[HEAD, OPTIONS]);
static WRITE_SHAPE: Shape = shape(Method::Filewrite, "filewrite", &[HEAD, WRITE, OPTIONS]);
static APPEND_SHAPE: Shape = shape(Method::Fileappend, "fileappend", &[HEAD, WRITE, OPTIONS]);
static FETCH_SHAPE: Shape = shape(
    Method::Filefetch,
    "filefetch",
    &[
        HEAD,
        &[field("path", ABSOLUTE, "The file on the node; absolute.")],
        OPTIONS,
    ],
);
static SEND_SHAPE: Shape = shape(Method::Filesend, "filesend", &[HEAD, SEND, OPTIONS]);
static TAIL_SHAPE: Shape = shape(Method::Tailfile, "tailfile", &[HEAD, TAIL, OPTIONS]);
static HTTP_SHAPE: Shape = shape(Method::Httpget, "httpget", &[HEAD, HTTP, OPTIONS]);
static PROCESSES_SHAPE: Shape = shape(Method::Processes, "processes", &[HEAD, PROCESSES, OPTIONS]);
static SCHEDULE_SHAPE: Shape = shape(Method::Schedule, "schedule", &[HEAD, SCHEDULE, OPTIONS]);
static TEXT_SHAPE: Shape = shape(Method::Textlogging, "textlogging", &[HEAD, TEXT, OPTIONS]);

/// The canonical form of every method.
pub(super) static SHAPES: [&Shape; 12] = [
    &SHELL_SHAPE,
    &HELLO_SHAPE,
    &PING_SHAPE,
    &WRITE_SHAPE,
    &APPEND_SHAPE,
    &FETCH_SHAPE,
    &SEND_SHAPE,
    &TAIL_SHAPE,
    &HTTP_SHAPE,
    &PROCESSES_SHAPE,
    &SCHEDULE_SHAPE,
    &TEXT_SHAPE,
];

/// Returns the canonical form of a message whose method is called `name`, as far as that can be told.
pub(super) fn shape_of(name: Option<&str>) -> &'static Shape {
    name.and_then(|name| {
        SHAPES
            .into_iter()
            .find(|shape| shape.method.is_some_and(|method| method.as_str() == name))
    })
    .unwrap_or(&SHELL_SHAPE)
}

/// Reads the body of a message in canonical form.
pub(super) fn body(
    slot: &Slot<'_>,
    fields: &Fields<'_>,
    method: &MethodName,
    findings: &mut Findings,
) -> Option<Body> {
    let mut map = Map::new();
    for name in Body::fields(method) {
        if let Some(found) = fields.get(name) {
            map.insert((*name).to_owned(), json(&found.node.value));
        }
    }
    unknown_inside(slot, findings);
    let text = Json::Object(map).to_string();
    match Body::read(method, &text) {
        Ok(body) => Some(body),
        Err(error) => {
            let hint = match Body::fields(method) {
                [] => "this method needs nothing".to_owned(),
                names => format!("the fields of {method} are {}", names.join(", ")),
            };
            let path = place(slot, &error.path);
            findings.value(&path, reason(&error), hint);
            None
        }
    }
}

/// Reads where a result goes.
pub(super) fn reply(slot: &Slot<'_>, findings: &mut Findings) -> Option<Reply> {
    let problem = match serde_json::from_value::<Reply>(json(&slot.node.value)) {
        Ok(reply) => {
            let wrong = [
                ("directory", &reply.directory),
                ("file_name", &reply.file_name),
            ]
            .into_iter()
            .find(|(_, name)| name.as_deref().is_some_and(|name| !is_inside(name)));
            match wrong {
                None => return Some(reply),
                Some((field, _)) => {
                    format!("has a \"{field}\" that is not a plain name below results/")
                }
            }
        }
        Err(error) => reason(&BodyError {
            path: Vec::new(),
            problem: error.to_string(),
        }),
    };
    let hint = "write {\"to\": \"file\", \"directory\": \"reports\", \"file_name\": \"disk.txt\"}";
    findings.value(&slot.path, problem, hint);
    None
}

/// Tells whether a relative path stays where it begins.
fn is_inside(path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(|c: char| c.is_control())
    };
    path.len() <= 255 && path.split('/').all(plain)
}

fn reason(error: &BodyError) -> String {
    // What a foreign text brings along is shown escaped.
    error
        .problem
        .escape_debug()
        .to_string()
        .replace("\\\"", "\"")
        .replace("\\'", "'")
}

/// Refuses fields that nobody reads inside the objects of a body.
fn unknown_inside(slot: &Slot<'_>, findings: &mut Findings) {
    let Some((path, limits)) = entry(slot, "limits") else {
        return unknown_in_run(slot, findings);
    };
    unknown(&path, limits, Limits::FIELDS, findings);
}

fn unknown_in_run(slot: &Slot<'_>, findings: &mut Findings) {
    let Some((path, run)) = entry(slot, "run") else {
        return;
    };
    let Value::Object(entries) = &run.value else {
        return;
    };
    let method = entries.iter().find_map(|entry| match &entry.node.value {
        Value::Text(text) if entry.key == "method" => text.parse::<MethodName>().ok(),
        _ => None,
    });
    let Some(method) = method else { return };
    let known: Vec<&'static str> = ["method", "domain", "timeout"]
        .into_iter()
        .chain(Body::fields(&method).iter().copied())
        .collect();
    unknown(&path, run, &known, findings);
}

fn unknown(path: &Path, node: &Node, known: &[&'static str], findings: &mut Findings) {
    let Value::Object(entries) = &node.value else {
        return;
    };
    for (index, entry) in entries.iter().enumerate() {
        if known.contains(&entry.key.as_str()) {
            continue;
        }
        let hint = match nearest(&entry.key, known.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("the fields are {}", known.join(", ")),
        };
        let mut path = path.clone();
        path.push(index);
        findings.key(
            &path,
            format!("there is no field {}", quote(&entry.key)),
            hint,
        );
    }
}

fn entry<'t>(slot: &Slot<'t>, name: &str) -> Option<(Path, &'t Node)> {
    let Value::Object(entries) = &slot.node.value else {
        return None;
    };
    let index = entries.iter().position(|entry| entry.key == name)?;
    let mut path = slot.path.clone();
    path.push(index);
    entries.get(index).map(|entry| (path, &entry.node))
}

/// Returns the way to a value in the file, as far as it is there.
fn place(slot: &Slot<'_>, steps: &[Step]) -> Path {
    let mut path = slot.path.clone();
    let mut node = slot.node;
    for step in steps {
        let next = match (step, &node.value) {
            (Step::Key(key), Value::Object(entries)) => entries
                .iter()
                .position(|entry| entry.key == *key)
                .and_then(|index| Some((index, &entries.get(index)?.node))),
            (Step::Index(index), Value::List(items)) => {
                items.get(*index).map(|item| (*index, item))
            }
            _ => None,
        };
        let Some((index, found)) = next else { break };
        path.push(index);
        node = found;
    }
    path
}

/// Returns a value as JSON; of a key that comes twice the first counts, and the file is refused anyway.
fn json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => items.iter().map(|item| json(&item.value)).collect(),
        Value::Object(entries) => {
            let mut map = Map::new();
            for entry in entries {
                map.entry(entry.key.clone())
                    .or_insert_with(|| json(&entry.node.value));
            }
            Json::Object(map)
        }
    }
}
