//! The body of `shellcommand`: read field by field, so that a refusal names the field.

use std::collections::BTreeMap;

use serde_json::{Map, Value, value::RawValue};
use steward_protocol::ShellBody;

use super::Refusal;

/// Reads a body. Unknown fields are ignored, as everywhere on the wire.
///
/// # Errors
///
/// Names the field that cannot be used.
pub fn read(body: &RawValue) -> Result<ShellBody, Refusal> {
    let mut fields: Map<String, Value> = serde_json::from_str(body.get()).map_err(|_| {
        refusal(
            "body",
            "is not a JSON object with data, and optionally cwd, env, stdin",
        )
    })?;
    let data = fields
        .remove("data")
        .map(arguments)
        .transpose()?
        .unwrap_or_default();
    if data.first().is_none_or(String::is_empty) {
        return Err(refusal(
            "data",
            "is empty; its first element is the program to run",
        ));
    }
    Ok(ShellBody {
        data,
        cwd: optional(&mut fields, "cwd")?,
        env: fields
            .remove("env")
            .filter(|value| !value.is_null())
            .map(variables)
            .transpose()?
            .unwrap_or_default(),
        stdin: match fields.remove("stdin") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err(refusal("stdin", "is not a text")),
        },
    })
}

fn refusal(field: impl Into<String>, problem: impl Into<String>) -> Refusal {
    Refusal::Body {
        field: field.into(),
        problem: problem.into(),
    }
}

fn arguments(value: Value) -> Result<Vec<String>, Refusal> {
    let Value::Array(values) = value else {
        return Err(refusal("data", "is not a list of texts"));
    };
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| text(&format!("data[{index}]"), value))
        .collect()
}

fn variables(value: Value) -> Result<BTreeMap<String, String>, Refusal> {
    let Value::Object(pairs) = value else {
        return Err(refusal("env", "is not an object of texts"));
    };
    let mut variables = BTreeMap::new();
    for (name, value) in pairs {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(refusal(
                format!("env[{name:?}]"),
                "is not a name: it is empty, or has '=' or NUL in it",
            ));
        }
        let value = text(&format!("env[{name:?}]"), value)?;
        variables.insert(name, value);
    }
    Ok(variables)
}

fn optional(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => text(name, value).map(Some),
    }
}

/// Returns a text that can be handed to the operating system.
fn text(field: &str, value: Value) -> Result<String, Refusal> {
    match value {
        Value::String(text) if text.contains('\0') => Err(refusal(
            field,
            "has a NUL in it, which no program can be given",
        )),
        Value::String(text) => Ok(text),
        _ => Err(refusal(field, "is not a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<&[&str], &str>) {
        let raw: Box<RawValue> = serde_json::from_str(body).expect("the row is JSON");
        match (read(&raw), expected) {
            (Ok(found), Ok(data)) => assert_eq!(found.data, data, "{body}"),
            (Err(Refusal::Body { field, .. }), Err(expected)) => {
                assert_eq!(field, expected, "{body}");
            }
            (found, _) => panic!("{body} gave {found:?}"),
        }
    }

    #[test]
    fn a_body_is_read_or_the_field_is_named() {
        check(r#"{"data":["ls","-l"]}"#, Ok(&["ls", "-l"]));
        check(r#"{"data":["ls"],"later":1,"cwd":null}"#, Ok(&["ls"]));
        check(r#"{"data":["ls",""]}"#, Ok(&["ls", ""]));
        check("[]", Err("body"));
        check("null", Err("body"));
        check("{}", Err("data"));
        check(r#"{"data":[]}"#, Err("data"));
        check(r#"{"data":[""]}"#, Err("data"));
        check(r#"{"data":"ls"}"#, Err("data"));
        check(r#"{"data":["ls",1]}"#, Err("data[1]"));
        check(r#"{"data":["l\u0000s"]}"#, Err("data[0]"));
        check(r#"{"data":["ls"],"cwd":7}"#, Err("cwd"));
        check(r#"{"data":["ls"],"cwd":"/\u0000"}"#, Err("cwd"));
        check(r#"{"data":["ls"],"env":[]}"#, Err("env"));
        check(r#"{"data":["ls"],"env":{"A":1}}"#, Err("env[\"A\"]"));
        check(r#"{"data":["ls"],"env":{"A=B":"1"}}"#, Err("env[\"A=B\"]"));
        check(r#"{"data":["ls"],"env":{"":"1"}}"#, Err("env[\"\"]"));
        check(r#"{"data":["ls"],"stdin":[]}"#, Err("stdin"));
    }
}
