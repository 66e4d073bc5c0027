//! Looks into files: opens them, unpacks them, and tells whether one has what another had. It decides nothing.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, BufReader, ErrorKind, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use rustix::fs::OFlags;

use super::{
    book::{HEAD, Packing, Print, TAIL},
    list,
    settle::{Entry, Question, Sight},
};

/// Largest window of a packed file, as a power of two: what `zstd -19` uses. It is memory for as long as the file is read.
const WINDOW: u32 = 23;

/// A file that can be read.
pub(super) enum Body {
    /// From any place.
    Plain(File),
    /// From its beginning on.
    Packed(Box<dyn Read + Send>),
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Packed(_) => "Packed",
        })
    }
}

/// Opens a file; one that is none is never waited for.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is no file")),
    }
}

/// Makes a file readable that is packed so.
pub(super) fn unpack(file: File, packing: Packing) -> io::Result<Body> {
    Ok(match packing {
        Packing::Plain => Body::Plain(file),
        Packing::Gz => Body::Packed(Box::new(MultiGzDecoder::new(BufReader::new(file)))),
        Packing::Zst => {
            let mut decoder = zstd::stream::read::Decoder::new(file)?;
            decoder.window_log_max(WINDOW)?;
            Body::Packed(Box::new(decoder))
        }
        Packing::Strange => {
            let problem = "it is packed in a way that is not read here";
            return Err(io::Error::new(ErrorKind::Unsupported, problem));
        }
    })
}

