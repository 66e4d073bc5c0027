//! The journal's file: opens it, reads all of it, commits writes. The only home of SQLite here.
//!
//! Decides nothing: what is written comes from [`crate::journal`].

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use rusqlite_migration::{Error as MigrationError, MigrationDefinitionError};
use steward_files::FileError;
use steward_protocol::{JournalId, NodeName, Outcome};

use crate::journal::{Identity, Image, Ticket, Write, spool::Notice};

mod local;
mod row;
mod schema;

/// The journal's file in the state directory.
pub const FILE: &str = "journal.db";

/// Its name while it is created.
const NEW_FILE: &str = "journal.db.new";

/// Its rollback journal while it is created.
const NEW_JOURNAL: &str = "journal.db.new-journal";

/// Held locked while an agent runs on the directory.
const LOCK_FILE: &str = "agent.lock";

/// How long another user of the file may keep us waiting; nobody should be one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state directory or a file in it cannot be used.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another agent has it.
    #[error(
        "lock {}: another agent uses this state directory; stop it, or give this one a directory of its own with --state-dir",
        path.display()
    )]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// A newer program wrote the file.
    #[error(
        "open the journal {}: a newer version of steward-agent wrote it; install that version or a later one, this one would damage it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// The schema cannot be brought up to date.
    #[error("bring the journal {} up to date", path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: MigrationError,
    },
    /// The file belongs to another node.
    #[error(
        "use the journal {} for node {wanted}: it belongs to node {found}; give this node a state directory of its own",
        path.display()
    )]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        wanted: NodeName,
    },
    /// The file cannot be opened now.
    #[error("{doing}: {}", path.display())]
    Open {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// The file in the journal's place is none that can be used.
    #[error(
        "open the journal {}: {what}, so it is left as it is; move it away to begin with a new one: the station then takes this node for re-imaged, and what it had sent is interrupted; never put an older copy in its place, which could run commands again",
        path.display()
    )]
    NoJournal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// What the database said.
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// Something in the file makes no sense.
    #[error("read the journal: {what} in row {row} is damaged ({detail})")]
    Damaged {
        /// What.
        what: &'static str,
        /// Where.
        row: i64,
        /// In which way.
        detail: String,
    },
    /// The database said no.
    #[error("{doing}")]
    Sql {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
}

fn sql(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sql { doing, source }
}

fn unable(error: FileError) -> StoreError {
    file(error.doing, &error.path)(error.source)
}

fn file<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + use<'a> {
    move |source| StoreError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Pages in the write-ahead log before they are moved into the database: half a MiB, so that the
/// journal of a small disk is not mostly log.
const WAL_PAGES: u32 = 128;

/// Bytes the write-ahead log keeps on disk when it is empty.
const WAL_BYTES: u32 = 512 * 1024;

/// The open journal file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    /// Held for as long as the store lives; the kernel gives it back with the process.
    _lock: File,
}

/// Whose journal, and the id to give it should it be new.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The node.
    pub node: NodeName,
    /// A fresh random id.
    pub fresh: JournalId,
}

impl Store {
    /// Opens the journal in `dir`, creating both where there are none, and counts the start.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be used, is in use, or holds a file that is newer, another
    /// node's, or damaged.
    pub fn open(dir: &Path, owner: &Owner) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(file("create the state directory", dir))?;
        let lock = lock(&dir.join(LOCK_FILE))?;
        let path = dir.join(FILE);
        if !path.try_exists().map_err(file("look at", &path))? {
            create(dir, owner).map_err(|error| error.opening(&dir.join(NEW_FILE)))?;
        }
        Self::open_file(&path, owner, lock).map_err(|error| error.opening(&path))
    }

    fn open_file(path: &Path, owner: &Owner, lock: File) -> Result<Self, StoreError> {
        let mut connection = connect(path)?;
        migrate(&mut connection, path)?;
        let store = Self {
            connection,
            _lock: lock,
        };
        store.claim(path, owner)?;
        Ok(store)
    }

    /// Checks whose journal it is, and counts the start.
    fn claim(&self, path: &Path, owner: &Owner) -> Result<(), StoreError> {
        let found: String = self
            .connection
            .query_row("SELECT node FROM identity", [], |row| row.get(0))
            .map_err(sql("read whose journal this is"))?;
        if found != owner.node.as_str() {
            return Err(StoreError::OtherNode {
                path: path.to_owned(),
                found,
                wanted: owner.node.clone(),
            });
        }
        let count = || {
            self.connection
                .execute("UPDATE identity SET starts = starts + 1", [])
        };
        count()
            .or_else(|_| {
                self.make_room();
                count()
            })
            .map_err(sql("count this start in the journal"))?;
        Ok(())
    }

    /// Moves the write-ahead log into the database, so that a full disk gets its bytes back.
    pub fn make_room(&self) {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        if let Err(error) = self.connection.query_row(checkpoint, [], |_| Ok(())) {
            tracing::debug!(%error, "the write-ahead log could not be moved");
        }
    }

    /// Reads everything except texts, outcomes and events' words.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or a row makes no sense.
    pub fn image(&self) -> Result<Image, StoreError> {
        Ok(Image {
            identity: row::identity(&self.connection)?,
            entries: row::entries(&self.connection)?,
            lanes: row::lanes(&self.connection)?,
            events: row::events(&self.connection)?,
            dropped: local::dropped(&self.connection)?,
            locals: local::orders(&self.connection)?,
            schedules: local::schedules(&self.connection)?,
        })
    }

    /// Makes all of `writes` durable, or none.
    ///
    /// # Errors
    ///
    /// Fails when the disk is full, the file cannot be written, or is held by somebody else.
    pub fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let doing = "write the journal";
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(sql(doing))?;
        for write in writes {
            row::apply(&transaction, write)?;
        }
        transaction.commit().map_err(sql(doing))
    }

    /// Returns an order's own bytes, while they are kept.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read.
    pub fn text(&self, ticket: Ticket) -> Result<Option<String>, StoreError> {
        let text: Option<Option<String>> = self
            .connection
            .query_row(
                "SELECT text FROM orders WHERE ticket = ?1",
                params![row::number(ticket.0)],
                |row| row.get(0),
            )
            .optional()
            .map_err(sql("read an order from the journal"))?;
        Ok(text.flatten())
    }

    /// Returns what came of an order, if it ran and that is known.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or the outcome makes no sense.
    pub fn outcome(&self, ticket: Ticket) -> Result<Option<Outcome>, StoreError> {
        let text: Option<Option<String>> = self
            .connection
            .query_row(
                "SELECT outcome FROM orders WHERE ticket = ?1",
                params![row::number(ticket.0)],
                |row| row.get(0),
            )
            .optional()
            .map_err(sql("read an outcome from the journal"))?;
        text.flatten()
            .map(|text| row::json("an outcome", row::number(ticket.0), &text))
            .transpose()
    }

    /// Returns an event.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or the event makes no sense.
    pub fn event(&self, rank: u64) -> Result<Option<Notice>, StoreError> {
        let found: Option<(String, String)> = self
            .connection
            .query_row(
                "SELECT kind, event FROM events WHERE rank = ?1",
                params![row::number(rank)],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(sql("read an event from the journal"))?;
        found
            .map(|(kind, text)| local::notice(row::number(rank), &kind, &text))
            .transpose()
    }

    /// Lets the file grow no further, as a full disk would.
    #[cfg(test)]
    pub(crate) fn cramp(&self) {
        let pages: i64 = self
            .connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .expect("the page count is readable");
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .expect("the limit is settable");
    }
}

