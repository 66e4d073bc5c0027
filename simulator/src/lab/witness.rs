//! The ground truth: every command of the laboratory writes down its own start and end, and nobody else does.
//!
//! It does not know the station, the agent or their records; it knows the variables a command is given and a
//! file. Each line is one write in append mode and is synced before anything else happens.

use std::{
    collections::BTreeMap,
    env,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How a witness lies, to show that the checker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lie {
    /// Writes its start twice, as if it had been started twice.
    Twice,
    /// Writes no start and no end.
    Silent,
    /// Writes no end, and says all is well.
    Endless,
    /// Writes the token of another message.
    Foreign,
}

impl Lie {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Twice => "twice",
            Self::Silent => "silent",
            Self::Endless => "endless",
            Self::Foreign => "foreign",
        }
    }
}

/// What a witness is told on its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Testimony {
    /// The file to append to.
    pub(crate) file: PathBuf,
    /// What names the message; printed to standard output as well.
    pub(crate) token: String,
    /// How long to stay.
    pub(crate) stay: Duration,
    /// The exit code.
    pub(crate) code: i32,
    /// How to lie.
    pub(crate) lie: Option<Lie>,
}

impl Testimony {
    /// Returns the arguments that give this testimony.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "witness".to_owned(),
            self.file.display().to_string(),
            self.token.clone(),
            self.stay.as_millis().to_string(),
            self.code.to_string(),
        ];
        arguments.extend(self.lie.map(|lie| lie.as_str().to_owned()));
        arguments
    }

    /// Reads what [`Testimony::arguments`] wrote, without its first word.
    pub(crate) fn read(arguments: &[String]) -> Option<Self> {
        let lie = match arguments.get(4) {
            None => None,
            Some(word) => Some(<Lie as clap::ValueEnum>::from_str(word, false).ok()?),
        };
        Some(Self {
            file: PathBuf::from(arguments.first()?),
            token: arguments.get(1)?.clone(),
            stay: Duration::from_millis(arguments.get(2)?.parse().ok()?),
            code: arguments.get(3)?.parse().ok()?,
            lie,
        })
    }

    /// Gives the testimony and returns the exit code.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written: then nothing is known, and the exit must not look like success.
    pub(crate) fn give(&self) -> io::Result<i32> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.file)?;
        let variable = |name| env::var(name).unwrap_or_else(|_| "-".to_owned());
        let token = match self.lie {
            Some(Lie::Foreign) => "somebody-else",
            _ => &self.token,
        };
        let rest = format!(
            "{} {} {} {token}",
            variable("STEWARD_MESSAGE_ID"),
            variable("STEWARD_NODE"),
            variable("STEWARD_ATTEMPT"),
        );
        let mut say = |line: String| -> io::Result<()> {
            file.write_all(line.as_bytes())?;
            file.sync_data()
        };
        let starts = match self.lie {
            Some(Lie::Twice) => 2,
            Some(Lie::Silent) => 0,
            _ => 1,
        };
        for _ in 0..starts {
            say(format!("start {rest} {} -\n", now_ms()))?;
        }
        thread::sleep(self.stay);
        if !matches!(self.lie, Some(Lie::Silent | Lie::Endless)) {
            say(format!("end {rest} {} {}\n", now_ms(), self.code))?;
        }
        // Nobody may be listening any more; that changes nothing of what happened.
        writeln!(io::stdout(), "{}", self.token).ok();
        Ok(self.code)
    }
}

fn now_ms() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis())
}

/// Where and for what a command ran: message and node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) id: String,
    pub(crate) node: String,
}

/// One line of the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The exit code at an end; none at a start.
    pub(crate) end: Option<i32>,
    /// How often the agent said it had started it.
    pub(crate) attempt: String,
    /// What named the message.
    pub(crate) token: String,
    /// When it was written, in milliseconds since 1970.
    pub(crate) at: i64,
    /// Its place among all lines.
    pub(crate) number: u64,
    /// The line as it stands.
    pub(crate) text: String,
}

/// Everything that was witnessed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    lines: BTreeMap<Place, Vec<Line>>,
    /// Lines that are not testimony: a torn write, or a defect of ours.
    pub(crate) unreadable: Vec<String>,
    starts: u64,
    lines_read: u64,
}

impl Truth {
    pub(crate) fn at(&self, place: &Place) -> &[Line] {
        self.lines.get(place).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = (&Place, &[Line])> {
        self.lines
            .iter()
            .map(|(place, lines)| (place, lines.as_slice()))
    }

    pub(crate) fn starts(&self) -> u64 {
        self.starts
    }

    pub(crate) fn note(&mut self, line: &str) {
        match parse(line) {
            Some((place, mut line)) => {
                self.lines_read += 1;
                line.number = self.lines_read;
                self.starts += u64::from(line.end.is_none());
                self.lines.entry(place).or_default().push(line);
            }
            None => self.unreadable.push(line.to_owned()),
        }
    }
}

fn parse(text: &str) -> Option<(Place, Line)> {
    let words: Vec<&str> = text.split(' ').collect();
    let [what, id, node, attempt, token, at, code] = words[..] else {
        return None;
    };
    let at = at.parse().ok()?;
    let end = match (what, code) {
        ("start", "-") => None,
        ("end", code) => Some(code.parse().ok()?),
        _ => return None,
    };
    let place = Place {
        id: id.to_owned(),
        node: node.to_owned(),
    };
    let line = Line {
        end,
        attempt: attempt.to_owned(),
        token: token.to_owned(),
        at,
        number: 0,
        text: text.to_owned(),
    };
    Some((place, line))
}

/// Reads the file as it grows.
#[derive(Debug)]
pub(crate) struct Reading {
    path: PathBuf,
    offset: u64,
}

impl Reading {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            offset: 0,
        }
    }

    /// Adds to `truth` the whole lines written since the last time.
    ///
    /// # Errors
    ///
    /// Fails when the file is there and cannot be read.
    pub(crate) fn read_on(&mut self, truth: &mut Truth) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in String::from_utf8_lossy(&text[..whole]).lines() {
            truth.note(line);
        }
        self.offset += u64::try_from(whole).unwrap_or(u64::MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_testimony_survives_its_own_arguments() {
        for lie in [None, Some(Lie::Twice), Some(Lie::Foreign)] {
            let testimony = Testimony {
                file: PathBuf::from("/x/truth"),
                token: "m1".to_owned(),
                stay: Duration::from_millis(20),
                code: 3,
                lie,
            };
            let arguments = testimony.arguments();
            assert_eq!(arguments[0], "witness");
            assert_eq!(Testimony::read(&arguments[1..]), Some(testimony));
        }
        assert_eq!(Testimony::read(&[]), None);
    }

    #[test]
    fn the_file_is_read_as_it_grows_and_only_in_whole_lines() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("truth");
        let (mut reading, mut truth) = (Reading::new(&path), Truth::default());
        reading
            .read_on(&mut truth)
            .expect("an absent file is empty");
        std::fs::write(&path, "start a n1 1 m1 5 -\nend a n1 1 m1").expect("written");
        reading.read_on(&mut truth).expect("read");
        let place = Place {
            id: "a".to_owned(),
            node: "n1".to_owned(),
        };
        assert_eq!(truth.at(&place).len(), 1);
        std::fs::write(&path, "start a n1 1 m1 5 -\nend a n1 1 m1 6 3\nrubbish\n")
            .expect("written");
        reading.read_on(&mut truth).expect("read");
        assert_eq!(truth.at(&place)[1].end, Some(3));
        assert_eq!(truth.starts(), 1);
        assert_eq!(truth.unreadable, ["rubbish"]);
    }
}
