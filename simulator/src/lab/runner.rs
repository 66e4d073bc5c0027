//! Runs worlds side by side, tells what is found as it is found, and sums up.
//!
//! It does not know what is done to a world.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result};
use steward_station::signals::{Stop, Urgency};
use tempfile::TempDir;

use super::{
    dice::Dice,
    figures::Figures,
    judge::Violation,
    layout::{Layout, Programs},
    traffic::{Mix, Traffic},
    witness::Lie,
    world::{Keep, World},
};

/// What all suites share.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) programs: Programs,
    /// Where worlds are made.
    pub(crate) dir: PathBuf,
    pub(crate) dice: Dice,
    pub(crate) seed: u64,
    pub(crate) jobs: usize,
    /// How long a healed world may take to settle.
    pub(crate) patience: Duration,
    pub(crate) lie: Option<Lie>,
    pub(crate) stop: Stop,
}

impl Ground {
    /// Returns an empty directory for a world.
    pub(crate) fn new_dir(&self) -> Result<TempDir> {
        tempfile::Builder::new()
            .prefix("steward-lab-")
            .tempdir_in(&self.dir)
            .with_context(|| format!("make a directory in {}", self.dir.display()))
    }

    /// Returns the usual mix of traffic for a layout.
    pub(crate) fn mix(&self, layout: &Layout) -> Mix {
        Mix {
            witness: self.programs.lab.clone(),
            truth: layout.truth(),
            nodes: layout.nodes.clone(),
            per_file: 6,
            per_message: 2,
            stay: Duration::from_millis(60),
            unusual: 150,
            bad_files: 60,
            lie: self.lie,
        }
    }
}

/// What came of one world, or of many.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What ran, for the summary's first word.
    pub(crate) suite: &'static str,
    pub(crate) figures: Figures,
    pub(crate) violations: usize,
    /// Worlds that could not be run to their end.
    pub(crate) failures: usize,
    pub(crate) kept: Vec<PathBuf>,
    pub(crate) took: Duration,
}

impl Report {
    /// Prints the summary and returns the exit code.
    pub(crate) fn tell(&self, seed: u64) -> ExitCode {
        if self.suite.is_empty() {
            return ExitCode::SUCCESS;
        }
        let figures = &self.figures;
        say(&format!(
            "{}: {} rounds, {} messages, {} deliveries, {} faults, {} violations, {} failures, {:.1} s, seed {seed}",
            self.suite,
            figures.get("rounds", "run"),
            figures.get("sent", "messages"),
            figures.get("sent", "deliveries"),
            figures.total("faults"),
            self.violations,
            self.failures,
            self.took.as_secs_f64(),
        ));
        for line in figures.lines() {
            say(&line);
        }
        for path in &self.kept {
            say(&format!("  kept: {}", path.display()));
        }
        match (self.violations, self.failures) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(2),
            _ => ExitCode::from(1),
        }
    }
}

/// What a suite does in one world after everybody is online. It returns the violations found on the way;
/// everything is judged once more afterwards.
pub(crate) type Play<'a> = dyn Fn(&mut World, &mut Turn<'_>) -> Result<Vec<Violation>> + Sync + 'a;

/// What a suite gets beside the world.
pub(crate) struct Turn<'a> {
    pub(crate) dice: &'a mut Dice,
    /// The number of the world, from 0.
    pub(crate) number: usize,
    /// What was made around it.
    pub(crate) around: &'a mut dyn std::any::Any,
}

/// How the worlds of a suite are made.
pub(crate) struct Worlds<'a> {
    pub(crate) suite: &'static str,
    pub(crate) count: usize,
    /// Lays a world out and mixes its traffic. Returns what must live as long as the world, too.
    pub(crate) make: &'a (dyn Fn(&TempDir, &mut Dice, usize) -> Result<Made> + Sync),
    pub(crate) play: &'a Play<'a>,
}

/// What a world is made of.
pub(crate) struct Made {
    pub(crate) layout: Layout,
    pub(crate) mix: Mix,
    /// Network namespaces, proxies, file systems: dropped after the world's processes have ended.
    pub(crate) around: Box<dyn std::any::Any>,
}

