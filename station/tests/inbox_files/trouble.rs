//! A ledger that refuses or fails, crashes, lost notices, and a stop.

use super::*;

#[tokio::test]
async fn what_the_ledger_refuses_is_rejected() {
    let station = Station::start(NOTICES_ONLY);
    station.ledger.set("twin.json", Some(Knob::Refuse));
    let text = GOOD.replace(
        '{',
        "{\n  \"id\": \"0190a000-0000-7000-8000-000000000001\",",
    );
    station.write("twin.json", text);
    station.until_place("twin.json", InboxPlace::Rejected).await;
    let (people, _) = station.notes("twin.json");
    // The ledger knows messages, not files; the inbox adds the place.
    for expected in [
        "twin.json:2:9 at /id\n",
        "this id has other content already",
        "help: give it another id",
    ] {
        assert!(people.contains(expected), "{people}");
    }
    station.stop().await;
}

#[tokio::test]
async fn one_file_in_trouble_holds_nothing_else_up() {
    let station = Station::start(NOTICES_ONLY);
    for (file, knob) in [
        ("full.json", Knob::Unavailable),
        ("hangs.json", Knob::Hang),
        ("panics.json", Knob::Panic),
    ] {
        station.ledger.set(file, Some(knob));
        station.write(file, GOOD);
    }
    station.until_others_pass().await;
    station
        .until("several tries", |station| station.ledger.asked() >= 6)
        .await;
    for file in ["full.json", "hangs.json", "panics.json"] {
        assert_eq!(station.place(file), Some(InboxPlace::Processing), "{file}");
    }
    station.ledger.set("full.json", None);
    station.ledger.set("panics.json", None);
    station.until_place("full.json", InboxPlace::Done).await;
    station.until_place("panics.json", InboxPlace::Done).await;
    station.crash().await;
}

#[tokio::test]
async fn while_nothing_can_be_stored_files_stay_in_the_inbox() {
    let station = Station::start(NOTICES_ONLY);
    let names: Vec<String> = (0..200).map(|n| format!("{n:03}.json")).collect();
    for name in &names {
        station.ledger.set(name, Some(Knob::Unavailable));
        station.write(name, GOOD);
    }
    let count = |station: &Station, place| {
        let views = station.list();
        views.iter().filter(|view| view.place == place).count()
    };
    station
        .until("some to be claimed", |station| station.ledger.asked() >= 64)
        .await;
    assert!(count(&station, InboxPlace::Processing) <= 64);
    assert!(count(&station, InboxPlace::Waiting) >= 136);
    for name in &names {
        station.ledger.set(name, None);
    }
    station
        .until("all to be done", |station| {
            count(station, InboxPlace::Done) == 200
        })
        .await;
    assert_eq!(station.ledger.stored().len(), 200);
    station.stop().await;
}

#[tokio::test]
async fn a_crash_after_storing_neither_loses_nor_repeats() {
    let station = Station::start(SHORT);
    station.ledger.set("stored.json", Some(Knob::StoreAndHang));
    station.ledger.set("not-stored.json", Some(Knob::Hang));
    station.write("stored.json", GOOD);
    station.write("not-stored.json", GOOD);
    station
        .until("both to be asked for", |station| {
            station.ledger.asked() == 2
        })
        .await;
    let (dir, ledger) = station.crash().await;
    let first = ledger.stored();
    ledger.set("stored.json", None);
    ledger.set("not-stored.json", None);
    let station = Station::start_in(dir, ledger, SHORT);
    station.until_place("stored.json", InboxPlace::Done).await;
    station
        .until_place("not-stored.json", InboxPlace::Done)
        .await;
    assert_eq!(station.ledger.sources(), ["stored.json", "not-stored.json"]);
    let view = station.view("stored.json").unwrap();
    let receipt = &station.ledger.0.lock().unwrap().receipts[&first[0].intake.unwrap()].clone();
    assert_eq!(view.messages, [receipt.messages[0].id]);
    station.stop().await;
}

#[tokio::test]
async fn a_claimed_file_that_turns_out_bad_is_rejected_at_the_next_start() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let processing = dir.path().join("inbox/.processing");
    fs::create_dir_all(&processing).unwrap();
    let intake = Uuid::now_v7();
    fs::write(processing.join(format!("{intake}--cut.json")), "[{").unwrap();
    fs::write(processing.join("stranger.json"), GOOD).unwrap();
    let station = Station::start_in(dir, Ledger::default(), SHORT);
    station.until_place("cut.json", InboxPlace::Rejected).await;
    station.until_others_pass().await;
    // What the station did not put there it leaves alone, and says so.
    let stranger = station.view("stranger.json").unwrap();
    assert_eq!(stranger.place, InboxPlace::Processing);
    assert!(stranger.reason.unwrap().contains("was not put here"));
    station.stop().await;
}

#[tokio::test]
async fn a_thousand_files_dropped_at_once_are_accepted_exactly_once() {
    let station = Station::start(SHORT);
    let outside = station.dir.path().join("many");
    fs::create_dir(&outside).unwrap();
    let names: Vec<String> = (0..1000).map(|n| format!("{n:04}.json")).collect();
    for name in &names {
        fs::write(outside.join(name), GOOD).unwrap();
    }
    let begun = Instant::now();
    for name in &names {
        fs::rename(outside.join(name), station.path(name)).unwrap();
    }
    station
        .until("all to be stored", |station| {
            station.ledger.stored().len() >= 1000
        })
        .await;
    let elapsed = begun.elapsed();
    station
        .until("all to be moved", |station| {
            fs::read_dir(station.path(".processing"))
                .unwrap()
                .next()
                .is_none()
        })
        .await;
    // Each once, and in the order they came.
    assert_eq!(station.ledger.sources(), names);
    assert!(elapsed < Duration::from_secs(45), "{elapsed:?}");
    station.stop().await;
}

#[tokio::test]
async fn lost_notices_are_made_up_for_by_scanning() {
    // A station that hears nothing: its folder is exchanged for another one behind its back.
    let station = Station::start(SHORT);
    station.until_others_pass().await;
    fs::rename(station.path(""), station.dir.path().join("moved")).unwrap();
    fs::create_dir(station.path("")).unwrap();
    station.write("a.json", GOOD);
    station.until_place("a.json", InboxPlace::Done).await;
    // And it listens to the new folder from then on.
    station.rename_in("b.yaml", "to: ship1\nmethod: hello\ndomain: node\n");
    station.until_place("b.yaml", InboxPlace::Done).await;
    station.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_what_is_on_its_way_and_takes_nothing_new() {
    let station = Station::start(NOTICES_ONLY);
    station.until_others_pass().await;
    let (dir, ledger) = station.stop().await;
    fs::write(dir.path().join("inbox/late.json"), GOOD).unwrap();
    assert_eq!(ledger.stored().len(), 1);
    let station = Station::start_in(dir, ledger, SHORT);
    station.until_place("late.json", InboxPlace::Done).await;
    station.stop().await;
}
