//! Which rule decides what, by table, and that nothing is suppressed without a number.

use super::*;

const AT: Micros = Micros(1_700_000_000_000_000);

fn spec(action: Action) -> RuleSpec {
    RuleSpec {
        name: "it".to_owned(),
        action,
        ..RuleSpec::default()
    }
}

fn to(domain: &str) -> RuleSpec {
    RuleSpec {
        domain: Some(domain.parse().expect("a domain")),
        ..spec(Action::Keep)
    }
}

fn router(specs: &[RuleSpec]) -> Router {
    let domain = Arc::new("main".parse().expect("a domain"));
    Router::new(domain, Arc::new(Rules::new(specs).expect("patterns")))
}

fn portion(messages: &[&str], at: Micros) -> Portion {
    let mut portion = Portion::new("udp://127.0.0.1:514#10.1.2.3".into(), at);
    for message in messages {
        portion.push(message.as_bytes(), 5);
    }
    portion
}

/// Returns what goes where, in order: `domain: messages`, gaps as `!count`.
fn shown(parts: &[Part]) -> Vec<String> {
    let show = |(domain, part): &Part| {
        let gaps = part.gaps.iter().map(|gap| {
            let detail = gap.detail.as_deref().unwrap_or_default();
            format!("!{:?} {} {detail}", gap.reason, gap.count.unwrap_or(0))
        });
        let texts = part
            .messages
            .iter()
            .map(|piece| String::from_utf8_lossy(part.bytes_of(piece)).into_owned());
        let all: Vec<String> = gaps.chain(texts).collect();
        format!("{domain}: {}", all.join(" | "))
    };
    parts.iter().map(show).collect()
}

#[test]
fn a_rule_fits_by_all_that_it_names() {
    const MESSAGE: &str = "<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed";
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let base = || to("other");
    let rows: Vec<(RuleSpec, bool)> = vec![
        (base(), true),
        (
            RuleSpec {
                facilities: vec![Facility::Auth],
                ..base()
            },
            true,
        ),
        (
            RuleSpec {
                facilities: vec![Facility::Cron, Facility::Auth],
                ..base()
            },
            true,
        ),
        (
            RuleSpec {
                facilities: vec![Facility::Cron],
                ..base()
            },
            false,
        ),
        (
            RuleSpec {
                severities: "err".parse().ok(),
                ..base()
            },
            true,
        ),
        (
            RuleSpec {
                severities: "0..1".parse().ok(),
                ..base()
            },
            false,
        ),
        (
            RuleSpec {
                apps: names(&["cron", "su"]),
                ..base()
            },
            true,
        ),
        (
            RuleSpec {
                apps: names(&["s"]),
                ..base()
            },
            false,
        ),
        (
            RuleSpec {
                hosts: names(&["mymachine"]),
                ..base()
            },
            true,
        ),
        (
            RuleSpec {
                hosts: names(&["MYMACHINE"]),
                ..base()
            },
            false,
        ),
        (
            RuleSpec {
                sources: names(&["udp://127.0.0.1:514"]),
                ..base()
            },
            true,
        ),
        (
            RuleSpec {
                sources: names(&["udp://127.0.0.1:514#10.1.2.3"]),
                ..base()
            },
            true,
        ),
        (
            RuleSpec {
                sources: names(&["udp://127.0.0.1:514#10.1.2.4"]),
                ..base()
            },
            false,
        ),
        (
            RuleSpec {
                sources: names(&["udp:*"]),
                ..base()
            },
            true,
        ),
        (
            RuleSpec {
                sources: names(&["tcp:*"]),
                ..base()
            },
            false,
        ),
        (
            RuleSpec {
                pattern: Some("su (root|toor)".to_owned()),
                ..base()
            },
            true,
        ),
        (
            RuleSpec {
                pattern: Some("^su".to_owned()),
                ..base()
            },
            false,
        ),
        (
            RuleSpec {
                apps: names(&["su"]),
                hosts: names(&["elsewhere"]),
                ..base()
            },
            false,
        ),
    ];
    for (rule, fits) in rows {
        let parts = router(std::slice::from_ref(&rule)).split(portion(&[MESSAGE], AT));
        let domain = if fits { "other" } else { "main" };
        assert_eq!(shown(&parts), [format!("{domain}: {MESSAGE}")], "{rule:?}");
    }
}

#[test]
fn a_message_without_pri_or_utf8_is_held_against_the_rules_as_a_notice() {
    let rule = RuleSpec {
        severities: "notice..notice".parse().ok(),
        pattern: Some(r"(?-u)\xff".to_owned()),
        ..to("odd")
    };
    let mut odd = Portion::new("unix:///x".into(), AT);
    odd.push(b"not \xff utf-8", 5);
    assert_eq!(router(&[rule]).split(odd)[0].0.as_str(), "odd");
}

