//! Reads which hierarchies of control groups there are, and where in them this process is.
//!
//! Changes nothing. Both kernel files are read as text, so that any system's can be tried.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Which generation of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Version {
    /// One hierarchy per controller.
    One,
    /// One for all.
    Two,
}

/// One hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// Where this process is in it.
    pub(super) own: PathBuf,
    controllers: Vec<String>,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// Reads this system's hierarchies.
pub(super) fn read() -> Vec<Hierarchy> {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let offered = |own: &Path| {
        let offered = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
        offered.split_whitespace().map(str::to_owned).collect()
    };
    parse(
        &text("/proc/self/mountinfo"),
        &text("/proc/self/cgroup"),
        offered,
    )
}

/// Takes the two files apart; `offered` says what a place in the unified hierarchy offers.
fn parse(mounts: &str, places: &str, offered: impl Fn(&Path) -> Vec<String>) -> Vec<Hierarchy> {
    let mounted = mounts.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let fields: Vec<&str> = place.split(' ').collect();
        let kind: Vec<&str> = kind.split(' ').collect();
        Some((
            *fields.get(3)?,
            *fields.get(4)?,
            *kind.first()?,
            *kind.get(2)?,
        ))
    });
    mounted
        .filter_map(|(root, mount, kind, options)| {
            let (version, place) = match kind {
                "cgroup2" => (Version::Two, place(places, |names| names.is_empty())?),
                "cgroup" => {
                    let of = |names: &str| {
                        names
                            .split(',')
                            .all(|name| options.split(',').any(|option| option == name))
                    };
                    (
                        Version::One,
                        place(places, |names| !names.is_empty() && of(names))?,
                    )
                }
                _ => return None,
            };
            // In a container the mount may show only a part of the hierarchy.
            let below = Path::new(place).strip_prefix(root).ok()?;
            let mount = PathBuf::from(mount);
            let own = mount.join(below);
            let controllers = match version {
                Version::One => options.split(',').map(str::to_owned).collect(),
                Version::Two => offered(&own),
            };
            Some(Hierarchy {
                version,
                mount,
                own,
                controllers,
            })
        })
        .collect()
}

/// Returns where this process is in the hierarchy whose controllers are meant.
fn place(places: &str, is_meant: impl Fn(&str) -> bool) -> Option<&str> {
    places.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, place) = rest.split_once(':')?;
        is_meant(names).then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mounts: &str, places: &str, expected: &[(&str, Version, &str)]) {
        let offered = |_: &Path| vec!["cpu".to_owned(), "memory".to_owned(), "pids".to_owned()];
        let found = parse(mounts, places, offered);
        let found: Vec<(&str, Version, &str)> = ["memory", "cpu", "pids"]
            .into_iter()
            .filter_map(|name| {
                let hierarchy = found.iter().find(|hierarchy| hierarchy.has(name))?;
                Some((name, hierarchy.version, hierarchy.own.to_str()?))
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_unified_hierarchy_holds_every_limit() {
        check(
            "23 22 0:5 / /proc rw - proc proc rw\n\
             30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/system.slice/steward-agent.service\n",
            &[
                (
                    "memory",
                    Version::Two,
                    "/sys/fs/cgroup/system.slice/steward-agent.service",
                ),
                (
                    "cpu",
                    Version::Two,
                    "/sys/fs/cgroup/system.slice/steward-agent.service",
                ),
                (
                    "pids",
                    Version::Two,
                    "/sys/fs/cgroup/system.slice/steward-agent.service",
                ),
            ],
        );
    }

    #[test]
    fn older_hierarchies_hold_one_limit_each_and_may_be_seen_in_part() {
        check(
            "32 31 0:29 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 /docker/abc /cg/memory rw - cgroup cgroup rw,memory\n\
             40 31 0:37 / /cg/systemd rw - cgroup cgroup rw,name=systemd\n",
            "6:name=systemd:/x\n4:memory:/docker/abc/in\n2:cpu,cpuacct:/\n0::/\n",
            &[
                ("memory", Version::One, "/cg/memory/in"),
                ("cpu", Version::One, "/cg/cpu,cpuacct/"),
            ],
        );
    }

    #[test]
    fn where_there_is_nothing_nothing_is_found() {
        check("", "", &[]);
        check("nonsense\n1 2 3 - cgroup\n", "x\n0:\n", &[]);
    }
}
