//! Makes portions of messages: finds the severity and the program, and counts what framing had to say. It reads no
//! sockets.

use std::sync::Arc;

use steward_protocol::syslog::{self, Form, Message, framing::Frames};

use crate::syslog::{
    board::{Tally, add},
    feed::now,
    spool::{Piece, Portion},
};

/// The severity of what has none: notice.
const NOTICE: u8 = 5;

/// Adds one message to a portion; `original` is its length as it came.
pub(super) fn add_message(portion: &mut Portion, raw: &[u8], original: usize) {
    let at = portion.arena.len();
    portion.arena.extend_from_slice(raw);
    let piece = piece(&portion.arena, at, raw.len(), original);
    portion.messages.push(piece);
}

/// Makes a portion of what a framer gave, and leaves the frames empty.
pub(super) fn portion(frames: &mut Frames, source: &Arc<str>, tally: &Tally) -> Portion {
    let mut portion = Portion::new(Arc::clone(source), now());
    portion.arena = std::mem::take(&mut frames.arena);
    portion.messages.reserve_exact(frames.list.len());
    let (mut out_of_step, mut unfinished) = (0, 0);
    for frame in &frames.list {
        let range = frame.range();
        let original = frame
            .cut_from()
            .map_or(range.len(), |length| length as usize);
        out_of_step += u64::from(frame.is_out_of_step());
        unfinished += u64::from(frame.is_unfinished());
        let piece = piece(&portion.arena, range.start, range.len(), original);
        portion.messages.push(piece);
    }
    frames.list.clear();
    if out_of_step > 0 {
        add(&tally.out_of_step, out_of_step);
    }
    if unfinished > 0 {
        add(&tally.unfinished, unfinished);
    }
    portion
}

/// Looks at a message in the arena. Nothing of it is copied, and its time is not read.
fn piece(arena: &[u8], at: usize, length: usize, original: usize) -> Piece {
    let raw = &arena[at..at + length];
    let (app, severity, unparsed) = match syslog::pri(raw) {
        Some((_, severity)) => (syslog::app(raw), severity.number(), false),
        None => {
            let message = Message::parse(raw);
            (message.app(), NOTICE, message.form() == Form::Unparsed)
        }
    };
    let (app_at, app_length) = match app {
        // It is a slice of the arena.
        Some(app) => match u8::try_from(app.len()) {
            Ok(length) => (app.as_ptr().addr() - arena.as_ptr().addr(), length),
            Err(_) => (0, 0),
        },
        None => (0, 0),
    };
    Piece {
        at: fit(at),
        length: fit(length),
        original: fit(original),
        app_at: fit(app_at),
        app_length,
        severity,
        unparsed,
    }
}

/// Portions are far below 4 GiB; a length beyond it is only told.
fn fit(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use steward_protocol::syslog::framing::{Framer, Limits};

    use super::*;

    #[test]
    fn a_portion_knows_severity_program_and_length_of_each_message() {
        let mut framer = Framer::new(Limits {
            keep: 40,
            ..Limits::default()
        });
        let mut frames = Frames::default();
        let long = format!("<12>long: {}", "x".repeat(50));
        let text = format!(
            "<11>1 2026-11-21T10:00:00Z h app - - - hi\n{long}\nno header at all\n<165>Oct 11 22:14:15 h sshd[7]: in"
        );
        framer.push(text.as_bytes(), &mut frames);
        framer.finish(&mut frames);
        let tally = Tally::default();
        let portion = portion(&mut frames, &"x".into(), &tally);
        let seen: Vec<_> = portion
            .messages
            .iter()
            .map(|piece| {
                let app = &portion.arena[piece.app_at as usize..][..usize::from(piece.app_length)];
                let app = String::from_utf8_lossy(app).into_owned();
                (
                    piece.severity,
                    app,
                    piece.original - piece.length,
                    piece.unparsed,
                )
            })
            .collect();
        let app = |name: &str| name.to_owned();
        assert_eq!(
            seen,
            [
                (3, app("app"), 1, false),
                (4, app("long"), 20, false),
                (5, app(""), 0, true),
                (5, app("sshd"), 0, false)
            ]
        );
        assert_eq!(tally.view().unfinished, 1);
        assert!(frames.list.is_empty() && frames.arena.is_empty());
    }
}