#[test]
fn the_first_rule_that_fits_decides_and_order_is_kept_in_every_domain() {
    let fits = |text: &str, rule: RuleSpec| RuleSpec {
        pattern: Some(text.to_owned()),
        ..rule
    };
    let mut router = router(&[
        fits("keep", spec(Action::Keep)),
        fits("gone", spec(Action::Drop)),
        fits("b", to("b")),
    ]);
    let messages = ["b1", "a1", "gone b", "b2", "keep gone", "a2"];
    let mut given = portion(&messages, AT);
    given.gaps.push(Gap::new(Some(3), Reason::KernelDrop));
    let parts = router.split(given);
    assert_eq!(
        shown(&parts),
        ["main: !KernelDrop 3  | a1 | keep gone | a2", "b: b1 | b2"]
    );
    assert_eq!(router.dropped(), 1);
    // All of one kind: the portion goes on as it is, or not at all.
    assert_eq!(
        shown(&router.split(portion(&["b3", "b4"], AT))),
        ["b: b3 | b4"]
    );
    assert_eq!(
        shown(&router.split(portion(&["gone", "gone"], AT))),
        [""; 0]
    );
    let mut gaps = portion(&["gone"], AT);
    gaps.gaps.push(Gap::new(Some(3), Reason::KernelDrop));
    assert_eq!(shown(&router.split(gaps)), ["main: !KernelDrop 3 "]);
}

#[test]
fn the_program_is_found_where_a_message_was_copied_to() {
    let mut given = portion(&["x gone", "<13>app: hello", "<13>app: b"], AT);
    for piece in &mut given.messages[1..] {
        (piece.app_at, piece.app_length) = (piece.at + 4, 3);
    }
    let rule = RuleSpec {
        pattern: Some("gone".to_owned()),
        ..spec(Action::Drop)
    };
    let parts = router(&[rule]).split(given);
    for piece in &parts[0].1.messages {
        let app = &parts[0].1.arena[piece.app_at as usize..][..3];
        assert_eq!(app, b"app");
    }
}

#[test]
fn one_of_so_many_is_kept_and_the_others_are_numbered() {
    let mut router = router(&[spec(Action::Sample { one_of: 3 })]);
    let all: Vec<String> = (0..7).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(
        shown(&router.split(portion(&texts, AT))),
        ["main: 0 | 3 | 6"]
    );
    assert_eq!(router.tell(AT, Tell::Due).len(), 0);
    let later = Micros(AT.0 + 10_000_000);
    let parts = router.split(portion(&["7"], later));
    assert_eq!(shown(&parts), ["main: !Sampled 4 it"]);
    let told = router.tell(later, Tell::All);
    assert_eq!((told.len(), told[0].1.count), (1, Some(1)));
    assert_eq!(router.tell(later, Tell::All).len(), 0);
}

#[test]
fn a_rate_limit_lets_so_many_through_in_each_window_and_tells_how_many_it_did_not() {
    let limit = Action::RateLimit {
        most: 2,
        per: Duration::from_secs(1),
    };
    let rule = RuleSpec {
        domain: Some("noisy".parse().expect("a domain")),
        ..spec(limit)
    };
    let mut router = router(&[rule]);
    let at = |seconds: i64| Micros(AT.0 + seconds * 1_000_000);
    assert_eq!(
        shown(&router.split(portion(&["1", "2", "3", "4"], AT))),
        ["noisy: 1 | 2"]
    );
    assert_eq!(
        shown(&router.split(portion(&["5"], Micros(AT.0 + 999_999)))),
        [""; 0]
    );
    assert_eq!(shown(&router.split(portion(&["6"], at(1)))), ["noisy: 6"]);
    // A clock that is set back begins a window anew instead of closing it for as long.
    assert_eq!(
        shown(&router.split(portion(&["7"], at(-3600)))),
        ["noisy: !RateLimit 3 it | 7"]
    );
    let told = router.tell(at(20), Tell::Due);
    assert_eq!(told.len(), 0);
}

#[test]
fn rules_that_are_replaced_first_tell_what_they_suppressed() {
    let mut router = router(&[spec(Action::Sample { one_of: 2 })]);
    router.split(portion(&["1", "2"], AT));
    let told = router.replace(Arc::default(), AT);
    assert_eq!(told[0].1.count, Some(1));
    assert_eq!(
        shown(&router.split(portion(&["3", "4"], AT))),
        ["main: 3 | 4"]
    );
}
