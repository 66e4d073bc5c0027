//! A stream of arbitrary bytes, cut into messages: however its bytes are portioned, the same comes out, no more is held
//! than is kept, and no byte is there twice.

use steward_protocol::syslog::framing::{Ends, Framer, Frames, Limits};

pub(crate) fn run(input: &[u8]) {
    let [first, second, stream @ ..] = input else {
        return;
    };
    let limits = Limits {
        keep: 8 + usize::from(first >> 1),
        count: 1000,
        ends: if first & 1 == 0 { Ends::Any } else { Ends::Nul },
    };
    let whole = framed(limits, stream, usize::MAX);
    assert_eq!(whole, framed(limits, stream, 1));
    assert_eq!(whole, framed(limits, stream, usize::from(*second).max(1)));
    let kept: usize = whole.list.iter().map(|frame| frame.range().len()).sum();
    assert_eq!(kept, whole.arena.len());
    assert!(kept <= stream.len());
    let original: u64 = whole
        .list
        .iter()
        .map(|frame| {
            assert!(frame.range().len() <= limits.keep && !frame.range().is_empty());
            frame
                .cut_from()
                .map_or(frame.range().len() as u64, u64::from)
        })
        .sum();
    assert!(original <= stream.len() as u64);
}

fn framed(limits: Limits, stream: &[u8], size: usize) -> Frames {
    let (mut framer, mut frames) = (Framer::new(limits), Frames::default());
    for portion in stream.chunks(size) {
        framer.push(portion, &mut frames);
        assert!(framer.held() <= limits.keep);
    }
    framer.finish(&mut frames);
    frames
}
