//! `httpget`, against a server that answers what a test tells it to.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{begin, done, end, work};

/// Answers requests, one after the other, by their path; ends with the test program.
fn serve(answer: impl Fn(&str, &[String]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its number");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                match reader.read_line(&mut line) {
                    Ok(0) | Err(_) => break,
                    Ok(_) if line.trim().is_empty() => break,
                    Ok(_) => lines.push(line.trim().to_owned()),
                }
            }
            let path = lines.first().and_then(|line| line.split(' ').nth(1));
            let bytes = answer(path.unwrap_or_default(), &lines);
            // Whoever asked may have read enough.
            reader.get_mut().write_all(&bytes).ok();
        }
    });
    address
}

pub(super) fn page(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn an_answer_comes_with_status_headers_and_body() {
    let address = serve(|path, lines| match path {
        "/text" => page(
            "200 OK",
            "X-A: 1\r\nX-A: 2\r\n",
            lines.join("\n").as_bytes(),
        ),
        "/bytes" => page("200 OK", "", b"\xff\x00"),
        "/broken" => page("503 Service Unavailable", "", b"later"),
        _ => page("404 Not Found", "", b""),
    });
    let get = |path: &str| {
        let url = format!("http://{address}{path}");
        done(
            "httpget",
            &json!({ "url": url, "headers": { "X-Token": "secret" } }),
        )
    };
    let worked = get("/text");
    assert_eq!(worked.code, Some(0), "{}", worked.stderr);
    let said = worked.json();
    assert_eq!(said["status"], 200);
    assert_eq!(said["headers"]["x-a"], "1, 2");
    assert_eq!(said["truncated"], false);
    assert!(said["ms"].is_u64());
    let text = said["text"].as_str().expect("text").to_ascii_lowercase();
    assert!(text.starts_with("get /text http/1.1"), "{text}");
    assert!(text.contains("x-token: secret"), "{text}");
    assert_eq!(said["bytes"], text.len());
    let said = get("/bytes").json();
    assert_eq!(
        (said["base64"].as_str(), said["text"].as_str()),
        (Some("/wA="), None)
    );
    // What is no success is said, and shown all the same.
    let worked = get("/broken");
    assert_eq!(worked.code, Some(1));
    assert!(worked.stderr.contains("status 503"), "{}", worked.stderr);
    assert_eq!(worked.json()["text"], "later");
}

#[test]
fn a_body_is_kept_up_to_its_limit() {
    let address = serve(|_, _| page("200 OK", "", "aäb".as_bytes()));
    let url = format!("http://{address}/");
    for (limit, bytes, text, truncated) in [
        (5, 4, "aäb", false),
        (4, 4, "aäb", false),
        (3, 3, "aä", true),
        // Not half a character.
        (2, 1, "a", true),
        (0, 0, "", true),
    ] {
        let said = done("httpget", &json!({ "url": url, "max_bytes": limit })).json();
        assert_eq!(said["text"], text, "{limit}");
        assert_eq!(
            (&said["bytes"], &said["truncated"]),
            (&json!(bytes), &json!(truncated)),
            "{limit}"
        );
    }
    let worked = done("httpget", &json!({ "url": url, "max_bytes": "9MiB" }));
    assert_eq!(worked.code, Some(1));
    assert!(
        worked.stderr.contains("at most 8388608"),
        "{}",
        worked.stderr
    );
}

#[test]
fn redirects_are_followed_up_to_ten() {
    let address = serve(|path, _| {
        let number: u32 = path[1..].parse().unwrap_or(0);
        match number {
            0 => page("200 OK", "", b"there"),
            _ => page("302 Found", &format!("Location: /{}\r\n", number - 1), b""),
        }
    });
    let worked = done("httpget", &json!({ "url": format!("http://{address}/10") }));
    assert_eq!(worked.code, Some(0), "{}", worked.stderr);
    let said = worked.json();
    assert_eq!(
        (said["text"].as_str(), said["status"].as_u64()),
        (Some("there"), Some(200))
    );
    assert!(
        said["url"].as_str().is_some_and(|url| url.ends_with("/0")),
        "{said}"
    );
    let worked = done("httpget", &json!({ "url": format!("http://{address}/11") }));
    assert_eq!(worked.code, Some(1));
    assert_eq!(worked.json()["status"], 302);
    assert!(
        worked.stderr.contains("one more than 10"),
        "{}",
        worked.stderr
    );
}

#[test]
fn only_the_web_is_fetched_also_after_a_redirect() {
    let address = serve(|_, _| page("302 Found", "Location: file:///etc/passwd\r\n", b""));
    let worked = done("httpget", &json!({ "url": format!("http://{address}/") }));
    assert_eq!(worked.code, Some(1));
    let said = String::from_utf8_lossy(&worked.stdout);
    assert!(!said.contains("root:"), "{said}");
}

#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    let address = serve(|_, _| page("200 OK", "", b"direct"));
    let proxy = serve(|_, _| page("200 OK", "", b"proxy"));
    let mut command = work("httpget");
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"] {
        command.env(name, format!("http://{proxy}"));
    }
    let body = json!({ "url": format!("http://{address}/") });
    let worked = end(begin(command, &body.to_string()));
    assert_eq!(worked.json()["text"], "direct");
}

#[test]
fn what_cannot_be_reached_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = listener.local_addr().expect("its number");
    drop(listener);
    let url = format!("http://{closed}/");
    let worked = done("httpget", &json!({ "url": url }));
    assert_eq!(worked.code, Some(1));
    assert!(worked.stdout.is_empty());
    assert!(
        worked.stderr.contains(&format!("failed to fetch {url}")),
        "{}",
        worked.stderr
    );
}

#[test]
fn what_speaks_no_tls_is_no_answer_to_https() {
    let address = serve(|_, _| page("200 OK", "", b"plain"));
    let worked = done("httpget", &json!({ "url": format!("https://{address}/") }));
    assert_eq!(worked.code, Some(1));
    assert!(worked.stdout.is_empty(), "{}", worked.stderr);
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    let address = serve(|_, _| {
        thread::sleep(Duration::from_millis(1));
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec()
    });
    let worked = done("httpget", &json!({ "url": format!("http://{address}/") }));
    assert_eq!(worked.code, Some(1));
    assert!(worked.stderr.contains("to its end"), "{}", worked.stderr);
}
