//! What a delivery promises, against a link that loses and a station that begins anew.

use std::{collections::BTreeMap, time::Duration};

use steward_protocol::{
    Domain, Generation, InstanceId, LedgerId, Reign, logs::Kept, transfer::Moment,
};
use uuid::Uuid;

use super::{Action, Delivery, Ended, Event, Place, Sent, Window};

const FIRST: Generation = Generation(Uuid::from_u128(1));
const SECOND: Generation = Generation(Uuid::from_u128(2));

fn domain(name: &str) -> Domain {
    name.parse().expect("a name")
}

fn place(generation: Generation, position: u64) -> Place {
    Place {
        generation,
        position,
    }
}

fn reign(epoch: u64) -> Reign {
    Reign {
        v: 1,
        ledger_id: LedgerId(Uuid::from_u128(9)),
        epoch,
        instance: InstanceId(Uuid::from_u128(8)),
        low: 0,
    }
}

fn at(millis: u64) -> Moment {
    Moment {
        at: Duration::from_millis(millis),
        dice: 0,
    }
}

fn kept(next: u64, again: bool) -> Kept {
    Kept {
        generation: FIRST,
        next,
        again,
    }
}

const WINDOW: Window = Window {
    bytes: 1000,
    batches: 4,
    rate: None,
};

fn delivery(names: &[&str]) -> Delivery {
    let starts = names.iter().map(|name| (domain(name), place(FIRST, 0)));
    let mut delivery = Delivery::new(WINDOW, starts);
    delivery.on(Event::Welcomed(&reign(1)), at(0));
    delivery
}

/// Sends batches of ten positions and `bytes` bytes while there is room, and returns where they began.
fn send(delivery: &mut Delivery, bytes: u64, now: Moment) -> Vec<(String, u64)> {
    let mut begun = Vec::new();
    while let Some((domain, place)) = delivery.next(now) {
        begun.push((domain.to_string(), place.position));
        let sent = Sent {
            place,
            next: place.position + 10,
            bytes,
        };
        delivery.on(Event::Sent(&domain, sent), now);
    }
    begun
}

fn positions(begun: &[(String, u64)]) -> Vec<u64> {
    begun.iter().map(|(_, position)| *position).collect()
}

#[test]
fn nothing_is_sent_before_a_welcome_and_all_again_after_another() {
    let nginx = domain("nginx");
    let mut delivery = Delivery::new(WINDOW, [(nginx.clone(), place(FIRST, 0))]);
    assert_eq!(delivery.next(at(0)), None);
    delivery.on(Event::Welcomed(&reign(1)), at(0));
    assert_eq!(positions(&send(&mut delivery, 1, at(0))), [0, 10, 20, 30]);
    delivery.on(Event::Welcomed(&reign(1)), at(1));
    assert_eq!(delivery.next(at(1)), None);
    delivery.on(Event::Parted, at(2));
    delivery.on(Event::Welcomed(&reign(2)), at(3));
    assert_eq!(positions(&send(&mut delivery, 1, at(3))), [0, 10, 20, 30]);
}

#[test]
fn a_window_is_as_wide_as_its_bytes_and_its_batches() {
    assert_eq!(
        positions(&send(&mut delivery(&["nginx"]), 1, at(0))),
        [0, 10, 20, 30]
    );
    assert_eq!(
        positions(&send(&mut delivery(&["nginx"]), 500, at(0))),
        [0, 10]
    );
}

#[test]
fn the_stations_word_releases_and_makes_room() {
    let nginx = domain("nginx");
    let mut delivery = delivery(&["nginx"]);
    send(&mut delivery, 1, at(0));
    let actions = delivery.on(Event::Kept(&nginx, &reign(1), kept(20, false)), at(1));
    assert_eq!(actions, [Action::Release(nginx.clone(), place(FIRST, 20))]);
    assert_eq!(positions(&send(&mut delivery, 1, at(1))), [40, 50]);
    // The same again, something older, another reign's and another generation's word change nothing.
    let other = Kept {
        generation: SECOND,
        ..kept(60, false)
    };
    for (reign, kept) in [
        (reign(1), kept(20, false)),
        (reign(1), kept(10, false)),
        (reign(2), kept(60, false)),
        (reign(1), other),
    ] {
        assert_eq!(delivery.on(Event::Kept(&nginx, &reign, kept), at(2)), []);
        assert_eq!(delivery.next(at(2)), None);
    }
}

