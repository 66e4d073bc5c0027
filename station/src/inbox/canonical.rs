//! Writes messages down in canonical form: the exact inverse of reading them.
//!
//! It knows the canonical names of fields and leaves out what is standard. It checks nothing: a
//! message is valid by the time it comes here.

use serde_json::{Map, Value, json};
use steward_protocol::{Digest, Kind, Message, Method, Options, Subject, Target, limits};

use super::durations::spell;

/// Returns a message file with these messages in canonical form.
pub fn canonical(messages: &[Message]) -> Value {
    Value::Array(messages.iter().map(one).collect())
}

/// Returns the digest of what the message asks, without its id: the same id with another digest is
/// another request under a used name.
pub fn content_digest(message: &Message) -> Digest {
    let mut message = message.clone();
    message.id = None;
    Digest::of(one(&message).to_string().as_bytes())
}

fn one(message: &Message) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    if let Some(id) = message.id {
        put("id", json!(id));
    }
    if let Some(name) = &message.name {
        put("name", json!(name));
    }
    match &message.target {
        Target::Nodes(nodes) if nodes.len() == 1 => {
            let subject = Subject {
                node: nodes[0].clone(),
                kind: message.kind,
                method: message.method.clone(),
                domain: message.domain.clone(),
            };
            put("subject", json!(subject));
        }
        target => {
            match target {
                Target::Nodes(nodes) => put("to", json!(nodes)),
                Target::Labels(labels) if labels.is_empty() => put("to", json!("*")),
                Target::Labels(labels) => put("labels", json!(labels)),
            }
            if message.kind == Kind::Event {
                put("kind", json!(message.kind.as_str()));
            }
            put("method", json!(message.method));
            put("domain", json!(message.domain));
        }
    }
    if let Ok(Value::Object(body)) = serde_json::to_value(&message.body) {
        for (name, value) in body {
            // A method that is not known here may have no program to run.
            if name != "data" || value.as_array().is_none_or(|data| !data.is_empty()) {
                put(&name, value);
            }
        }
    }
    let standard = match Method::from_name(&message.method) {
        Some(Method::Tailfile) => Options {
            timeout: limits::MAX_TIMEOUT,
            stream: true,
            ..Options::standard()
        },
        _ => Options::standard(),
    };
    put_options(&message.options, &standard, &mut put);
    Value::Object(fields)
}

fn put_options(options: &Options, standard: &Options, put: &mut impl FnMut(&str, Value)) {
    if options.timeout != standard.timeout {
        let text = spell(options.timeout);
        put("timeout", json!(text));
    }
    if options.expires != standard.expires {
        let text = spell(options.expires);
        put("expires", json!(text));
    }
    if options.ordered != standard.ordered {
        put("ordered", json!(options.ordered));
    }
    if options.idempotent != standard.idempotent {
        put("idempotent", json!(options.idempotent));
    }
    if options.success_codes != standard.success_codes {
        put("success_codes", json!(options.success_codes));
    }
    if options.stream != standard.stream {
        put("stream", json!(options.stream));
    }
    if let Some(reply) = &options.reply {
        put("reply", json!(reply));
    }
}
