//! The keys of `[[syslog_rule]]`: what fits a rule, and what becomes of it.

use std::{collections::BTreeSet, path::Path, time::Duration};

use steward_protocol::{
    Domain,
    syslog::{Facility, Severities},
};

use super::{MAX_DOMAINS, tables};
use crate::config::{
    ConfigError, Sources, duration,
    layers::{Found, Layers, Value},
    list, positive,
    table::Table,
    text, token,
};

/// Most rules: each message may be held against all of them.
const MAX_RULES: usize = 256;

/// A rule: what fits, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleSpec {
    /// How it is called in summaries.
    pub name: String,
    /// Any of these facilities; any, if none are listed.
    pub facilities: Vec<Facility>,
    /// These severities.
    pub severities: Option<Severities>,
    /// Any of these programs.
    pub apps: Vec<String>,
    /// Any of these hosts.
    pub hosts: Vec<String>,
    /// Any of these sources; one that ends with `*` stands for all that begin so.
    pub sources: Vec<String>,
    /// What the raw message matches.
    pub pattern: Option<String>,
    /// Where to.
    pub domain: Option<Domain>,
    /// What is done.
    pub action: Action,
}

/// What is done with a message that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// It is kept.
    #[default]
    Keep,
    /// It is dropped on purpose, and counted.
    Drop,
    /// One of so many is kept.
    Sample {
        /// Of how many.
        one_of: u64,
    },
    /// At most so many are kept within some time.
    RateLimit {
        /// How many.
        most: u64,
        /// In which time.
        per: Duration,
    },
}

/// Reads the rules alone, to put them in the place of others. `named` are the domains that inputs and earlier rules
/// have named since the start: their spools stay open.
///
/// # Errors
///
/// Returns every problem with them at once.
pub fn rules_of(
    path: &Path,
    file: String,
    named: &BTreeSet<Domain>,
) -> Result<Vec<RuleSpec>, ConfigError> {
    let sources = Sources {
        file: Some((path.to_owned(), file)),
        ..Sources::default()
    };
    let mut layers = Layers::new(&sources);
    let rules = rules(&mut layers);
    let named = named.iter().chain(domains(&rules));
    let count = named.collect::<BTreeSet<_>>().len();
    if count > MAX_DOMAINS {
        let problem = format!(
            "names domains that make {count} with those named since the start; at most {MAX_DOMAINS} are taken until the agent starts anew"
        );
        layers.problem_in_file("syslog_rule", problem);
    }
    match layers.into_problems() {
        problems if problems.is_empty() => Ok(rules),
        problems => Err(ConfigError { problems }),
    }
}

/// Returns the domains that rules name.
pub(super) fn domains(rules: &[RuleSpec]) -> impl Iterator<Item = &Domain> {
    rules.iter().filter_map(|rule| rule.domain.as_ref())
}

pub(super) fn rules(layers: &mut Layers<'_>) -> Vec<RuleSpec> {
    tables(layers, "syslog_rule", MAX_RULES, rule)
}

fn rule(mut table: Table<'_, '_>, index: usize) -> Option<RuleSpec> {
    let name = table.or("name", text, format!("rule {}", index + 1));
    let facilities = table.or("facility", facilities, Vec::new());
    let severities = table.optional("severity", |value| {
        text(value)?
            .parse::<Severities>()
            .map_err(|error| error.to_string())
    });
    let apps = table.or("app", list, Vec::new());
    let hosts = table.or("host", list, Vec::new());
    let sources = table.or("source", list, Vec::new());
    let pattern = table.optional("match", pattern);
    let domain = table.optional("domain", token);
    let action = action(&mut table);
    if action == Some(Action::Drop) && domain.is_some() {
        table.problem(
            "domain",
            "is of no use where the action is \"drop\"".to_owned(),
        );
    }
    let made = action.map(|action| RuleSpec {
        name,
        facilities,
        severities,
        apps,
        hosts,
        sources,
        pattern,
        domain,
        action,
    });
    table.finish(made)
}

fn action(table: &mut Table<'_, '_>) -> Option<Action> {
    let word = table.or("action", text, "keep".to_owned());
    let one_of = table
        .optional("one_of", positive)
        .map(|number| number as u64);
    let most = table.optional("most", positive).map(|number| number as u64);
    let per = table.optional("per", duration);
    let given = [
        ("one_of", one_of.is_some(), "sample"),
        ("most", most.is_some(), "rate_limit"),
        ("per", per.is_some(), "rate_limit"),
    ];
    for (key, is_given, action) in given {
        if is_given && action != word {
            table.problem(key, format!("is for action = \"{action}\" only"));
        }
    }
    match word.as_str() {
        "keep" => Some(Action::Keep),
        "drop" => Some(Action::Drop),
        "sample" => match one_of {
            Some(one_of) => Some(Action::Sample { one_of }),
            None => {
                table.problem(
                    "action",
                    "\"sample\" needs one_of, like one_of = 10".to_owned(),
                );
                None
            }
        },
        "rate_limit" => match most {
            Some(most) => Some(Action::RateLimit {
                most,
                per: per.unwrap_or(Duration::from_secs(1)),
            }),
            None => {
                let problem =
                    "\"rate_limit\" needs most, like most = 100, and perhaps per = \"1s\"";
                table.problem("action", problem.to_owned());
                None
            }
        },
        other => {
            let words = ["keep", "drop", "sample", "rate_limit"];
            let meant = steward_protocol::nearest::nearest(other, words);
            let meant = meant.map_or_else(String::new, |meant| format!("did you mean {meant:?}? "));
            let problem = format!(
                "{other:?} is nothing that can be done; {meant}Write keep, drop, sample or rate_limit"
            );
            table.problem("action", problem);
            None
        }
    }
}

fn facilities(value: &Value) -> Found<Vec<Facility>> {
    let facility = |text: &String| text.parse::<Facility>().map_err(|error| error.to_string());
    list(value)?.iter().map(facility).collect()
}

fn pattern(value: &Value) -> Found<String> {
    let text = text(value)?;
    match crate::syslog::route::pattern(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            // It draws what it says below the pattern; the last line says it in words.
            let error = error.to_string();
            let words = error.lines().last().unwrap_or_default();
            let words = words.trim_start_matches("error: ");
            Err(format!("{text:?} is no regular expression: {words}"))
        }
    }
}
