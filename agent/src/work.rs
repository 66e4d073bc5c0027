//! The methods that touch files or the network, each a program of its own: `steward-agent work METHOD`.
//!
//! Synchronous: the body comes on standard input, the result goes to standard output, an error is one
//! sentence on standard error. It knows no order, no journal and no broker: whoever started it holds
//! its time limit and keeps what it says.

use std::{
    ffi::OsStr,
    io::{self, Read, Write},
};

use steward_protocol::{Body, BodyError, Method, MethodName, limits};

use crate::keeper::chain;

mod filewrite;
mod httpget;
mod tailfile;

/// The hidden word on the command line that leads here.
pub const VERB: &str = "work";

/// Exit code of a method that did what it was asked for.
const DONE: u8 = 0;

/// Exit code of a method that did not.
const FAILED: u8 = 1;

/// Exit code of a method that was not understood.
const USAGE: u8 = 2;

/// Longest body; an order is shorter.
const MAX_BODY: u64 = limits::MAX_FRAME as u64;

/// Why nothing was tried.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    /// There is no such method here.
    #[error("find the method {method:?}; there are {}", names())]
    Method {
        /// The method asked for.
        method: String,
    },
    /// The body did not come.
    #[error("read the body from standard input")]
    Input(#[source] io::Error),
    /// There is no end to the body.
    #[error("take the body: it is longer than {MAX_BODY} bytes")]
    TooLong,
    /// The body is not a text.
    #[error("read the body: it is not UTF-8")]
    NotText,
    /// The body is of no use.
    #[error("use the body")]
    Body(#[source] BodyError),
}

/// What is done here.
const METHODS: [Method; 4] = [
    Method::Filewrite,
    Method::Fileappend,
    Method::Tailfile,
    Method::Httpget,
];

fn names() -> String {
    METHODS.map(Method::as_str).join(", ")
}

/// Tells whether a method is done by `steward-agent work`.
pub fn is_done_here(method: Method) -> bool {
    METHODS.contains(&method)
}

/// Does what `method` and the body on standard input say, and returns the exit code.
pub fn run(method: &OsStr) -> u8 {
    let method = method.to_string_lossy();
    let failed = match read(&method) {
        Ok((method, body)) => match carry_out(method, &body) {
            Ok(code) => return code,
            Err(words) => (FAILED, words),
        },
        Err(error) => (USAGE, chain(&error)),
    };
    say(&format!("{method}: failed to {}", failed.1));
    failed.0
}

fn read(name: &str) -> Result<(Method, Body), UsageError> {
    let unknown = || UsageError::Method {
        method: name.to_owned(),
    };
    let name: MethodName = name.parse().map_err(|_| unknown())?;
    let method = Method::from_name(&name)
        .filter(|method| is_done_here(*method))
        .ok_or_else(unknown)?;
    let mut bytes = Vec::new();
    io::stdin()
        .take(MAX_BODY + 1)
        .read_to_end(&mut bytes)
        .map_err(UsageError::Input)?;
    if bytes.len() as u64 > MAX_BODY {
        return Err(UsageError::TooLong);
    }
    let text = String::from_utf8(bytes).map_err(|_| UsageError::NotText)?;
    let body = Body::read(&name, &text).map_err(UsageError::Body)?;
    Ok((method, body))
}

/// Returns the exit code, or what the method failed to do.
fn carry_out(method: Method, body: &Body) -> Result<u8, String> {
    match (method, body) {
        (Method::Filewrite, Body::Write(body)) => {
            let report = filewrite::write(body).map_err(|error| chain(&error))?;
            print(&report)
        }
        (Method::Fileappend, Body::Write(body)) => {
            let report = filewrite::append(body).map_err(|error| chain(&error))?;
            print(&report)
        }
        (_, Body::Tail(body)) => tailfile::run(body).map_err(|error| chain(&error)),
        (_, Body::Http(body)) => {
            let answer = httpget::get(body).map_err(|error| chain(&error))?;
            let code = print(&answer)?;
            match answer.complaint() {
                Some(complaint) => Err(complaint),
                None => Ok(code),
            }
        }
        // The reader gives every method the body that belongs to it.
        (method, _) => Err(format!(
            "do {}: its body is of another kind",
            method.as_str()
        )),
    }
}

/// Writes a result as one line of JSON.
fn print(result: &impl serde::Serialize) -> Result<u8, String> {
    let mut line = serde_json::to_vec(result).map_err(|error| error.to_string())?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(&line)
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("write the result of what was done: {error}"))?;
    Ok(DONE)
}

/// Writes a line for people; nobody need be listening.
fn say(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}
