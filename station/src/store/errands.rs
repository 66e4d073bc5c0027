//! What is still to be written below `results/`: recorded with what it comes from, in one transaction,
//! and taken from the list when it is done.
//!
//! It knows what is to be written and where; how files are written is not its business.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension, Transaction, params};
use steward_protocol::{Ack, EventId, Method, NodeName, Output, Reply, ReplyTo};

use super::{
    Reader, Store, StoreError,
    ledger::{StoredOptions, execute, write_fault},
    row::{corrupt, get},
    sql,
};
use crate::courier::{FaultRecord, TextRecord};

/// Most bytes of text that wait to be written; beyond it, the nodes keep theirs (design section 8).
const MAX_TEXT: i64 = 64 << 20;

/// Texts are known again for as long as a message may be on its way.
const KEEP_TEXTS: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Most files looked at together.
const MAX_PATHS: u32 = 256;

/// Most errands for one file that are done together.
const MAX_BATCH: u32 = 64;

/// How something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It replaces the file.
    File,
    /// It is added to its end.
    Append,
}

impl How {
    fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Append => "append",
        }
    }
}

/// Where an append was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// In which file.
    pub inode: u64,
    /// From which byte on.
    pub base: u64,
}

/// Something to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// Its number; errands for one file are done in the order of theirs.
    pub n: i64,
    /// How.
    pub how: How,
    /// What.
    pub content: Vec<u8>,
    /// Where, if it was begun before.
    pub begun: Option<Begun>,
}

/// What became of errands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// An append is about to be made.
    Begun(i64, Begun),
    /// It is written.
    Done(i64),
    /// It could not be written now; says why.
    Failed(i64, String),
}

/// Puts text on the list, unless it was there before.
pub(super) fn write_text(
    transaction: &Transaction<'_>,
    text: &TextRecord,
) -> Result<(), StoreError> {
    let fresh = execute(
        transaction,
        "record a text",
        "INSERT INTO text_event (id, at) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING",
        params![text.id.to_string(), text.at.as_millisecond()],
    )?;
    if fresh == 0 {
        return Ok(());
    }
    let mut content = String::new();
    for line in &text.lines {
        content.push_str(line);
        if !line.ends_with('\n') {
            content.push('\n');
        }
    }
    let path = format!("textlogging/{}/{}.log", text.node, text.domain);
    execute(
        transaction,
        "record a text",
        "INSERT INTO errand (path, how, content) VALUES (?1, ?2, ?3)",
        params![path, How::Append.as_str(), content.as_bytes()],
    )
    .map(drop)
}

/// Forgets texts that nobody says again.
pub(super) fn forget_texts(
    transaction: &Transaction<'_>,
    before: Timestamp,
) -> Result<(), StoreError> {
    let long_ago = Timestamp::now()
        .saturating_sub(KEEP_TEXTS)
        .unwrap_or(Timestamp::MIN);
    execute(
        transaction,
        "forget old texts",
        "DELETE FROM text_event WHERE at < ?1",
        params![before.min(long_ago).as_millisecond()],
    )
    .map(drop)
}

