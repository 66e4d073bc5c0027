//! `filewrite` and `fileappend` harmed at every durable step: killed before it, in the middle of a
//! write, or told by the system that it failed.
//!
//! What is promised after each of them: the path has its old content or its new one with the
//! permissions and the owner that belong to it, and the next run for the path leaves nothing beside it.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use serde_json::{Value, json};
use tempfile::tempdir;

use super::{done, long, names, with};
use crate::{
    support::DEADLINE,
    tracer::{Aim, Harm, Step, Traced},
};

/// Every way a step can go wrong.
const HARMS: [(&str, Harm); 4] = [
    ("killed", Harm::Kill),
    ("torn", Harm::Tear),
    ("EIO", Harm::Fail(Errno::EIO)),
    ("ENOSPC", Harm::Fail(Errno::ENOSPC)),
];

/// Above every count of steps: nothing is harmed.
const NEVER: usize = usize::MAX;

/// What a file looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    content: String,
    mode: u32,
    owner: (u32, u32),
}

fn look(path: &Path) -> Option<Look> {
    let found = fs::symlink_metadata(path).ok()?;
    assert!(found.is_file(), "{} is no file", path.display());
    Some(Look {
        content: fs::read_to_string(path).expect("it can be read"),
        mode: found.mode() & 0o7777,
        owner: (found.uid(), found.gid()),
    })
}

/// What is written, and where.
struct Scene {
    what: &'static str,
    method: &'static str,
    /// What is there before.
    before: Option<(String, u32)>,
    /// The body without its path.
    body: Value,
    /// What is there afterwards; without permissions those stay, or are those of a new file.
    after: (String, u32),
    /// Who it belongs to afterwards, if that is asked for.
    owner: Option<(u32, u32)>,
    /// Where it is, below the directory.
    path: &'static str,
    /// Whether the path is a link to it.
    linked: bool,
}

/// Returns somebody a file can be given to: whoever is not root has only himself.
fn somebody() -> (u32, u32) {
    let dir = tempdir().expect("a directory");
    let found = fs::metadata(dir.path()).expect("it is there");
    match found.uid() {
        0 => (1, 2),
        uid => (uid, found.gid()),
    }
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_string()
}

fn scenes() -> Vec<Scene> {
    let (old, new) = (long(1, 9_000), long(2, 15_000));
    let joined = format!("{old}{new}");
    let (uid, gid) = somebody();
    let base = |what, method| Scene {
        what,
        method,
        before: Some((old.clone(), 0o640)),
        body: json!({ "content": new }),
        after: (new.clone(), 0o640),
        owner: None,
        path: "file",
        linked: false,
    };
    vec![
        base("a file is replaced", "filewrite"),
        Scene {
            before: None,
            body: json!({ "content": new, "parents": true, "if_match": "absent" }),
            after: (new.clone(), 0o644),
            path: "one/two/file",
            ..base("a file and its directories are made", "filewrite")
        },
        Scene {
            body: json!({ "content": new, "mode": "0600", "owner": format!("{uid}:{gid}") }),
            after: (new.clone(), 0o600),
            owner: Some((uid, gid)),
            ..base(
                "a file gets other permissions and another owner",
                "filewrite",
            )
        },
        Scene {
            linked: true,
            body: json!({ "content": new, "if_match": digest(&old) }),
            ..base("a file is replaced behind a link", "filewrite")
        },
        Scene {
            after: (joined.clone(), 0o640),
            ..base("a file is appended to", "fileappend")
        },
        Scene {
            body: json!({ "content": new, "if_match": digest(&old) }),
            after: (joined, 0o640),
            ..base("a file is appended to if it is as it was", "fileappend")
        },
        Scene {
            before: None,
            after: (new.clone(), 0o644),
            ..base("a file is begun by an append", "fileappend")
        },
    ]
}

