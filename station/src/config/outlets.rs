//! What the settings of relays and of the mirror mean.
//!
//! Pure. It does not know whether a directory is there or a receiver answers.

use std::{path::PathBuf, str::FromStr};

use steward_protocol::{nearest::nearest, syslog::Severities};

use super::{
    ConfigProblem,
    sources::{RELAYS, Several},
    values::bytes,
};
use crate::logs::{
    follow::Begin,
    mirror::text::Format,
    outlet::Choice,
    relay::link::{Address, Secrecy},
};

/// The port of syslog over TLS (RFC 5425); the one for plain TCP that receivers use, for lack of another (RFC 6587).
const TLS_PORT: u16 = 6514;
const TCP_PORT: u16 = 514;

/// Smallest file of a mirror: more than a piece that is written at once mostly has.
const MIN_SIZE: u64 = 1024 * 1024;

/// Most files of a line that are kept.
const MAX_KEEP: u32 = 1000;

/// Longest name of a relay; it becomes the name of a file.
const MAX_NAME: usize = 63;

/// The name of the mirror's cursors; no relay may have it.
pub const MIRROR: &str = "mirror";

/// Keys of a relay.
const KEYS: [&str; 7] = [
    "name", "address", "ca", "node", "domain", "priority", "begin",
];

/// Where logs are sent on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayConfig {
    /// How it is called; its cursors are under this name.
    pub name: String,
    /// Where the receiver is.
    pub address: Address,
    /// Which logs.
    pub choice: Choice,
}

/// Reads relays, and notes what is wrong with them.
pub(super) fn relays(all: &[Several], problems: &mut Vec<ConfigProblem>) -> Vec<RelayConfig> {
    let mut names: Vec<&String> = Vec::new();
    let mut relays = Vec::new();
    for one in all {
        let mut reader = Reader { one, problems };
        for name in one.values.get("name").into_iter().flat_map(|name| &name.1) {
            if names.contains(&name) {
                reader.problem("name", format!("{name:?} is there twice"));
            }
            names.push(name);
        }
        relays.extend(reader.relay());
    }
    relays
}

struct Reader<'a> {
    one: &'a Several,
    problems: &'a mut Vec<ConfigProblem>,
}

impl Reader<'_> {
    fn relay(&mut self) -> Option<RelayConfig> {
        for (key, (place, _)) in &self.one.values {
            if !KEYS.contains(&key.as_str()) {
                self.problems.push(ConfigProblem {
                    place: format!("{place}: {RELAYS}"),
                    reason: format!("{key:?} is not a key of a relay"),
                    hint: nearest(key, KEYS).map(|close| format!("did you mean {close}?")),
                });
            }
        }
        let name = self.text("name", name)?;
        let address = self.text("address", address);
        let ca = self.text("ca", |text| Ok(PathBuf::from(text)));
        let nodes = self.list("node");
        let domains = self.list("domain");
        let severities = self.text("priority", |text| {
            let read = text.parse::<Severities>();
            read.map_err(|_| {
                format!("{text:?} is not a severity; write emerg, alert, crit, err, warning, notice, info, debug, 0 to 7, or a range such as err..warning")
            })
        });
        let begin = self.text("begin", begin);
        let (name, mut address) = (
            self.needed("name", name)?,
            self.needed("address", address?)?,
        );
        address.ca = ca?;
        if address.ca.is_some() && address.secrecy == Secrecy::Plain {
            self.problem("ca", "is only for tls://".to_owned());
        }
        let everything = Choice::everything();
        Some(RelayConfig {
            name,
            address,
            choice: Choice {
                nodes: nodes?,
                domains: domains?,
                severities: severities?.unwrap_or(everything.severities),
                begin: begin?.unwrap_or(everything.begin),
            },
        })
    }

    /// Returns `Some(None)` where nothing is written, and `None` after noting a problem.
    fn text<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let Some((_, texts)) = self.one.values.get(key) else {
            return Some(None);
        };
        let parsed = match &texts[..] {
            [text] => parse(text),
            _ => Err("is a list; one text is expected".to_owned()),
        };
        parsed
            .map(Some)
            .map_err(|reason| self.problem(key, reason))
            .ok()
    }

    fn list<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str) -> Option<Vec<T>> {
        let texts = self.one.values.get(key).map(|(_, texts)| &texts[..]);
        let read = |text: &String| text.parse().map_err(|error| format!("{text:?} {error}"));
        let parsed: Result<Vec<T>, String> = texts.unwrap_or_default().iter().map(read).collect();
        parsed.map_err(|reason| self.problem(key, reason)).ok()
    }

    fn needed<T>(&mut self, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.problem(key, "is missing".to_owned());
        }
        value
    }

    fn problem(&mut self, key: &str, reason: String) {
        let place = self.one.values.get(key).map(|(place, _)| place);
        self.problems.push(ConfigProblem {
            place: format!("{}: {RELAYS}", place.unwrap_or(&self.one.place)),
            reason: format!("{key} {reason}"),
            hint: None,
        });
    }
}

fn name(text: &str) -> Result<String, String> {
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match text {
        MIRROR => Err(format!("{MIRROR:?} is the mirror's; choose another")),
        _ if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_sound) => {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "{text:?} is not a name; write 1 to {MAX_NAME} letters, digits, '_' or '-'"
        )),
    }
}

fn address(text: &str) -> Result<Address, String> {
    let explain = || {
        format!(
            "{text:?} is not the address of a receiver; write for example tcp://siem.example:514 or tls://siem.example:6514"
        )
    };
    let (secrecy, port, place) = match text.split_once("://") {
        Some(("tcp", place)) => (Secrecy::Plain, TCP_PORT, place),
        Some(("tls", place)) => (Secrecy::Tls, TLS_PORT, place),
        _ => return Err(explain()),
    };
    let (host, rest) = match place.strip_prefix('[') {
        Some(inner) => inner.split_once(']').ok_or_else(explain)?,
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(explain)?,
        None if rest.is_empty() => port,
        None => return Err(explain()),
    };
    let is_sound = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'@' | b'?' | b'#');
    if host.is_empty() || !host.bytes().all(is_sound) {
        return Err(explain());
    }
    Ok(Address {
        host: host.to_owned(),
        port,
        secrecy,
        ca: None,
    })
}

fn begin(text: &str) -> Result<Begin, String> {
    match text {
        "oldest" => Ok(Begin::Oldest),
        "newest" => Ok(Begin::Newest),
        _ => Err(format!("{text:?} is neither oldest nor newest")),
    }
}

pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(format!("{text:?} is not an absolute path")),
    }
}

pub(super) fn format(text: &str) -> Result<Format, String> {
    match text {
        "short-iso" => Ok(Format::ShortIso),
        "cat" => Ok(Format::Cat),
        "raw" => Ok(Format::Raw),
        _ => Err(format!(
            "{text:?} is not a format of the mirror; write short-iso, cat or raw"
        )),
    }
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        size if size < MIN_SIZE => Err(format!(
            "{size} bytes are too few for a file; write at least 1MiB"
        )),
        size => Ok(size),
    }
}

pub(super) fn keep(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number <= MAX_KEEP);
    number.ok_or_else(|| format!("{text:?} is not a number from 0 to {MAX_KEEP}"))
}
