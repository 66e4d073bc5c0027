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

const GOOD: &str =
    r#"{"subject": "ship1.command.shellcommand.operatingsystem", "data": ["uname", "-a"]}"#;

/// How long a test waits for what it awaits. Only a failing test takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

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

#[tokio::test]
async fn what_is_not_a_regular_file_is_rejected_whole_and_never_opened() {
    let station = Station::start(SHORT);
    let secret = station.dir.path().join("secret");
    fs::write(&secret, GOOD).unwrap();
    std::os::unix::fs::symlink(&secret, station.path("link.json")).unwrap();
    std::os::unix::fs::symlink("/nowhere", station.path("dangling.json")).unwrap();
    mkfifoat(CWD, station.path("fifo.json"), Mode::RWXU).unwrap();
    let _listener = UnixListener::bind(station.path("socket.json")).unwrap();
    fs::create_dir(station.path("directory.json")).unwrap();
    fs::write(station.path("directory.json/inner.json"), GOOD).unwrap();
    for (name, reason) in [
        ("link.json", "is a symbolic link"),
        ("dangling.json", "is a symbolic link"),
        ("fifo.json", "is a named pipe"),
        ("socket.json", "is a socket"),
        ("directory.json", "is a directory"),
    ] {
        station.until_place(name, InboxPlace::Rejected).await;
        let (people, _) = station.notes(name);
        assert!(people.contains(reason), "{people}");
    }
    assert_eq!(fs::read_to_string(secret).unwrap(), GOOD);
    let inner = station.path(".rejected/directory.json/inner.json");
    assert_eq!(fs::read_to_string(inner).unwrap(), GOOD);
    station.until_others_pass().await;
    assert_eq!(station.ledger.stored().len(), 1);
    station.stop().await;
}

#[tokio::test]
async fn an_unreadable_file_is_rejected() {
    let station = Station::start(SHORT);
    let outside = station.dir.path().join("outside");
    fs::write(&outside, GOOD).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o000)).unwrap();
    fs::rename(outside, station.path("mine.json")).unwrap();
    // Nothing is unreadable for root.
    let place = if rustix::process::getuid().is_root() {
        InboxPlace::Done
    } else {
        InboxPlace::Rejected
    };
    station.until_place("mine.json", place).await;
    station.until_others_pass().await;
    station.stop().await;
}

#[tokio::test]
async fn strange_names_are_written_in_printable_characters() {
    let station = Station::start(SHORT);
    let long = format!("{}.json", "x".repeat(250));
    for (index, name) in [
        &b"new\nline.json"[..],
        b"\x1b[31mred.json",
        b"a..%2f..%2fetc.json",
        b"\\..\\up.json",
        b"\xff\xfe.json",
        b"-rf.json",
        b"$(reboot).json",
        long.as_bytes(),
    ]
    .into_iter()
    .enumerate()
    {
        let name = Path::new(OsStr::from_bytes(name));
        // Every other one is rejected, so that its name is written for the notes as well.
        station.write(name, if index % 2 == 0 { GOOD } else { "[,]" });
    }
    station
        .until("all eight to be finished", |station| {
            let views = station.list();
            let finished = |place| views.iter().filter(|view| view.place == place).count();
            (finished(InboxPlace::Done), finished(InboxPlace::Rejected)) == (4, 4)
        })
        .await;
    assert_eq!(station.place("new%0Aline.json"), Some(InboxPlace::Done));
    assert_eq!(station.place("%1B[31mred.json"), Some(InboxPlace::Rejected));
    for view in station.list() {
        assert!(!view.name.contains(['\n', '\u{1b}', '/']), "{view:?}");
    }
    station.stop().await;
}

#[tokio::test]
async fn unfinished_and_hidden_files_are_left_alone() {
    let station = Station::start(SHORT);
    for name in [
        ".hidden.json",
        "a.json~",
        "a.tmp",
        "a.json.part",
        ".a.json.swp",
    ] {
        station.write(name, GOOD);
    }
    // Only a scan finds a link, so its end shows that one has passed over the others.
    std::os::unix::fs::symlink("/nowhere", station.path("scanned.json")).unwrap();
    station
        .until_place("scanned.json", InboxPlace::Rejected)
        .await;
    station.until_others_pass().await;
    let ignored = station
        .list()
        .into_iter()
        .filter(|view| view.place == InboxPlace::Ignored);
    assert_eq!(ignored.count(), 5);
    assert_eq!(station.ledger.stored().len(), 1);
    fs::rename(station.path("a.tmp"), station.path("a.json")).unwrap();
    station.until_place("a.json", InboxPlace::Done).await;
    station.stop().await;
}

