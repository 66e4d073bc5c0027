//! Tests of reading bodies: each method, right and wrong.

use super::*;

/// Reads a body of `method`; gives its JSON back, or the field that is wrong.
fn read(method: &str, text: &str) -> Result<String, String> {
    let method = method.parse().expect("a token");
    Body::read(&method, text)
        .map(|body| serde_json::to_string(&body).expect("a body is always JSON"))
        .map_err(|error| error.field())
}

/// Each row: method, body, and either the same body as it is written down or the field at fault.
fn check(rows: &[(&str, &str, Result<&str, &str>)]) {
    for (method, text, expected) in rows {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(read(method, text), expected, "{method} {text}");
    }
}

#[test]
fn a_shell_body_is_read_or_the_field_is_named() {
    let shell = "shellcommand";
    check(&[
        (
            shell,
            r#"{"data":["ls","-l"]}"#,
            Ok(r#"{"data":["ls","-l"]}"#),
        ),
        (
            shell,
            r#"{"data":["ls"],"later":1,"cwd":null,"env":null}"#,
            Ok(r#"{"data":["ls"]}"#),
        ),
        (shell, r#"{"data":["ls",""]}"#, Ok(r#"{"data":["ls",""]}"#)),
        (
            shell,
            r#"{"shell":"ls | wc"}"#,
            Ok(r#"{"data":[],"shell":"ls | wc"}"#),
        ),
        (shell, "[]", Err("body")),
        (shell, "null", Err("body")),
        (shell, "{}", Err("data")),
        (shell, r#"{"data":[]}"#, Err("data")),
        (shell, r#"{"data":[""]}"#, Err("data")),
        (shell, r#"{"data":"ls"}"#, Err("data")),
        (shell, r#"{"data":["ls",1]}"#, Err("data[1]")),
        (shell, r#"{"data":["l\u0000s"]}"#, Err("data[0]")),
        (shell, r#"{"data":["ls"],"shell":"ls"}"#, Err("shell")),
        (shell, r#"{"data":["ls"],"cwd":7}"#, Err("cwd")),
        (shell, r#"{"data":["ls"],"cwd":"/\u0000"}"#, Err("cwd")),
        (shell, r#"{"data":["ls"],"env":[]}"#, Err("env")),
        (shell, r#"{"data":["ls"],"env":{"A":1}}"#, Err("env[\"A\"]")),
        (
            shell,
            r#"{"data":["ls"],"env":{"A=B":"1"}}"#,
            Err("env[\"A=B\"]"),
        ),
        (shell, r#"{"data":["ls"],"env":{"":"1"}}"#, Err("env[\"\"]")),
        (shell, r#"{"data":["ls"],"stdin":[]}"#, Err("stdin")),
        (shell, r#"{"data":["ls"],"user":""}"#, Err("user")),
        (shell, r#"{"data":["ls"],"nice":-21}"#, Err("nice")),
        (shell, r#"{"data":["ls"],"nice":20}"#, Err("nice")),
        (
            shell,
            r#"{"data":["ls"],"nice":19}"#,
            Ok(r#"{"data":["ls"],"nice":19}"#),
        ),
        (shell, r#"{"data":["ls"],"grace":"61m"}"#, Err("grace")),
        (shell, r#"{"data":["ls"],"grace":5}"#, Err("grace")),
        (
            shell,
            r#"{"data":["ls"],"grace":"90s"}"#,
            Ok(r#"{"data":["ls"],"grace":"1m 30s"}"#),
        ),
        (
            shell,
            r#"{"data":["ls"],"limits":{"memory":"64MiB","cpu":"50%","tasks":8}}"#,
            Ok(r#"{"data":["ls"],"limits":{"memory":67108864,"cpu":"50%","tasks":8}}"#),
        ),
        (
            shell,
            r#"{"data":["ls"],"limits":{"memory":"64 parsecs"}}"#,
            Err("limits[\"memory\"]"),
        ),
        (
            shell,
            r#"{"data":["ls"],"limits":{"memory":0}}"#,
            Err("limits[\"memory\"]"),
        ),
        (
            shell,
            r#"{"data":["ls"],"limits":{"memory":"99999999999GiB"}}"#,
            Err("limits[\"memory\"]"),
        ),
        (
            shell,
            r#"{"data":["ls"],"limits":{"cpu":0.5}}"#,
            Err("limits[\"cpu\"]"),
        ),
        (
            shell,
            r#"{"data":["ls"],"limits":{"cpu":"0%"}}"#,
            Err("limits[\"cpu\"]"),
        ),
        (
            shell,
            r#"{"data":["ls"],"limits":{"tasks":0}}"#,
            Err("limits[\"tasks\"]"),
        ),
    ]);
}

#[test]
fn a_body_of_a_method_not_known_here_is_let_through() {
    check(&[
        ("tomorrow", "{}", Ok(r#"{"data":[]}"#)),
        ("hello", "{}", Ok("{}")),
        ("hello", r#"{"data":[]}"#, Ok("{}")),
        ("ping", "[]", Ok("{}")),
        ("tomorrow", "[]", Err("body")),
    ]);
}

#[test]
fn a_file_body_is_read_or_the_field_is_named() {
    let digest = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let matched = format!(r#"{{"path":"/a","content":"x","if_match":"{digest}"}}"#);
    check(&[
        (
            "filewrite",
            r#"{"path":"/etc/motd","content":""}"#,
            Ok(r#"{"path":"/etc/motd","content":""}"#),
        ),
        ("filewrite", r#"{"content":"x"}"#, Err("body")),
        ("filewrite", r#"{"path":"/a"}"#, Err("content")),
        (
            "filewrite",
            r#"{"path":"/a","content":"x","base64":"eA=="}"#,
            Err("base64"),
        ),
        ("filewrite", r#"{"path":"/a","base64":"?"}"#, Err("base64")),
        ("filewrite", r#"{"path":"a","content":"x"}"#, Err("path")),
        ("filewrite", r#"{"path":"/a/","content":"x"}"#, Err("path")),
        (
            "filewrite",
            r#"{"path":"/a/../b","content":"x"}"#,
            Err("path"),
        ),
        (
            "fileappend",
            r#"{"path":"/a","content":"x","mode":"0644"}"#,
            Ok(r#"{"path":"/a","content":"x","mode":"0644"}"#),
        ),
        (
            "fileappend",
            r#"{"path":"/a","content":"x","mode":644}"#,
            Err("mode"),
        ),
        (
            "fileappend",
            r#"{"path":"/a","content":"x","mode":"0888"}"#,
            Err("mode"),
        ),
        (
            "fileappend",
            r#"{"path":"/a","content":"x","mode":"77777"}"#,
            Err("mode"),
        ),
        (
            "filewrite",
            r#"{"path":"/a","content":"x","owner":"root:adm"}"#,
            Ok(r#"{"path":"/a","content":"x","owner":"root:adm"}"#),
        ),
        (
            "filewrite",
            r#"{"path":"/a","content":"x","owner":":"}"#,
            Err("owner"),
        ),
        (
            "filewrite",
            r#"{"path":"/a","content":"x","owner":"a:b:c"}"#,
            Err("owner"),
        ),
        (
            "filewrite",
            r#"{"path":"/a","content":"x","if_match":"absent"}"#,
            Ok(r#"{"path":"/a","content":"x","if_match":"absent"}"#),
        ),
        (
            "filewrite",
            r#"{"path":"/a","content":"x","if_match":"abc"}"#,
            Err("if_match"),
        ),
        ("filewrite", &matched, Ok(&matched)),
        (
            "filewrite",
            r#"{"path":"/a","content":"x","parents":true}"#,
            Ok(r#"{"path":"/a","content":"x","parents":true}"#),
        ),
        (
            "filefetch",
            r#"{"path":"/var/log/x"}"#,
            Ok(r#"{"path":"/var/log/x"}"#),
        ),
        ("filefetch", "{}", Err("body")),
        (
            "filesend",
            r#"{"source":"a/b.tar","path":"/srv/b.tar"}"#,
            Ok(r#"{"source":"a/b.tar","path":"/srv/b.tar"}"#),
        ),
        (
            "filesend",
            r#"{"source":"../b.tar","path":"/srv/b.tar"}"#,
            Err("source"),
        ),
        (
            "filesend",
            r#"{"source":"/etc/passwd","path":"/srv/b.tar"}"#,
            Err("source"),
        ),
        (
            "filesend",
            r#"{"source":"a//b","path":"/srv/b.tar"}"#,
            Err("source"),
        ),
        ("tailfile", r#"{"path":"/a"}"#, Ok(r#"{"path":"/a"}"#)),
        (
            "tailfile",
            r#"{"path":"/a","from":"start","for":"5m"}"#,
            Ok(r#"{"path":"/a","from":"start","for":"5m"}"#),
        ),
        (
            "tailfile",
            r#"{"path":"/a","from":"start","lines":5}"#,
            Err("lines"),
        ),
        (
            "tailfile",
            r#"{"path":"/a","lines":100000}"#,
            Ok(r#"{"path":"/a","lines":100000}"#),
        ),
        ("tailfile", r#"{"path":"/a","lines":100001}"#, Err("lines")),
        ("tailfile", r#"{"path":"/a","for":"25h"}"#, Err("for")),
        (
            "httpget",
            r#"{"url":"https://example.org/"}"#,
            Ok(r#"{"url":"https://example.org/"}"#),
        ),
        ("httpget", r#"{"url":"ftp://example.org/"}"#, Err("url")),
        ("httpget", r#"{"url":"http://"}"#, Err("url")),
        (
            "httpget",
            r#"{"url":"http://a/","headers":{"A b":"c"}}"#,
            Err("headers[\"A b\"]"),
        ),
        (
            "httpget",
            r#"{"url":"http://a/","headers":{"A":"c\r\nX: y"}}"#,
            Err("headers[\"A\"]"),
        ),
    ]);
}

#[test]
fn a_body_of_the_agents_own_methods_is_read_or_the_field_is_named() {
    let list = r#"{"action":"list"}"#;
    let run = r#""run":{"method":"shellcommand","domain":"os","data":["true"]}"#;
    let every = format!(r#"{{"schedule":"s","every":"1h",{run}}}"#);
    let written = format!(r#"{{"action":"set","schedule":"s","every":"1h",{run}}}"#);
    let both = format!(r#"{{"schedule":"s","every":"1h","cron":"* * * * *",{run}}}"#);
    let short = format!(r#"{{"schedule":"s","every":"999ms",{run}}}"#);
    check(&[
        ("processes", "{}", Ok(list)),
        ("processes", r#"{"action":"stop"}"#, Err("process")),
        ("processes", r#"{"action":"dance"}"#, Err("action")),
        (
            "processes",
            r#"{"action":"list","process":"a.command.hello.b"}"#,
            Err("process"),
        ),
        (
            "processes",
            r#"{"action":"start","process":"a.b"}"#,
            Err("process"),
        ),
        ("schedule", list, Ok(list)),
        (
            "schedule",
            r#"{"action":"list","schedule":"s"}"#,
            Err("schedule"),
        ),
        ("schedule", r#"{"action":"remove"}"#, Err("schedule")),
        (
            "schedule",
            r#"{"action":"remove","schedule":"s","every":"1h"}"#,
            Err("every"),
        ),
        ("schedule", &every, Ok(&written)),
        ("schedule", &both, Err("cron")),
        ("schedule", &short, Err("every")),
        ("schedule", r#"{"schedule":"s","every":"1h"}"#, Err("run")),
        (
            "schedule",
            r#"{"schedule":"s","every":"1h","run":{"method":"shellcommand","domain":"os","data":[]}}"#,
            Err("run[\"data\"]"),
        ),
        (
            "schedule",
            r#"{"schedule":"s","every":"1h","run":{"method":"schedule","domain":"os"}}"#,
            Err("run[\"method\"]"),
        ),
        (
            "textlogging",
            r#"{"data":["a line"]}"#,
            Ok(r#"{"data":["a line"]}"#),
        ),
        ("textlogging", "{}", Err("data")),
    ]);
}

#[test]
fn a_problem_is_told_without_the_place_in_a_line() {
    let method = "shellcommand".parse().expect("a token");
    let error = Body::read(&method, r#"{"data":["ls",1]}"#).expect_err("a number");
    assert_eq!(
        error.to_string(),
        "data[1]: invalid type: integer `1`, expected a string"
    );
}

#[test]
fn a_body_reads_back_as_it_was_written() {
    for method in Method::ORDERABLE {
        let name = method.name();
        assert_eq!(
            Body::fields(&name).is_empty(),
            matches!(method, Method::Hello | Method::Ping),
            "{name}"
        );
    }
    let text = r#"{"path":"/a","content":"x","mode":"0600","owner":"u","if_match":"absent","parents":true}"#;
    assert_eq!(read("filewrite", text).as_deref(), Ok(text));
}