#[test]
fn a_hole_sends_again_from_there_and_only_once() {
    let nginx = domain("nginx");
    let mut delivery = delivery(&["nginx"]);
    send(&mut delivery, 1, at(0));
    delivery.on(Event::Kept(&nginx, &reign(1), kept(10, true)), at(1));
    assert_eq!(positions(&send(&mut delivery, 1, at(1))), [10, 20, 30, 40]);
    delivery.on(Event::Kept(&nginx, &reign(1), kept(10, true)), at(2));
    assert_eq!(
        delivery.next(at(2)),
        None,
        "the rest of the window behind the hole"
    );
    delivery.on(Event::Kept(&nginx, &reign(1), kept(10, true)), at(1500));
    assert_eq!(
        positions(&send(&mut delivery, 1, at(1500))),
        [10, 20, 30, 40]
    );
}

#[test]
fn a_station_that_was_restored_is_told_from_where_it_is() {
    let nginx = domain("nginx");
    let mut delivery = Delivery::new(WINDOW, [(nginx.clone(), place(FIRST, 100))]);
    delivery.on(Event::Welcomed(&reign(1)), at(0));
    send(&mut delivery, 1, at(0));
    delivery.on(Event::Kept(&nginx, &reign(1), kept(0, true)), at(1));
    assert_eq!(delivery.next(at(1)), Some((nginx, place(FIRST, 0))));
}

#[test]
fn a_station_that_has_more_is_not_sent_it_again() {
    let nginx = domain("nginx");
    let mut delivery = delivery(&["nginx"]);
    let (_, first) = delivery.next(at(0)).expect("something");
    let sent = Sent {
        place: first,
        next: 10,
        bytes: 1,
    };
    delivery.on(Event::Sent(&nginx, sent), at(0));
    let actions = delivery.on(Event::Kept(&nginx, &reign(1), kept(500, false)), at(1));
    assert_eq!(actions, [Action::Release(nginx, place(FIRST, 500))]);
    assert_eq!(
        delivery.next(at(1)).map(|(_, place)| place.position),
        Some(500)
    );
}

#[test]
fn silence_sends_one_batch_again_ever_more_rarely_until_there_is_an_answer() {
    let nginx = domain("nginx");
    let mut delivery = delivery(&["nginx"]);
    send(&mut delivery, 1, at(0));
    let mut now = 0;
    for _ in 0..20 {
        let wake = delivery.wake_at(at(now)).expect("it waits").as_millis() as u64;
        assert!(wake >= now + 5000, "{wake} after {now}");
        assert_eq!(delivery.next(at(wake - 1)), None);
        assert_eq!(positions(&send(&mut delivery, 1, at(wake))), [0]);
        now = wake;
    }
    delivery.on(Event::Kept(&nginx, &reign(1), kept(10, false)), at(now));
    assert_eq!(
        positions(&send(&mut delivery, 1, at(now))),
        [10, 20, 30, 40]
    );
}

#[test]
fn the_next_generation_waits_until_the_station_has_all_of_this_one() {
    let nginx = domain("nginx");
    let mut delivery = delivery(&["nginx"]);
    let (_, first) = delivery.next(at(0)).expect("something");
    let sent = Sent {
        place: first,
        next: 10,
        bytes: 1,
    };
    delivery.on(Event::Sent(&nginx, sent), at(0));
    let (_, end) = delivery.next(at(0)).expect("the end");
    let ended = Ended {
        place: end,
        next: 10,
        follows: Some(place(SECOND, 0)),
    };
    assert_eq!(delivery.on(Event::Ended(&nginx, ended), at(0)), []);
    assert_eq!(delivery.next(at(0)), None);
    let actions = delivery.on(Event::Kept(&nginx, &reign(1), kept(10, false)), at(1));
    let expected = [
        Action::Release(nginx.clone(), place(FIRST, 10)),
        Action::Finish(nginx.clone(), place(FIRST, 10)),
    ];
    assert_eq!(actions, expected);
    assert_eq!(delivery.next(at(1)), Some((nginx, place(SECOND, 0))));
}

#[test]
fn what_is_filled_later_is_found_behind_the_end() {
    let nginx = domain("nginx");
    let mut delivery = delivery(&["nginx"]);
    let (_, first) = delivery.next(at(0)).expect("something");
    let ended = |follows| Ended {
        place: first,
        next: 0,
        follows,
    };
    let finish = Action::Finish(nginx.clone(), place(FIRST, 0));
    assert_eq!(
        delivery.on(Event::Ended(&nginx, ended(None)), at(0)),
        [finish]
    );
    assert_eq!(delivery.next(at(0)), None);
    delivery.on(Event::Filled(&nginx, place(SECOND, 0)), at(1));
    assert_eq!(delivery.next(at(1)), Some((nginx.clone(), first)));
    delivery.on(Event::Ended(&nginx, ended(Some(place(SECOND, 0)))), at(1));
    assert_eq!(delivery.next(at(1)), Some((nginx, place(SECOND, 0))));
}