/// Runs the worlds of a suite.
pub(crate) fn run(ground: &Ground, worlds: &Worlds<'_>) -> Result<Report> {
    side_by_side(ground, (worlds.suite, worlds.count), &|number| {
        one(ground, worlds, number)
    })
}

/// Runs `count` worlds of a suite, each by its number.
pub(crate) fn side_by_side(
    ground: &Ground,
    (suite, count): (&'static str, usize),
    one: &(dyn Fn(usize) -> Report + Sync),
) -> Result<Report> {
    let begin = Instant::now();
    let next = AtomicUsize::new(0);
    let whole = Mutex::new(Report {
        suite,
        ..Report::default()
    });
    thread::scope(|scope| {
        for _ in 0..ground.jobs.min(count) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count || ground.stop.urgency() != Urgency::GoOn {
                        return;
                    }
                    let part = one(number);
                    let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
                    add(&mut whole, part);
                    note(&format!(
                        "{suite}: world {} of {count} done, {} violations so far, {:.0} s",
                        number + 1,
                        whole.violations,
                        begin.elapsed().as_secs_f64()
                    ));
                }
            });
        }
    });
    let mut whole = whole.into_inner().unwrap_or_else(PoisonError::into_inner);
    whole.took = begin.elapsed();
    if ground.stop.urgency() != Urgency::GoOn {
        complain("steward-lab: ended early, as asked");
        whole.failures += 1;
    }
    Ok(whole)
}

fn add(whole: &mut Report, part: Report) {
    whole.figures.merge(&part.figures);
    whole.violations += part.violations;
    whole.failures += part.failures;
    whole.kept.extend(part.kept);
}

fn one(ground: &Ground, worlds: &Worlds<'_>, number: usize) -> Report {
    let mut report = Report::default();
    let mut dice = ground.dice.fork(number as u64);
    if let Err(error) = in_world(ground, worlds, number, &mut dice, &mut report)
        && ground.stop.urgency() == Urgency::GoOn
    {
        complain(&format!(
            "{}: world {number} failed to {error:#}",
            worlds.suite
        ));
        report.failures += 1;
    }
    report
}

fn in_world(
    ground: &Ground,
    worlds: &Worlds<'_>,
    number: usize,
    dice: &mut Dice,
    report: &mut Report,
) -> Result<()> {
    let dir = ground.new_dir()?;
    let made = (worlds.make)(&dir, dice, number)?;
    let traffic = Traffic::new(made.mix, dice.fork(1));
    let mut world = World::new(dir, made.layout, traffic, ground.stop.clone())?;
    let mut around = made.around;
    let turn = Turn {
        dice,
        number,
        around: around.as_mut(),
    };
    let played = play(worlds, &mut world, turn);
    world.end_all()?;
    report.figures = world.figures.clone();
    let failed: Option<Error> = match played {
        Ok(violations) => {
            for violation in &violations {
                say(&format!(
                    "{} world {number} seed {}: {violation}",
                    worlds.suite, ground.seed
                ));
            }
            report.violations += violations.len();
            None
        }
        Err(error) => Some(error),
    };
    let is_evidence =
        report.violations > 0 || (failed.is_some() && ground.stop.urgency() == Urgency::GoOn);
    let keep = match is_evidence {
        true => Keep::Evidence,
        false => Keep::Nothing,
    };
    report.kept.extend(world.remove(keep)?);
    drop(around);
    failed.map_or(Ok(()), Err)
}

fn play(worlds: &Worlds<'_>, world: &mut World, mut turn: Turn<'_>) -> Result<Vec<Violation>> {
    world.begin()?;
    let mut violations = (worlds.play)(world, &mut turn)?;
    for violation in world.judge_all()? {
        if !violations.contains(&violation) {
            violations.push(violation);
        }
    }
    Ok(violations)
}

/// Prints a line of the result.
pub(crate) fn say(line: &str) {
    // Nobody need be listening.
    writeln!(io::stdout(), "{line}").ok();
}

/// Prints a line about how far the work is.
pub(crate) fn note(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// Prints what went wrong.
pub(crate) fn complain(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}
