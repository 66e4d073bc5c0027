//! Structured data (RFC 5424 §6.3): its extent, and what is in it.
//!
//! It was checked once where the message was read; what iterates here cannot fail and copies nothing until a value
//! with an escape is asked for.
//!
//! Where senders differ from the RFC, what can be told apart is taken: more than one space between parameters, an
//! unescaped `]` within a value, names of any length and of any bytes but `=`, `]`, `"`, space and control
//! characters. A backslash before another character than `"`, `\` and `]` stands for itself (§6.3.3).

use std::borrow::Cow;

use super::scan::trim_spaces;

/// Finds the end of the elements at the beginning of `bytes`; none when there is no well-formed one or an ill-formed
/// one among them.
pub(super) fn extent(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    while rest.first() == Some(&b'[') {
        rest = element_end(&rest[1..])?;
    }
    (rest.len() < bytes.len()).then_some(bytes.len() - rest.len())
}

/// Reads an element behind its `[` and returns what follows its `]`.
fn element_end(bytes: &[u8]) -> Option<&[u8]> {
    let (_, mut rest) = name(bytes)?;
    loop {
        if let Some(behind) = rest.strip_prefix(b"]") {
            return Some(behind);
        }
        let parameter = trim_spaces(rest.strip_prefix(b" ")?);
        if let Some(behind) = parameter.strip_prefix(b"]") {
            return Some(behind);
        }
        let (_, behind) = name(parameter)?;
        let (_, behind) = value(behind.strip_prefix(b"=\"")?)?;
        rest = behind;
    }
}

fn name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let ends = |byte: &u8| matches!(byte, b'=' | b']' | b'"' | 0..=b' ' | 0x7f);
    let length = bytes.iter().position(ends)?;
    (length > 0).then(|| bytes.split_at(length))
}

/// Reads a value behind its quotation mark and returns it, escapes and all, and what follows the closing one.
fn value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', &bytes[from..])?;
        if bytes[at] == b'"' {
            return Some((&bytes[..at], &bytes[at + 1..]));
        }
        // What is escaped is passed over, but only what can be: in `\n"` the value ends.
        let escaped = matches!(bytes.get(at + 1), Some(b'"' | b'\\' | b']'));
        from = at + 1 + usize::from(escaped);
    }
}

/// The elements of a message's structured data, in their order; ids may repeat.
#[derive(Debug, Clone, Default)]
pub struct Elements<'a> {
    /// Well-formed elements, or nothing.
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let inner = self.rest.strip_prefix(b"[")?;
        let behind = element_end(inner)?;
        let (id, parameters) = name(inner)?;
        self.rest = behind;
        Some(Element {
            id,
            parameters: &parameters[..parameters.len() - behind.len()],
        })
    }
}

/// One element of structured data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    id: &'a [u8],
    /// Behind the id, the closing bracket included.
    parameters: &'a [u8],
}

impl<'a> Element<'a> {
    /// Returns its id, such as `timeQuality` or `meta@32473`.
    pub fn id(&self) -> &'a [u8] {
        self.id
    }

    /// Returns its parameters in their order; names may repeat.
    pub fn parameters(&self) -> Parameters<'a> {
        Parameters {
            rest: self.parameters,
        }
    }
}

/// The parameters of an element.
#[derive(Debug, Clone)]
pub struct Parameters<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Parameter<'a>;

    fn next(&mut self) -> Option<Parameter<'a>> {
        let (name, behind) = name(trim_spaces(self.rest))?;
        let (value, behind) = value(behind.strip_prefix(b"=\"")?)?;
        self.rest = behind;
        Some(Parameter { name, value })
    }
}

/// One parameter of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

impl<'a> Parameter<'a> {
    /// Returns its name.
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Returns its value as it was written, with escapes.
    pub fn raw_value(&self) -> &'a [u8] {
        self.value
    }

    /// Returns its value; copied only where it has an escape.
    pub fn value(&self) -> Cow<'a, [u8]> {
        let Some(first) = memchr::memchr(b'\\', self.value) else {
            return Cow::Borrowed(self.value);
        };
        let (plain, mut rest) = self.value.split_at(first);
        let mut value = plain.to_vec();
        while let Some((byte, behind)) = rest.split_first() {
            let escaped = behind.first().filter(|_| *byte == b'\\');
            match escaped {
                Some(escaped @ (b'"' | b'\\' | b']')) => {
                    value.push(*escaped);
                    rest = &behind[1..];
                }
                _ => {
                    value.push(*byte);
                    rest = behind;
                }
            }
        }
        Cow::Owned(value)
    }
}
