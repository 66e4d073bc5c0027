//! What becomes of files, row by row, and the limits.

use super::*;

#[test]
fn whatever_becomes_of_files_all_of_them_is_read_once_and_in_order_or_its_loss_is_told() {
    const NONE: &[Reason] = &[];
    let rows: &[Row] = &[
        (
            "a file that grows",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.look();
            },
            "1 2 ",
            NONE,
        ),
        (
            "rename and create",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.rename("a.log", "a.log.1");
                world.write("a.log", "3 ");
                world.look();
                // Its program has not left it yet.
                world.write("a.log.1", "late ");
                world.look();
            },
            "1 2 3 late ",
            NONE,
        ),
        (
            "renamed twice between two looks",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.rename("a.log", "a.log.1");
                world.write("a.log", "3 ");
                world.rename("a.log.1", "a.log.2");
                world.rename("a.log", "a.log.1");
                world.write("a.log", "4 ");
                world.look();
            },
            "1 2 3 4 ",
            NONE,
        ),
        (
            "a week without the agent, packed",
            "*.log",
            |world| {
                world.write("a.log.3", "old ");
                world.pack("a.log.3");
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.rename("a.log", "a.log.1");
                world.pack("a.log.1");
                world.rename("a.log.1.gz", "a.log.2.gz");
                world.write("a.log", "3 ");
                world.rename("a.log", "a.log.1");
                world.write("a.log", "4 ");
                world.restart();
                world.look();
            },
            "1 2 3 4 ",
            NONE,
        ),
        (
            "dated names without the agent",
            "a.log",
            |world| {
                world.write("a-20261119.log", "old ");
                world.write("a.log", "1 ");
                world.look();
                world.rename("a.log", "a-20261120.log");
                world.write("a-20261121.log", "2 ");
                world.write("a.log", "3 ");
                world.restart();
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "packed while it is read, after its end",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.rename("a.log", "a.log.1");
                world.look();
                world.pack("a.log.1");
                world.look();
                world.write("a.log", "2 ");
                world.look();
                world.restart();
                world.look();
            },
            "1 2 ",
            NONE,
        ),
        (
            "packed before it was read to its end",
            "*.log",
            |world| {
                world.holds = false;
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.rename("a.log", "a.log.1");
                world.pack("a.log.1");
                world.write("a.log", "3 ");
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "copied and truncated",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.copy("a.log", "a.log.1");
                world.look();
                world.write("a.log", "3 ");
                world.copy("a.log", "a.log.1");
                world.truncate("a.log");
                world.write("a.log", "4 ");
                world.look();
            },
            "1 2 3 4 ",
            NONE,
        ),
        (
            "copied and truncated, and longer at once than before",
            "*.log",
            |world| {
                world.write("a.log", "one ");
                world.look();
                world.write("a.log", "two ");
                world.copy("a.log", "a.log.1");
                world.truncate("a.log");
                world.write("a.log", "three four five ");
                world.look();
            },
            "one two three four five ",
            NONE,
        ),
        (
            "copied and truncated without the agent, twice",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.copy("a.log", "a.log.1");
                world.truncate("a.log");
                world.write("a.log", "3 ");
                world.rename("a.log.1", "a.log.2");
                world.copy("a.log", "a.log.1");
                world.truncate("a.log");
                world.write("a.log", "4 ");
                world.pack("a.log.2");
                world.restart();
                world.look();
            },
            "1 2 3 4 ",
            NONE,
        ),
        (
            "copies that the pattern stands for",
            "a.log*",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.copy("a.log", "a.log.1");
                world.look();
                world.write("a.log", "3 ");
                world.look();
                world.rename("a.log.1", "a.log.2");
                world.copy("a.log", "a.log.1");
                world.truncate("a.log");
                world.write("a.log", "4 ");
                world.look();
                world.restart();
                world.look();
            },
            "1 2 3 4 ",
            NONE,
        ),
        (
            "renamed ones that the pattern stands for",
            "a.log*",
            |world| {
                world.write("a.log.1", "0 ");
                world.write("a.log", "1 ");
                world.look();
                world.read.clear();
                for number in 2..6 {
                    for old in (1..=number - 1).rev() {
                        world.rename(&format!("a.log.{old}"), &format!("a.log.{}", old + 1));
                    }
                    world.rename("a.log", "a.log.1");
                    world.write("a.log", &format!("{number} "));
                    world.look();
                    world.restart();
                    world.look();
                }
            },
            "2 3 4 5 ",
            NONE,
        ),
        (
            "truncated again before anything of it was read",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.copy("a.log", "a.log-20261101");
                world.truncate("a.log");
                world.write("a.log", "2 ");
                world.settle();
                world.copy("a.log", "a.log-20261102");
                world.truncate("a.log");
                world.write("a.log", "3, longer ");
                world.look();
            },
            "1 2 3, longer ",
            NONE,
        ),
        (
            "found empty, written, copied and truncated before the next look",
            "*.log",
            |world| {
                world.write("a.log", "");
                world.look();
                world.write("a.log", "1 ");
                world.copy("a.log", "a.log-20261101");
                world.truncate("a.log");
                world.write("a.log", "2 ");
                world.copy("a.log", "a.log-20261102");
                world.truncate("a.log");
                world.write("a.log", "3 ");
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "packed before anything of it was read",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.rename("a.log", "a.log.1");
                world.write("a.log", "2 ");
                world.settle();
                world.rename("a.log.1", "a.log.2");
                world.rename("a.log", "a.log.1");
                world.pack("a.log.1");
                world.write("a.log", "3 ");
                world.restart();
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "another worker's log",
            "worker.log",
            |world| {
                world.write("worker.log", "1 ");
                world.write("worker-1.log", "other ");
                world.look();
                world.rename("worker.log", "worker.log.1");
                world.write("worker-1.log", "other ");
                world.write("worker.log", "2 ");
                world.write("worker-1.log", "other ");
                world.look();
            },
            "1 2 ",
            NONE,
        ),
        (
            "truncated without a copy",
            "*.log",
            |world| {
                world.write("a.log", "one ");
                world.look();
                world.truncate("a.log");
                world.write("a.log", "2 ");
                world.look();
            },
            "one 2 ",
            &[Reason::SourceTruncated],
        ),
        (
            "deleted while it is open",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.delete("a.log");
                world.write("a.log", "3 ");
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "deleted without the agent",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.delete("a.log");
                world.write("a.log", "3 ");
                world.restart();
                world.look();
                world.look();
            },
            "1 3 ",
            &[Reason::SourceVanished],
        ),
        (
            "deleted without the agent after it was rotated and read",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.rename("a.log", "a.log.1");
                world.write("a.log", "2 ");
                world.look();
                world.delete("a.log.1");
                world.restart();
                world.look();
            },
            "1 2 ",
            NONE,
        ),
        (
            "a number of an inode that is used again",
            "*.log",
            |world| {
                world.write("a.log", "first ");
                world.look();
                let key = world.files[0].key;
                world.files.clear();
                world.write("b.log", "second, and longer ");
                world.files[0].key = key;
                world.restart();
                world.look();
            },
            "first second, and longer ",
            &[Reason::SourceVanished],
        ),
        (
            "files that begin alike",
            "*.log",
            |world| {
                world.write("a.log", "# banner\n");
                world.look();
                world.write("b.log", "# banner\n");
                world.write("b.log", "b ");
                world.write("a.log", "a ");
                world.look();
            },
            "# banner\na # banner\nb ",
            NONE,
        ),
        (
            "a listing that lacks a file for a moment",
            "*.log",
            |world| {
                world.holds = false;
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                let moved = world.files.remove(0);
                assert!(world.settle().is_seeking);
                world.take();
                world.files.push(moved);
                world.rename("a.log", "a.log.1");
                world.write("a.log", "3 ");
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "packed in a way that is not read",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.rename("a.log", "a.log.1");
                world.look();
                world.write("a.log.2.xz", "strange");
                world.write("a.log", "3 ");
                world.restart();
                world.look();
            },
            "1 3 ",
            &[Reason::SourceVanished],
        ),
    ];
    for (name, pattern, act, read, gaps) in rows {
        let mut world = World::new(pattern);
        act(&mut world);
        assert_eq!(world.read, *read, "{name}");
        assert_eq!(world.gaps, *gaps, "{name}");
    }
}

