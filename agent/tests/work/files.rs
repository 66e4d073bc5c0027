//! `filewrite` and `fileappend`.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::json;
use tempfile::tempdir;

use super::{begin, done, end, long, names, to, with, work};

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_string()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("it can be read")
}

#[test]
fn a_file_is_created_replaced_and_left_alone_and_it_is_said_which() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("motd");
    for (content, result) in [
        ("one\n", "created"),
        ("two\n", "replaced"),
        ("two\n", "unchanged"),
    ] {
        let worked = done("filewrite", &to(&path, content));
        assert_eq!(worked.code, Some(0), "{}", worked.stderr);
        let said = worked.json();
        assert_eq!(said["result"], result);
        assert_eq!(said["bytes"], 4);
        assert_eq!(said["blake3"], digest(content));
        assert_eq!(said["mode"], "0644");
        assert!(
            said["owner"]
                .as_str()
                .is_some_and(|owner| owner.contains(':'))
        );
        assert_eq!(read(&path), content);
    }
    assert_eq!(names(dir.path()), ["motd"]);
}

#[test]
fn permissions_stay_unless_others_are_asked_for() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("key");
    fs::write(&path, "old").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4750)).expect("its mode");
    assert_eq!(done("filewrite", &to(&path, "new")).code, Some(0));
    assert_eq!(mode(&path), 0o4750);
    // Only the permissions differ: that is a change too.
    let said = done(
        "filewrite",
        &with(to(&path, "new"), &json!({"mode": "0600"})),
    )
    .json();
    assert_eq!(
        (said["result"].as_str(), said["mode"].as_str()),
        (Some("replaced"), Some("0600"))
    );
    assert_eq!(mode(&path), 0o600);
    assert_eq!(done("fileappend", &to(&path, "er")).code, Some(0));
    assert_eq!((read(&path).as_str(), mode(&path)), ("newer", 0o600));
}

#[test]
fn an_owner_is_set_by_name_or_number_and_kept_afterwards() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("file");
    let (uid, gid) = {
        let found = fs::metadata(dir.path()).expect("it is there");
        (found.uid(), found.gid())
    };
    // Whoever is not root can give files to himself only.
    let (uid, gid) = if uid == 0 { (1, 2) } else { (uid, gid) };
    let owner = json!({ "owner": format!("{uid}:{gid}") });
    let worked = done("filewrite", &with(to(&path, "a"), &owner));
    assert_eq!(worked.code, Some(0), "{}", worked.stderr);
    assert_eq!(done("filewrite", &to(&path, "b")).code, Some(0));
    let found = fs::metadata(&path).expect("it is there");
    assert_eq!((found.uid(), found.gid()), (uid, gid));
    let nobody = json!({ "owner": "no-such-user" });
    let worked = done("filewrite", &with(to(&path, "c"), &nobody));
    assert_eq!(worked.code, Some(1));
    assert!(worked.stderr.contains("getent passwd"), "{}", worked.stderr);
    assert_eq!(read(&path), "b");
}

#[test]
fn a_file_is_written_only_where_what_is_there_matches() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("file");
    let absent = json!({ "if_match": "absent" });
    let a = json!({ "if_match": digest("a") });
    for (method, content, condition, code, words) in [
        ("filewrite", "a", &a, 1, "no file is there"),
        ("filewrite", "a", &absent, 0, "created"),
        ("filewrite", "b", &absent, 1, "a file of 1 bytes is there"),
        // What is wanted is there already, but it was to be nothing.
        ("filewrite", "a", &absent, 1, "a file of 1 bytes is there"),
        ("filewrite", "a", &a, 0, "unchanged"),
        ("filewrite", "b", &a, 0, "replaced"),
        ("filewrite", "c", &a, 1, "has 1 bytes with the digest"),
        ("fileappend", "c", &a, 1, "has 1 bytes with the digest"),
        ("fileappend", "c", &absent, 1, "a file of 1 bytes is there"),
    ] {
        let worked = done(method, &with(to(&path, content), condition));
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&worked.stdout),
            worked.stderr
        );
        assert_eq!(worked.code, Some(code), "{content} {condition}: {said}");
        assert!(said.contains(words), "{content} {condition}: {said}");
    }
    assert_eq!(read(&path), "b");
    let b = json!({ "if_match": digest("b") });
    assert_eq!(done("fileappend", &with(to(&path, "c"), &b)).code, Some(0));
    assert_eq!(read(&path), "bc");
    assert_eq!(names(dir.path()), ["file"]);
}

#[test]
fn a_link_is_followed_and_stays() {
    let dir = tempdir().expect("a directory");
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    symlink("real", &link).expect("a link");
    let worked = done("filewrite", &to(&link, "x"));
    assert_eq!(worked.code, Some(1));
    assert!(
        worked
            .stderr
            .contains("symbolic link to real, which is missing"),
        "{}",
        worked.stderr
    );
    fs::write(&real, "old").expect("written");
    let said = done("filewrite", &to(&link, "new")).json();
    assert_eq!(said["result"], "replaced");
    assert_eq!(said["path"], link.to_str().expect("text"));
    assert!(
        said["file"]
            .as_str()
            .is_some_and(|file| file.ends_with("/real"))
    );
    assert_eq!(read(&real), "new");
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
}

