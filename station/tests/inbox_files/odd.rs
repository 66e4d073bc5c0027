//! Files that are none, cannot be read, or have strange names.

use super::*;

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
