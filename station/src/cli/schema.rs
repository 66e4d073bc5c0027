//! `steward schema`: the JSON Schema of message files, for editors.

use anyhow::Result;

use super::{Exit, render::emit};

pub(super) fn schema() -> Result<Exit> {
    let schema = serde_json::to_string_pretty(&crate::inbox::schema())?;
    emit(&format!("{schema}\n"))?;
    Ok(Exit::Success)
}
