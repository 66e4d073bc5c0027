//! The ledger's file: SQLite in WAL mode with `synchronous=FULL`, one writer.
//!
//! The ledger is an append-only list of events; every other table is derived from it in the same
//! transaction and could be built again from it. Nothing outside `store` knows SQL.

mod carriage;
mod deliveries;
mod errands;
mod ledger;
mod load;
mod log;
mod query;
mod retry;
mod row;
mod schema;
mod unasked;

pub use carriage::Carriage;
pub use errands::{Begun, Errand, Fact, How};
pub use ledger::Known;
pub use log::{LogFilter, LogScope};
pub use query::{Depth, MessageFilter, Named, Reader};
pub use retry::Stored;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use steward_files::FileError;
use steward_protocol::{LedgerId, NodeName};
use uuid::Uuid;

/// Name of the ledger's file in the state directory.
pub const FILE: &str = "ledger.sqlite3";

/// Its name while it is created, and that of its rollback journal.
const NEW_FILE: &str = ".ledger.new";
const NEW_JOURNAL: &str = ".ledger.new-journal";

/// How long a statement waits for another connection's lock.
const BUSY: Duration = Duration::from_secs(5);

/// Bytes the write-ahead log keeps on disk when it is empty.
const WAL_BYTES: u32 = 4 * 1024 * 1024;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another station has this state directory.
    #[error("lock {}: another station is using this state directory; stop it or choose another --state-dir", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The ledger belongs to a station of another name.
    #[error(
        "open the ledger: it belongs to the station {known}, not {given}; start with --name {known}, or give {given} a --state-dir of its own"
    )]
    OtherName {
        /// The name it was created under.
        known: String,
        /// The name given now.
        given: NodeName,
    },
    /// The file cannot be opened now.
    #[error("{what} in {}", path.display())]
    Open {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The file in the ledger's place is none that can be used.
    #[error(
        "open {}: {what}, so it is left as it is; put a backup in its place, or move it away to begin with an empty ledger, which every agent has to accept with --accept-ledger",
        path.display()
    )]
    NoLedger {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// What the database said.
        source: Option<rusqlite::Error>,
    },
    /// The file was written by a newer program.
    #[error("open {}: it was written by a newer version of steward (schema {found}, this program knows {known}); upgrade this program", path.display())]
    Newer {
        /// The ledger's file.
        path: PathBuf,
        /// Schema version found.
        found: i64,
        /// Newest schema version this program knows.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("migrate {}", path.display())]
    Migrate {
        /// The ledger's file.
        path: PathBuf,
        /// Why it failed.
        source: Box<rusqlite_migration::Error>,
    },
    /// A statement failed.
    #[error("{what} in the ledger")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// Something in the ledger cannot be read back.
    #[error("read {what} from the ledger: {detail}")]
    Corrupt {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

/// Names what was being done when a statement failed.
fn sql(what: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sql { what, source }
}

fn unable(error: FileError) -> StoreError {
    file(error.doing, &error.path)(error.source)
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { what, path, source }
}

/// The one writer of the ledger.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    ledger_id: LedgerId,
    epoch: u64,
    /// Held for as long as this station lives.
    _lock: File,
}

impl Store {
    /// Opens the ledger in `state_dir`, creating or upgrading it, and begins a new reign.
    ///
    /// # Errors
    ///
    /// Fails when another station has it, when it belongs to one of another name (orders are sealed
    /// with it), when it is newer than this program, or when the disk does.
    pub fn open(state_dir: &Path, station: &NodeName) -> Result<Self, StoreError> {
        // Commands and their output are nobody else's business.
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(file("create", state_dir))?;
        let lock = lock(state_dir)?;
        let path = state_dir.join(FILE);
        if !path.exists() {
            let temporary = state_dir.join(NEW_FILE);
            create(state_dir, &path, station).map_err(|error| error.opening(&temporary))?;
        }
        Self::open_file(path.clone(), station, lock).map_err(|error| error.opening(&path))
    }

    fn open_file(path: PathBuf, station: &NodeName, lock: File) -> Result<Self, StoreError> {
        let mut connection = connect(&path)?;
        schema::migrate(&mut connection, &path)?;
        check_name(&connection, station)?;
        let ledger_id = read_ledger_id(&connection)?;
        let epoch = begin_reign(&mut connection, Timestamp::now())?;
        Ok(Self {
            connection,
            path,
            ledger_id,
            epoch,
            _lock: lock,
        })
    }

    /// Returns the ledger's id.
    pub fn ledger_id(&self) -> LedgerId {
        self.ledger_id
    }

    /// Returns the number of this reign, larger than that of every earlier one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Finds out whether the ledger can be written.
    ///
    /// # Errors
    ///
    /// Fails when it cannot.
    pub fn probe(&mut self) -> Result<(), StoreError> {
        // A full disk gets back the bytes of the write-ahead log.
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.connection
            .query_row(checkpoint, [], |_| Ok(()))
            .map_err(sql("move the log"))?;
        let transaction = self
            .connection
            .transaction()
            .map_err(sql("begin a transaction"))?;
        let write = "UPDATE meta SET value = value WHERE key = 'epoch'";
        transaction
            .execute(write, [])
            .map_err(sql("write a trial"))?;
        transaction.commit().map_err(sql("commit a trial"))
    }

    /// Returns the ledger's file, for readers.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl StoreError {
    /// Names the file that could not be opened, and tells a damaged one from a passing trouble.
    fn opening(self, path: &Path) -> Self {
        let Self::Sql { what, source } = self else {
            return self;
        };
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::NoLedger {
                path,
                what: "it is no database or a damaged one",
                source: Some(source),
            },
            _ => Self::Open { what, path, source },
        }
    }
}

