//! The creation and the migration of ledger and journal, harmed at every step; and files that are neither.

use super::*;

/// What has to be true of a database once its program is ready.
fn whole(path: &Path, at_step: &str) -> Connection {
    let mode = fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o600, "{at_step}");
    let database = open(path).expect("it opens");
    let check: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("it can be checked");
    assert_eq!(check, "ok", "{at_step}");
    database
}

fn ledger_id(ledger: &Connection) -> Option<String> {
    let query = "SELECT value FROM meta WHERE key = 'ledger_id'";
    ledger.query_row(query, [], |row| row.get(0)).ok()
}

fn journal_id(journal: &Connection) -> Option<String> {
    let query = "SELECT hex(journal_id) FROM identity";
    journal.query_row(query, [], |row| row.get(0)).ok()
}

/// A database's program is harmed while it starts; the next start must find all well.
struct Start<'a> {
    /// The folder the steps are counted in.
    folder: PathBuf,
    database: PathBuf,
    command: &'a dyn Fn() -> Command,
    /// What the database is known by for ever.
    identity: fn(&Connection) -> Option<String>,
    /// Every name that may lie in the folder afterwards.
    names: &'a [&'a str],
}

fn start_row(start: &Start<'_>, at: usize, harm: Harm) -> Tried {
    let folder = start.folder.clone();
    let before = identity_of(start);
    let traced = Traced::start(&(start.command)(), Aim { folder, at, harm });
    let mut ready = false;
    watch(&traced, "the program to be ready, or its end", || {
        ready |= traced.line().is_some();
        ready
    });
    let at_step = place(&traced, at);
    if let (Harm::Fail(_), true) = (harm, traced.has_ended()) {
        assert_eq!(traced.code(), Some(1), "{at_step}");
        let folder = start.folder.display().to_string();
        eventually(&format!("it to say why it ended after {at_step}"), || {
            let log = traced.log();
            (log.contains("failed to") && log.contains(&folder)).then_some(())
        });
    }
    let result = tried(traced);
    let between = identity_of(start);
    assert!(
        before.is_none() || between.is_none() || before == between,
        "{at_step}"
    );
    let again = Running::start((start.command)()).0;
    let database = whole(&start.database, &at_step);
    let after = (start.identity)(&database);
    assert!(after.is_some(), "{at_step}");
    if before.is_some() || between.is_some() {
        assert_eq!(after, before.or(between), "{at_step}: it is another one");
    }
    for name in names_in(&start.folder) {
        assert!(
            start.names.contains(&name.as_str()),
            "{at_step}: {name} is left over"
        );
    }
    drop(again);
    result
}

fn identity_of(start: &Start<'_>) -> Option<String> {
    if !start.database.exists() {
        return None;
    }
    // A copy, because reading recovers what the program is to recover.
    let copy = tempfile::tempdir().expect("a folder");
    let name = start
        .database
        .file_name()
        .expect("a name")
        .to_string_lossy();
    for name in names_in(&start.folder) {
        if name.ends_with(".sqlite3") || name.ends_with(".db") || name.ends_with("-wal") {
            fs::copy(start.folder.join(&name), copy.path().join(&name)).expect("copied");
        }
    }
    let database = Connection::open(copy.path().join(&*name)).expect("it opens");
    let id = (start.identity)(&database);
    assert!(
        id.is_some(),
        "what lies in place is whole: {:?}",
        names_in(&start.folder)
    );
    id
}

const LEDGER_NAMES: [&str; 8] = [
    "files",
    "inbox",
    "ledger.sqlite3",
    "ledger.sqlite3-shm",
    "ledger.sqlite3-wal",
    "station.lock",
    "station.sock",
    "steward.sock",
];

const JOURNAL_NAMES: [&str; 6] = [
    "agent.lock",
    "agent.sock",
    "children",
    "journal.db",
    "journal.db-shm",
    "journal.db-wal",
];

/// The first program to have such a database wrote it like this; see the tests' data.
type Fixture = Option<&'static str>;

fn ledger_row(url: &str, at: usize, harm: Harm, fixture: Fixture) -> Tried {
    let site = Site::new(url);
    let database = site.world.state_dir().join("ledger.sqlite3");
    plant(&database, fixture);
    let start = Start {
        folder: site.world.state_dir(),
        database,
        command: &|| site.serve(),
        identity: ledger_id,
        names: &LEDGER_NAMES,
    };
    start_row(&start, at, harm)
}

