//! The methods that are no command: `ping`, `processes`; and how those that are one become it.
//!
//! What `ping` says comes from the loop of its process and from nowhere else: that is what it is for.

use jiff::Timestamp;
use serde::Serialize;
use steward_protocol::{
    Body, Method, Order, Outcome, Output, ProcessView, ShellBody, State, Subject,
    body::{ProcessAction, ProcessesBody},
};
use tokio::sync::oneshot;

use super::{operate::Action, process::Question, run::Carrier};
use crate::{journal::Finish, keeper::chain, work};

/// This program, even when its file has been replaced meanwhile.
const SELF: &str = "/proc/self/exe";

/// The answer to a `ping`.
#[derive(Debug, Serialize)]
struct Pong {
    node: String,
    subject: Subject,
    /// Orders taken and not started.
    queued: usize,
    /// Orders at work, this one included.
    running: usize,
    /// When the loop answered, by the node's clock.
    at: Timestamp,
    /// Time from the order's arrival in the process to the answer; unknown when the agent was restarted
    /// in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_received_us: Option<u64>,
}

/// The answer to a `processes`.
#[derive(Debug, Serialize)]
struct Processes {
    processes: Vec<ProcessView>,
}

/// Tells whether the orders of a subject run commands, of which only so many may run at once. What the agent
/// does by itself must not wait for them.
pub(super) fn runs_commands(subject: &Subject) -> bool {
    let method = Method::from_name(&subject.method);
    !matches!(
        method,
        Some(Method::Ping | Method::Hello | Method::Processes)
    )
}

/// Returns the command that does what a built-in method was asked for.
pub(super) fn builtin(method: Method, body: &Body) -> Result<ShellBody, serde_json::Error> {
    let words = [SELF, work::VERB, method.as_str()];
    Ok(ShellBody {
        data: words.map(str::to_owned).to_vec(),
        stdin: Some(serde_json::to_string(body)?),
        ..ShellBody::default()
    })
}

impl Carrier {
    /// Has the process's own loop answer.
    pub(super) async fn ping(&self, order: &Order, at: Timestamp) -> Finish {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            ticket: self.ticket,
            answer,
        };
        let glance = match self.process.send(question).await {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        let said = match glance {
            Some(glance) => text(&Pong {
                node: self.context.config.node.to_string(),
                subject: self.subject.clone(),
                queued: glance.queued,
                running: glance.running,
                at: glance.at,
                since_received_us: glance
                    .since_received
                    .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            }),
            // Whoever carries an order out ends with its process.
            None => Err("ask the process: its loop has ended".to_owned()),
        };
        answer_of(order, at, said)
    }

    /// Lists, stops or starts processes.
    pub(super) async fn processes(
        &self,
        order: &Order,
        body: ProcessesBody,
        at: Timestamp,
    ) -> Finish {
        let action = match body.action {
            ProcessAction::List => Action::List,
            ProcessAction::Stop => Action::Stop,
            ProcessAction::Start => Action::Start,
        };
        let done = self.context.processes(action, body.process).await;
        let said = match done {
            Ok(processes) => text(&Processes { processes }),
            Err(error) => Err(chain(&error)),
        };
        answer_of(order, at, said)
    }
}

fn text(answer: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut text = serde_json::to_vec(answer).map_err(|error| error.to_string())?;
    text.push(b'\n');
    Ok(text)
}

/// Returns the end of an order that the agent carried out by itself: what it has to say, or what it failed to do.
fn answer_of(order: &Order, at: Timestamp, said: Result<Vec<u8>, String>) -> Finish {
    let (exit_code, stdout, stderr) = match said {
        Ok(text) => (0, text, Vec::new()),
        Err(words) => {
            let line = format!("{}: failed to {words}\n", order.subject.method);
            (1, Vec::new(), line.into_bytes())
        }
    };
    let success = order.success_codes.contains(&exit_code);
    Finish {
        state: if success {
            State::Succeeded
        } else {
            State::Failed
        },
        reason: None,
        outcome: Some(Outcome {
            exit_code: Some(exit_code),
            signal: None,
            started_at: at,
            finished_at: Timestamp::now(),
            stdout: Some(Output::whole(&stdout)),
            stderr: Some(Output::whole(&stderr)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_in_method_gets_its_body_as_it_was_read() {
        for (method, text) in [
            (
                Method::Filewrite,
                r#"{"path":"/etc/motd","content":"hello","mode":"0644"}"#,
            ),
            (
                Method::Tailfile,
                r#"{"path":"/var/log/a","lines":3,"for":"10s"}"#,
            ),
            (Method::Httpget, r#"{"url":"http://127.0.0.1/"}"#),
        ] {
            let body = Body::read(&method.name(), text).expect("a body");
            let shell = builtin(method, &body).expect("it can be written");
            assert_eq!(shell.data, [SELF, "work", method.as_str()]);
            let stdin = shell.stdin.expect("its body");
            assert_eq!(Body::read(&method.name(), &stdin), Ok(body), "{stdin}");
        }
    }

    #[test]
    fn what_the_agent_does_by_itself_waits_for_no_command() {
        for (method, expected) in [
            ("ping", false),
            ("processes", false),
            ("shellcommand", true),
            ("tailfile", true),
        ] {
            let subject = format!("ship1.command.{method}.node");
            let subject = subject.parse().expect("a subject");
            assert_eq!(runs_commands(&subject), expected, "{method}");
        }
    }
}
