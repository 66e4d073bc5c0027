//! Reads one message in canonical form, or in one of the older shapes (design section 4.5).
//!
//! It knows which fields make a message and which exclude each other. How single values are read is
//! the business of `values`.

use std::time::Duration;

use serde_json::json;
use steward_protocol::{
    Body, Domain, Kind, Message, MessageId, Method, MethodName, NodeName, Options, Subject,
    SubjectError, Target, limits,
};

use super::{
    bodies, fields,
    findings::{Findings, quote},
    locate::Path,
    tree::{Node, Value},
    values::{self, Fields, MAX_NAME, NO_TARGET, Slot},
};
use steward_protocol::nearest::nearest;

/// Largest body of a message, in bytes of its JSON text: the rest of an order (ids, subject, times,
/// who asked) needs a little room below [`limits::MAX_ORDER`] too.
pub const MAX_BODY: usize = limits::MAX_ORDER - 8 * 1024;

/// What to write where a message belongs.
pub(super) const A_MESSAGE: &str = "write {\"to\": \"ship1\", \"method\": \"shellcommand\", \"domain\": \"operatingsystem\", \"data\": [\"uname\"]}";

/// The domain of a message in an older shape that names none.
const OLD_DOMAIN: &str = "operatingsystem";

/// Field names that only the flat older shape has.
const FLAT_MARKS: [&str; 7] = [
    "toNode",
    "toNodes",
    "commandOrEvent",
    "methodArgs",
    "methodTimeout",
    "retries",
    "ACKTimeout",
];

/// Fields of the older shapes that are read and not used: delivery goes on until the message expires.
const UNUSED: [&str; 2] = ["retries", "ACKTimeout"];

/// Reads one message; `None` after noting what is wrong with it.
pub(super) fn message(slot: &Slot<'_>, findings: &mut Findings) -> Option<Message> {
    let before = findings.count();
    let message = match &slot.node.value {
        Value::Object(entries) => {
            let has = |name: &str| entries.iter().any(|entry| entry.key == name);
            let subject_object = entries.iter().any(|entry| {
                entry.key == "subject" && matches!(entry.node.value, Value::Object(_))
            });
            if subject_object || has("message") {
                subject_object_shape(slot, findings)?
            } else if FLAT_MARKS.into_iter().any(has) {
                flat_shape(slot, findings)?
            } else {
                canonical_shape(slot, findings)?
            }
        }
        value => {
            let reason = format!("is {}; expected a message, an object", value.kind());
            findings.value(&slot.path, reason, A_MESSAGE);
            return None;
        }
    };
    if findings.count() == before {
        check_size(slot, &message, findings);
    }
    Some(message)
}

/// Returns which of the fields that are read and not used stand in the messages of a file.
pub(super) fn unused(file: &Node) -> Vec<&'static str> {
    let messages = match &file.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(file),
    };
    let has = |name: &str, node: &Node| matches!(&node.value, Value::Object(entries) if entries.iter().any(|entry| entry.key == name));
    let holds = |name: &str, node: &Node| {
        let Value::Object(entries) = &node.value else {
            return false;
        };
        has(name, node)
            || entries
                .iter()
                .any(|entry| entry.key == "message" && has(name, &entry.node))
    };
    UNUSED
        .into_iter()
        .filter(|name| messages.iter().any(|message| holds(name, message)))
        .collect()
}

fn canonical_shape(slot: &Slot<'_>, findings: &mut Findings) -> Option<Message> {
    let before = findings.count();
    let fields = Fields::read(slot, bodies::shape_of(method_named(slot)), findings)?;
    let address = canonical_address(&fields, findings);
    let mut options = options(&fields, findings);
    let id = id(&fields, findings);
    let name = name(&fields, findings);
    texts(&fields, findings);
    let address = address?;
    // What contradicts itself is looked for where everything is what it should be.
    if findings.count() > before {
        return None;
    }
    let body = body(slot, &fields, &address.method, findings)?;
    if Method::from_name(&address.method) == Some(Method::Tailfile) {
        follow(&fields, &mut options);
    }
    Some(Message {
        id,
        name,
        target: address.target,
        kind: address.kind,
        method: address.method,
        domain: address.domain,
        options,
        body,
    })
}

/// Who is meant, and what is asked.
struct Address {
    target: Target,
    kind: Kind,
    method: MethodName,
    domain: Domain,
}