#[test]
fn what_is_no_file_is_not_written() {
    let dir = tempdir().expect("a directory");
    let fifo = dir.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo runs").success());
    for (path, words) in [
        (dir.path(), "a directory"),
        (&fifo, "a fifo"),
        (Path::new("/dev/null"), "a device"),
    ] {
        for method in ["filewrite", "fileappend"] {
            let worked = done(method, &to(path, "x"));
            assert_eq!(worked.code, Some(1), "{method} {path:?}");
            assert!(
                worked.stderr.contains(words),
                "{method} {path:?}: {}",
                worked.stderr
            );
        }
    }
}

#[test]
fn missing_directories_are_made_when_asked_for() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("a/b/file");
    let worked = done("filewrite", &to(&path, "x"));
    assert_eq!(worked.code, Some(1));
    assert!(
        worked.stderr.contains("\"parents\": true"),
        "{}",
        worked.stderr
    );
    assert!(names(dir.path()).is_empty());
    let parents = json!({ "parents": true });
    assert_eq!(
        done("filewrite", &with(to(&path, "x"), &parents)).code,
        Some(0)
    );
    assert_eq!(
        (read(&path).as_str(), mode(&dir.path().join("a/b"))),
        ("x", 0o755)
    );
}

#[test]
fn bytes_that_are_no_text_come_as_base64() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("file");
    let body = json!({ "path": path, "base64": "/wD+" });
    assert_eq!(done("filewrite", &body).code, Some(0));
    assert_eq!(done("fileappend", &body).code, Some(0));
    assert_eq!(fs::read(&path).expect("there"), b"\xff\x00\xfe\xff\x00\xfe");
}

#[test]
fn content_is_appended_whole_or_not_at_all() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("log");
    let said = done("fileappend", &to(&path, "one\n")).json();
    assert_eq!(said["result"], "created");
    let said = done("fileappend", &to(&path, "two\n")).json();
    assert_eq!(said["result"], "replaced");
    assert_eq!(
        (said["bytes"].as_u64(), said["blake3"].as_str()),
        (Some(8), Some(&*digest("one\ntwo\n")))
    );
    assert_eq!(read(&path), "one\ntwo\n");
}

#[test]
fn a_file_is_appended_to_up_to_a_limit_that_is_said() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("big");
    let limit = 64 << 20;
    for (length, code) in [(limit - 1, Some(0)), (limit, Some(1))] {
        let file = fs::File::create(&path).expect("created");
        file.set_len(length).expect("sparse");
        let worked = done("fileappend", &to(&path, "x"));
        assert_eq!(worked.code, code, "{}", worked.stderr);
        if code == Some(1) {
            assert!(worked.stderr.contains("67108864"), "{}", worked.stderr);
        }
    }
    assert_eq!(fs::metadata(&path).expect("there").len(), limit);
}

#[test]
fn appends_at_the_same_time_all_arrive() {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("log");
    let running: Vec<_> = (0..20)
        .map(|number| {
            let body = to(&path, &format!("line {number}\n")).to_string();
            begin(work("fileappend"), &body)
        })
        .collect();
    for child in running {
        let worked = end(child);
        assert_eq!(worked.code, Some(0), "{}", worked.stderr);
    }
    let text = read(&path);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 20);
    assert_eq!(names(dir.path()), ["log"]);
}

/// Kills a method again and again, a little later each time, and looks at what is there.
fn killed(method: &str, old: &str, new: &str, written: &str) -> usize {
    let dir = tempdir().expect("a directory");
    let path = dir.path().join("file");
    let body = to(&path, written).to_string();
    let (mut cut, mut whole) = (0, 0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Whoever reads meanwhile sees the one or the other as well.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if let Ok(text) = fs::read_to_string(&path) {
                    assert!(
                        text == old || text == new,
                        "{method}: a mix of {} bytes",
                        text.len()
                    );
                }
            }
        });
        for step in 0..150_u64 {
            if read_or_empty(&path) != old {
                fs::write(dir.path().join("next"), old).expect("written");
                fs::rename(dir.path().join("next"), &path).expect("renamed");
            }
            let mut child = begin(work(method), &body);
            thread::sleep(Duration::from_micros(step * 100));
            child.kill().ok();
            child.wait().expect("it is over");
            match read_or_empty(&path) {
                text if text == old => cut += 1,
                text if text == new => whole += 1,
                text => panic!("{method}: a mix of {} bytes", text.len()),
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(
        cut > 0 && whole > 0,
        "{method}: {cut} cut, {whole} whole: nothing was tried"
    );
    fs::write(&path, old).expect("written");
    assert_eq!(end(begin(work(method), &body)).code, Some(0));
    assert_eq!(
        names(dir.path()),
        ["file"],
        "{method}: what was left behind is removed"
    );
    cut
}

fn read_or_empty(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_killed_write_leaves_the_old_or_the_new_and_never_a_mix() {
    let (old, new) = (long(1, 8_000), long(2, 8_000));
    killed("filewrite", &old, &new, &new);
}

#[test]
fn a_killed_append_leaves_the_old_or_the_new_and_never_a_mix() {
    let old = long(1, 50_000);
    let new = format!("{old}one more\n");
    killed("fileappend", &old, &new, "one more\n");
}

#[test]
fn what_looks_like_a_temporary_of_another_file_is_left_alone() {
    let dir = tempdir().expect("a directory");
    for name in [".steward-0000000000000000-1", ".steward", "other"] {
        fs::write(dir.path().join(name), "mine").expect("written");
    }
    assert_eq!(
        done("filewrite", &to(&dir.path().join("file"), "x")).code,
        Some(0)
    );
    assert_eq!(names(dir.path()).len(), 4);
}