#[tokio::test]
async fn the_same_file_twice_runs_again() {
    let station = Station::start(NOTICES_ONLY);
    for times in 1..=3 {
        station.write("same.json", GOOD);
        station
            .until("the file to be stored once more", |station| {
                station.ledger.stored().len() == times
            })
            .await;
    }
    station.stop().await;
}

#[tokio::test]
async fn the_same_name_rejected_twice_keeps_both() {
    let station = Station::start(NOTICES_ONLY);
    station.write("bad.json", "[,]");
    station.until_place("bad.json", InboxPlace::Rejected).await;
    station.write("bad.json", "[;]");
    station
        .until("both rejected files", |station| {
            let views = station.list();
            views
                .iter()
                .filter(|view| view.place == InboxPlace::Rejected)
                .count()
                == 2
        })
        .await;
    assert_eq!(
        fs::read_to_string(station.path(".rejected/bad.json")).unwrap(),
        "[,]"
    );
    let other = station
        .list()
        .into_iter()
        .find(|view| view.name.ends_with("--bad.json"))
        .unwrap();
    assert_eq!(
        fs::read_to_string(station.path(".rejected").join(&other.name)).unwrap(),
        "[;]"
    );
    station.notes(&other.name);
    station.stop().await;
}

#[tokio::test]
async fn a_file_named_like_a_note_is_listed_and_its_notes_are_not() {
    let station = Station::start(NOTICES_ONLY);
    station.write("a.error.txt", "[,]");
    station.write("a.status.json", GOOD);
    station
        .until_place("a.error.txt", InboxPlace::Rejected)
        .await;
    station.until_place("a.status.json", InboxPlace::Done).await;
    assert_eq!(station.list().len(), 2);
    station.stop().await;
}

#[tokio::test]
async fn what_the_ledger_refuses_is_rejected() {
    let station = Station::start(NOTICES_ONLY);
    station.ledger.set("twin.json", Some(Knob::Refuse));
    let text = GOOD.replace(
        '{',
        "{\n  \"id\": \"0190a000-0000-7000-8000-000000000001\",",
    );
    station.write("twin.json", text);
    station.until_place("twin.json", InboxPlace::Rejected).await;
    let (people, _) = station.notes("twin.json");
    // The ledger knows messages, not files; the inbox adds the place.
    for expected in [
        "twin.json:2:9 at /id\n",
        "this id has other content already",
        "help: give it another id",
    ] {
        assert!(people.contains(expected), "{people}");
    }
    station.stop().await;
}

#[tokio::test]
async fn one_file_in_trouble_holds_nothing_else_up() {
    let station = Station::start(NOTICES_ONLY);
    for (file, knob) in [
        ("full.json", Knob::Unavailable),
        ("hangs.json", Knob::Hang),
        ("panics.json", Knob::Panic),
    ] {
        station.ledger.set(file, Some(knob));
        station.write(file, GOOD);
    }
    station.until_others_pass().await;
    station
        .until("several tries", |station| station.ledger.asked() >= 6)
        .await;
    for file in ["full.json", "hangs.json", "panics.json"] {
        assert_eq!(station.place(file), Some(InboxPlace::Processing), "{file}");
    }
    station.ledger.set("full.json", None);
    station.ledger.set("panics.json", None);
    station.until_place("full.json", InboxPlace::Done).await;
    station.until_place("panics.json", InboxPlace::Done).await;
    station.crash().await;
}

#[tokio::test]
async fn while_nothing_can_be_stored_files_stay_in_the_inbox() {
    let station = Station::start(NOTICES_ONLY);
    let names: Vec<String> = (0..200).map(|n| format!("{n:03}.json")).collect();
    for name in &names {
        station.ledger.set(name, Some(Knob::Unavailable));
        station.write(name, GOOD);
    }
    let count = |station: &Station, place| {
        let views = station.list();
        views.iter().filter(|view| view.place == place).count()
    };
    station
        .until("some to be claimed", |station| station.ledger.asked() >= 64)
        .await;
    assert!(count(&station, InboxPlace::Processing) <= 64);
    assert!(count(&station, InboxPlace::Waiting) >= 136);
    for name in &names {
        station.ledger.set(name, None);
    }
    station
        .until("all to be done", |station| {
            count(station, InboxPlace::Done) == 200
        })
        .await;
    assert_eq!(station.ledger.stored().len(), 200);
    station.stop().await;
}