fn canonical_address(fields: &Fields<'_>, findings: &mut Findings) -> Option<Address> {
    if let Some(slot) = fields.get("subject") {
        for name in ["to", "labels", "kind", "method", "domain"] {
            if let Some(other) = fields.get(name) {
                let reason = format!("\"{name}\" stands beside \"subject\", which says it already");
                let hint = "write either \"subject\", or \"to\" (or \"labels\") with \"method\" and \"domain\"";
                findings.key(&other.path, reason, hint);
            }
        }
        return subject(slot, findings);
    }
    let target = target(fields, findings);
    let kind = fields
        .get("kind")
        .map_or(Some(Kind::Command), |slot| values::kind(slot, findings));
    let method_hint = "say what to do: \"method\": \"shellcommand\"";
    let method = fields
        .need("method", method_hint, findings)
        .and_then(|slot| method(slot, findings));
    let domain_hint = "say what it is for: \"domain\": \"operatingsystem\"";
    let domain = fields
        .need("domain", domain_hint, findings)
        .and_then(|slot| slot.token(findings));
    Some(Address {
        target: target?,
        kind: kind?,
        method: method?,
        domain: domain?,
    })
}

fn subject(slot: &Slot<'_>, findings: &mut Findings) -> Option<Address> {
    let text = slot.any_text(findings)?;
    match text.parse::<Subject>() {
        Ok(subject) => {
            reserved(slot, &subject.method, findings)?;
            Some(Address {
                target: Target::Nodes(vec![subject.node]),
                kind: subject.kind,
                method: subject.method,
                domain: subject.domain,
            })
        }
        Err(error) => {
            let hint = subject_hint(text, &error);
            // The parser's own words quote a token as it stands; ours may be long or hostile.
            let reason = match error {
                SubjectError::Tokens { .. } => format!("{} {error}", quote(text)),
                SubjectError::Kind { found } => format!(
                    "has {} as its second token; expected command or event",
                    quote(&found)
                ),
                SubjectError::Name {
                    part,
                    found,
                    source,
                } => format!("{part} {} {source}", quote(&found)),
            };
            findings.value(&slot.path, reason, hint);
            None
        }
    }
}

fn subject_hint(text: &str, error: &SubjectError) -> String {
    let example = "write it like \"ship1.command.shellcommand.operatingsystem\"";
    match error {
        SubjectError::Name { part: "node", found, .. } if found == "*" => {
            "for every known node write \"to\": \"*\" with \"method\" and \"domain\" instead of \"subject\"".to_owned()
        }
        SubjectError::Kind { found } => match nearest(found, ["command", "event"]) {
            Some(kind) => format!("did you mean {kind}?"),
            None => example.to_owned(),
        },
        _ if text.trim() != text => "remove the blanks around it".to_owned(),
        _ => example.to_owned(),
    }
}

fn target(fields: &Fields<'_>, findings: &mut Findings) -> Option<Target> {
    match (fields.get("to"), fields.get("labels")) {
        (Some(_), Some(labels)) => {
            let hint = "keep one of them";
            let reason = "\"labels\" stands beside \"to\"; a message has one kind of target";
            findings.key(&labels.path, reason, hint);
            None
        }
        (Some(to), None) => to_target(to, findings),
        (None, Some(labels)) => {
            let labels = labels.labels(findings)?;
            Some(Target::Labels(labels.into_iter().collect()))
        }
        (None, None) => {
            findings.value(&fields.path, "has no target", NO_TARGET);
            None
        }
    }
}

fn to_target(slot: &Slot<'_>, findings: &mut Findings) -> Option<Target> {
    match &slot.node.value {
        Value::Text(text) if text == "*" => Some(Target::Labels([].into())),
        Value::Text(_) => Some(Target::Nodes(vec![slot.token::<NodeName>(findings)?])),
        Value::List(items) if matches!(items.as_slice(), [item] if item.value == Value::Text("*".to_owned())) => {
            Some(Target::Labels([].into()))
        }
        _ => Some(Target::Nodes(slot.nodes(findings)?)),
    }
}

fn method(slot: &Slot<'_>, findings: &mut Findings) -> Option<MethodName> {
    let method: MethodName = slot.token(findings)?;
    reserved(slot, &method, findings)?;
    Some(method)
}

