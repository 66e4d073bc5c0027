//! Log lines that look real: a web server's access log and the daemons of a node, about 200 bytes each.
//!
//! Seeded: the same seed gives the same lines. Half of the lines are RFC 5424, half RFC 3164. It knows nothing of who
//! gets them.

use std::fmt::Write;

use super::super::dice::Dice;

/// What a line is followed by on a stream.
const END: u8 = b'\n';

/// Clients that come again and again.
const CLIENTS: usize = 3000;

const PATHS: &[&str] = &[
    "/",
    "/index.html",
    "/api/v1/orders",
    "/api/v1/orders/export",
    "/api/v1/stock",
    "/api/v2/telemetry/engine",
    "/catalogue/items",
    "/catalogue/search",
    "/images/logo.png",
    "/login",
    "/static/app.3f9c1e.js",
    "/static/site.87ab02.css",
    "/wp-login.php",
];

const AGENTS: &[&str] = &[
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1",
    "curl/8.14.1",
    "python-requests/2.32.3",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
];

const REFERERS: &[&str] = &[
    "-",
    "https://shop.example/",
    "https://shop.example/catalogue/search?q=pump",
    "https://www.example.org/fleet",
];

const USERS: &[&str] = &["root", "admin", "deploy", "oracle", "ann", "backup", "test"];

const UNITS: &[&str] = &[
    "logrotate.service",
    "apt-daily.service",
    "fstrim.timer",
    "engine-telemetry.service",
    "session-114.scope",
];

/// Writes lines, one after the other.
#[derive(Debug)]
pub(super) struct Lines {
    dice: Dice,
    /// Milliseconds since the beginning of the day.
    clock: u64,
    text: String,
}

