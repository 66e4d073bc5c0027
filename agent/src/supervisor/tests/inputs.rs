//! An input of logs that panics: its process begins anew with all inputs, and there is a fault.

use std::{sync::Mutex, time::Instant};

use tokio::task::JoinSet;

use super::*;
use crate::syslog::input_ended;

/// Starts in which an input panics.
const PANICS: u32 = 2;

/// What two inputs did, over all starts of their process.
#[derive(Default)]
struct Seen {
    starts: AtomicU32,
    /// Messages the sound input has taken, with the start it was in.
    taken: Mutex<Vec<(u32, u32)>>,
}

/// Runs two inputs as the process of logs does, one of which panics in the first starts.
async fn process(seen: Arc<Seen>, mut stop: watch::Receiver<Stop>) -> Quit {
    let start = seen.starts.fetch_add(1, Ordering::SeqCst);
    let mut inputs = JoinSet::new();
    let sound = Arc::clone(&seen);
    inputs.spawn(async move {
        for message in 0.. {
            sound.taken.lock().expect("no panic").push((start, message));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    inputs.spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(start >= PANICS, "the input broke");
    });
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop != Stop::No) => return Quit::Stopping,
            Some(ended) = inputs.join_next() => input_ended(ended),
        }
    }
}

#[tokio::test]
async fn an_input_that_panics_is_a_fault_and_all_inputs_begin_anew() {
    let (_calls, inbox) = mpsc::channel(CALLS);
    let (reports, mut reported) = mpsc::channel(64);
    let (stop, stopping) = watch::channel(Stop::No);
    let seen = Arc::new(Seen::default());
    let (births, stops) = (Arc::clone(&seen), stopping.clone());
    let birth: Birth = Box::new(move |_, born: Born| {
        let (seen, mut stop) = (Arc::clone(&births), stops.clone());
        Box::pin(async move {
            if born.subject.to_string() == BAD {
                return Ok(process(seen, stop).await);
            }
            stop.wait_for(|stop| *stop != Stop::No).await.ok();
            Ok(Quit::Stopping)
        })
    });
    let listed = watch::Sender::new(Vec::new());
    let setup = Setup {
        config: config(
            "subjects = [\"command.shellcommand.bad\"]\n[restart]\nintensity = 5\nwindow = \"1h\"\nbase = \"10ms\"\ncap = \"10ms\"\n",
        ),
        clock: Clock::open().expect("the clocks are there"),
        counters: Arc::new(Counters::default()),
        birth,
        reports,
        calls: inbox,
        stop: stopping,
        runtime: Handle::current(),
        listed,
        open: Vec::new(),
    };
    let supervision = tokio::spawn(supervise(setup));
    for _ in 0..PANICS {
        let fault = tokio::time::timeout(DEADLINE, reported.recv()).await;
        let fault = fault.expect("a fault in time").expect("a fault");
        assert_eq!(
            (fault.kind.as_str(), fault.detail.as_str()),
            ("panic", "the input broke")
        );
    }
    let deadline = Instant::now() + DEADLINE;
    let goes_on = || {
        let taken = seen.taken.lock().expect("no panic");
        // Those of the first starts ended with them.
        taken.iter().filter(|(start, _)| *start >= PANICS).count() > 50
    };
    while !goes_on() {
        assert!(
            Instant::now() < deadline,
            "waited in vain for the sound input"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send_replace(Stop::Drain);
    tokio::time::timeout(DEADLINE, supervision)
        .await
        .expect("an end in time")
        .expect("no panic");
    assert!(reported.try_recv().is_err(), "no further fault");
}
