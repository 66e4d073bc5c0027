//! The built-in methods as the programs they are: body in, result and exit code out.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

mod crash;
mod files;
mod http;
mod tail;
mod tls;

/// What came of a method.
pub(crate) struct Worked {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Worked {
    /// Returns its one line of JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {:?} {}", self.stdout, self.stderr))
    }
}

/// Returns the command that does a method.
pub(crate) fn work(method: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steward-agent"));
    command.args(["work", method]);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a method and gives it its body.
pub(crate) fn begin(mut command: Command, body: &str) -> Child {
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("its input is piped");
    stdin.write_all(body.as_bytes()).ok();
    child
}

/// Runs a method to its end.
pub(crate) fn done(method: &str, body: &Value) -> Worked {
    end(begin(work(method), &body.to_string()))
}

pub(crate) fn end(child: Child) -> Worked {
    let output = child.wait_with_output().expect("it ends");
    Worked {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Returns the names in a directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_string_lossy().into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_not_understood_is_misuse_and_says_why() {
    for (method, body, words) in [
        (
            "teleport",
            "{}",
            "there are filewrite, fileappend, tailfile, httpget",
        ),
        ("shellcommand", "{}", "there are filewrite"),
        ("filewrite", "", "is not a JSON object"),
        ("filewrite", "{\"path\":\"/a\"}", "content: is missing"),
        (
            "filewrite",
            "{\"path\":\"a\",\"content\":\"\"}",
            "path: is not absolute",
        ),
        (
            "tailfile",
            "{\"path\":\"/a\",\"for\":\"0s\"}",
            "for: is no time",
        ),
        (
            "httpget",
            "{\"url\":\"file:///etc/passwd\"}",
            "url: is not an address",
        ),
    ] {
        let worked = end(begin(work(method), body));
        assert_eq!(worked.code, Some(2), "{method} {body}: {}", worked.stderr);
        assert!(worked.stdout.is_empty(), "{method} {body}");
        let line = worked.stderr.trim_end_matches('\n');
        assert!(line.starts_with(&format!("{method}: failed to ")), "{line}");
        assert!(line.contains(words) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn a_body_without_end_is_not_read_for_ever() {
    let mut command = work("filewrite");
    command.stdin(fs::File::open("/dev/zero").expect("zeros"));
    let mut child = command.spawn().expect("it starts");
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("longer than"), "{said}");
}

/// Returns a body that writes `content` to `path`.
pub(crate) fn to(path: &Path, content: &str) -> Value {
    json!({ "path": path, "content": content })
}

/// Returns what [`to`] does, with more fields.
pub(crate) fn with(mut body: Value, more: &Value) -> Value {
    let fields = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

/// Returns a long text, different for each seed.
pub(crate) fn long(seed: u8, lines: usize) -> String {
    let mut text = String::new();
    for line in 0..lines {
        writeln!(text, "{seed} {line}").expect("a string");
    }
    text
}