#[tokio::test]
async fn a_crash_after_storing_neither_loses_nor_repeats() {
    let station = Station::start(SHORT);
    station.ledger.set("stored.json", Some(Knob::StoreAndHang));
    station.ledger.set("not-stored.json", Some(Knob::Hang));
    station.write("stored.json", GOOD);
    station.write("not-stored.json", GOOD);
    station
        .until("both to be asked for", |station| {
            station.ledger.asked() == 2
        })
        .await;
    let (dir, ledger) = station.crash().await;
    let first = ledger.stored();
    ledger.set("stored.json", None);
    ledger.set("not-stored.json", None);
    let station = Station::start_in(dir, ledger, SHORT);
    station.until_place("stored.json", InboxPlace::Done).await;
    station
        .until_place("not-stored.json", InboxPlace::Done)
        .await;
    assert_eq!(station.ledger.sources(), ["stored.json", "not-stored.json"]);
    let view = station.view("stored.json").unwrap();
    let receipt = &station.ledger.0.lock().unwrap().receipts[&first[0].intake.unwrap()].clone();
    assert_eq!(view.messages, [receipt.messages[0].id]);
    station.stop().await;
}

#[tokio::test]
async fn a_claimed_file_that_turns_out_bad_is_rejected_at_the_next_start() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let processing = dir.path().join("inbox/.processing");
    fs::create_dir_all(&processing).unwrap();
    let intake = Uuid::now_v7();
    fs::write(processing.join(format!("{intake}--cut.json")), "[{").unwrap();
    fs::write(processing.join("stranger.json"), GOOD).unwrap();
    let station = Station::start_in(dir, Ledger::default(), SHORT);
    station.until_place("cut.json", InboxPlace::Rejected).await;
    station.until_others_pass().await;
    // What the station did not put there it leaves alone, and says so.
    let stranger = station.view("stranger.json").unwrap();
    assert_eq!(stranger.place, InboxPlace::Processing);
    assert!(stranger.reason.unwrap().contains("was not put here"));
    station.stop().await;
}

#[tokio::test]
async fn a_thousand_files_dropped_at_once_are_accepted_exactly_once() {
    let station = Station::start(SHORT);
    let outside = station.dir.path().join("many");
    fs::create_dir(&outside).unwrap();
    let names: Vec<String> = (0..1000).map(|n| format!("{n:04}.json")).collect();
    for name in &names {
        fs::write(outside.join(name), GOOD).unwrap();
    }
    let begun = Instant::now();
    for name in &names {
        fs::rename(outside.join(name), station.path(name)).unwrap();
    }
    station
        .until("all to be stored", |station| {
            station.ledger.stored().len() >= 1000
        })
        .await;
    let elapsed = begun.elapsed();
    station
        .until("all to be moved", |station| {
            fs::read_dir(station.path(".processing"))
                .unwrap()
                .next()
                .is_none()
        })
        .await;
    // Each once, and in the order they came.
    assert_eq!(station.ledger.sources(), names);
    assert!(elapsed < Duration::from_secs(15), "{elapsed:?}");
    station.stop().await;
}