/// A scene on a disk of its own.
struct Stage<'a> {
    scene: &'a Scene,
    dir: tempfile::TempDir,
    before: Option<Look>,
    after: Look,
}

impl<'a> Stage<'a> {
    fn new(scene: &'a Scene) -> Self {
        let dir = tempdir().expect("a directory");
        let mut stage = Self {
            scene,
            dir,
            before: None,
            after: Look {
                content: scene.after.0.clone(),
                mode: scene.after.1,
                owner: (0, 0),
            },
        };
        fs::create_dir(stage.home()).expect("a directory");
        let own = fs::metadata(stage.home()).expect("it is there");
        stage.after.owner = scene.owner.unwrap_or((own.uid(), own.gid()));
        if let Some((content, mode)) = &scene.before {
            fs::write(stage.file(), content).expect("written");
            let mode = fs::Permissions::from_mode(*mode);
            fs::set_permissions(stage.file(), mode).expect("its mode");
        }
        if scene.linked {
            symlink(stage.file(), stage.dir.path().join("link")).expect("linked");
        }
        stage.before = look(&stage.file());
        stage
    }

    /// Returns the directory that is watched.
    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Returns the file that is written.
    fn file(&self) -> PathBuf {
        self.home().join(self.scene.path)
    }

    fn body(&self) -> Value {
        let path = match self.scene.linked {
            true => self.dir.path().join("link"),
            false => self.file(),
        };
        with(json!({ "path": path }), &self.scene.body)
    }

    /// Returns the names of what else is where the file is.
    fn beside(&self) -> Vec<String> {
        let directory = self.file().parent().expect("it is in one").to_owned();
        if !directory.exists() {
            return Vec::new();
        }
        let mut names = names(&directory);
        names.retain(|name| name != "file");
        names
    }

    /// Runs the method under watch, to its end.
    fn watched(&self, at: usize, harm: Harm) -> Traced {
        let body = self.dir.path().join("body");
        fs::write(&body, self.body().to_string()).expect("written");
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" work \"$1\" < \"$2\""])
            .arg(env!("CARGO_BIN_EXE_steward-agent"))
            .arg(self.scene.method)
            .arg(&body);
        let folder = self.home();
        let traced = Traced::start(&command, Aim { folder, at, harm });
        let deadline = Instant::now() + DEADLINE;
        while !traced.has_ended() {
            assert!(Instant::now() < deadline, "in vain awaited: its end");
            thread::sleep(Duration::from_millis(1));
        }
        traced
    }
}

/// Harms one step. Returns whether there was one.
fn harmed(scene: &Scene, at: usize, (word, harm): (&str, Harm)) -> bool {
    let stage = Stage::new(scene);
    let traced = stage.watched(at, harm);
    if !traced.was_hit() {
        assert_eq!(traced.code(), Some(0), "{}: {}", scene.what, traced.log());
        return false;
    }
    let step = &traced.steps()[at - 1];
    let at_step = format!("{}, {word} at step {at}: {step}", scene.what);
    let now = look(&stage.file());
    let is_new = now.as_ref() == Some(&stage.after);
    assert!(is_new || now == stage.before, "{at_step}: it is {now:?}");
    let beside = stage.beside();
    let is_temporary = |name: &String| name.starts_with(".steward-");
    assert!(beside.len() <= 1, "{at_step}: {beside:?}");
    assert!(beside.iter().all(is_temporary), "{at_step}: {beside:?}");
    match harm {
        Harm::Kill | Harm::Tear => assert_eq!(traced.code(), None, "{at_step}"),
        Harm::Fail(_) | Harm::FailOn(_) => {
            // What was answered is what is true.
            let log = last_words(&traced);
            assert_eq!(traced.code(), Some(1), "{at_step}: {log}");
            assert!(log.contains("failed to"), "{at_step}: {log}");
            assert_eq!(log.contains("is in place"), is_new, "{at_step}: {log}");
            assert_eq!(beside, Vec::<String>::new(), "{at_step}");
        }
    }
    tried_again(&stage, is_new, &at_step);
    true
}

