//! The keys of `[restart]`: what is done about the faults of a process, per method and kind, as data.
//!
//! ```toml
//! [restart]                            # every process; panic, failed, wedged
//! intensity = 5                        # restarts within the window; one more and it is given up
//! window = "60s"
//! base = "200ms"                       # wait before the first restart, doubled with each one
//! cap = "10s"
//! give_up = "stop"                     # or "escalate": the agent ends
//! [restart.storage]                    # the journal could not be written
//! intensity = 5                        # that many within the window are borne
//! window = "60s"
//! give_up = "continue"                 # or "restart", "stop", "escalate"
//! [restart.not_startable]              # a command could not be started; the same keys
//! [restart.shellcommand]               # one method; what is missing is as above
//! [restart.shellcommand.storage]
//! ```

use std::{collections::BTreeMap, time::Duration};

use steward_protocol::{Method, retry::Backoff};

use super::{
    duration,
    layers::{Found, Layers, Value},
    number, text,
};

/// What is done about the faults of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// Most restarts within `window`.
    pub intensity: u32,
    /// The time they are counted in.
    pub window: Duration,
    /// Wait before a restart.
    pub backoff: Backoff,
    /// What is done when the intensity is used up: [`GiveUp::Stop`] or [`GiveUp::Escalate`].
    pub give_up: GiveUp,
    /// How often a journal that cannot be written is borne.
    pub storage: Tolerance,
    /// How often a command that cannot be started is borne.
    pub not_startable: Tolerance,
}

/// How often a fault that a process can survive is borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// Most within `window`.
    pub intensity: u32,
    /// The time they are counted in.
    pub window: Duration,
    /// What is done about one more.
    pub give_up: GiveUp,
}

/// What is done when an intensity is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// Nothing: it is borne for ever.
    Continue,
    /// The process is restarted, as after a panic.
    Restart,
    /// The process is given up; one that is vital ends the agent.
    Stop,
    /// The agent ends.
    Escalate,
}

/// What is borne when the config says nothing: everything.
const BORNE: Tolerance = Tolerance {
    intensity: 5,
    window: Duration::from_secs(60),
    give_up: GiveUp::Continue,
};

/// The restart policy when the config says nothing (design section 6).
const RESTART: Restart = Restart {
    intensity: 5,
    window: Duration::from_secs(60),
    backoff: Backoff {
        base: Duration::from_millis(200),
        cap: Duration::from_secs(10),
    },
    give_up: GiveUp::Stop,
    storage: BORNE,
    not_startable: BORNE,
};

/// Reads the policy of every process, and those of the methods that have their own.
pub(super) fn all(layers: &mut Layers<'_>) -> (Restart, BTreeMap<Method, Restart>) {
    let common = restart(layers, "restart", RESTART);
    let own: Vec<Method> = Method::ORDERABLE
        .into_iter()
        .filter(|method| layers.has_table(&table(*method)))
        .collect();
    let own = own
        .into_iter()
        .map(|method| (method, restart(layers, &table(method), common)))
        .collect();
    (common, own)
}

fn table(method: Method) -> String {
    format!("restart.{}", method.as_str())
}

/// Returns which keys there are, for whoever wrote another.
pub(super) fn known() -> String {
    let methods: Vec<&str> = Method::ORDERABLE.into_iter().map(Method::as_str).collect();
    format!(
        "[restart] knows intensity, window, base, cap, give_up, and the tables storage and not_startable with intensity, window, give_up; [restart.METHOD] knows the same for one of: {}",
        methods.join(", ")
    )
}

fn restart(layers: &mut Layers<'_>, table: &str, default: Restart) -> Restart {
    let key = |name: &str| format!("{table}.{name}");
    let base = layers.or(&key("base"), duration, Some(default.backoff.base));
    let cap = layers.or(&key("cap"), duration, Some(default.backoff.cap));
    let crash = Tolerance {
        intensity: default.intensity,
        window: default.window,
        give_up: default.give_up,
    };
    let crash = tolerance(layers, table, crash, end);
    Restart {
        intensity: crash.intensity,
        window: crash.window,
        backoff: Backoff {
            base: base.unwrap_or(default.backoff.base),
            cap: cap.unwrap_or(default.backoff.cap),
        },
        give_up: crash.give_up,
        storage: tolerance(layers, &key("storage"), default.storage, any),
        not_startable: tolerance(layers, &key("not_startable"), default.not_startable, any),
    }
}

fn tolerance(
    layers: &mut Layers<'_>,
    table: &str,
    default: Tolerance,
    give_up: impl Fn(&Value) -> Found<GiveUp>,
) -> Tolerance {
    let key = |name: &str| format!("{table}.{name}");
    let intensity = layers.or(&key("intensity"), count, Some(default.intensity));
    let window = layers.or(&key("window"), duration, Some(default.window));
    let last = layers.or(&key("give_up"), give_up, Some(default.give_up));
    Tolerance {
        intensity: intensity.unwrap_or(default.intensity),
        window: window.unwrap_or(default.window),
        give_up: last.unwrap_or(default.give_up),
    }
}

fn count(value: &Value) -> Found<u32> {
    u32::try_from(number(value)?).map_err(|_| "is too large".to_owned())
}

fn end(value: &Value) -> Found<GiveUp> {
    match any(value) {
        Ok(last @ (GiveUp::Stop | GiveUp::Escalate)) => Ok(last),
        Ok(GiveUp::Continue | GiveUp::Restart) | Err(_) => Err(format!(
            "{:?} cannot be done about a process that has crashed too often; write \"stop\" or \"escalate\"",
            text(value)?
        )),
    }
}

fn any(value: &Value) -> Found<GiveUp> {
    match text(value)?.as_str() {
        "continue" => Ok(GiveUp::Continue),
        "restart" => Ok(GiveUp::Restart),
        "stop" => Ok(GiveUp::Stop),
        "escalate" => Ok(GiveUp::Escalate),
        other => Err(format!(
            "{other:?} is nothing that can be done; write \"continue\", \"restart\", \"stop\" or \"escalate\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_method_is_called_like_a_kind_of_fault_or_a_key() {
        for method in Method::ALL {
            let taken = [
                "storage",
                "not_startable",
                "intensity",
                "window",
                "base",
                "cap",
                "give_up",
            ];
            assert!(!taken.contains(&method.as_str()), "{method:?}");
        }
    }
}