/// Puts the result of a delivery that has just become final on the list, if its message says so.
pub(super) fn write_reply(
    transaction: &Transaction<'_>,
    pos: i64,
    node: &NodeName,
    ack: &Ack,
) -> Result<(), StoreError> {
    if ack
        .outcome
        .as_ref()
        .is_none_or(|outcome| outcome.stdout.is_none())
    {
        return Ok(());
    }
    let (options, id, domain, method): (String, String, String, String) = transaction
        .prepare_cached("SELECT options, id, domain, method FROM message WHERE pos = ?1")
        .and_then(|mut statement| {
            statement.query_row([pos], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
        })
        .map_err(sql("look up where a result goes"))?;
    if method == Method::Filefetch.as_str() {
        // What it says where to put is the file itself, and that is there by now.
        return Ok(());
    }
    let options: StoredOptions =
        serde_json::from_str(&options).map_err(|error| corrupt("a message's options", &error))?;
    let Some((reply, how)) = options.reply.and_then(|reply| {
        let how = how(&reply)?;
        Some((reply, how))
    }) else {
        return Ok(());
    };
    let directory = reply.directory.unwrap_or(domain);
    let path = format!("{directory}/{node}/{}", reply.file_name.unwrap_or(id));
    execute(
        transaction,
        "record where a result goes",
        "INSERT INTO errand (path, how, pos, node) VALUES (?1, ?2, ?3, ?4)",
        params![path, how.as_str(), pos, node.as_str()],
    )
    .map(drop)
}

fn how(reply: &Reply) -> Option<How> {
    match reply.to {
        ReplyTo::File => Some(How::File),
        ReplyTo::Append => Some(How::Append),
        ReplyTo::None => None,
    }
}

impl Store {
    /// Tells whether text can be taken that comes after another: when that is stored, and not too much
    /// waits to be written.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn takes_text(&self, after: Option<EventId>) -> Result<bool, StoreError> {
        if let Some(after) = after {
            let known = self
                .connection
                .prepare_cached("SELECT 1 FROM text_event WHERE id = ?1")
                .and_then(|mut statement| statement.exists([after.to_string()]))
                .map_err(sql("look up a text"))?;
            if !known {
                return Ok(false);
            }
        }
        let bytes: i64 = self
            .connection
            .prepare_cached("SELECT coalesce(sum(length(content)), 0) FROM errand")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(sql("measure what waits to be written"))?;
        Ok(bytes < MAX_TEXT)
    }

    /// Records what became of errands, all with one commit.
    ///
    /// # Errors
    ///
    /// Fails when the database or the disk does; then nothing was recorded.
    pub fn note_errands(
        &mut self,
        facts: &[Fact],
        at: Timestamp,
        station: &NodeName,
    ) -> Result<(), StoreError> {
        let transaction = self
            .connection
            .transaction()
            .map_err(sql("begin a transaction"))?;
        for fact in facts {
            match fact {
                Fact::Begun(n, begun) => {
                    execute(
                        &transaction,
                        "record that something is written",
                        "UPDATE errand SET inode = ?2, base = ?3 WHERE n = ?1",
                        params![n, begun.inode.cast_signed(), begun.base.cast_signed()],
                    )?;
                }
                Fact::Done(n) => {
                    note_end(&transaction, *n, None, at, station)?;
                    execute(
                        &transaction,
                        "record that something is written",
                        "DELETE FROM errand WHERE n = ?1",
                        params![n],
                    )?;
                }
                Fact::Failed(n, why) => {
                    note_end(&transaction, *n, Some(why), at, station)?;
                    execute(
                        &transaction,
                        "record that something is not written",
                        "UPDATE errand SET tries = tries + 1, why = ?2 WHERE n = ?1",
                        params![n, why],
                    )?;
                }
            }
        }
        transaction.commit().map_err(sql("commit"))
    }
}

/// Notes a trouble on the delivery, or as a fault where there is none, and the end of a trouble; not
/// every try of it.
fn note_end(
    transaction: &Transaction<'_>,
    n: i64,
    why: Option<&str>,
    at: Timestamp,
    station: &NodeName,
) -> Result<(), StoreError> {
    type Row = (String, Option<i64>, Option<String>, Option<String>);
    let found: Option<Row> = transaction
        .prepare_cached("SELECT path, pos, node, why FROM errand WHERE n = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([n], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })
                .optional()
        })
        .map_err(sql("look up what is to be written"))?;
    let Some((path, pos, node, before)) = found else {
        return Ok(());
    };
    let text = match (why, before) {
        (Some(why), before) if before.as_deref() != Some(why) => {
            format!("results/{path} is not written yet: {why}; it is tried again")
        }
        (None, Some(_)) => format!("results/{path} is written after all"),
        _ => return Ok(()),
    };
    if let (Some(pos), Some(node)) = (pos, node) {
        return execute(
            transaction,
            "note what became of a result",
            "INSERT INTO event (at, kind, pos, node, by_whom, why) VALUES (?1, 'reply', ?2, ?3, ?4, ?5)",
            params![at.as_millisecond(), pos, node, station.as_str(), text],
        )
        .map(drop);
    }
    let fault = FaultRecord {
        kind: "results".to_owned(),
        detail: text,
        verdict: "kept until it is written".to_owned(),
        ..FaultRecord::at(at, None)
    };
    write_fault(transaction, &fault)
}

