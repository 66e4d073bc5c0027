//! Programs of Debian's packages that send logs, unchanged: what they said arrives, byte for byte, once and in order.
//!
//! Those that are not installed come from where `.ci/peers` unpacks them. Python's handler has its test in `logs.rs`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

use steward_protocol::syslog::{Form, Message};

use super::{certificate, check_order, input, pair, run, texts};
use crate::support::{
    Agent, Field, Station, eventually,
    logs::Stored,
    peers::{self, Peer},
    ports::free_port,
};

/// What a file has that rsyslog and syslog-ng forward: what must not be taken for something else.
const ODD: &[&[u8]] = &[
    b"<x> no priority",
    b"17 no octet count",
    b"bin \xff\xfe end",
    b"[no data] text",
    b"  spaces kept",
    b"colon: more: and more",
];

/// Numbered lines behind the odd ones.
const NUMBERED: usize = 500;

fn lines() -> Vec<Vec<u8>> {
    let numbered = (0..NUMBERED).map(|number| format!("line {number}").into_bytes());
    let odd = ODD.iter().map(|line| line.to_vec());
    odd.chain(numbered).collect()
}

/// Writes what is to be forwarded.
fn write_lines(path: &Path) {
    let mut bytes = lines().join(&b'\n');
    bytes.push(b'\n');
    fs::write(path, bytes).expect("written");
}

/// Waits for so many messages of a domain; there must be no more, and no gap.
async fn stored(station: &Station, domain: &str, count: usize) -> Vec<Stored> {
    texts(station, domain, count).await;
    check_order(station);
    let world = station.world();
    let records = world.logs.records.iter();
    let found: Vec<_> = records
        .filter(|one| one.domain.as_str() == domain)
        .cloned()
        .collect();
    assert_eq!(found.len(), count, "{domain}");
    assert!(found.iter().all(|one| one.gap.is_none()), "{domain}");
    found
}

/// Checks what all lines of the file have become.
fn check_lines(domain: &str, found: &[Stored], form: Form, lines: &[Vec<u8>]) {
    for (record, line) in found.iter().zip(lines) {
        let message = Message::parse(&record.raw);
        let shown = String::from_utf8_lossy(&record.raw);
        assert_eq!(message.form(), form, "{domain}: {shown}");
        let facility = message.facility().map(|facility| facility.number());
        assert_eq!(
            (facility, record.severity),
            (Some(19), 4),
            "{domain}: {shown}"
        );
        assert_eq!(message.app(), Some(&b"web"[..]), "{domain}: {shown}");
        // Some end with a line feed although they are counted; the reader takes it off, and the bytes keep it.
        let text = message.text();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        assert_eq!(text, line.as_slice(), "{domain}: {shown}");
    }
}

