//! Reads what a node runs at every start: message files in canonical form, addressed to this node or
//! to nobody.
//!
//! Every problem names the field. It knows nothing of when and how they are carried out.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use rustix::fs::OFlags;
use serde_json::{Map, Value};
use steward_protocol::{
    Body, Domain, Kind, Method, MethodName, NodeName, Subject, body::Span, limits,
};

/// The directory in the state directory.
pub const DIR: &str = "startup";

/// Largest file that is read, as in the station's inbox.
const MAX_FILE: u64 = 1 << 20;

/// Most files of one start: each is run by itself, one after the other.
const MAX_FILES: usize = 1000;

/// Most messages of one file, as in the station's inbox.
const MAX_MESSAGES: usize = 1000;

/// What this node gives itself to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// Command or event.
    pub kind: Kind,
    /// The functionality.
    pub method: MethodName,
    /// What it is for.
    pub domain: Domain,
    /// The fields of the method's body.
    pub body: Map<String, Value>,
    /// How long it may run.
    pub timeout: Duration,
    /// Exit codes that count as success.
    pub success_codes: Vec<i32>,
}

/// Why a file is not run.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// It cannot be read.
    #[error("read {file}")]
    Io {
        /// Which.
        file: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is no file, or too large.
    #[error("read {file}: {problem}")]
    Unfit {
        /// Which.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something in it makes no sense.
    #[error("read {file}: {field}: {problem}")]
    Field {
        /// Which.
        file: String,
        /// Where in it.
        field: String,
        /// What is wrong there.
        problem: String,
    },
}

/// Returns the names of the files in `dir`, in the order in which they run.
///
/// # Errors
///
/// Fails when the directory cannot be read. One that is not there has no files.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in listing {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".json") && !name.starts_with('.') {
            names.push(name.into_owned());
        }
    }
    names.sort_unstable();
    names.truncate(MAX_FILES);
    Ok(names)
}

/// Reads the messages of one file.
///
/// # Errors
///
/// Names the file, and the field where there is one.
pub fn read(dir: &Path, file: &str, node: &NodeName) -> Result<Vec<Given>, StartupError> {
    let text = load(&dir.join(file)).map_err(|source| StartupError::Io {
        file: file.to_owned(),
        source,
    })?;
    let text = text.map_err(|problem| StartupError::Unfit {
        file: file.to_owned(),
        problem,
    })?;
    messages(&text, node).map_err(|(field, problem)| StartupError::Field {
        file: file.to_owned(),
        field,
        problem,
    })
}

fn load(path: &Path) -> io::Result<Result<String, String>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::from_ne_bytes(flags.to_ne_bytes());
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(Err("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Ok(Err(format!("it is larger than {MAX_FILE} bytes")));
    }
    Ok(String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()))
}

type Problem = (String, String);

fn messages(text: &str, node: &NodeName) -> Result<Vec<Given>, Problem> {
    let whole: Value =
        serde_json::from_str(text).map_err(|error| ("file".to_owned(), error.to_string()))?;
    let list = match whole {
        Value::Array(list) => list,
        one => return Ok(vec![message(one, "", node)?]),
    };
    if list.len() > MAX_MESSAGES {
        let problem = format!("has more than {MAX_MESSAGES} messages");
        return Err(("file".to_owned(), problem));
    }
    let numbered = list.into_iter().enumerate();
    numbered
        .map(|(index, one)| message(one, &format!("[{index}]"), node))
        .collect()
}

/// The fields of one message that are not read yet.
struct Fields<'a> {
    at: &'a str,
    left: Map<String, Value>,
}

