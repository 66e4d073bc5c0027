//! The mirror has every line once, whenever it is killed; files rotate; a disk that fails is waited for.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::{
    following::{follower, learn},
    *,
};
use crate::logs::{
    follow::{Cursors, Item, keep},
    mirror::{
        Copier, Shape,
        file::Rotation,
        text::{self, Format},
    },
};
use steward_protocol::logs::{Gap, Reason, Record, Unpacker};

fn shape(dir: &Path, bytes: u64, keep: u32) -> Shape {
    Shape {
        dir: dir.to_owned(),
        format: Format::Cat,
        rotation: Rotation { bytes, keep },
    }
}

fn copier(disk: &Ram, shape: &Shape) -> Copier<Ram, Ram> {
    let cursors = keep::load(disk, "mirror")
        .expect("read")
        .unwrap_or_default();
    let kept = (disk.clone(), "mirror".to_owned());
    Copier::new(follower(disk, cursors, 2), shape.clone(), kept)
}

/// Returns the lines of all files of a line of logs, the oldest first.
fn lines(dir: &Path, line: usize) -> Vec<String> {
    let folder = dir.join(key(line).node.as_str());
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let number = path
                .extension()
                .and_then(|number| number.to_str()?.parse::<u32>().ok());
            (std::cmp::Reverse(number), path)
        })
        .collect();
    files.sort();
    let text = |(_, path): &(_, std::path::PathBuf)| fs::read_to_string(path).expect("text");
    files
        .iter()
        .map(text)
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn expected(line: usize, count: u64) -> Vec<String> {
    (0..count)
        .map(|position| format!("line {line} generation 0 position {position}"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_there_once_whenever_it_is_killed(
        steps in vec((0..9_u8, 0..2_usize), 1..60), size in 1..600_u64,
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let shape = shape(dir.path(), size, 1000);
        let disk = Ram::default();
        let mut store = Store::new(disk.clone());
        let mut next = [0, 0];
        let mut copying = copier(&disk, &shape);
        for (step, line) in steps {
            match step {
                0..=3 => {
                    commit(&mut store, &[(line, batch(line, 0, next[line], 5))]);
                    next[line] += 5;
                    learn(copying.follower(), &disk, 2);
                }
                4..=6 => drop(copying.copy().expect("copied")),
                7 => copying.save().expect("saved"),
                _ => copying = copier(&disk, &shape),
            }
        }
        while copying.copy().expect("copied").is_some() {}
        copying.save().expect("saved");
        for (line, next) in next.into_iter().enumerate() {
            prop_assert_eq!(lines(dir.path(), line), expected(line, next));
        }
    }
}

/// Takes the power away: what of a file does not count durably is gone, half there, or zeros. Files are made durable
/// before what says how far they count.
fn power_cut(disk: &Ram, dir: &Path, seed: u64) {
    disk.power_loss(seed);
    let kept = keep::load(disk, "mirror").expect("whole");
    let kept = kept.unwrap_or_default();
    for line in 0..2 {
        let path = dir.join(key(line).node.as_str()).join("nginx.log");
        let Ok(mut bytes) = fs::read(&path) else {
            continue;
        };
        let inode = fs::metadata(&path).expect("there").ino();
        let mark = kept.get(&key(line)).and_then(|cursor| cursor.mark);
        let counts = mark.filter(|mark| mark.inode == inode);
        let counts = counts.map_or(0, |mark| usize::try_from(mark.bytes).expect("small"));
        let behind = u64::try_from(bytes.len() - counts).expect("small");
        let left = counts + usize::try_from(seed % (behind + 1)).expect("small");
        match seed % 3 {
            0 => bytes.truncate(left),
            // The length may be there before the bytes are.
            1 => bytes[left..].fill(0),
            _ => bytes[counts..].fill(b'\n'),
        }
        fs::write(&path, bytes).expect("written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_there_once_whatever_a_power_cut_has_torn(
        steps in vec((0..10_u8, 0..2_usize, any::<u64>()), 1..60), size in 1..600_u64,
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let shape = shape(dir.path(), size, 1000);
        let disk = Ram::default();
        let mut store = Store::new(disk.clone());
        let mut next = [0, 0];
        let mut copying = copier(&disk, &shape);
        for (step, line, seed) in steps {
            match step {
                0..=3 => {
                    commit(&mut store, &[(line, batch(line, 0, next[line], 5))]);
                    next[line] += 5;
                    learn(copying.follower(), &disk, 2);
                }
                4..=6 => drop(copying.copy().expect("copied")),
                7 => copying.save().expect("saved"),
                _ => {
                    power_cut(&disk, dir.path(), seed);
                    store = Store::new(disk.clone());
                    store.recover().expect("a disk that works");
                    copying = copier(&disk, &shape);
                }
            }
        }
        while copying.copy().expect("copied").is_some() {}
        copying.save().expect("saved");
        for (line, next) in next.into_iter().enumerate() {
            prop_assert_eq!(lines(dir.path(), line), expected(line, next));
        }
    }
}

#[test]
fn files_rotate_and_only_so_many_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    let shape = shape(dir.path(), 250, 3);
    let mut copying = copier(&disk, &shape);
    for number in 0..40 {
        commit(&mut store, &[(0, batch(0, 0, number * 5, 5))]);
        learn(copying.follower(), &disk, 1);
        while copying.copy().expect("copied").is_some() {}
    }
    let folder = dir.path().join(key(0).node.as_str());
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("listed")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["nginx.log", "nginx.log.1", "nginx.log.2", "nginx.log.3"]
    );
    for name in names {
        assert!(fs::metadata(folder.join(name)).expect("there").len() <= 250);
    }
    let all = lines(dir.path(), 0);
    let last = expected(0, 200);
    assert_eq!(all, last[last.len() - all.len()..]);
}

#[test]
fn a_disk_that_is_full_is_waited_for_and_nothing_is_lost_or_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    let shape = shape(dir.path(), 1 << 20, 1);
    let folder = dir.path().join(key(0).node.as_str());
    fs::create_dir_all(&folder).expect("made");
    std::os::unix::fs::symlink("/dev/full", folder.join("nginx.log")).expect("linked");
    commit(&mut store, &[(0, batch(0, 0, 0, 5))]);
    for _ in 0..3 {
        let error = copier(&disk, &shape).copy().expect_err("a full disk");
        let text = crate::station::chain(&error);
        assert!(
            text.contains("nginx.log") && text.contains("No space left"),
            "{text}"
        );
    }
    fs::remove_file(folder.join("nginx.log")).expect("removed");
    let mut copying = copier(&disk, &shape);
    while copying.copy().expect("copied").is_some() {}
    assert_eq!(lines(dir.path(), 0), expected(0, 5));
    // Somebody empties the file, or puts another in its place: it goes on at the end of what is there.
    for (content, name) in [("", "nginx.log"), ("other\n", "nginx.log")] {
        fs::write(folder.join("new"), content).expect("written");
        fs::rename(folder.join("new"), folder.join(name)).expect("renamed");
        let first = stored(&disk, 0).last().expect("one").0.next();
        commit(&mut store, &[(0, batch(0, 0, first, 1))]);
        learn(copying.follower(), &disk, 1);
        while copying.copy().expect("copied").is_some() {}
        let text = fs::read_to_string(folder.join(name)).expect("text");
        assert_eq!(
            text,
            format!("{content}line 0 generation 0 position {first}\n")
        );
    }
}