impl Reader {
    /// Returns the files something waits to be written to, the one that has waited longest first.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn errand_paths(&self) -> Result<Vec<String>, StoreError> {
        let query = "SELECT path FROM errand GROUP BY path ORDER BY min(n) LIMIT ?1";
        self.collect(query, &[&MAX_PATHS], |row| get(row, 0))
    }

    /// Returns the next of what is to be written to one file.
    ///
    /// # Errors
    ///
    /// Fails when the database does.
    pub fn errands(&self, path: &str) -> Result<Vec<Errand>, StoreError> {
        let query = "SELECT errand.n, how, errand.content, inode, base, event.ack, message.id, errand.node FROM errand
                     LEFT JOIN delivery ON delivery.pos = errand.pos AND delivery.node = errand.node
                     LEFT JOIN event ON event.n = delivery.result
                     LEFT JOIN message ON message.pos = errand.pos
                     WHERE path = ?1 ORDER BY errand.n LIMIT ?2";
        self.collect(query, &[&path, &MAX_BATCH], |row| {
            let (how, inode, base): (String, Option<i64>, Option<i64>) =
                (get(row, 1)?, get(row, 3)?, get(row, 4)?);
            let (content, ack): (Option<Vec<u8>>, Option<String>) = (get(row, 2)?, get(row, 5)?);
            let content = match content {
                Some(content) => content,
                None => {
                    let (id, node): (Option<String>, Option<String>) = (get(row, 6)?, get(row, 7)?);
                    let rest = id.zip(node).map(|(id, node)| where_the_rest_is(&id, &node));
                    output_of(ack.as_deref(), &rest.unwrap_or_default())?
                }
            };
            Ok(Errand {
                n: get(row, 0)?,
                how: match how.as_str() {
                    "file" => How::File,
                    _ => How::Append,
                },
                content,
                begun: inode.zip(base).map(|(inode, base)| Begun {
                    inode: inode.cast_unsigned(),
                    base: base.cast_unsigned(),
                }),
            })
        })
    }
}

/// Says how to have what an ACK has not.
fn where_the_rest_is(id: &str, node: &str) -> String {
    format!("; all of it, as long as {node} keeps it: steward msg output {id} {node} --full")
}

/// What a command wrote to its standard output, as far as its ACK has it; a cut says so.
fn output_of(ack: Option<&str>, rest: &str) -> Result<Vec<u8>, StoreError> {
    let Some(ack) = ack else {
        return Ok(Vec::new());
    };
    let ack: Ack = serde_json::from_str(ack).map_err(|error| corrupt("an ACK", &error))?;
    let stdout: Option<Output> = ack.outcome.and_then(|outcome| outcome.stdout);
    Ok(stdout.map_or_else(Vec::new, |stdout| {
        let mut bytes = stdout.head.clone();
        if stdout.is_truncated() {
            let cut = format!("\n[{} bytes left out here{rest}]\n", stdout.omitted());
            bytes.extend_from_slice(cut.as_bytes());
        }
        bytes.extend_from_slice(&stdout.tail);
        bytes
    }))
}

#[cfg(test)]
mod tests {
    use steward_protocol::{Digest, MessageId, Outcome, State};
    use uuid::Uuid;

    use super::*;

    fn ack(stdout: Output) -> String {
        let at = Timestamp::UNIX_EPOCH;
        let ack = Ack {
            id: MessageId(Uuid::nil()),
            digest: Digest::of(b""),
            state: State::Succeeded,
            at,
            reason: None,
            deferral: None,
            expected_seq: None,
            outcome: Some(Outcome {
                exit_code: Some(0),
                signal: None,
                started_at: at,
                finished_at: at,
                stdout: Some(stdout),
                stderr: None,
            }),
        };
        serde_json::to_string(&ack).expect("JSON")
    }

    #[test]
    fn a_result_that_was_cut_says_how_much_is_missing_and_where_it_is() {
        let rest = where_the_rest_is("an-id", "ship1");
        let written = |stdout: Output| {
            let bytes = output_of(Some(&ack(stdout)), &rest).expect("an ACK");
            String::from_utf8(bytes).expect("text")
        };
        assert_eq!(written(Output::whole(b"all\n")), "all\n");
        let mut cut = Output::whole(&[b'x'; 100]);
        cut.shrink(4);
        assert_eq!(
            written(cut.clone()),
            format!(
                "{}\n[{} bytes left out here; all of it, as long as ship1 keeps it: steward msg output an-id ship1 --full]\n{}",
                String::from_utf8_lossy(&cut.head),
                cut.omitted(),
                String::from_utf8_lossy(&cut.tail),
            )
        );
    }
}