impl Fields<'_> {
    fn problem(&self, field: &str, problem: impl Into<String>) -> Problem {
        let dot = if self.at.is_empty() { "" } else { "." };
        (format!("{}{dot}{field}", self.at), problem.into())
    }

    /// Takes a field and reads it.
    fn take<T: serde::de::DeserializeOwned>(&mut self, field: &str) -> Result<Option<T>, Problem> {
        match self.left.shift_remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| self.problem(field, error.to_string())),
        }
    }

    /// Takes a field that is a token of some kind.
    fn token<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        field: &str,
    ) -> Result<Option<T>, Problem> {
        let text: Option<String> = self.take(field)?;
        text.map(|text| {
            text.parse()
                .map_err(|error| self.problem(field, format!("{error}")))
        })
        .transpose()
    }
}

fn message(value: Value, at: &str, node: &NodeName) -> Result<Given, Problem> {
    let Value::Object(left) = value else {
        let field = if at.is_empty() { "file" } else { at };
        return Err((
            field.to_owned(),
            "is not a message: a JSON object".to_owned(),
        ));
    };
    let mut fields = Fields { at, left };
    drop(fields.left.shift_remove("$schema"));
    let _name: Option<String> = fields.take("name")?;
    let (kind, method, domain) = address(&mut fields, node)?;
    let timeout: Option<Span> = fields.take("timeout")?;
    let standard = match Method::from_name(&method) {
        Some(Method::Tailfile) => limits::MAX_TIMEOUT,
        _ => limits::DEFAULT_TIMEOUT,
    };
    let timeout = timeout.map_or(standard, |timeout| timeout.0);
    if timeout.is_zero() || timeout > limits::MAX_TIMEOUT {
        let problem = "is no time at all, or longer than a day";
        return Err(fields.problem("timeout", problem));
    }
    let success_codes: Option<Vec<i32>> = fields.take("success_codes")?;
    let known = Body::fields(&method);
    if let Some(field) = fields.left.keys().find(|field| !known.contains(&&***field)) {
        let problem = format!(
            "is no field of a message that a node gives itself; those of {method} are {}",
            [
                &[
                    "name",
                    "subject",
                    "to",
                    "method",
                    "domain",
                    "timeout",
                    "success_codes"
                ],
                known
            ]
            .concat()
            .join(", ")
        );
        return Err(fields.problem(field, problem));
    }
    let text = Value::Object(fields.left.clone()).to_string();
    if let Err(error) = Body::read(&method, &text) {
        return Err(fields.problem(&error.field(), error.problem));
    }
    Ok(Given {
        kind,
        method,
        domain,
        body: fields.left,
        timeout,
        success_codes: success_codes.unwrap_or_else(|| vec![0]),
    })
}

