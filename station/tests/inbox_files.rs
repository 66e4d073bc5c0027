//! The watched folder, with real files and a ledger that can be told to fail, hang and crash.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use rustix::fs::{CWD, Mode, mkfifoat};
use steward_protocol::{MessageId, Target};
use steward_station::{
    inbox::{AcceptError, Inbox, InboxConfig, InboxTiming, MAX_FILE, Retention, Submission, list},
    view::{InboxFileView, InboxPlace, Problem, Receipt, ReceiptLine},
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod folders;
mod odd;
mod trouble;

const GOOD: &str =
    r#"{"subject": "ship1.command.shellcommand.operatingsystem", "data": ["uname", "-a"]}"#;

/// How long a test waits for what it awaits. Only a failing test takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Short enough for a test, long enough to be told apart from at once.
const SHORT: InboxTiming = InboxTiming {
    rescan: Duration::from_millis(100),
    settle: Duration::from_millis(200),
    give_up: Duration::from_millis(600),
};

/// Only notices can make the inbox take a file within a test's time.
const NOTICES_ONLY: InboxTiming = InboxTiming {
    rescan: Duration::from_secs(3600),
    settle: Duration::from_secs(3600),
    give_up: Duration::from_secs(3600),
};

/// What the ledger does with the submissions of one file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Knob {
    /// Not stored, for now.
    Unavailable,
    /// No answer, ever; nothing stored.
    Hang,
    /// Stored, but the answer never arrives: a crash between the two.
    StoreAndHang,
    /// Refused.
    Refuse,
    /// A bug.
    Panic,
}

#[derive(Default)]
struct Books {
    knobs: HashMap<String, Knob>,
    receipts: HashMap<Uuid, Receipt>,
    stored: Vec<Submission>,
    asked: usize,
}

/// An in-memory ledger that recognises intakes.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Books>>);

impl Ledger {
    fn set(&self, file: &str, knob: Option<Knob>) {
        let mut books = self.0.lock().unwrap();
        match knob {
            Some(knob) => books.knobs.insert(file.to_owned(), knob),
            None => books.knobs.remove(file),
        };
    }

    fn stored(&self) -> Vec<Submission> {
        self.0.lock().unwrap().stored.clone()
    }

    /// Returns where the stored submissions came from, in the order they were stored.
    fn sources(&self) -> Vec<String> {
        let stored = self.stored();
        stored
            .into_iter()
            .map(|submission| submission.source.trim_start_matches("inbox:").to_owned())
            .collect()
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().asked
    }

    async fn accept(self, submission: Submission) -> Result<Receipt, AcceptError> {
        let file = submission.source.trim_start_matches("inbox:").to_owned();
        let knob = {
            let mut books = self.0.lock().unwrap();
            books.asked += 1;
            books.knobs.get(&file).copied()
        };
        match knob {
            Some(Knob::Unavailable) => Err(AcceptError::Unavailable("the disk is full".into())),
            Some(Knob::Hang) => std::future::pending().await,
            Some(Knob::Refuse) => Err(AcceptError::Rejected(vec![Problem {
                line: None,
                column: None,
                path: "/0/id".into(),
                reason: "this id has other content already".into(),
                hint: Some("give it another id".into()),
            }])),
            Some(Knob::Panic) => panic!("the knob says so"),
            Some(Knob::StoreAndHang) => {
                self.store(submission);
                std::future::pending().await
            }
            None => Ok(self.store(submission)),
        }
    }

    fn store(&self, submission: Submission) -> Receipt {
        let mut books = self.0.lock().unwrap();
        let intake = submission.intake.expect("the inbox names every intake");
        if let Some(receipt) = books.receipts.get(&intake) {
            return receipt.clone();
        }
        let messages = submission.messages.iter().map(|message| ReceiptLine {
            id: message.id.unwrap_or(MessageId(Uuid::now_v7())),
            name: message.name.clone(),
            nodes: match &message.target {
                Target::Nodes(nodes) => nodes.clone(),
                Target::Labels(_) => Vec::new(),
            },
            recognised: false,
            retry_of: None,
            held: Vec::new(),
        });
        let receipt = Receipt {
            messages: messages.collect(),
        };
        books.receipts.insert(intake, receipt.clone());
        books.stored.push(submission);
        receipt
    }
}

/// A running inbox in a directory of its own.
struct Station {
    dir: Arc<TempDir>,
    ledger: Ledger,
    stop: CancellationToken,
    task: JoinHandle<()>,
    timing: InboxTiming,
}