fn journal_row(url: &str, at: usize, harm: Harm, fixture: Fixture) -> Tried {
    let site = Site::new(url);
    let database = site.agent_dir().join("journal.db");
    plant(&database, fixture);
    let start = Start {
        folder: site.agent_dir(),
        database,
        command: &|| site.agent_command(),
        identity: journal_id,
        names: &JOURNAL_NAMES,
    };
    start_row(&start, at, harm)
}

/// Writes a database as an earlier program left it.
fn plant(database: &Path, fixture: Fixture) {
    let Some(script) = fixture else {
        return;
    };
    fs::create_dir_all(database.parent().expect("a folder")).expect("created");
    let connection = Connection::open(database).expect("created");
    connection.execute_batch(script).expect("the script runs");
    drop(connection);
    fs::set_permissions(database, fs::Permissions::from_mode(0o600)).expect("closed");
}

const LEDGER_V1: &str = include_str!("../data/ledger_v1.sql");

const JOURNAL_V1: &str = include_str!("../data/journal_v1.sql");

#[test]
fn crash_points_of_the_ledgers_first_creation() {
    for (name, harm) in HARMS {
        sweep(&format!("ledger created, {name}"), |url, at| {
            ledger_row(url, at, harm, None)
        });
    }
}

#[test]
fn crash_points_of_the_ledgers_migration() {
    for (name, harm) in HARMS {
        sweep(&format!("ledger migrated, {name}"), |url, at| {
            ledger_row(url, at, harm, Some(LEDGER_V1))
        });
    }
}

#[test]
fn crash_points_of_the_journals_first_creation() {
    for (name, harm) in HARMS {
        sweep(&format!("journal created, {name}"), |url, at| {
            journal_row(url, at, harm, None)
        });
    }
}

#[test]
fn crash_points_of_the_journals_migration() {
    for (name, harm) in HARMS {
        sweep(&format!("journal migrated, {name}"), |url, at| {
            journal_row(url, at, harm, Some(JOURNAL_V1))
        });
    }
}

/// What else may lie in a database's place, and what the program says of it.
fn wrong_files(whole: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = fs::read(whole).expect("readable");
    let foreign = tempfile::tempdir().expect("a folder");
    let path = foreign.path().join("foreign");
    let connection = Connection::open(&path).expect("created");
    connection
        .execute_batch("CREATE TABLE meta (key TEXT, value TEXT); PRAGMA user_version = 99;")
        .expect("written");
    drop(connection);
    vec![
        ("an empty file", Vec::new()),
        (
            "text",
            b"this is no database, whatever its name says\n".repeat(100),
        ),
        (
            "another program's database",
            fs::read(&path).expect("readable"),
        ),
        ("half a database", bytes[..bytes.len() / 2].to_vec()),
        (
            "a database without its first page",
            [vec![0; 4096], bytes[4096..].to_vec()].concat(),
        ),
        (
            "a torn first page",
            [&bytes[..100], &vec![0xff; 3996][..], &bytes[4096..]].concat(),
        ),
    ]
}

/// Starts the program on each of the wrong files: it must refuse, say why, and change nothing.
fn refuses(database: &Path, command: &dyn Fn() -> Command) {
    for (what, bytes) in wrong_files(database) {
        for ending in ["-wal", "-shm"] {
            fs::remove_file(format!("{}{ending}", database.display())).ok();
        }
        fs::write(database, &bytes).expect("written");
        let output = command().output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{what}: {text}");
        assert!(text.contains("it is left as it is"), "{what}: {text}");
        assert!(
            text.contains(&database.display().to_string()),
            "{what}: {text}"
        );
        assert_eq!(
            fs::read(database).expect("readable"),
            bytes,
            "{what} was changed"
        );
    }
}

#[test]
fn what_is_no_ledger_is_refused_and_left_as_it_is() {
    let site = Site::new("nats://127.0.0.1:9");
    site.station().terminate();
    refuses(&site.world.state_dir().join("ledger.sqlite3"), &|| {
        site.serve()
    });
}

#[test]
fn what_is_no_journal_is_refused_and_left_as_it_is() {
    let site = Site::new("nats://127.0.0.1:9");
    site.agent().terminate();
    refuses(&site.agent_dir().join("journal.db"), &|| {
        site.agent_command()
    });
}
