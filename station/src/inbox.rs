//! The inbox.

mod canonical;
mod fields;
mod findings;
mod intake;
mod locate;
mod report;
mod shapes;
mod tree;
mod values;

pub use self::{
    canonical::{canonical, content_digest},
    fields::schema,
    findings::MAX_PROBLEMS,
    intake::{Format, MAX_FILE, MAX_MESSAGES, Unreadable, read},
    report::{printable, render},
    shapes::MAX_BODY,
    tree::MAX_DEPTH,
    values::{MAX_ARGUMENT, MAX_DIRECTORY, MAX_LABEL, MAX_NAME},
};