#[test]
fn an_empty_domain_is_not_asked_for_until_it_is_filled() {
    let nginx = domain("nginx");
    let mut delivery = delivery(&["nginx"]);
    delivery.next(at(0)).expect("something");
    delivery.on(Event::Empty(&nginx), at(0));
    assert_eq!(delivery.next(at(0)), None);
    delivery.on(Event::Filled(&nginx, place(FIRST, 0)), at(1));
    assert!(delivery.next(at(1)).is_some());
    delivery.on(Event::Unread(&nginx), at(1));
    assert_eq!(delivery.next(at(1)), None);
    assert_eq!(delivery.wake_at(at(1)), Some(Duration::from_millis(1001)));
    assert!(delivery.next(at(1001)).is_some());
}

#[test]
fn domains_take_turns() {
    let mut delivery = Delivery::new(
        Window {
            bytes: 8 << 20,
            batches: 64,
            rate: None,
        },
        ["a", "b", "c"].map(|name| (domain(name), place(FIRST, 0))),
    );
    delivery.on(Event::Welcomed(&reign(1)), at(0));
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..30 {
        let (domain, place) = delivery.next(at(0)).expect("there is always something");
        // One of them has large batches.
        let size = if domain.as_str() == "a" {
            256 << 10
        } else {
            64 << 10
        };
        *bytes.entry(domain.to_string()).or_default() += size;
        let sent = Sent {
            place,
            next: place.position + 10,
            bytes: size,
        };
        delivery.on(Event::Sent(&domain, sent), at(0));
    }
    let (most, least) = (bytes.values().max(), bytes.values().min());
    assert!(
        most.copied() <= least.map(|least| least + (512 << 10)),
        "{bytes:?}"
    );
}

#[test]
fn a_rate_is_kept_also_after_a_pause() {
    let mut delivery = Delivery::new(
        Window {
            rate: Some(1000),
            ..Window::default()
        },
        [(domain("nginx"), place(FIRST, 0))],
    );
    delivery.on(Event::Welcomed(&reign(1)), at(0));
    let mut bytes = 0;
    for millis in (60_000..70_000).step_by(10) {
        if let Some((domain, place)) = delivery.next(at(millis)) {
            bytes += 100;
            let sent = Sent {
                place,
                next: place.position + 10,
                bytes: 100,
            };
            delivery.on(Event::Sent(&domain, sent), at(millis));
            delivery.on(
                Event::Kept(&domain, &reign(1), kept(place.position + 10, false)),
                at(millis),
            );
        }
    }
    assert!(
        (9_500..=10_300).contains(&bytes),
        "{bytes} in 10 s at 1000 a second"
    );
}

/// A link that loses, doubles and delays; a station that keeps to its rules.
#[test]
fn everything_arrives_once_and_in_order_over_a_link_that_loses() {
    for seed in 0..300_u64 {
        let mut dice = seed;
        let mut roll = || {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            dice >> 33
        };
        let nginx = domain("nginx");
        let mut delivery = delivery(&["nginx"]);
        let (mut stored, mut told_hole) = (0_u64, None);
        let mut now = 0;
        while stored < 1000 {
            now += 50;
            assert!(now < 10_000_000, "seed {seed}: stuck at {stored}");
            while let Some((domain, place)) = delivery.next(at(now)) {
                if place.position >= 1000 {
                    delivery.on(Event::Empty(&domain), at(now));
                    continue;
                }
                let next = place.position + 10;
                let sent = Sent {
                    place,
                    next,
                    bytes: 10,
                };
                delivery.on(Event::Sent(&domain, sent), at(now));
                if roll() % 4 == 0 {
                    continue;
                }
                let mut again = false;
                if place.position == stored {
                    stored = next;
                    told_hole = None;
                } else if place.position > stored {
                    again = told_hole != Some(stored);
                    told_hole = Some(stored);
                }
                if roll() % 4 == 0 {
                    continue;
                }
                let actions =
                    delivery.on(Event::Kept(&nginx, &reign(1), kept(stored, again)), at(now));
                for action in actions {
                    let Action::Release(_, place) = action else {
                        panic!("{action:?}");
                    };
                    assert!(place.position <= stored, "released what is not stored");
                }
            }
        }
    }
}
