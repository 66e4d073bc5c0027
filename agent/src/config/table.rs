//! Reads one table of the file: every key by its name, what is wrong with its place, and what is no key at all with the
//! one that was probably meant. It knows no meanings.

use std::collections::BTreeSet;

use steward_protocol::nearest::nearest;

use super::layers::{Found, Layers, Value, flat};

/// One table.
pub(super) struct Table<'l, 'a> {
    layers: &'l mut Layers<'a>,
    /// How it is called in the file.
    place: String,
    rows: toml::Table,
    known: BTreeSet<&'static str>,
    fine: bool,
}

impl<'l, 'a> Table<'l, 'a> {
    pub(super) fn new(layers: &'l mut Layers<'a>, place: String, rows: toml::Table) -> Self {
        Self {
            layers,
            place,
            rows,
            known: BTreeSet::new(),
            fine: true,
        }
    }

    /// Reads a key; one that is absent or wrong gives nothing.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Found<T>,
    ) -> Option<T> {
        self.known.insert(name);
        let value = self.rows.remove(name)?;
        match flat(value).and_then(|value| read(&value)) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.problem(name, problem);
                None
            }
        }
    }

    /// Reads a key with a default.
    pub(super) fn or<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Found<T>,
        default: T,
    ) -> T {
        self.optional(name, read).unwrap_or(default)
    }

    /// Reads a key that must be there.
    pub(super) fn needed<T>(
        &mut self,
        name: &'static str,
        hint: &str,
        read: impl FnOnce(&Value) -> Found<T>,
    ) -> Option<T> {
        if !self.rows.contains_key(name) {
            self.known.insert(name);
            self.problem(name, format!("is missing; write {name} = {hint}"));
            return None;
        }
        self.optional(name, read)
    }

    /// Takes a table in this one.
    pub(super) fn inner(&mut self, name: &'static str) -> Option<toml::Value> {
        self.known.insert(name);
        self.rows.remove(name)
    }

    /// Notes a problem with a key.
    pub(super) fn problem(&mut self, name: &str, problem: String) {
        self.fine = false;
        let place = format!("{}.{name}", self.place);
        self.layers.problem_in_file(&place, problem);
    }

    /// Says what is no key, and gives what was made of the table if nothing in it was wrong.
    pub(super) fn finish<T>(mut self, made: Option<T>) -> Option<T> {
        let known: Vec<&str> = self.known.iter().copied().collect();
        let listed = known.join(", ");
        for key in std::mem::take(&mut self.rows).keys() {
            let meant = match nearest(key, known.iter().copied()) {
                Some(meant) => format!("did you mean {meant}? Known are {listed}"),
                None => format!("known are {listed}"),
            };
            self.problem(key, format!("is not a key; {meant}"));
        }
        made.filter(|_| self.fine)
    }
}