/// Refuses the methods in which station and agent speak to each other. A method this station does
/// not know is left to the node: it may be newer.
fn reserved(slot: &Slot<'_>, method: &MethodName, findings: &mut Findings) -> Option<()> {
    match Method::from_name(method) {
        Some(known) if !Method::ORDERABLE.contains(&known) => {
            let orderable = Method::ORDERABLE.map(Method::as_str).join(", ");
            let reason = format!("method \"{method}\" is spoken between station and agent only");
            let hint = format!("what can be asked for: {orderable}");
            findings.value(&slot.path, reason, hint);
            None
        }
        _ => Some(()),
    }
}

fn id(fields: &Fields<'_>, findings: &mut Findings) -> Option<MessageId> {
    let slot = fields.get("id")?;
    let text = slot.any_text(findings)?;
    match text.parse::<MessageId>() {
        Ok(id) if !id.0.is_nil() => Some(id),
        _ => {
            let hint = "leave \"id\" out and the station draws one";
            let reason = format!("{} is not a UUID", quote(text));
            findings.value(&slot.path, reason, hint);
            None
        }
    }
}

fn name(fields: &Fields<'_>, findings: &mut Findings) -> Option<String> {
    fields.get("name")?.line(MAX_NAME, findings)
}

fn options(fields: &Fields<'_>, findings: &mut Findings) -> Options {
    let standard = Options::standard();
    let duration = |name: &str, longest: Duration, findings: &mut Findings| {
        fields
            .get(name)
            .and_then(|slot| slot.duration(longest, findings))
    };
    let timeout = duration("timeout", limits::MAX_TIMEOUT, findings);
    let expires = duration("expires", limits::MAX_EXPIRY, findings);
    let flag =
        |name: &str, findings: &mut Findings| fields.get(name).and_then(|slot| slot.flag(findings));
    let ordered = flag("ordered", findings);
    let idempotent = flag("idempotent", findings);
    let codes = fields
        .get("success_codes")
        .and_then(|slot| slot.codes(findings));
    Options {
        timeout: timeout.unwrap_or(standard.timeout),
        expires: expires.unwrap_or(standard.expires),
        ordered: ordered.unwrap_or(standard.ordered),
        idempotent: idempotent.unwrap_or(standard.idempotent),
        success_codes: codes.unwrap_or(standard.success_codes),
        stream: flag("stream", findings).unwrap_or(standard.stream),
        reply: fields
            .get("reply")
            .and_then(|slot| bodies::reply(slot, findings)),
    }
}

/// Returns what is written where a message names its method, right or wrong.
fn method_named<'t>(slot: &Slot<'t>) -> Option<&'t str> {
    let Value::Object(entries) = &slot.node.value else {
        return None;
    };
    let text = |name: &str| {
        entries.iter().find_map(|entry| match &entry.node.value {
            Value::Text(text) if entry.key == name => Some(text.as_str()),
            _ => None,
        })
    };
    text("subject")
        .and_then(|subject| subject.split('.').nth(2))
        .or_else(|| text("method"))
}

/// Following a file takes as long as somebody wants it, and is wanted while it goes on.
fn follow(fields: &Fields<'_>, options: &mut Options) {
    if fields.get("timeout").is_none() {
        options.timeout = limits::MAX_TIMEOUT;
    }
    if fields.get("stream").is_none() {
        options.stream = true;
    }
}

/// Reads what is read by itself, so that all of its problems are told at once.
fn texts(fields: &Fields<'_>, findings: &mut Findings) {
    if let Some(data) = fields.get("data") {
        data.command(findings);
    }
    if let Some(env) = fields.get("env") {
        env.environment(findings);
    }
    if let Some(cwd) = fields.get("cwd") {
        cwd.directory(findings);
    }
    if let Some(stdin) = fields.get("stdin") {
        stdin.any_text(findings);
    }
}

fn body(
    slot: &Slot<'_>,
    fields: &Fields<'_>,
    method: &MethodName,
    findings: &mut Findings,
) -> Option<Body> {
    let runs = Method::from_name(method) == Some(Method::Shellcommand);
    if runs && fields.get("shell").is_none() && !has_program(slot, fields, findings) {
        return None;
    }
    bodies::body(slot, fields, method, findings)
}

