//! `steward msg …`: messages and what became of them.

use anyhow::Result;
use clap::Subcommand;

use super::{Exit, Session};

mod cancel;
pub(super) mod deliveries;
mod ls;
mod output;
mod retry;
mod show;
mod watch;
mod why;

/// What can be asked about messages.
#[derive(Debug, Subcommand)]
pub(super) enum MsgVerb {
    /// List messages, newest first
    Ls(ls::LsArgs),
    /// Show one message and everything known of it
    Show(show::ShowArgs),
    /// Wait until messages are settled, and show how far they have come
    Watch(watch::WatchArgs),
    /// Write what a command printed on a node, byte for byte
    Output(output::OutputArgs),
    /// Call a message off: what was not sent never is, what runs is stopped
    #[command(after_help = cancel::EXIT_CODES)]
    Cancel(cancel::CancelArgs),
    /// Repeat a message, as a new one, where it did not succeed
    #[command(after_help = super::EXIT_CODES)]
    Retry(retry::RetryArgs),
    /// Explain why a message stands as it does on one node
    Why(why::WhyArgs),
}

pub(super) async fn msg(session: &Session, verb: MsgVerb) -> Result<Exit> {
    match verb {
        MsgVerb::Ls(args) => ls::ls(session, &args).await,
        MsgVerb::Show(args) => show::show(session, &args).await,
        MsgVerb::Watch(args) => watch::watch(session, &args).await,
        MsgVerb::Output(args) => output::output(session, &args).await,
        MsgVerb::Cancel(args) => cancel::cancel(session, &args).await,
        MsgVerb::Retry(args) => retry::retry(session, &args).await,
        MsgVerb::Why(args) => why::why(session, &args).await,
    }
}

/// Where the hyphens of an id stand, in characters of the id without them.
const HYPHENS: [usize; 4] = [8, 12, 16, 20];

/// Reads the beginning of an id, with or without its hyphens, as the station writes it.
fn id(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(
            "write the id, or its first characters; `steward msg ls` lists them".to_owned(),
        );
    }
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_owned());
    }
    let mut written = String::with_capacity(text.len() + HYPHENS.len());
    for (position, character) in text.chars().enumerate() {
        if HYPHENS.contains(&position) {
            written.push('-');
        }
        written.push(character);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_with_and_without_its_hyphens() {
        for (text, expected) in [
            ("0190f000", "0190f000"),
            ("0190f0000", "0190f000-0"),
            ("0190f000-0", "0190f000-0"),
            (" 0190F000 ", "0190F000"),
            (
                "0190f000000070008000000000000001",
                "0190f000-0000-7000-8000-000000000001",
            ),
            ("what", "what"),
        ] {
            assert_eq!(id(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(id(" ").is_err());
    }
}
