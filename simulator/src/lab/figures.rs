//! What was counted, and how it is told in a line.
//!
//! It does not know which names there are.

use std::{collections::BTreeMap, fmt::Write};

/// Counts by group and name, such as `faults` and `kill station`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    groups: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

impl Figures {
    pub(crate) fn add(&mut self, group: &'static str, name: &str, count: u64) {
        let names = self.groups.entry(group).or_default();
        *names.entry(name.to_owned()).or_default() += count;
    }

    pub(crate) fn get(&self, group: &str, name: &str) -> u64 {
        let found = self.groups.get(group).and_then(|names| names.get(name));
        found.copied().unwrap_or(0)
    }

    pub(crate) fn total(&self, group: &str) -> u64 {
        let names = self.groups.get(group);
        names.map_or(0, |names| names.values().sum())
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (group, names) in &other.groups {
            for (name, count) in names {
                self.add(group, name, *count);
            }
        }
    }

    /// Returns one line per group.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |(group, names): (&&str, &BTreeMap<String, u64>)| {
            let mut line = format!("  {group}:");
            for (name, count) in names {
                write!(line, " {name} {count},").expect("writing to a String cannot fail");
            }
            line.pop();
            line
        };
        self.groups.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_are_told_by_group() {
        let mut one = Figures::default();
        one.add("faults", "kill station", 2);
        let mut two = one.clone();
        two.add("faults", "cut", 1);
        one.merge(&two);
        assert_eq!(one.get("faults", "kill station"), 4);
        assert_eq!(one.total("faults"), 5);
        assert_eq!(one.lines(), ["  faults: cut 1, kill station 4"]);
    }
}
