//! What a spool promises, on a disk that loses its power, is full, or is damaged.

mod damage;
mod limits;
mod power;
mod random;
mod station;
mod thread;

use std::{collections::BTreeMap, sync::Arc};

use steward_protocol::{Domain, Generation, logs::Micros};
use uuid::Uuid;

use self::power::Power;
use super::{Draw, Policy, Portion, Settings, Spool, Terms};

/// When everything happens: 2026-11-21T08:00:00Z.
const AT: Micros = Micros(1_795_248_000_000_000);

fn domain(name: &str) -> Domain {
    name.parse().expect("a name")
}

/// Generations that differ, also from start to start.
fn draw(start: u64) -> Draw {
    let mut count = 0;
    Box::new(move || {
        count += 1;
        let bits = 0x019a_a550_0000_7000_8000_0000_0000_0000_u128;
        Generation(Uuid::from_u128(bits + u128::from(start * 1000 + count)))
    })
}

fn settings(share: u64, policy: Policy) -> Settings {
    Settings {
        total: share,
        batch: 600,
        longest: 200,
        domains: BTreeMap::new(),
        others: Terms { share, policy },
    }
}

fn open(disk: &Power, settings: &Settings, start: u64) -> Spool<Power> {
    Spool::open(disk.clone(), settings.clone(), draw(start)).expect("opens")
}

/// A line that does not compress away, and says which it is.
fn line(number: u64) -> String {
    let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{number:06} {noise:016x}{:016x}",
        noise.rotate_left(29) ^ 0x5bd1
    )
}

fn portion(numbers: std::ops::Range<u64>) -> Portion {
    let mut portion = Portion::new(Arc::from("udp://127.0.0.1:5514"), AT);
    for number in numbers {
        portion.push(line(number).as_bytes(), (number % 8) as u8);
    }
    portion
}

fn lines(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(line).collect()
}