/// Hands out messages as they are when they are read from a batch.
pub(super) fn each(messages: &[(&[u8], Option<u64>)], read: &mut dyn FnMut(usize, &Record<'_>)) {
    let mut builder = Builder::new(1 << 20);
    for (bytes, original) in messages {
        let message = Message {
            received: Micros(1_795_248_000_000_000),
            source: "test",
            severity: 6,
            app: None,
            unparsed: false,
            original: *original,
            bytes,
        };
        assert_eq!(builder.push(&message), Push::Taken);
    }
    let stream = Stream {
        generation: generation(0),
        after: None,
        domain: key(0).domain,
    };
    let mut packer = Packer::new().expect("memory");
    let payload = packer
        .records(&stream, 0, &builder)
        .expect("packed")
        .to_vec();
    let batch = Batch::read(&payload).expect("a batch");
    let mut unpacker = Unpacker::new().expect("memory");
    for (number, record) in unpacker.records(&batch).expect("unpacked").enumerate() {
        read(number, &record.expect("a record"));
    }
}

/// A message, its length as it came, and how it looks in two formats.
type Case = (&'static [u8], Option<u64>, &'static [u8], &'static [u8]);

#[test]
fn a_message_is_one_line_whatever_is_in_it() {
    let cases: &[Case] = &[
        (
            b"<14>Nov 21 08:00:00 host app[7]: hello",
            None,
            b"2026-11-21T08:00:00.000000+00:00 ship0 app[7]: hello",
            b"hello",
        ),
        (
            b"<14>1 2026-11-21T08:00:00Z host app - - - two\nlines\r\n",
            None,
            b"2026-11-21T08:00:00.000000+00:00 ship0 app: two\\x0alines",
            b"two\\x0alines",
        ),
        (
            b"no header \x1b[31m\tred \xff \xc2\x9b \xc3\xa9 \x00 \xc2",
            None,
            b"2026-11-21T08:00:00.000000+00:00 ship0 no header \\x1b[31m\tred \xff \\xc2\\x9b \xc3\xa9 \\x00 \xc2",
            b"no header \\x1b[31m\tred \xff \\xc2\\x9b \xc3\xa9 \\x00 \xc2",
        ),
        (
            b"long",
            Some(9000),
            b"2026-11-21T08:00:00.000000+00:00 ship0 long ... (cut, it had 9000 bytes)",
            b"long ... (cut, it had 9000 bytes)",
        ),
        (b"", None, b"2026-11-21T08:00:00.000000+00:00 ship0 ", b""),
    ];
    let messages: Vec<_> = cases.iter().map(|case| (case.0, case.1)).collect();
    each(&messages, &mut |number, record| {
        for (format, expected) in [
            (Format::ShortIso, cases[number].2),
            (Format::Cat, cases[number].3),
        ] {
            let mut out = Vec::new();
            text::put(&mut out, format, &key(0), &Item::Message(record));
            assert_eq!(
                out.strip_suffix(b"\n"),
                Some(expected),
                "{}",
                String::from_utf8_lossy(&out)
            );
        }
    });
    let gap = Gap::new(Some(1830), Reason::SpoolFull);
    let mut out = Vec::new();
    text::put(
        &mut out,
        Format::ShortIso,
        &key(0),
        &Item::Gap(Micros(1_795_248_000_000_000), &gap),
    );
    assert_eq!(
        String::from_utf8_lossy(&out),
        "2026-11-21T08:00:00.000000+00:00 ship0 steward: -- 1830 messages missing: spool full --\n"
    );
}

#[test]
fn cursors_of_another_format_are_not_taken_for_none() {
    let disk = Ram::default();
    keep::save(&disk, "mirror", &Cursors::new()).expect("kept");
    assert_eq!(
        keep::load(&disk, "mirror").expect("read"),
        Some(Cursors::new())
    );
}