#[tokio::test]
async fn logger_says_the_same_over_every_way_there_is() {
    let field = Field::new();
    let port = free_port();
    let (stream, gram) = (field.path("stream"), field.path("gram"));
    let config = [
        input("udp", &format!("udp://127.0.0.1:{port}")),
        input("tcp", &format!("tcp://127.0.0.1:{port}")),
        input("stream", &format!("unix://{}", stream.display())),
        input("gram", &format!("unixgram://{}", gram.display())),
    ]
    .concat();
    let (_agent, station) = pair(&field, &config).await;
    let port = port.to_string();
    let bare = "--rfc5424=notime,notq,nohost";
    let say = |words: &[&str]| {
        run(
            "logger",
            &[&["-t", "app", "-p", "daemon.warning"], words].concat(),
        )
    };
    let net = ["--server", "127.0.0.1", "--port", &port];
    let data = [
        "--sd-id",
        "a@1",
        "--sd-param",
        "b=\"c\"",
        "--sd-param",
        "d=\"e\\\"f\"",
    ];
    for way in [&["--udp"][..], &["--tcp"], &["--tcp", "--octet-count"]] {
        let new = [&net, way, &[bare, "--id=42", "--msgid", "MID"]].concat();
        say(&[&new, &["plain"][..]].concat());
        say(&[&new, &data[..], &["with data"]].concat());
        say(&[&net, way, &["--rfc3164", "--id=42", "old"]].concat());
    }
    let raws = |found: &[Stored]| found.iter().map(|one| one.raw.clone()).collect::<Vec<_>>();
    for (domain, rounds) in [("udp", 1), ("tcp", 2)] {
        let found = stored(&station, domain, 3 * rounds).await;
        // Each came over a connection of its own, and connections are read side by side.
        let raws = raws(&found);
        let count = |wanted: &[u8]| raws.iter().filter(|raw| *raw == wanted).count();
        assert_eq!(count(b"<28>1 - - app 42 MID - plain"), rounds);
        let with_data = b"<28>1 - - app 42 MID [a@1 b=\"c\" d=\"e\\\"f\"] with data";
        assert_eq!(count(with_data), rounds);
        let old: Vec<_> = raws.iter().map(|raw| Message::parse(raw)).collect();
        let old = old.iter().filter(|one| one.form() == Form::Rfc3164);
        let (mut olds, wanted) = (0, (Some(&b"app"[..]), Some(&b"42"[..])));
        for one in old {
            olds += 1;
            assert_eq!(
                ((one.app(), one.procid()), one.text()),
                (wanted, &b"old"[..])
            );
        }
        assert_eq!(olds, rounds);
        assert!(found.iter().all(|one| one.severity == 4));
    }
    let (stream, gram) = (stream.display().to_string(), gram.display().to_string());
    for (domain, words) in [
        ("stream", &["-u", &stream, "-T"][..]),
        ("gram", &["-u", &gram, "-d"]),
    ] {
        for number in 0..20 {
            say(&[words, &["--id=42", &format!("number {number}")]].concat());
        }
        let found = stored(&station, domain, 20).await;
        // Each came over a connection of its own, and connections are read side by side.
        let mut texts: Vec<_> = found
            .iter()
            .map(|record| Message::parse(&record.raw).text().to_vec())
            .collect();
        let mut wanted: Vec<_> = (0..20)
            .map(|number| format!("number {number}").into_bytes())
            .collect();
        texts.sort();
        wanted.sort();
        assert_eq!(texts, wanted);
        for record in &found {
            let message = Message::parse(&record.raw);
            assert_eq!(
                (message.app(), message.procid()),
                (Some(&b"app"[..]), Some(&b"42"[..]))
            );
            assert_eq!(record.severity, 4);
        }
    }
}