/// Returns what a program said before it ended; that may be read a moment later.
fn last_words(traced: &Traced) -> String {
    let deadline = Instant::now() + DEADLINE;
    while traced.log().is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    traced.log()
}

/// Runs the method once more, whole, as an operator would.
fn tried_again(stage: &Stage<'_>, was_done: bool, at_step: &str) {
    let again = done(stage.scene.method, &stage.body());
    let now = look(&stage.file()).expect("it is there");
    let is_conditional = stage.scene.body.get("if_match").is_some();
    let code = if was_done && is_conditional { 1 } else { 0 };
    assert_eq!(again.code, Some(code), "{at_step}: {}", again.stderr);
    let mut expected = stage.after.clone();
    if was_done && !is_conditional && stage.scene.method == "fileappend" {
        // Nobody said that it was to be there once only.
        let content = stage.scene.body["content"].as_str().expect("a text");
        expected.content.push_str(content);
    }
    assert!(now == expected, "{at_step}, then run again: it is {now:?}");
    let beside = stage.beside();
    assert_eq!(beside, Vec::<String>::new(), "{at_step}, then run again");
}

#[test]
fn crash_points_of_written_files_at_every_step() {
    let mut points = 0;
    for scene in scenes() {
        for harm in HARMS {
            let before = points;
            let mut at = 1;
            while harmed(&scene, at, harm) {
                at += 1;
                points += 1;
            }
            assert!(points > before, "{}: no durable step was seen", scene.what);
        }
    }
    let line = format!("filewrite and fileappend: {points} steps harmed, one a run\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
}

/// A power cut takes what was not made durable: nothing may be renamed before that, nor said before
/// the rename is.
#[test]
fn crash_points_of_written_files_are_durable_in_their_order() {
    for scene in scenes() {
        let stage = Stage::new(&scene);
        let steps = stage.watched(NEVER, Harm::Kill).steps();
        let what = |step: &Step| (step.call, step.path.clone());
        let file = stage.file();
        let directory = file.parent().expect("it is in one").to_owned();
        let renames: Vec<usize> = (0..steps.len())
            .filter(|index| steps[*index].call == "rename")
            .collect();
        let &[rename] = renames.as_slice() else {
            panic!("{}: {steps:?}", scene.what);
        };
        assert_eq!(what(&steps[rename]), ("rename", file.clone()));
        let last = &steps[rename - 1];
        assert_eq!(last.call, "sync", "{}: {steps:?}", scene.what);
        assert_eq!(last.path.parent(), Some(&*directory), "{}", scene.what);
        assert!(steps[..rename].iter().all(|step| step.path != file));
        let rest: Vec<_> = steps[rename + 1..].iter().map(what).collect();
        assert_eq!(rest, [("sync", directory)], "{}", scene.what);
        for (index, made) in steps.iter().enumerate() {
            if made.call == "mkdir" {
                let above = made.path.parent().expect("not the root").to_owned();
                let next = what(&steps[index + 1]);
                assert_eq!(next, ("sync", above), "{}: {steps:?}", scene.what);
            }
        }
    }
}

/// What a killed run left goes with the next run for the path, also when that has nothing to do.
#[test]
fn what_a_killed_run_left_goes_with_a_run_that_changes_nothing() {
    let scenes = scenes();
    let stage = Stage::new(&scenes[0]);
    // It has begun to write by then.
    let traced = stage.watched(3, Harm::Kill);
    assert!(traced.was_hit());
    assert_eq!(stage.beside().len(), 1, "{:?}", traced.steps());
    let old = stage.before.clone().expect("it was there").content;
    let same = done(
        "filewrite",
        &json!({ "path": stage.file(), "content": old }),
    );
    assert_eq!(same.json()["result"], "unchanged");
    assert_eq!(stage.beside(), Vec::<String>::new());
}
