//! What contradicts itself in a body, or cannot be handed to the operating system.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Body, BodyError, FetchBody, HttpBody, ProcessAction, ProcessesBody, ScheduleAction,
    ScheduleBody, Scheduled, SendBody, ShellBody, Step, TailBody, TailFrom, TextBody, WriteBody,
};
use crate::{cron::Cron, limits, method::Method};

/// Shortest interval of a schedule: below it, the node would do little else.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Longest interval: what comes less often than once a year is better asked for.
const LONGEST_INTERVAL: Duration = Duration::from_secs(366 * 24 * 3600);

/// Longest jitter.
const LONGEST_JITTER: Duration = Duration::from_secs(24 * 3600);

/// Longest grace: what takes longer should ask for a longer timeout.
const LONGEST_GRACE: Duration = Duration::from_secs(3600);

/// Most lines a `tailfile` begins with.
const MAX_LINES: u32 = 100_000;

type Checked = Result<(), BodyError>;

pub(super) fn body(body: &Body) -> Checked {
    match body {
        Body::Shell(body) => shell(body),
        Body::Nothing => Ok(()),
        Body::Write(body) => write(body),
        Body::Fetch(FetchBody { path }) => absolute("path", path),
        Body::Send(body) => send(body),
        Body::Tail(body) => tail(body),
        Body::Http(body) => http(body),
        Body::Processes(body) => processes(body),
        Body::Schedule(body) => schedule(body),
        Body::Text(body) => text(body),
    }
}

/// Fails when something is left out, or both of two things that exclude each other are there.
fn either(first: (&str, bool), second: (&str, bool), what: &str) -> Checked {
    match (first.1, second.1) {
        (true, true) => Err(BodyError::at(
            second.0,
            format!("stands beside \"{}\"; one of them {what}", first.0),
        )),
        (false, false) => Err(BodyError::at(
            first.0,
            format!("is missing; it or \"{}\" {what}", second.0),
        )),
        _ => Ok(()),
    }
}

/// Fails on what no program can be given.
fn plain(error: BodyError, text: &str) -> Checked {
    if text.contains('\0') {
        return Err(BodyError {
            problem: "has a NUL in it, which no program can be given".to_owned(),
            ..error
        });
    }
    Ok(())
}

fn word(field: &str, text: &str) -> Checked {
    if text.is_empty() {
        return Err(BodyError::at(field, "is empty"));
    }
    plain(BodyError::at(field, ""), text)
}

fn absolute(field: &str, path: &str) -> Checked {
    word(field, path)?;
    let wrong = if !path.starts_with('/') {
        "is not absolute; begin it with /"
    } else if path.ends_with('/') {
        "names a directory; name a file"
    } else if path.split('/').any(|part| part == "..") {
        "has \"..\" in it; write where it leads"
    } else {
        return Ok(());
    };
    Err(BodyError::at(field, wrong))
}

fn shell(body: &ShellBody) -> Checked {
    let data = ("data", !body.data.is_empty());
    either(data, ("shell", body.shell.is_some()), "says what to run")?;
    if body.data.first().is_some_and(String::is_empty) {
        return Err(BodyError::at(
            "data",
            "begins with an empty text; its first element is the program to run",
        ));
    }
    for (index, argument) in body.data.iter().enumerate() {
        plain(BodyError::at("data", "").then(Step::Index(index)), argument)?;
    }
    for (field, text) in [
        ("shell", &body.shell),
        ("cwd", &body.cwd),
        ("user", &body.user),
        ("group", &body.group),
    ] {
        text.as_deref().map_or(Ok(()), |text| word(field, text))?;
    }
    for (name, value) in &body.env {
        let at = || BodyError::at("env", "").then(Step::Key(name.clone()));
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(BodyError {
                problem: "is not a name: it is empty, or has '=' or NUL in it".to_owned(),
                ..at()
            });
        }
        plain(at(), value)?;
    }
    if body.grace.is_some_and(|grace| grace.0 > LONGEST_GRACE) {
        return Err(BodyError::at("grace", "is longer than an hour"));
    }
    if body.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
        return Err(BodyError::at("nice", "is not between -20 and 19"));
    }
    let limits = body.limits.unwrap_or_default();
    let none = [
        ("memory", limits.memory.is_some_and(|memory| memory.0 == 0)),
        ("tasks", limits.tasks == Some(0)),
    ];
    match none.into_iter().find(|(_, none)| *none) {
        Some((field, _)) => Err(BodyError::at(field, "is 0; nothing could run").inside("limits")),
        None => Ok(()),
    }
}

fn write(body: &WriteBody) -> Checked {
    absolute("path", &body.path)?;
    let content = ("content", body.content.is_some());
    either(
        content,
        ("base64", body.base64.is_some()),
        "holds the content",
    )?;
    if let Some(text) = &body.base64
        && let Err(error) = STANDARD.decode(text)
    {
        return Err(BodyError::at("base64", format!("is not base64: {error}")));
    }
    owner(body.owner.as_deref())
}

fn owner(owner: Option<&str>) -> Checked {
    let Some(owner) = owner else { return Ok(()) };
    word("owner", owner)?;
    let parts: Vec<&str> = owner.split(':').collect();
    if parts.len() > 2 || parts.iter().all(|part| part.is_empty()) {
        let problem = "is none of user, user:group and :group";
        return Err(BodyError::at("owner", problem));
    }
    Ok(())
}