#[tokio::test]
async fn what_is_piped_into_logger_arrives_line_by_line() {
    let field = Field::new();
    let port = free_port();
    let config = input("tcp", &format!("tcp://127.0.0.1:{port}"));
    let (_agent, station) = pair(&field, &config).await;
    let mut logger = Command::new("logger");
    logger.args([
        "--tcp",
        "--octet-count",
        "--rfc5424=notime,notq,nohost",
        "-t",
        "app",
    ]);
    logger.args(["--server", "127.0.0.1", "--port", &port.to_string()]);
    let mut child = logger.stdin(Stdio::piped()).spawn().expect("logger starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let lines = lines();
    stdin.write_all(&lines.join(&b'\n')).expect("it is taken");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
    let found = stored(&station, "tcp", lines.len()).await;
    for (record, line) in found.iter().zip(lines) {
        // It takes what begins like a priority for one, and spaces at the beginning off.
        if !line.starts_with(b"<") && !line.starts_with(b" ") {
            assert_eq!(record.raw, [&b"<13>1 - - app - - - "[..], &line].concat());
        }
    }
}

#[tokio::test]
async fn rsyslog_forwards_counted_with_line_ends_in_datagrams_and_encrypted() {
    let field = Field::new();
    let Some(mut rsyslog) = peers::command("rsyslogd") else {
        return;
    };
    let (cert, key) = certificate(field.dir.path());
    let (port, secure) = (free_port(), free_port());
    let files = format!("cert = \"{cert}\"\nkey = \"{key}\"\n");
    let counted = free_port();
    let config = format!(
        "{}{}{}{}{files}",
        input("counted", &format!("tcp://127.0.0.1:{counted}")),
        input("lines", &format!("tcp://127.0.0.1:{port}")),
        input("udp", &format!("udp://127.0.0.1:{port}")),
        input("tls", &format!("tls://127.0.0.1:{secure}")),
    );
    let (_agent, station) = pair(&field, &config).await;
    let (file, conf) = (field.path("in.log"), field.path("rsyslog.conf"));
    write_lines(&file);
    let work = field.path("rsyslog");
    fs::create_dir(&work).expect("a directory");
    let new = "template=\"RSYSLOG_SyslogProtocol23Format\"";
    let text = format!(
        r#"
global(workDirectory="{work}" parser.escapeControlCharactersOnReceive="off" defaultNetstreamDriver="ossl"
    defaultNetstreamDriverCAFile="{cert}" defaultNetstreamDriverCertFile="{cert}" defaultNetstreamDriverKeyFile="{key}")
module(load="imfile")
input(type="imfile" file="{file}" tag="web:" severity="warning" facility="local3" ruleset="all")
ruleset(name="all") {{
    action(type="omfwd" target="127.0.0.1" port="{counted}" protocol="tcp" TCP_Framing="octet-counted" {new})
    action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" {new})
    action(type="omfwd" target="127.0.0.1" port="{port}" protocol="udp" template="RSYSLOG_TraditionalForwardFormat")
    action(type="omfwd" target="localhost" port="{secure}" protocol="tcp" TCP_Framing="octet-counted" {new}
        streamDriver="ossl" streamDriverMode="1" streamDriverAuthMode="x509/name" streamDriverPermittedPeers="localhost")
}}
"#,
        work = work.display(),
        file = file.display(),
    );
    fs::write(&conf, text).expect("written");
    rsyslog.arg("-n").arg("-i").arg(field.path("rsyslog.pid"));
    rsyslog
        .arg("-f")
        .arg(&conf)
        .arg("-M")
        .arg(peers::rsyslog_modules());
    let _rsyslog = Peer::start(rsyslog);
    for (domain, form) in [
        ("counted", Form::Rfc5424),
        ("lines", Form::Rfc5424),
        ("udp", Form::Rfc3164),
        ("tls", Form::Rfc5424),
    ] {
        let found = stored(&station, domain, ODD.len() + NUMBERED).await;
        let mut lines = lines();
        if form == Form::Rfc3164 {
            // It leaves the space behind the tag out where the text begins with one.
            let spaces = &mut lines[ODD.len() - 2];
            assert_eq!(spaces.remove(0), b' ');
        }
        check_lines(domain, &found, form, &lines);
    }
}

#[tokio::test]
async fn syslog_ng_forwards_by_network_and_by_syslog() {
    let field = Field::new();
    let (Some(mut program), Some((modules, version))) =
        (peers::command("syslog-ng"), peers::syslog_ng_modules())
    else {
        return;
    };
    let (cert, key) = certificate(field.dir.path());
    let (old, new, secure) = (free_port(), free_port(), free_port());
    let config = format!(
        "{}{}{}{}cert = \"{cert}\"\nkey = \"{key}\"\n",
        input("old", &format!("tcp://127.0.0.1:{old}")),
        input("new", &format!("tcp://127.0.0.1:{new}")),
        input("udp", &format!("udp://127.0.0.1:{new}")),
        input("tls", &format!("tls://127.0.0.1:{secure}")),
    );
    let (_agent, station) = pair(&field, &config).await;
    let (file, conf) = (field.path("in.log"), field.path("syslog-ng.conf"));
    write_lines(&file);
    let text = format!(
        r#"@version: {version}
options {{ keep-hostname(yes); use-dns(no); dns-cache(no); stats-freq(0); }};
source lines {{ file("{file}" flags(no-parse) program-override("web") default-facility(local3) default-priority(warning)); }};
destination old {{ network("127.0.0.1" port({old}) transport("tcp")); }};
destination new {{ syslog("127.0.0.1" port({new}) transport("tcp")); }};
destination udp {{ syslog("127.0.0.1" port({new}) transport("udp")); }};
destination tls {{ syslog("localhost" port({secure}) transport("tls") tls(ca-file("{cert}") peer-verify(required-trusted))); }};
log {{ source(lines); destination(old); destination(new); destination(udp); destination(tls); }};
"#,
        file = file.display(),
    );
    fs::write(&conf, text).expect("written");
    program
        .args(["-F", "--no-caps", "--module-path"])
        .arg(modules);
    program.arg("-f").arg(&conf);
    for (flag, name) in [("-R", "ng.persist"), ("-p", "ng.pid"), ("-c", "ng.ctl")] {
        program.arg(flag).arg(field.path(name));
    }
    let _program = Peer::start(program);
    for (domain, form) in [
        ("old", Form::Rfc3164),
        ("new", Form::Rfc5424),
        ("udp", Form::Rfc5424),
        ("tls", Form::Rfc5424),
    ] {
        let found = stored(&station, domain, ODD.len() + NUMBERED).await;
        check_lines(domain, &found, form, &lines());
    }
}

#[tokio::test]
async fn loggen_sends_thousands_and_each_arrives_once() {
    let field = Field::new();
    if peers::command("loggen").is_none() {
        return;
    }
    let (old, new) = (free_port(), free_port());
    let stream = field.path("stream");
    let config = [
        input("old", &format!("tcp://127.0.0.1:{old}")),
        input("new", &format!("tcp://127.0.0.1:{new}")),
        input("udp", &format!("udp://127.0.0.1:{new}")),
        input("unix", &format!("unix://{}", stream.display())),
    ]
    .concat();
    let (_agent, station) = pair(&field, &config).await;
    let (old, new) = (old.to_string(), new.to_string());
    let path = stream.display().to_string();
    for (domain, count, rate, words) in [
        (
            "old",
            20_000,
            "100000",
            &["--inet", "--stream", "127.0.0.1", &old][..],
        ),
        (
            "new",
            20_000,
            "100000",
            &["--inet", "--stream", "--syslog-proto", "127.0.0.1", &new],
        ),
        // No more than a socket's buffer has room for by default, should nobody read meanwhile.
        (
            "udp",
            300,
            "1000",
            &["--inet", "--dgram", "127.0.0.1", &new],
        ),
        ("unix", 5000, "100000", &["--unix", "--stream", &path]),
    ] {
        let mut loggen = peers::command("loggen").expect("it was there");
        loggen.env("SYSLOGNG_PREFIX", peers::root().join("usr"));
        loggen.args([
            "--size",
            "200",
            "--rate",
            rate,
            "--number",
            &count.to_string(),
        ]);
        assert!(
            loggen.args(words).status().expect("it starts").success(),
            "{domain}"
        );
        let found = stored(&station, domain, count).await;
        for (number, record) in found.iter().enumerate() {
            let wanted = format!("seq: {number:010}, thread: 0000, ");
            let message = Message::parse(&record.raw);
            assert_eq!(
                message.app(),
                Some(&b"prg00000"[..]),
                "{domain}: {}",
                record.text
            );
            assert!(
                message.text().starts_with(wanted.as_bytes()),
                "{domain}: {}",
                record.text
            );
            assert_eq!(record.severity, 6);
        }
    }
}

/// Asks a server for a page.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[tokio::test]
async fn nginx_logs_every_request_to_a_datagram_input() {
    let field = Field::new();
    let Some(mut nginx) = peers::command("nginx") else {
        return;
    };
    let (port, web) = (free_port(), free_port());
    let gram = field.path("gram");
    let config = [
        input("access", &format!("udp://127.0.0.1:{port}")),
        input("unix", &format!("unixgram://{}", gram.display())),
    ]
    .concat();
    let (_agent, station): (Agent, Station) = pair(&field, &config).await;
    let dir = field.path("nginx");
    fs::create_dir(&dir).expect("a directory");
    let place = dir.display();
    let text = format!(
        r#"
daemon off; master_process off; pid {place}/pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
    log_format plain '$request_method $request_uri $status "$http_user_agent"';
    access_log syslog:server=127.0.0.1:{port},facility=local7,tag=web,severity=info plain;
    access_log syslog:server=unix:{gram},nohostname,tag=web,severity=info plain;
    client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
    uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
    server {{ listen 127.0.0.1:{web}; location / {{ return 200 "hello"; }} }}
}}
"#,
        gram = gram.display(),
    );
    fs::write(dir.join("nginx.conf"), text).expect("written");
    nginx
        .arg("-p")
        .arg(&dir)
        .arg("-c")
        .arg(dir.join("nginx.conf"));
    let _nginx = Peer::start(nginx);
    // Looking whether it listens is no request.
    eventually("nginx that listens", || {
        TcpStream::connect(("127.0.0.1", web)).ok()
    })
    .await;
    for number in 0..100 {
        let answer = get(web, &format!("/page/{number}?q=%22x%22")).unwrap_or_default();
        assert!(answer.ends_with("hello"), "{answer}");
        // It does not wait for a socket whose queue is full (`net.unix.max_dgram_qlen`, 10), and what it drops then
        // nobody can know.
        if number % 5 == 4 {
            texts(&station, "unix", number + 1).await;
        }
    }
    for domain in ["access", "unix"] {
        let found = stored(&station, domain, 100).await;
        for (number, record) in found.iter().enumerate() {
            let message = Message::parse(&record.raw);
            let facility = message.facility().map(|facility| facility.number());
            assert_eq!(
                (facility, record.severity),
                (Some(23), 6),
                "{}",
                record.text
            );
            assert_eq!(message.app(), Some(&b"web"[..]), "{}", record.text);
            let wanted = format!("GET /page/{number}?q=%22x%22 200 \"test\"");
            assert_eq!(message.text(), wanted.as_bytes());
        }
    }
}