#[tokio::test]
async fn lost_notices_are_made_up_for_by_scanning() {
    // A station that hears nothing: its folder is exchanged for another one behind its back.
    let station = Station::start(SHORT);
    station.until_others_pass().await;
    fs::rename(station.path(""), station.dir.path().join("moved")).unwrap();
    fs::create_dir(station.path("")).unwrap();
    station.write("a.json", GOOD);
    station.until_place("a.json", InboxPlace::Done).await;
    // And it listens to the new folder from then on.
    station.rename_in("b.yaml", "to: ship1\nmethod: hello\ndomain: node\n");
    station.until_place("b.yaml", InboxPlace::Done).await;
    station.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_what_is_on_its_way_and_takes_nothing_new() {
    let station = Station::start(NOTICES_ONLY);
    station.until_others_pass().await;
    let (dir, ledger) = station.stop().await;
    fs::write(dir.path().join("inbox/late.json"), GOOD).unwrap();
    assert_eq!(ledger.stored().len(), 1);
    let station = Station::start_in(dir, ledger, SHORT);
    station.until_place("late.json", InboxPlace::Done).await;
    station.stop().await;
}

#[tokio::test]
async fn old_files_are_forgotten_but_never_one_that_was_not_read() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let station = Station::start_in(dir, Ledger::default(), SHORT);
    station.write("good.json", GOOD);
    station.write("bad.json", "[,]");
    fs::create_dir(station.path("directory.json")).unwrap();
    station.until_place("good.json", InboxPlace::Done).await;
    station.until_place("bad.json", InboxPlace::Rejected).await;
    station
        .until_place("directory.json", InboxPlace::Rejected)
        .await;
    let root = station.path("");
    let (dir, _ledger) = station.stop().await;
    fs::write(dir.path().join("inbox/waiting.json"), "[{").unwrap();
    let names = || -> BTreeSet<(InboxPlace, String)> {
        let views = list(&root, SHORT, 100).unwrap();
        views
            .into_iter()
            .map(|view| (view.place, view.name))
            .collect()
    };
    let before = names();
    assert_eq!(before.len(), 4);

    let sweep = |retention: Retention, passed: Duration| {
        steward_station::inbox::sweep(&root, retention, SystemTime::now() + passed).unwrap()
    };
    let month = Retention {
        age: Duration::from_secs(30 * 86_400),
        bytes: 1 << 30,
    };
    assert_eq!(sweep(month, Duration::from_secs(29 * 86_400)), 0);
    assert_eq!(names(), before);
    assert!(sweep(month, Duration::from_secs(31 * 86_400)) > 0);
    let left = [
        (InboxPlace::Waiting, "waiting.json".to_owned()),
        (InboxPlace::Rejected, "directory.json".to_owned()),
    ];
    assert_eq!(names(), left.into());
}

#[tokio::test]
async fn of_too_many_bytes_the_oldest_are_forgotten() {
    let station = Station::start(NOTICES_ONLY);
    for name in ["1.json", "2.json", "3.json"] {
        station.write(name, format!("{}{GOOD}", " ".repeat(10_000)));
        station.until_place(name, InboxPlace::Done).await;
    }
    let root = station.path("");
    let retention = Retention {
        age: PATIENCE,
        bytes: 22_000,
    };
    steward_station::inbox::sweep(&root, retention, SystemTime::now()).unwrap();
    let names: BTreeSet<String> = station.list().into_iter().map(|view| view.name).collect();
    assert_eq!(names, ["2.json".to_owned(), "3.json".to_owned()].into());
    station.stop().await;
}

#[tokio::test]
async fn new_folders_are_closed_to_others_and_old_ones_keep_their_permissions() {
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let station = Station::start(NOTICES_ONLY);
    for name in ["", ".processing", ".done", ".rejected"] {
        assert_eq!(mode(station.path(name)), 0o700, "{name}");
    }
    let root = station.path("");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o770)).unwrap();
    let (dir, ledger) = station.stop().await;
    let station = Station::start_in(dir, ledger, NOTICES_ONLY);
    assert_eq!(mode(root), 0o770);
    station.stop().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_scanned_is_reported_and_recovers() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let root = dir.path().join("inbox");
    let inbox = Inbox::open(InboxConfig {
        dir: root.clone(),
        timing: SHORT,
        retention: Retention::default(),
    })
    .unwrap();
    let mut health = inbox.health();
    let ledger = Ledger::default();
    let stop = CancellationToken::new();
    let accept = {
        let ledger = ledger.clone();
        move |submission| ledger.clone().accept(submission)
    };
    let task = tokio::spawn(inbox.run(accept, stop.clone()));
    fs::remove_dir_all(&root).unwrap();
    fs::write(&root, "in the way").unwrap();
    let trouble = tokio::time::timeout(PATIENCE, health.wait_for(Option::is_some));
    drop(trouble.await.expect("the trouble is reported").unwrap());
    fs::remove_file(&root).unwrap();
    let recovered = tokio::time::timeout(PATIENCE, health.wait_for(Option::is_none));
    drop(recovered.await.expect("the recovery is reported").unwrap());
    stop.cancel();
    task.await.unwrap();
}
