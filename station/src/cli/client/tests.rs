//! Tests of the way to the station, against sockets that answer anything.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

#[test]
fn a_query_survives_any_text() {
    let path = Query::new()
        .with("name", "a b/c&d=é\n")
        .with_some("none", None::<u8>)
        .with_some("limit", Some(0))
        .on("/messages");
    assert_eq!(path, "/messages?name=a%20b%2Fc%26d%3D%C3%A9%0A&limit=0");
    assert_eq!(Query::new().on("/nodes"), "/nodes");
}

#[test]
fn a_station_that_is_not_there_is_named_with_the_command_that_starts_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let answer = runtime().block_on(Client::new(dir.path()).get::<()>("/status"));
    let error = answer.expect_err("nobody listens");
    assert!(matches!(error, ClientError::Unreachable { .. }));
    let text = error.to_string();
    let command = format!("steward serve --state-dir {}", dir.path().display());
    assert!(text.contains(&command), "{text}");
}

/// Answers every question on a socket in `dir` with `answer`.
async fn answering(dir: &Path, answer: &'static str) {
    let listener = UnixListener::bind(dir.join(SOCKET)).expect("a socket");
    loop {
        let (mut stream, _) = listener.accept().await.expect("a question");
        let mut question = [0; 4096];
        let read = stream.read(&mut question).await.expect("it can be read");
        assert!(question[..read].starts_with(b"GET /api/v1/status HTTP/1.1"));
        stream
            .write_all(answer.as_bytes())
            .await
            .expect("an answer");
    }
}

fn ask(answer: &'static str) -> Result<Value, ClientError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let client = Client::new(dir.path());
    runtime().block_on(async {
        tokio::select! {
            biased;
            () = answering(dir.path(), answer) => unreachable!("it answers for ever"),
            answer = client.get("/status") => answer,
        }
    })
}

#[test]
fn what_the_station_says_becomes_a_value_a_refusal_or_a_misunderstanding() {
    let value = ask("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}").expect("a value");
    assert_eq!(value, json!({"a": 1}));

    let no = ask("HTTP/1.1 404 Not Found\r\ncontent-length: 16\r\n\r\n{\"error\":\"none\"}");
    assert!(
        matches!(&no, Err(ClientError::Answer { status: 404, view }) if view.error == "none"),
        "{no:?}"
    );
    for foreign in [
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwhat",
        "HTTP/1.1 500 Oh\r\ncontent-length: 4\r\n\r\nwhat",
    ] {
        let answer = ask(foreign);
        assert!(
            matches!(answer, Err(ClientError::Foreign { .. })),
            "{answer:?}"
        );
    }
    for cut_off in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\nwhat",
        "garbage",
    ] {
        let answer = ask(cut_off);
        assert!(
            matches!(answer, Err(ClientError::Lost { .. })),
            "{answer:?}"
        );
    }
}