fn send(body: &SendBody) -> Checked {
    word("source", &body.source)?;
    let outside = body.source.starts_with('/')
        || body
            .source
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..");
    if outside {
        return Err(BodyError::at(
            "source",
            "is not a name below the station's files/ directory, such as \"images/app.tar\"",
        ));
    }
    absolute("path", &body.path)?;
    owner(body.owner.as_deref())
}

fn tail(body: &TailBody) -> Checked {
    absolute("path", &body.path)?;
    let from_end = matches!(&body.from, None | Some(TailFrom::End));
    if body.lines.is_some() && !from_end {
        return Err(BodyError::at(
            "lines",
            "stands beside a \"from\" that is not the end",
        ));
    }
    if body.lines.is_some_and(|lines| lines > MAX_LINES) {
        let problem = format!("is more than {MAX_LINES}");
        return Err(BodyError::at("lines", problem));
    }
    match &body.span {
        Some(span) if span.0.is_zero() => Err(BodyError::at("for", "is no time at all")),
        Some(span) if span.0 > limits::MAX_TIMEOUT => {
            Err(BodyError::at("for", "is longer than a day"))
        }
        _ => Ok(()),
    }
}

fn http(body: &HttpBody) -> Checked {
    let known = ["http://", "https://"]
        .into_iter()
        .any(|scheme| body.url.len() > scheme.len() && body.url.starts_with(scheme));
    if !known
        || body
            .url
            .contains(|character: char| character.is_control() || character == ' ')
    {
        return Err(BodyError::at(
            "url",
            "is not an address that begins with http:// or https://",
        ));
    }
    for (name, value) in &body.headers {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let printable = |character: char| !character.is_control() || character == '\t';
        let wrong = if name.is_empty() || !name.bytes().all(token) {
            "is not the name of a header"
        } else if !value.chars().all(printable) {
            "has a control character in it"
        } else {
            continue;
        };
        return Err(BodyError::at("headers", wrong).then(Step::Key(name.clone())));
    }
    Ok(())
}

fn processes(body: &ProcessesBody) -> Checked {
    match (body.action, &body.process) {
        (ProcessAction::List, Some(_)) => Err(BodyError::at(
            "process",
            "stands beside the action list, which lists all of them",
        )),
        (ProcessAction::Stop | ProcessAction::Start, None) => Err(BodyError::at(
            "process",
            "is missing; name the process, such as \"ship1.command.shellcommand.operatingsystem\"",
        )),
        _ => Ok(()),
    }
}

fn schedule(body: &ScheduleBody) -> Checked {
    let unused = |fields: &[(&str, bool)]| match fields.iter().find(|(_, there)| *there) {
        Some((field, _)) => Err(BodyError::at(field, "has no meaning for this action")),
        None => Ok(()),
    };
    let details = [
        ("every", body.every.is_some()),
        ("cron", body.cron.is_some()),
        ("jitter", body.jitter.is_some()),
        ("missed", body.missed.is_some()),
        ("run", body.run.is_some()),
    ];
    let named = body.schedule.is_some();
    match body.action {
        ScheduleAction::List => {
            unused(&[("schedule", named)])?;
            unused(&details)
        }
        ScheduleAction::Remove if !named => Err(unnamed()),
        ScheduleAction::Remove => unused(&details),
        ScheduleAction::Set if !named => Err(unnamed()),
        ScheduleAction::Set => set(body),
    }
}

fn unnamed() -> BodyError {
    BodyError::at("schedule", "is missing; give the schedule a name")
}

fn set(body: &ScheduleBody) -> Checked {
    let every = ("every", body.every.is_some());
    either(every, ("cron", body.cron.is_some()), "says when it runs")?;
    if body.every.is_some_and(|every| every.0 < SHORTEST_INTERVAL) {
        return Err(BodyError::at("every", "is shorter than a second"));
    }
    if body.every.is_some_and(|every| every.0 > LONGEST_INTERVAL) {
        return Err(BodyError::at("every", "is longer than 366 days"));
    }
    if let Some(Err(error)) = body.cron.as_deref().map(str::parse::<Cron>) {
        return Err(BodyError::at("cron", error.to_string()));
    }
    if body.jitter.is_some_and(|jitter| jitter.0 > LONGEST_JITTER) {
        return Err(BodyError::at("jitter", "is longer than a day"));
    }
    let Some(run) = &body.run else {
        return Err(BodyError::at(
            "run",
            "is missing; write what to run: {\"method\": …, \"domain\": …, \"data\": …}",
        ));
    };
    scheduled(run).map_err(|error| error.inside("run"))
}

fn scheduled(run: &Scheduled) -> Checked {
    let here = Method::from_name(&run.method).is_some_and(|method| {
        Method::ORDERABLE.contains(&method)
            && !matches!(
                method,
                Method::Schedule | Method::Filefetch | Method::Filesend
            )
    });
    if !here {
        return Err(BodyError::at(
            "method",
            format!("{:?} cannot be scheduled", run.method.as_str()),
        ));
    }
    let longest = limits::MAX_TIMEOUT;
    if let Some(timeout) = run.timeout
        && (timeout.0.is_zero() || timeout.0 > longest)
    {
        return Err(BodyError::at(
            "timeout",
            "is no time at all, or longer than a day",
        ));
    }
    let text =
        serde_json::to_string(&run.body).map_err(|error| BodyError::whole(error.to_string()))?;
    Body::read(&run.method, &text).map(|_| ())
}

fn text(body: &TextBody) -> Checked {
    if body.data.is_empty() {
        return Err(BodyError::at("data", "is empty; there is nothing to log"));
    }
    Ok(())
}
