//! The body of every method, read from arbitrary bytes: it is never a panic, and what was read is
//! written as something that is read as the same.

use steward_protocol::{Body, Method};

pub(crate) fn run(input: &[u8]) {
    let Some((first, text)) = input.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let method = Method::ORDERABLE[usize::from(*first) % Method::ORDERABLE.len()].name();
    match Body::read(&method, text) {
        Ok(body) => {
            let written = serde_json::to_string(&body).expect("what was read can be written");
            let again = Body::read(&method, &written);
            assert_eq!(again.as_ref(), Ok(&body), "{method}: {written}");
        }
        Err(error) => assert!(!error.field().is_empty() && !error.problem.is_empty()),
    }
}
