//! Reads every byte of a segment again: heads, checksums, every record, and what the index says of them.

use steward_protocol::logs::{Batch, Unpacker, frame};

use super::{
    super::{
        LogsError,
        disk::{Disk, Mode, failed},
        index::Entry,
        name::path,
    },
    catalog::Segment,
    gaps::Examiner,
};
use crate::station::chain;

/// Compares a segment with what its index says of it.
pub(super) fn segment<D: Disk>(
    examiner: &mut Examiner<'_, D>,
    segment: &Segment,
    entries: &[Entry],
) -> Result<(), LogsError> {
    let name = segment.name.log();
    let place = path(&examiner.dir, &name);
    let file = examiner
        .disk
        .open(&place, Mode::Read)
        .map_err(failed("open", &place))?;
    let mut unpacker = Unpacker::new().map_err(LogsError::Unpacker)?;
    let mut end = 0;
    for entry in entries {
        if entry.at != end {
            let bytes = entry.at.saturating_sub(end);
            examiner.damage(&name, end, format!("{bytes} bytes are no batch"));
        }
        end = entry.end();
        let mut bytes = vec![0; frame::HEAD + entry.bytes as usize];
        let got = examiner
            .disk
            .read(&file, entry.at, &mut bytes)
            .map_err(failed("read", &place))?;
        bytes.truncate(got);
        if let Err(what) = batch(&bytes, entry, &mut unpacker) {
            examiner.damage(&name, entry.at, what);
        }
    }
    let aside = segment.name.torn();
    if let Ok(file) = examiner.disk.open(&path(&examiner.dir, &aside), Mode::Read) {
        let bytes = examiner.disk.bytes(&file).unwrap_or(0);
        let text =
            format!("{bytes} bytes with whole batches stood behind damage and are set aside");
        examiner.damage(&aside, 0, text);
    }
    if !segment.is_newest && end != segment.bytes {
        let bytes = segment.bytes.saturating_sub(end);
        examiner.damage(&name, end, format!("{bytes} bytes are no batch"));
    }
    Ok(())
}

fn batch(bytes: &[u8], entry: &Entry, unpacker: &mut Unpacker) -> Result<(), String> {
    if frame::length(bytes) != Some(entry.bytes as usize) {
        return Err("the head of the batch is damaged".to_owned());
    }
    let payload = bytes.get(frame::HEAD..).unwrap_or_default();
    let batch = Batch::read(payload).map_err(|error| format!("the batch {}", chain(&error)))?;
    unpacker
        .check(&batch)
        .map_err(|error| format!("the batch {}", chain(&error)))?;
    match Entry::of(batch.header(), entry.at, payload.len()) == *entry {
        true => Ok(()),
        false => Err("the index says something else than the batch".to_owned()),
    }
}