/// Checks that there is something to run.
fn has_program(slot: &Slot<'_>, fields: &Fields<'_>, findings: &mut Findings) -> bool {
    let first = fields.get("data").and_then(|data| match &data.node.value {
        Value::List(items) => items.first().map(|item| &item.value),
        _ => None,
    });
    let empty = match first {
        Some(Value::Text(program)) if program.is_empty() => true,
        Some(_) => return true,
        None => false,
    };
    nothing_to_run(&data_path(slot), empty, findings);
    false
}

/// Notes that no program is named: the list is empty, or its first word is.
fn nothing_to_run(path: &Path, word: bool, findings: &mut Findings) {
    let reason = match word {
        true => "the first string of \"data\" is empty; it is the program to run",
        false => "\"data\" is empty; there is nothing to run",
    };
    let hint = "write the program and its arguments: \"data\": [\"uname\", \"-a\"]";
    findings.value(path, reason, hint);
}

/// Checks what only the whole message shows: that it fits.
fn check_size(slot: &Slot<'_>, message: &Message, findings: &mut Findings) {
    let bytes = serde_json::to_vec(&message.body).map_or(usize::MAX, |text| text.len());
    if bytes > MAX_BODY {
        let reason = format!("is {bytes} bytes as it travels; at most {MAX_BODY} are allowed");
        let hint =
            "send a large file with filesend, and a large script the same way and run it by name";
        findings.value(&slot.path, reason, hint);
    }
}

/// Returns the path of the field that should hold the command, or of the message if it has none.
fn data_path(slot: &Slot<'_>) -> Vec<usize> {
    let mut path = slot.path.clone();
    if let Value::Object(entries) = &slot.node.value
        && let Some(step) = entries
            .iter()
            .position(|entry| matches!(entry.key.as_str(), "data" | "methodArgs"))
    {
        path.push(step);
    }
    path
}

fn subject_object_shape(slot: &Slot<'_>, findings: &mut Findings) -> Option<Message> {
    let fields = Fields::read(slot, &fields::SUBJECT_OBJECT, findings)?;
    let subject = fields
        .need(
            "subject",
            "write an object with \"node\" and \"method\"",
            findings,
        )
        .and_then(|slot| Fields::read(slot, &fields::OLD_SUBJECT, findings));
    let message = fields
        .need("message", "write an object with \"data\"", findings)
        .and_then(|slot| Fields::read(slot, &fields::OLD_MESSAGE, findings));
    let id = id(&fields, findings);
    let name = name(&fields, findings);
    let (subject, message) = (subject?, message?);
    let node = subject
        .need("node", "name the node: \"node\": \"ship1\"", findings)
        .and_then(|slot| slot.token(findings));
    let kind_field = one_of(&subject, ["messageType", "commandOrEvent"], findings);
    let parts = old_parts(&subject, kind_field, &message, findings);
    let parts = parts?;
    Some(parts.message(id, name, vec![node?]))
}

fn flat_shape(slot: &Slot<'_>, findings: &mut Findings) -> Option<Message> {
    let fields = Fields::read(slot, &fields::FLAT, findings)?;
    let target = one_of(&fields, ["toNode", "toNodes"], findings);
    let nodes = match (target, fields.get("toNode")) {
        (None, _) => {
            let hint =
                "name who is meant: \"toNode\": \"ship1\" or \"toNodes\": [\"ship1\", \"ship2\"]";
            findings.value(&fields.path, "has no target", hint);
            None
        }
        (Some(_), Some(node)) => node.token(findings).map(|node| vec![node]),
        (Some(nodes), None) => nodes.nodes(findings),
    };
    let id = id(&fields, findings);
    let name = name(&fields, findings);
    let parts = old_parts(&fields, fields.get("commandOrEvent"), &fields, findings)?;
    Some(parts.message(id, name, nodes?))
}

/// What the older shapes have in common.
struct OldParts {
    kind: Kind,
    method: MethodName,
    domain: Domain,
    body: Body,
    timeout: Option<Duration>,
}

impl OldParts {
    fn message(self, id: Option<MessageId>, name: Option<String>, nodes: Vec<NodeName>) -> Message {
        let mut options = Options::standard();
        options.timeout = self.timeout.unwrap_or(options.timeout);
        Message {
            id,
            name,
            target: Target::Nodes(nodes),
            kind: self.kind,
            method: self.method,
            domain: self.domain,
            options,
            body: self.body,
        }
    }
}