impl Station {
    fn start(timing: InboxTiming) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::start_in(dir, Ledger::default(), timing)
    }

    fn start_in(dir: Arc<TempDir>, ledger: Ledger, timing: InboxTiming) -> Self {
        let inbox = Inbox::open(InboxConfig {
            dir: dir.path().join("inbox"),
            timing,
            retention: Retention::default(),
        })
        .unwrap();
        let stop = CancellationToken::new();
        let accept = {
            let ledger = ledger.clone();
            move |submission| ledger.clone().accept(submission)
        };
        Self {
            task: tokio::spawn(inbox.run(accept, stop.clone())),
            dir,
            ledger,
            stop,
            timing,
        }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join("inbox").join(name)
    }

    /// Writes a file in one go, as an editor or `cp` does.
    fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes a file elsewhere and renames it into the inbox.
    fn rename_in(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        let outside = self.dir.path().join("outside");
        fs::write(&outside, text).unwrap();
        fs::rename(outside, self.path(name)).unwrap();
    }

    fn list(&self) -> Vec<InboxFileView> {
        list(&self.path(""), self.timing, 100_000).unwrap()
    }

    fn place(&self, name: &str) -> Option<InboxPlace> {
        self.view(name).map(|view| view.place)
    }

    fn view(&self, name: &str) -> Option<InboxFileView> {
        self.list().into_iter().find(|view| view.name == name)
    }

    async fn until(&self, awaited: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(
                !self.task.is_finished(),
                "the inbox ended while waiting for {awaited}"
            );
            assert!(
                Instant::now() < deadline,
                "waited in vain for {awaited}; the inbox holds {:#?}",
                self.list()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_place(&self, name: &str, place: InboxPlace) {
        self.until(&format!("{name} to be {place:?}"), |station| {
            station.place(name) == Some(place)
        })
        .await;
    }

    /// Proves that the inbox goes on working: a good file dropped now is accepted.
    async fn until_others_pass(&self) {
        let name = format!("proof-{}.json", Uuid::now_v7());
        self.write(&name, GOOD);
        self.until_place(&name, InboxPlace::Done).await;
    }

    /// Ends the inbox in an orderly way.
    async fn stop(self) -> (Arc<TempDir>, Ledger) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("the inbox ends when told to").unwrap();
        (self.dir, self.ledger)
    }

    /// Ends the inbox wherever it is.
    async fn crash(self) -> (Arc<TempDir>, Ledger) {
        self.task.abort();
        drop(self.task.await);
        (self.dir, self.ledger)
    }

    /// Returns the notes beside a rejected file.
    fn notes(&self, name: &str) -> (String, serde_json::Value) {
        let read = |ending: &str| {
            let path = self.path(".rejected").join(format!("{name}{ending}"));
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let json = serde_json::from_str(&read(".error.json")).unwrap();
        (read(".error.txt"), json)
    }
}

#[tokio::test]
async fn a_written_file_is_accepted_and_says_what_it_became() {
    let station = Station::start(NOTICES_ONLY);
    station.write("uname.json", GOOD);
    station.until_place("uname.json", InboxPlace::Done).await;
    let stored = station.ledger.stored();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].source, "inbox:uname.json");
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(stored[0].submitted_by, format!("uid:{uid}"));

    let intake = stored[0].intake.unwrap();
    let date = fs::read_dir(station.path(".done"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let kept = date.path().join(format!("{intake}--uname.json"));
    assert_eq!(fs::read_to_string(&kept).unwrap(), GOOD);
    let status = fs::read_to_string(format!("{}.status.json", kept.display())).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let id = status["messages"][0]["id"].as_str().unwrap();
    assert_eq!(status["file"], "uname.json");
    assert_eq!(status["messages"][0]["nodes"][0], "ship1");
    assert_eq!(status["messages"][0]["recognised"], false);
    assert_eq!(status["see"], format!("steward msg show {id}"));
    let view = station.view("uname.json").unwrap();
    assert_eq!(view.messages[0].to_string(), id);
    station.stop().await;
}

#[tokio::test]
async fn a_file_renamed_into_the_inbox_is_accepted() {
    let station = Station::start(NOTICES_ONLY);
    station.rename_in("a.json", GOOD);
    station.rename_in("b.yaml", "to: ship1\nmethod: hello\ndomain: node\n");
    station.until_place("a.json", InboxPlace::Done).await;
    station.until_place("b.yaml", InboxPlace::Done).await;
    station.stop().await;
}

#[tokio::test]
async fn a_file_that_lay_there_before_the_start_is_accepted() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    fs::create_dir(dir.path().join("inbox")).unwrap();
    fs::write(dir.path().join("inbox/a.json"), GOOD).unwrap();
    let station = Station::start_in(dir, Ledger::default(), SHORT);
    station.until_place("a.json", InboxPlace::Done).await;
    station.stop().await;
}

#[tokio::test]
async fn a_half_written_file_waits_for_its_writer() {
    let station = Station::start(InboxTiming {
        give_up: PATIENCE * 2,
        ..SHORT
    });
    let (first, second) = GOOD.split_at(30);
    let mut file = File::create(station.path("half.json")).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    // Several scans see it, long after it has settled.
    station
        .until("the reason of the half-written file", |station| {
            station.view("half.json").is_some_and(|view| {
                view.place == InboxPlace::Waiting
                    && view
                        .reason
                        .is_some_and(|reason| reason.contains("ends too early"))
            })
        })
        .await;
    station.until_others_pass().await;
    assert_eq!(station.place("half.json"), Some(InboxPlace::Waiting));
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    station.until_place("half.json", InboxPlace::Done).await;
    station.stop().await;
}