/// Reads until the buffer is full or there is no more.
pub(super) fn fill(
    mut read: impl FnMut(&mut [u8], usize) -> io::Result<usize>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match read(&mut buffer[at..], at) {
            Ok(0) => break,
            Ok(count) => at += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

/// Reads from a place of a plain file.
pub(super) fn fill_at(file: &File, place: u64, buffer: &mut [u8]) -> io::Result<usize> {
    fill(|rest, at| file.read_at(rest, place + at as u64), buffer)
}

/// Skips so many bytes of what was packed, and returns how many there were.
pub(super) fn skip(reader: &mut dyn Read, bytes: u64) -> io::Result<u64> {
    io::copy(&mut reader.take(bytes), &mut io::sink())
}

/// Opens a file that was listed; nothing, if its name stands for another one by now.
fn open_listed(entry: &Entry) -> io::Result<Option<File>> {
    match open(&entry.path) {
        Ok(file) if list::key(&file.metadata()?) == entry.key => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Answers whether a file is one that is known.
pub(super) fn probe(entry: &Entry, question: Question) -> Sight {
    let packing = Packing::of(&entry.path.to_string_lossy()).0;
    if packing == Packing::Strange {
        return Sight::Other;
    }
    let file = match open_listed(entry) {
        Ok(Some(file)) => file,
        Ok(None) => return Sight::Moved,
        Err(_) => return Sight::Unknown,
    };
    let answer = unpack(file, packing).and_then(|body| match body {
        Body::Plain(file) => holds_plain(&file, question),
        Body::Packed(mut reader) => holds_packed(&mut *reader, question),
    });
    match answer {
        Ok(true) => Sight::Same,
        Ok(false) => Sight::Other,
        Err(_) if packing == Packing::Plain => Sight::Unknown,
        // It is damaged, or not written to its end.
        Err(_) => Sight::Other,
    }
}

/// Returns what a file begins with, as far as it can be read; nothing, if its name stands for another one by now.
pub(super) fn print(entry: &Entry) -> Option<Print> {
    let packing = Packing::of(&entry.path.to_string_lossy()).0;
    let file = match open_listed(entry) {
        Ok(Some(file)) => file,
        Ok(None) => return None,
        Err(_) => return Some(Print::default()),
    };
    let mut buffer = [0; HEAD];
    let read = unpack(file, packing).and_then(|body| match body {
        Body::Plain(file) => fill_at(&file, 0, &mut buffer),
        Body::Packed(mut reader) => fill(|rest, _| reader.read(rest), &mut buffer),
    });
    Some(match read {
        Ok(count) if count > 0 => Print::of(&buffer[..count]),
        Ok(_) | Err(_) => Print::default(),
    })
}

fn holds_plain(file: &File, question: Question) -> io::Result<bool> {
    let size = file.metadata()?.len();
    let Question {
        head,
        mark,
        is_whole,
    } = question;
    if size < mark.offset || (is_whole && size != mark.offset) {
        return Ok(false);
    }
    Ok(is(file, 0, head)?
        && is(
            file,
            mark.offset.saturating_sub(mark.tail.length() as u64),
            mark.tail,
        )?)
}

fn is(file: &File, place: u64, print: Print) -> io::Result<bool> {
    let mut buffer = [0; HEAD];
    let buffer = &mut buffer[..print.length().min(HEAD)];
    let count = fill_at(file, place, buffer)?;
    Ok(count == print.length() && Print::of(&buffer[..count]) == print || print.length() == 0)
}

fn holds_packed(reader: &mut dyn Read, question: Question) -> io::Result<bool> {
    let Question {
        head,
        mark,
        is_whole,
    } = question;
    let (head_length, tail_length) = (head.length().min(HEAD), mark.tail.length().min(TAIL));
    let mut first = [0; HEAD];
    let count = fill(|rest, _| reader.read(rest), &mut first[..head_length])?;
    if count < head_length || (head_length > 0 && Print::of(&first[..count]) != head) {
        return Ok(false);
    }
    // The tail may begin within the head.
    let tail_at = mark.offset.saturating_sub(tail_length as u64);
    let (mut tail, mut at) = (Vec::with_capacity(tail_length), count as u64);
    match usize::try_from(tail_at) {
        Ok(within) if within < count => {
            let end = count.min(within + tail_length);
            tail.extend_from_slice(&first[within..end]);
        }
        Ok(_) | Err(_) => {
            let gap = tail_at - at;
            if skip(reader, gap)? < gap {
                return Ok(false);
            }
            at = tail_at;
        }
    }
    let mut rest = [0; TAIL];
    let missing = tail_length - tail.len();
    let count = fill(|rest, _| reader.read(rest), &mut rest[..missing])?;
    tail.extend_from_slice(&rest[..count]);
    at += count as u64;
    if tail.len() < tail_length || (tail_length > 0 && Print::of(&tail) != mark.tail) {
        return Ok(false);
    }
    Ok(!is_whole || (at == mark.offset && skip(reader, 1)? == 0))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;
    use crate::syslog::input::files::book::Mark;

    fn entry(path: &Path) -> Entry {
        Entry {
            path: path.to_owned(),
            key: list::key(&fs::metadata(path).expect("a file")),
            size: 0,
            modified: 0,
            is_wanted: false,
        }
    }

    #[test]
    fn a_file_is_known_again_however_it_is_packed() {
        let dir = tempfile::tempdir().expect("a directory");
        let content: Vec<u8> = (0..500)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .collect();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(&content).expect("it is packed");
        let zst = zstd::encode_all(&content[..], 3).expect("it is packed");
        for (name, bytes) in [
            ("a.log", content.clone()),
            ("a.log.gz", gz.finish().expect("it is packed")),
            ("a.log.zst", zst),
        ] {
            fs::write(dir.path().join(name), bytes).expect("it is written");
        }
        let whole = content.len();
        for name in ["a.log", "a.log.gz", "a.log.zst"] {
            let entry = entry(&dir.path().join(name));
            for offset in [0, 1, 30, 63, 64, 65, 1000, 1024, 1030, 1100, 3000, whole] {
                let tail = offset.saturating_sub(TAIL);
                let sound = Question {
                    head: Print::of(&content[..HEAD.min(offset)]),
                    mark: Mark {
                        offset: offset as u64,
                        tail: Print::of(&content[tail..offset]),
                    },
                    is_whole: false,
                };
                assert_eq!(probe(&entry, sound), Sight::Same, "{name} {offset}");
                let all = Question {
                    is_whole: true,
                    ..sound
                };
                let wanted = if offset == whole {
                    Sight::Same
                } else {
                    Sight::Other
                };
                assert_eq!(probe(&entry, all), wanted, "{name} {offset}");
                if offset > 0 {
                    let head = Question {
                        head: Print::of(b"x"),
                        ..sound
                    };
                    assert_eq!(probe(&entry, head), Sight::Other, "{name} {offset}");
                    let mut tail = sound;
                    tail.mark.tail.1 ^= 1;
                    assert_eq!(probe(&entry, tail), Sight::Other, "{name} {offset}");
                }
            }
        }
        fs::write(dir.path().join("b.gz"), "no gzip").expect("it is written");
        let question = Question {
            head: Print::of(b"n"),
            mark: Mark::default(),
            is_whole: false,
        };
        assert_eq!(
            probe(&entry(&dir.path().join("b.gz")), question),
            Sight::Other
        );
    }
}