fn old_parts(
    subject: &Fields<'_>,
    kind: Option<&Slot<'_>>,
    message: &Fields<'_>,
    findings: &mut Findings,
) -> Option<OldParts> {
    let kind = kind.map_or(Some(Kind::Command), |slot| values::old_kind(slot, findings));
    let method_hint = "say what to do: \"method\": \"shellcommand\"";
    let method = subject
        .need("method", method_hint, findings)
        .and_then(|slot| old_method(slot, findings));
    let domain = match subject.get("domain") {
        Some(slot) => slot.token(findings),
        None => Some(OLD_DOMAIN.parse().expect("the constant is a token")),
    };
    let data = one_of(message, ["data", "methodArgs"], findings)
        .map_or(Some(Vec::new()), |slot| old_command(slot, findings));
    let timeout = message
        .get("methodTimeout")
        .and_then(|slot| slot.old_duration(limits::MAX_TIMEOUT, findings));
    // These two are checked so that a slip in them is told, and then not used.
    let [retries, ack_timeout] = UNUSED;
    if let Some(slot) = message.get(retries) {
        slot.count(findings);
    }
    if let Some(slot) = message.get(ack_timeout) {
        slot.old_duration(limits::MAX_EXPIRY, findings);
    }
    let (method, data) = (method?, data?);
    let body = old_body(message, &method, data, findings);
    Some(OldParts {
        kind: kind?,
        method,
        domain: domain?,
        body: body?,
        timeout,
    })
}

/// Makes a body of what the older shapes have for every method: a list of words.
fn old_body(
    message: &Fields<'_>,
    method: &MethodName,
    data: Vec<String>,
    findings: &mut Findings,
) -> Option<Body> {
    let path = || {
        let slot = message.get("data").or_else(|| message.get("methodArgs"));
        slot.map_or_else(|| message.path.clone(), |slot| slot.path.clone())
    };
    let fields = match Method::from_name(method) {
        Some(Method::Tailfile) => json!({ "path": data.first() }),
        Some(Method::Httpget) => json!({ "url": data.first() }),
        Some(Method::Hello | Method::Ping | Method::Processes) => json!({}),
        Some(Method::Shellcommand) if data.first().is_none_or(String::is_empty) => {
            nothing_to_run(&path(), !data.is_empty(), findings);
            return None;
        }
        _ => json!({ "data": data }),
    };
    Body::read(method, &fields.to_string())
        .map_err(|error| {
            let hint = format!(
                "write it in canonical form; {} of the README says how",
                method
            );
            findings.value(&path(), error.to_string(), hint);
        })
        .ok()
}

/// Returns whichever of two fields for the same thing is there, and refuses both at once.
fn one_of<'f, 't>(
    fields: &'f Fields<'t>,
    names: [&str; 2],
    findings: &mut Findings,
) -> Option<&'f Slot<'t>> {
    let [first, second] = names.map(|name| fields.get(name));
    if let (Some(_), Some(second)) = (first, second) {
        let [first, other] = names;
        let reason = format!("\"{other}\" stands beside \"{first}\", which means the same");
        findings.key(&second.path, reason, "keep one of them");
    }
    first.or(second)
}

fn old_method(slot: &Slot<'_>, findings: &mut Findings) -> Option<MethodName> {
    let text = slot.any_text(findings)?;
    let lower = text.to_ascii_lowercase();
    let name = match lower.as_str() {
        "clicommand" | "reqclicommand" | "reqshellcommand" => Method::Shellcommand.as_str(),
        "reqhello" => Method::Hello.as_str(),
        "reqtailfile" => Method::Tailfile.as_str(),
        "reqhttpget" => Method::Httpget.as_str(),
        "reqping" => Method::Ping.as_str(),
        "opprocesslist" | "reqopprocesslist" => Method::Processes.as_str(),
        "reqtextlogging" => Method::Textlogging.as_str(),
        other => other,
    };
    let method: MethodName = slot.parsed_token(name, findings)?;
    reserved(slot, &method, findings)?;
    Some(method)
}

fn old_command(slot: &Slot<'_>, findings: &mut Findings) -> Option<Vec<String>> {
    match &slot.node.value {
        // A single word may stand alone. Several words would be taken for one program's name.
        Value::Text(text) if !text.contains(char::is_whitespace) && !text.contains('\0') => {
            Some(vec![text.clone()])
        }
        _ => slot.command(findings),
    }
}
