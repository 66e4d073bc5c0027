//! A transfer to a disk that is full.

use super::*;

/// Tells whether this machine lets this user mount.
fn may_mount() -> bool {
    let tried = std::process::Command::new("unshare")
        .args(["-m", "true"])
        .stderr(std::process::Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// A small disk in memory; unmounted when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one.
    fn mount(place: PathBuf) -> Self {
        fs::create_dir_all(&place).expect("made");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(&place)
            .status();
        let mounted = mounted.is_ok_and(|status| status.success());
        assert!(mounted, "the small disk could not be mounted");
        Self(place)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status()
            .ok();
    }
}

#[test]
fn a_full_disk_holds_a_file_up_and_room_lets_it_go_on() {
    let world = World::new();
    let _station = world.station();
    let _agent = world.agent("ship1");
    world.await_online(&["ship1"]);
    if !may_mount() {
        let words = "SKIPPED: a full disk; no small one can be mounted here";
        writeln!(std::io::stderr(), "{words}").expect("stderr");
        return;
    }
    let disk = SmallDisk::mount(world.folder.path().join("disk"));
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![0; 2 << 20]).expect("room");
    let content = noise(3 << 20, 11);
    fs::write(world.state_dir().join("files/it"), &content).expect("written");
    let target = disk.0.join("it");
    let message = json!({ "to": ["ship1"], "method": "filesend", "source": "it", "path": target });
    submit(&world, "held", &message);
    let id = eventually("the message", || world.message_called("held"));
    let part = disk.0.join(format!(".steward-{id}.part"));
    await_size("the file", &part, 1 << 20);
    eventually("the word that it runs", || {
        let message = world.json(&["msg", "show", &id, "-o", "json"]);
        (state_of(&message, "ship1") == "running").then_some(())
    });
    fs::remove_file(&ballast).expect("removed");
    let settled = world.await_final("held");
    assert_eq!(state_of(&settled, "ship1"), "succeeded", "{settled}");
    assert!(fs::read(&target).expect("there") == content);
    // Without room until its time is over, it says why.
    fs::write(&ballast, vec![0; 1 << 19]).expect("room");
    let message = json!({ "to": ["ship1"], "method": "filesend", "source": "it",
        "path": disk.0.join("other"), "timeout": "3s" });
    submit(&world, "late", &message);
    let settled = world.await_final("late");
    assert_eq!(state_of(&settled, "ship1"), "timed_out", "{settled}");
    let reason = delivery_to(&settled, "ship1")["reason"]
        .as_str()
        .expect("a reason");
    assert!(reason.contains("No space left"), "{reason}");
    assert!(!disk.0.join("other").exists());
}