fn address(
    fields: &mut Fields<'_>,
    node: &NodeName,
) -> Result<(Kind, MethodName, Domain), Problem> {
    let subject: Option<Subject> = fields.token("subject")?;
    let (kind, method, domain) = match subject {
        Some(subject) if subject.node != *node => {
            let problem = format!("is for {}; this node is {node}", subject.node);
            return Err(fields.problem("subject", problem));
        }
        Some(subject) => (subject.kind, subject.method, subject.domain),
        None => {
            let to: Option<Vec<NodeName>> = fields.take("to")?;
            if to.is_some_and(|to| to != [node.clone()]) {
                let problem =
                    format!("is not this node alone; leave it out, or write [\"{node}\"]");
                return Err(fields.problem("to", problem));
            }
            let kind: Option<Kind> = fields.token("kind")?;
            let missing = |fields: &Fields<'_>, field| fields.problem(field, "is missing");
            let method = fields
                .token("method")?
                .ok_or_else(|| missing(fields, "method"))?;
            let domain = fields
                .token("domain")?
                .ok_or_else(|| missing(fields, "domain"))?;
            (kind.unwrap_or(Kind::Command), method, domain)
        }
    };
    let wanted = Method::from_name(&method).filter(|method| Method::ORDERABLE.contains(method));
    let problem = match wanted {
        None => "names a method that cannot be ordered",
        Some(Method::Filefetch | Method::Filesend) => {
            "names a transfer, which only the station can order"
        }
        Some(method) if kind == Kind::Event && method != Method::Textlogging => {
            "is an event; only textlogging is one"
        }
        Some(_) => return Ok((kind, method, domain)),
    };
    Err(fields.problem("method", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Vec<Given>, Problem> {
        messages(text, &"ship1".parse().expect("a name"))
    }

    #[test]
    fn a_message_for_this_node_is_read() {
        for text in [
            r#"{"method":"shellcommand","domain":"os","data":["true"]}"#,
            r#"[{"to":["ship1"],"method":"shellcommand","domain":"os","data":["true"]}]"#,
            r#"{"subject":"ship1.command.shellcommand.os","data":["true"],"name":"x","$schema":"y"}"#,
        ] {
            let given = check(text).expect(text);
            assert_eq!(given.len(), 1);
            assert_eq!(given[0].timeout, limits::DEFAULT_TIMEOUT);
            assert_eq!(
                Value::Object(given[0].body.clone()).to_string(),
                r#"{"data":["true"]}"#
            );
        }
        let event = check(r#"{"subject":"ship1.event.textlogging.app","data":["up"]}"#);
        assert_eq!(event.expect("an event")[0].kind, Kind::Event);
    }

    #[test]
    fn what_cannot_be_run_is_told_with_its_field() {
        let run = r#""method":"shellcommand","domain":"os","data":["true"]"#;
        for (text, field) in [
            ("", "file"),
            ("3", "file"),
            ("[3]", "[0]"),
            (
                &format!(r#"[{{{run}}},{{{run},"tiemout":"1s"}}]"#),
                "[1].tiemout",
            ),
            (&format!(r#"{{{run},"timeout":"1"}}"#), "timeout"),
            (&format!(r#"{{{run},"timeout":"25h"}}"#), "timeout"),
            (&format!(r#"{{{run},"to":["ship2"]}}"#), "to"),
            (&format!(r#"{{{run},"to":["ship1","ship2"]}}"#), "to"),
            (&format!(r#"{{{run},"reply":{{"to":"file"}}}}"#), "reply"),
            (
                r#"{"subject":"ship2.command.shellcommand.os","data":["true"]}"#,
                "subject",
            ),
            (r#"{"subject":"ship1.command","data":["true"]}"#, "subject"),
            (
                r#"{"subject":"ship1.event.shellcommand.os","data":["true"]}"#,
                "method",
            ),
            (r#"{"method":"shellcommand","data":["true"]}"#, "domain"),
            (r#"{"domain":"os","data":["true"]}"#, "method"),
            (r#"{"method":"dance","domain":"os"}"#, "method"),
            (
                r#"{"method":"filesend","domain":"os","source":"a","path":"/a"}"#,
                "method",
            ),
            (
                r#"{"method":"shellcommand","domain":"os","data":[]}"#,
                "data",
            ),
            (
                r#"{"method":"shellcommand","domain":"os","data":["ls",1]}"#,
                "data[1]",
            ),
            (
                r#"{"method":"schedule","domain":"os","schedule":"s","cron":"x","run":{}}"#,
                "run[\"method\"]",
            ),
        ] {
            match check(text) {
                Ok(given) => panic!("{text} was read: {given:?}"),
                Err((found, problem)) if found == field => drop(problem),
                // A missing field of the run is told of the run itself.
                Err((found, _)) => assert!(field.starts_with(&found), "{text}: {found}"),
            }
        }
    }

    #[test]
    fn files_run_in_the_order_of_their_names_and_others_are_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(names(&dir.path().join("none")).expect("nothing"), [""; 0]);
        for name in ["20.json", "10.json", ".hidden.json", "notes.txt"] {
            fs::write(dir.path().join(name), "{}").expect("a file");
        }
        assert_eq!(names(dir.path()).expect("names"), ["10.json", "20.json"]);
        std::os::unix::fs::symlink("10.json", dir.path().join("30.json")).expect("a link");
        let node = "ship1".parse().expect("a name");
        let link = read(dir.path(), "30.json", &node);
        assert!(matches!(link, Err(StartupError::Io { file, .. }) if file == "30.json"));
    }
}
