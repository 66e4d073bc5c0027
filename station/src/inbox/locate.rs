//! Finds the line and column of a value in JSON text that is known to be valid.
//!
//! The parser drops places, because nearly every file is right and needs none; only a file that is
//! refused is walked again. This module does not judge: on text that is not JSON it finds nothing.

use super::tree::{Node, Place, Value};

/// Whether the name or the value of an entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Value,
}

/// The way to a value: at each level the number of the item, or of the key, from 0.
pub(super) type Path = Vec<usize>;

/// Returns the JSON pointer (RFC 6901) of `path` in `tree`.
pub(super) fn pointer(tree: &Node, path: &[usize]) -> String {
    let mut node = tree;
    let mut pointer = String::new();
    for &step in path {
        let (name, next) = match &node.value {
            Value::List(items) => (step.to_string(), items.get(step)),
            Value::Object(entries) => match entries.get(step) {
                Some(entry) => (
                    entry.key.replace('~', "~0").replace('/', "~1"),
                    Some(&entry.node),
                ),
                None => return pointer,
            },
            _ => return pointer,
        };
        pointer.push('/');
        pointer.push_str(&name);
        match next {
            Some(next) => node = next,
            None => return pointer,
        }
    }
    pointer
}

/// Returns the path of the value that `pointer` names, or of the deepest one on the way to it.
pub(super) fn resolve(tree: &Node, pointer: &str) -> Path {
    let mut node = tree;
    let mut path = Path::new();
    for name in pointer.split('/').skip(1) {
        let (step, next) = match &node.value {
            Value::List(items) => {
                let step = name.parse().ok();
                (step, step.and_then(|step: usize| items.get(step)))
            }
            Value::Object(entries) => {
                let name = name.replace("~1", "/").replace("~0", "~");
                let step = entries.iter().position(|entry| entry.key == name);
                (step, step.map(|step| &entries[step].node))
            }
            _ => return path,
        };
        let (Some(step), Some(next)) = (step, next) else {
            return path;
        };
        path.push(step);
        node = next;
    }
    path
}

/// Returns the place the YAML parser noted for `path`.
pub(super) fn noted(tree: &Node, path: &[usize], part: Part) -> Option<Place> {
    let mut node = tree;
    let mut place = tree.place;
    for &step in path {
        let key = match &node.value {
            Value::List(items) => {
                node = items.get(step)?;
                None
            }
            Value::Object(entries) => {
                let entry = entries.get(step)?;
                node = &entry.node;
                entry.place
            }
            _ => return None,
        };
        place = match part {
            Part::Key => key.or(node.place),
            Part::Value => node.place,
        };
    }
    place
}

/// Returns the place of `path` in the JSON text `text`.
pub(super) fn locate(text: &str, path: &[usize], part: Part) -> Option<Place> {
    let mut walker = Walker {
        bytes: text.as_bytes(),
        at: 0,
    };
    walker.skip_blank();
    let mut key = None;
    for &step in path {
        key = walker.enter(step)?;
    }
    let offset = match part {
        Part::Key => key.unwrap_or(walker.at),
        Part::Value => walker.at,
    };
    Some(place_of(text, offset))
}

/// Returns the line and column of a byte offset.
pub(super) fn place_of(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place {
        line: before.matches('\n').count() as u64 + 1,
        column: before[line_start..].chars().count() as u64 + 1,
    }
}

struct Walker<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl Walker<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_blank(&mut self) {
        while matches!(
            self.peek(),
            Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b':')
        ) {
            self.at += 1;
        }
    }

    /// Moves from the start of an array or object to its `step`th value; returns where the key began.
    fn enter(&mut self, step: usize) -> Option<Option<usize>> {
        let keyed = match self.peek()? {
            b'{' => true,
            b'[' => false,
            _ => return None,
        };
        self.at += 1;
        for index in 0..=step {
            self.skip_blank();
            let key = keyed.then_some(self.at);
            if keyed {
                self.skip_value()?;
                self.skip_blank();
            }
            if matches!(self.peek()?, b']' | b'}') {
                return None;
            }
            if index == step {
                return Some(key);
            }
            self.skip_value()?;
        }
        None
    }

    fn skip_value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_string(),
            b'[' | b'{' => self.skip_container(),
            _ => {
                while let Some(byte) = self.peek()
                    && !matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r')
                {
                    self.at += 1;
                }
                Some(())
            }
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                _ => self.at += 1,
            }
        }
    }

    fn skip_container(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.skip_string()?;
                    continue;
                }
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::{super::tree::parse_json, *};

    #[test]
    fn a_value_and_its_key_are_found_by_path() {
        let text = "[\n  {\"a\": [1, \"x\\\"]\", {}],\n   \"æ\" : {\"~/\": true}}\n, 7]";
        for (path, part, pointer_text, line, column) in [
            (vec![], Part::Value, "", 1, 1),
            (vec![0], Part::Value, "/0", 2, 3),
            (vec![0, 0], Part::Key, "/0/a", 2, 4),
            (vec![0, 0], Part::Value, "/0/a", 2, 9),
            (vec![0, 0, 1], Part::Value, "/0/a/1", 2, 13),
            (vec![0, 0, 2], Part::Value, "/0/a/2", 2, 21),
            (vec![0, 1], Part::Key, "/0/æ", 3, 4),
            (vec![0, 1, 0], Part::Key, "/0/æ/~0~1", 3, 11),
            (vec![0, 1, 0], Part::Value, "/0/æ/~0~1", 3, 17),
            (vec![1], Part::Value, "/1", 4, 3),
        ] {
            assert_eq!(
                locate(text, &path, part),
                Some(Place { line, column }),
                "{path:?} {part:?}"
            );
            let tree = parse_json(text).unwrap();
            assert_eq!(pointer(&tree, &path), pointer_text);
            assert_eq!(resolve(&tree, pointer_text), path);
            assert_eq!(resolve(&tree, &format!("{pointer_text}/nowhere")), path);
        }
    }

    #[test]
    fn a_path_that_is_not_there_is_not_found() {
        assert_eq!(locate("[1]", &[1], Part::Value), None);
        assert_eq!(locate("{}", &[0], Part::Key), None);
        assert_eq!(locate("7", &[0], Part::Value), None);
    }
}