#[tokio::test]
async fn a_file_closed_half_written_waits_for_the_rest() {
    let station = Station::start(NOTICES_ONLY);
    let (first, second) = GOOD.split_at(30);
    station.write("half.json", first);
    station.until_others_pass().await;
    assert_eq!(station.place("half.json"), Some(InboxPlace::Waiting));
    let mut file = File::options()
        .append(true)
        .open(station.path("half.json"))
        .unwrap();
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    station.until_place("half.json", InboxPlace::Done).await;
    station.stop().await;
}

#[tokio::test]
async fn a_file_that_stays_half_written_is_rejected_in_the_end() {
    let station = Station::start(SHORT);
    let begun = Instant::now();
    station.write("half.json", "[{\"to\"");
    station.write("empty.json", "");
    station.until_place("half.json", InboxPlace::Rejected).await;
    station
        .until_place("empty.json", InboxPlace::Rejected)
        .await;
    assert!(begun.elapsed() >= SHORT.give_up);
    let (text, _) = station.notes("half.json");
    assert!(text.contains("ends too early"), "{text}");
    station.stop().await;
}

#[tokio::test]
async fn yaml_that_is_only_written_waits_and_says_why() {
    let station = Station::start(SHORT);
    station.write("a.yaml", "to: ship1\nmethod: hello\ndomain: node\n");
    station.until_others_pass().await;
    let view = station.view("a.yaml").unwrap();
    assert_eq!(view.place, InboxPlace::Waiting);
    assert!(view.reason.unwrap().contains("renamed into the inbox"));
    fs::rename(station.path("a.yaml"), station.dir.path().join("aside")).unwrap();
    fs::rename(station.dir.path().join("aside"), station.path("a.yaml")).unwrap();
    station.until_place("a.yaml", InboxPlace::Done).await;
    station.stop().await;
}

#[tokio::test]
async fn a_bad_file_is_rejected_with_notes_for_people_and_programs() {
    let station = Station::start(SHORT);
    let text =
        "[\n  { \"to\": \"ship1\", \"method\": \"hello\",\n    \"domian\": \"\u{202e}x\" }\n]\n";
    station.write("bad.json", text);
    station.until_place("bad.json", InboxPlace::Rejected).await;
    let (people, programs) = station.notes("bad.json");
    for expected in [
        "bad.json:3:5 at /0/domian\n",
        "there is no field \"domian\"",
        "help: did you mean \"domain\"?",
        "     3 |     \"domian\": \"\\u{202e}x\" }",
        "       |     ^",
    ] {
        assert!(people.contains(expected), "{people}");
    }
    assert!(!people.contains('\u{202e}'));
    assert_eq!(programs["file"], "bad.json");
    let problems: Vec<Problem> = serde_json::from_value(programs["problems"].clone()).unwrap();
    assert_eq!(station.view("bad.json").unwrap().problems, problems);
    assert_eq!(
        fs::read_to_string(station.path(".rejected/bad.json")).unwrap(),
        text
    );
    assert!(station.ledger.stored().is_empty());
    station.until_others_pass().await;
    station.stop().await;
}

#[tokio::test]
async fn every_bad_content_is_rejected_and_holds_nothing_up() {
    let station = Station::start(SHORT);
    let thousand_and_one = format!("[{}]", vec![GOOD; 1001].join(","));
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let large = " ".repeat(MAX_FILE + 1);
    let rows: [(&str, &[u8], &str); 10] = [
        ("malformed.json", b"[,]", "is not JSON"),
        ("type.json", b"7", "expected a message"),
        ("no-target.json", b"{\"data\": [\"x\"]}", "has no target"),
        (
            "empty-data.json",
            &GOOD.replace("\"uname\", \"-a\"", "").into_bytes(),
            "nothing to run",
        ),
        ("large.json", large.as_bytes(), "at most 1048576"),
        ("many.json", thousand_and_one.as_bytes(), "at most 1000"),
        ("deep.json", deep.as_bytes(), "levels deep"),
        ("utf8.json", b"[\"\xff\"]", "not UTF-8"),
        ("nul.json", b"[\0]", "NUL byte"),
        (
            "keys.json",
            b"{\"to\": \"a\", \"to\": \"b\"}",
            "a second time",
        ),
    ];
    for (name, bytes, _) in &rows {
        station.write(name, bytes);
    }
    for (name, _, reason) in &rows {
        station.until_place(name, InboxPlace::Rejected).await;
        let (people, _) = station.notes(name);
        assert!(people.contains(reason), "{name}: {people}");
        assert!(station.path(".rejected").join(name).exists());
    }
    station.write("bom.json", format!("\u{feff}{GOOD}"));
    station.until_place("bom.json", InboxPlace::Done).await;
    station.until_others_pass().await;
    assert_eq!(station.ledger.stored().len(), 2);
    station.stop().await;
}