fn lock(state_dir: &Path) -> Result<File, StoreError> {
    let path = state_dir.join("station.lock");
    let lock = steward_files::lock(&path).map_err(unable)?;
    lock.ok_or(StoreError::Locked { path })
}

/// Creates the ledger under another name and renames it when it is whole: a database created in
/// place cannot be opened after a power cut in the middle of it.
fn create(state_dir: &Path, path: &Path, station: &NodeName) -> Result<(), StoreError> {
    let temporary = state_dir.join(NEW_FILE);
    for leftover in [NEW_FILE, NEW_JOURNAL].map(|name| state_dir.join(name)) {
        steward_files::remove(&leftover).map_err(file("remove", &leftover))?;
    }
    // Not in WAL mode: closing would then have to move the log, and does not say when it could not.
    let mut connection = Connection::open(&temporary).map_err(sql("create a database"))?;
    schema::migrate(&mut connection, &temporary)?;
    let ledger_id = Uuid::new_v4().to_string();
    connection
        .execute(
            "INSERT INTO meta (key, value) VALUES ('ledger_id', ?1), ('epoch', '0'), ('station', ?2)",
            [ledger_id.as_str(), station.as_str()],
        )
        .map_err(sql("name the ledger"))?;
    connection.close().map_err(|(_, source)| StoreError::Sql {
        what: "close a database",
        source,
    })?;
    // The log beside it gets the same mode: commands and their output are nobody else's business.
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))
        .map_err(file("close to others", &temporary))?;
    steward_files::put(&temporary, path).map_err(unable)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path).map_err(sql("open a database"))?;
    connection
        .busy_timeout(BUSY)
        .map_err(sql("set a timeout"))?;
    // Before the first change to it.
    recognise(&connection, path)?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(sql("switch to WAL"))?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(sql("set synchronous"))?;
    connection
        .pragma_update(None, "foreign_keys", true)
        .map_err(sql("set foreign keys"))?;
    connection
        .pragma_update(None, "journal_size_limit", WAL_BYTES)
        .map_err(sql("limit the log"))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Checks that the file is a ledger. It is never created in place, so that an empty file is none.
fn recognise(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'";
    let id = "SELECT 1 FROM meta WHERE key = 'ledger_id'";
    for query in [table, id] {
        let found = connection
            .query_row(query, [], |_| Ok(()))
            .optional()
            .map_err(sql("look for a ledger"))?;
        if found.is_none() {
            return Err(StoreError::NoLedger {
                path: path.to_owned(),
                what: "it is no ledger",
                source: None,
            });
        }
    }
    Ok(())
}

fn check_name(connection: &Connection, station: &NodeName) -> Result<(), StoreError> {
    let known: String = connection
        .query_row("SELECT value FROM meta WHERE key = 'station'", [], |row| {
            row.get(0)
        })
        .map_err(sql("read the station's name"))?;
    if known == station.as_str() {
        return Ok(());
    }
    Err(StoreError::OtherName {
        known,
        given: station.clone(),
    })
}

fn read_ledger_id(connection: &Connection) -> Result<LedgerId, StoreError> {
    let text: String = connection
        .query_row(
            "SELECT value FROM meta WHERE key = 'ledger_id'",
            [],
            |row| row.get(0),
        )
        .map_err(sql("read the id"))?;
    text.parse()
        .map_err(|error: uuid::Error| StoreError::Corrupt {
            what: "ledger_id",
            detail: error.to_string(),
        })
}

/// Begins a reign later than any before, also than those a ledger restored from a backup has forgotten:
/// the nodes have met them, and take neither their epochs nor their places for new ones.
fn begin_reign(connection: &mut Connection, now: Timestamp) -> Result<u64, StoreError> {
    let doing = "begin a reign";
    let transaction = connection.transaction().map_err(sql(doing))?;
    // A clock that is wrong is worth nothing here and harms nothing.
    let epoch: i64 = transaction
        .query_row(
            "UPDATE meta SET value = max(CAST(value AS INTEGER) + 1, ?1) WHERE key = 'epoch'
             RETURNING CAST(value AS INTEGER)",
            [now.as_second()],
            |row| row.get(0),
        )
        .map_err(sql(doing))?;
    // Fewer than a thousand messages a second come on the average, so that these places are new.
    transaction
        .execute(
            "INSERT INTO meta (key, value) VALUES ('forgotten_pos', ?1) ON CONFLICT (key)
             DO UPDATE SET value = max(CAST(value AS INTEGER), ?1)",
            [now.as_millisecond()],
        )
        .map_err(sql(doing))?;
    transaction.commit().map_err(sql(doing))?;
    Ok(epoch.unsigned_abs())
}

#[cfg(test)]
mod tests;