impl Lines {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            clock: 8 * 3600 * 1000,
            text: String::new(),
        }
    }

    /// Returns the next line, without its end.
    pub(super) fn next(&mut self) -> &str {
        self.text.clear();
        self.clock = (self.clock + self.dice.next() % 3) % (24 * 3600 * 1000);
        // Writing to a String cannot fail.
        let written = match self.dice.below(20) {
            0..13 => self.access(),
            13..16 => self.sshd(),
            16..18 => self.service(),
            18 => self.kernel(),
            _ => self.application(),
        };
        written.ok();
        &self.text
    }

    /// Returns so many lines as a stream has them.
    pub(super) fn stream(mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count * 220);
        for _ in 0..count {
            bytes.extend_from_slice(self.next().as_bytes());
            bytes.push(END);
        }
        bytes
    }

    fn clock(&self) -> (u64, u64, u64, u64) {
        let second = self.clock / 1000;
        let (hour, minute) = (second / 3600, second / 60 % 60);
        (hour, minute, second % 60, self.clock % 1000)
    }

    fn begin(&mut self, pri: u8, app: &str, pid: u64) -> std::fmt::Result {
        let (hour, minute, second, milli) = self.clock();
        match self.dice.chance(500) {
            true => write!(
                self.text,
                "<{pri}>1 2026-11-21T{hour:02}:{minute:02}:{second:02}.{milli:03}Z ship1 {app} {pid} - - "
            ),
            false => write!(
                self.text,
                "<{pri}>Nov 21 {hour:02}:{minute:02}:{second:02} ship1 {app}[{pid}]: "
            ),
        }
    }

    fn client(&mut self) -> (u64, u64, u64) {
        // Few of them ask often.
        let bound = self.dice.below(CLIENTS) + 1;
        let mut own = Dice::new(self.dice.below(bound) as u64);
        (own.next() % 4, own.next() % 256, own.next() % 256)
    }

    fn access(&mut self) -> std::fmt::Result {
        self.begin(190, "nginx", 812)?;
        let (a, b, c) = self.client();
        let (hour, minute, second, _) = self.clock();
        let path = *self.dice.pick(PATHS);
        let method = *self
            .dice
            .pick(&["GET", "GET", "GET", "GET", "POST", "HEAD"]);
        let status = *self
            .dice
            .pick(&[200, 200, 200, 200, 200, 304, 301, 404, 500]);
        let agent = *self.dice.pick(AGENTS);
        let referer = *self.dice.pick(REFERERS);
        let (id, size, time) = (
            self.dice.below(100_000),
            self.dice.below(60_000),
            self.dice.below(900),
        );
        write!(
            self.text,
            "10.{a}.{b}.{c} - - [21/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000] \"{method} {path}?id={id} HTTP/1.1\" {status} {size} \"{referer}\" \"{agent}\" rt=0.{time:03}"
        )
    }

    fn sshd(&mut self) -> std::fmt::Result {
        let pid = 1000 + self.dice.next() % 30_000;
        self.begin(38, "sshd", pid)?;
        let (a, b, c) = self.client();
        let port = 1024 + self.dice.below(60_000);
        let user = *self.dice.pick(USERS);
        match self.dice.below(3) {
            0 => write!(
                self.text,
                "Failed password for invalid user {user} from 10.{a}.{b}.{c} port {port} ssh2"
            ),
            1 => write!(
                self.text,
                "Connection closed by authenticating user {user} 10.{a}.{b}.{c} port {port} [preauth]"
            ),
            _ => write!(
                self.text,
                "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=10.{a}.{b}.{c}  user={user}"
            ),
        }
    }

    fn service(&mut self) -> std::fmt::Result {
        self.begin(30, "systemd", 1)?;
        let unit = *self.dice.pick(UNITS);
        let (cpu, number) = (self.dice.below(9000), self.dice.below(100_000));
        match self.dice.chance(500) {
            true => write!(
                self.text,
                "{unit}: Deactivated successfully. Consumed {}.{:03}s CPU time, job {number}.",
                cpu / 1000,
                cpu % 1000
            ),
            false => write!(self.text, "Started {unit} - job {number} of the day."),
        }
    }

    fn kernel(&mut self) -> std::fmt::Result {
        self.begin(4, "kernel", 0)?;
        let (a, b, c) = self.client();
        let (id, port, uptime) = (
            self.dice.below(65_536),
            self.dice.below(65_536),
            self.dice.below(1_000_000),
        );
        write!(
            self.text,
            "[{uptime}.{id:06}] nft drop: IN=eth0 OUT= MAC=52:54:00:12:34:56:52:54:00:ab:cd:ef:08:00 SRC=10.{a}.{b}.{c} DST=192.0.2.17 LEN=60 TOS=0x00 PREC=0x00 TTL=57 ID={id} DF PROTO=TCP SPT={port} DPT=23 WINDOW=64240 SYN"
        )
    }

    fn application(&mut self) -> std::fmt::Result {
        self.begin(134, "engine", 4711)?;
        let (rpm, oil, fuel) = (
            600 + self.dice.below(1400),
            600 + self.dice.below(300),
            self.dice.below(100_000),
        );
        let trace = self.dice.next();
        write!(
            self.text,
            "{{\"level\":\"info\",\"msg\":\"sample\",\"engine\":{},\"rpm\":{rpm},\"oil_temp\":{}.{},\"fuel_rate\":{}.{:03},\"trace\":\"{trace:016x}\",\"ok\":true}}",
            fuel % 4,
            oil / 10,
            oil % 10,
            fuel / 1000,
            fuel % 1000
        )
    }
}

#[cfg(test)]
mod tests {
    use steward_protocol::syslog::Message;

    use super::*;

    #[test]
    fn lines_are_syslog_of_about_200_bytes_and_the_same_for_the_same_seed() {
        let stream = Lines::new(7).stream(20_000);
        assert_eq!(stream, Lines::new(7).stream(20_000));
        assert_ne!(stream, Lines::new(8).stream(20_000));
        let mean = stream.len() / 20_000;
        assert!((180..=220).contains(&mean), "{mean} bytes");
        let lines: Vec<_> = stream.split(|byte| *byte == END).collect();
        assert_eq!(lines.len(), 20_001);
        for line in &lines[..20_000] {
            let message = Message::parse(line);
            assert_eq!(message.host(), Some(&b"ship1"[..]));
            assert!(message.app().is_some() && message.stamp().is_some());
        }
    }
}
