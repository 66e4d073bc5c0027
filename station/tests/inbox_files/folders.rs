//! Folders of the inbox: what is forgotten, who may look into them, and one that cannot be scanned.

use super::*;

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