impl StoreError {
    /// Names the file that could not be opened, and tells a damaged one from a passing trouble.
    fn opening(self, path: &Path) -> Self {
        let Self::Sql { doing, source } = self else {
            return self;
        };
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::NoJournal {
                path,
                what: "it is no database or a damaged one",
                source: Some(source),
            },
            _ => Self::Open {
                doing,
                path,
                source,
            },
        }
    }
}

/// Locks the state directory for this process.
fn lock(path: &Path) -> Result<File, StoreError> {
    let lock = steward_files::lock(path).map_err(unable)?;
    lock.ok_or_else(|| StoreError::Locked {
        path: path.to_owned(),
    })
}

/// Creates the journal under another name and moves it into place when it is whole: a database
/// created in place could not be opened after a power cut during its creation.
fn create(dir: &Path, owner: &Owner) -> Result<(), StoreError> {
    let new = dir.join(NEW_FILE);
    for leftover in [NEW_FILE, NEW_JOURNAL].map(|name| dir.join(name)) {
        steward_files::remove(&leftover).map_err(file("remove", &leftover))?;
    }
    // Not in WAL mode: closing would then have to move the log, and does not say when it could not.
    let mut connection = bare(&new)?;
    migrate(&mut connection, &new)?;
    let identity = Identity {
        journal_id: owner.fresh,
        starts: 0,
        pinned: None,
    };
    row::insert_identity(&connection, &owner.node, &identity)?;
    connection
        .close()
        .map_err(|(_, source)| sql("close the new journal")(source))?;
    // The log beside it gets the same mode: commands and their output are nobody else's business.
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))
        .map_err(file("close to others", &new))?;
    steward_files::put(&new, &dir.join(FILE)).map_err(unable)
}

/// What a start does first with the file.
const OPENING: &str = "open the journal's database";

/// Checks that the file is a journal. It is never created in place, so that an empty file is none.
fn recognise(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'identity'";
    let id = "SELECT 1 FROM identity WHERE journal_id IS NOT NULL";
    for query in [table, id] {
        let found = connection
            .query_row(query, [], |_| Ok(()))
            .optional()
            .map_err(sql("look for a journal"))?;
        if found.is_none() {
            return Err(StoreError::NoJournal {
                path: path.to_owned(),
                what: "it is no journal of this program",
                source: None,
            });
        }
    }
    Ok(())
}

fn bare(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(sql(OPENING))
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let doing = OPENING;
    let connection = bare(path)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sql(doing))?;
    // Before the first change to it.
    recognise(&connection, path)?;
    connection
        .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .map_err(sql(doing))?;
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = {WAL_PAGES};
             PRAGMA journal_size_limit = {WAL_BYTES};"
        ))
        .map_err(sql(doing))?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    schema::migrations()
        .to_latest(connection)
        .map_err(|source| match source {
            MigrationError::MigrationDefinition(MigrationDefinitionError::DatabaseTooFarAhead) => {
                StoreError::Newer {
                    path: path.to_owned(),
                }
            }
            source => StoreError::Migration {
                path: path.to_owned(),
                source,
            },
        })
}

#[cfg(test)]
mod tests;
