//! `steward logs --gaps`, `--stats` and `verify`: what there is, what is missing, what is damaged.

use anyhow::Result;

use super::{
    super::{
        Exit, Session,
        render::{
            Format, Listing, emit, notice,
            table::{Cell, Column, Show},
            text,
        },
    },
    Lines, LogFinding, Which, show,
};
use crate::view::logs::{LogDamage, LogExtent, LogGap, LogRemoved};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// How much there is.
    Extent,
    /// What is missing.
    Gaps,
    /// What is damaged, and with it what is missing.
    Damage,
}

impl What {
    fn depth(self) -> &'static str {
        match self {
            Self::Extent => "extent",
            Self::Gaps => "gaps",
            Self::Damage => "everything",
        }
    }
}

const EXTENTS: Listing<LogExtent> = Listing {
    columns: &[
        Column {
            title: "NODE",
            show: Show::Always,
            cell: |extent| Cell::text(extent.node.as_str()),
        },
        Column {
            title: "DOMAIN",
            show: Show::Always,
            cell: |extent| Cell::text(extent.domain.as_str()),
        },
        Column {
            title: "MESSAGES",
            show: Show::Always,
            cell: |extent| Cell::number(extent.records),
        },
        Column {
            title: "MISSING",
            show: Show::Always,
            cell: |extent| Cell::text(missing(extent)),
        },
        Column {
            title: "FROM",
            show: Show::Always,
            cell: |extent| extent.from.map_or(Cell::Empty, Cell::Time),
        },
        Column {
            title: "TO",
            show: Show::Always,
            cell: |extent| extent.to.map_or(Cell::Empty, Cell::Time),
        },
        Column {
            title: "BYTES",
            show: Show::Always,
            cell: |extent| Cell::number(extent.bytes),
        },
        Column {
            title: "RAW",
            show: Show::Always,
            cell: |extent| Cell::number(extent.raw_bytes),
        },
        Column {
            title: "BATCHES",
            show: Show::Wide,
            cell: |extent| Cell::number(extent.batches),
        },
        Column {
            title: "FILES",
            show: Show::Wide,
            cell: |extent| Cell::number(extent.segments),
        },
        Column {
            title: "STARTS",
            show: Show::Wide,
            cell: |extent| Cell::number(extent.generations),
        },
    ],
    name: |extent| format!("{}/{}", extent.node, extent.domain),
    empty: "no logs",
};

fn missing(extent: &LogExtent) -> String {
    match extent.missing_unknown {
        true => format!("{} or more", extent.missing),
        false => extent.missing.to_string(),
    }
}

/// Asks, and shows what is found as it comes.
pub(super) async fn show(session: &Session, which: &Which, what: What) -> Result<Exit> {
    let query = which.query().with("depth", what.depth());
    let mut answer = Lines::new(session.client.open(&query.on("/logs/examine")).await?);
    let screen = &session.screen;
    let is_for_people = matches!(screen.format, Format::Table | Format::Wide);
    let (mut all, mut extents) = (Vec::new(), Vec::new());
    let (mut gaps, mut damaged) = (0_u64, 0_u64);
    while let Some(findings) = answer.next::<LogFinding>().await? {
        for finding in findings {
            gaps += u64::from(matches!(finding, LogFinding::Gap(_)));
            damaged += u64::from(matches!(finding, LogFinding::Damage(_)));
            match (&finding, screen.format) {
                (LogFinding::Extent(extent), _) if what == What::Extent => {
                    extents.push(extent.clone())
                }
                (_, Format::Json) => all.push(finding),
                (_, Format::Jsonl) => screen.json(&finding)?,
                _ => emit(&sentence(&finding, what))?,
            }
        }
    }
    match (what, screen.format) {
        (What::Extent, _) => screen.list(&EXTENTS, &extents)?,
        (_, Format::Json) => screen.json(&all)?,
        _ if is_for_people && gaps + damaged == 0 => {
            notice("nothing is missing of what nodes have sent")
        }
        _ => {}
    }
    let is_bad = match what {
        What::Extent => false,
        What::Gaps => gaps + damaged > 0,
        What::Damage => damaged > 0,
    };
    Ok(if is_bad { Exit::Other } else { Exit::Success })
}

fn sentence(finding: &LogFinding, what: What) -> String {
    match finding {
        LogFinding::Gap(gap) => of_gap(gap),
        LogFinding::Removed(removed) => of_removed(removed),
        LogFinding::Damage(damage) => of_damage(damage),
        LogFinding::Extent(extent) => of_extent(extent, what),
    }
}

fn of_gap(found: &LogGap) -> String {
    let LogGap {
        node, domain, gap, ..
    } = found;
    let time = |at: Option<steward_protocol::logs::Micros>| at.map(|at| text::time(at.timestamp()));
    let when = match (time(gap.since), time(gap.until)) {
        (Some(since), Some(until)) if since != until => format!("{since} to {until}"),
        (Some(at), _) | (None, Some(at)) => at,
        (None, None) => text::time(found.at),
    };
    format!(
        "{node}/{domain}: {when}: {}, said by the {}\n",
        show::missing(gap),
        found.by
    )
}

fn of_removed(removed: &LogRemoved) -> String {
    let LogRemoved { node, domain, .. } = removed;
    let until = text::time(removed.until);
    let many = text::plural(removed.records, "message");
    format!("{node}/{domain}: removed as the retention says: {many} up to {until}\n")
}

fn of_damage(damage: &LogDamage) -> String {
    let LogDamage { file, at, what, .. } = damage;
    format!("damaged: {file}, byte {at}: {}\n", text::escape(what))
}

fn of_extent(extent: &LogExtent, what: What) -> String {
    let LogExtent { node, domain, .. } = extent;
    let many = text::plural(extent.records, "message");
    let span = match (extent.from, extent.to) {
        (Some(from), Some(to)) => format!(" from {} to {}", text::time(from), text::time(to)),
        _ => String::new(),
    };
    let verdict = match (extent.gaps, what) {
        (0, What::Damage) => "read again, none missing".to_owned(),
        (0, _) => "complete".to_owned(),
        (1, _) => "1 gap".to_owned(),
        (gaps, _) => format!("{gaps} gaps"),
    };
    format!("{node}/{domain}: {many}{span}: {verdict}\n")
}