#[test]
fn from_the_end_only_what_is_there_at_the_first_start_is_left_out() {
    let mut world = World::new("*.log");
    world.write("a.log", "old ");
    let listing = world.listing();
    let asked = Asked {
        first: Some(Start::End),
        is_held: &|_| false,
        probe: &mut |_, _| Sight::Other,
        print: &mut |_| Some(Print::default()),
    };
    settle(&mut world.book, &listing, asked);
    world.is_first = false;
    world.write("a.log", "new ");
    world.write("b.log", "other ");
    world.look();
    assert_eq!(world.read, "new other ");
}

#[test]
fn an_input_knows_so_many_files_and_no_more() {
    let mut world = World::new("*.log");
    let entry = |index: usize| Entry {
        path: World::path(&format!("{index}.log")),
        key: Key(1, index as u64),
        size: 1,
        modified: 1,
        is_wanted: true,
    };
    let mut listing = Listing {
        entries: (0..MAX_FILES + 7).map(entry).collect(),
        ..Listing::default()
    };
    let mut settle = |listing: &Listing| {
        let asked = Asked {
            first: None,
            is_held: &|_| false,
            probe: &mut |_, _| Sight::Same,
            print: &mut |_| Some(Print::default()),
        };
        settle(&mut world.book, listing, asked).beyond
    };
    assert_eq!(settle(&listing), 7);
    assert_eq!(settle(&listing), 7);
    // Those that are gone make room, and none that are read lose theirs.
    listing.entries.drain(..3);
    for entry in &mut listing.entries {
        entry.size = 0;
    }
    settle(&listing);
    settle(&listing);
    assert!(world.book.len() <= MAX_FILES);
}

#[test]
fn what_cannot_be_listed_is_not_gone() {
    let mut world = World::new("*.log");
    world.holds = false;
    world.write("a.log", "1 ");
    world.look();
    let listing = Listing {
        unread: vec![("/var/log".into(), "permission denied".to_owned())],
        ..Listing::default()
    };
    for _ in 0..10 {
        let asked = Asked {
            first: None,
            is_held: &|_| false,
            probe: &mut |_, _| Sight::Other,
            print: &mut |_| Some(Print::default()),
        };
        settle(&mut world.book, &listing, asked);
    }
    world.write("a.log", "2 ");
    world.look();
    assert_eq!((world.read.as_str(), world.gaps.len()), ("1 2 ", 0));
}
