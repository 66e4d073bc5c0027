//! `steward demo`: a broker, a station and agents, as real processes, at work before your eyes.
//!
//! Starts them, drops the example messages, shows what comes of them, and leaves nothing behind.
//! What is expected is decided in `plan`, how it looks in `board`, who runs in `fleet`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::{
    fleet::Fleet,
    plan::{Plan, Verdict},
    scene::{Scene, Watcher},
    stage::Stage,
};
use super::{
    Exit, Globals,
    client::Client,
    exit::Misuse,
    quoted,
    render::{Format, notice},
};
use crate::{
    broker,
    config::values,
    signals::{Stop, Urgency},
    view::{NodeView, Presence},
};

mod board;
mod fleet;
mod plan;
mod scene;
mod stage;

/// How often the station is asked how things stand. It answers within a millisecond, and a
/// person sees no difference below this.
const LOOK: Duration = Duration::from_millis(200);

/// The arguments of `steward demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many agents
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    nodes: u16,
    /// End as soon as everything has come out, with 0 when it came out as it was meant to
    #[arg(long)]
    exit_when_done: bool,
    /// Keep the directory with everything in it
    #[arg(long)]
    keep: bool,
    /// The nats-server to run [env: NATS_SERVER_BIN] [default: from PATH, else fetched]
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,
    /// How long starting, and with --exit-when-done everything, may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = values::duration)]
    timeout: Duration,
}

/// What drives the demo, and what may end it.
struct Run<'a> {
    args: &'a DemoArgs,
    stop: &'a Stop,
    deadline: Instant,
}

/// The operator wants the demo to end; not an error, but everything in hand is dropped.
#[derive(Debug, thiserror::Error)]
#[error("go on: the demo was asked to end")]
struct Asked;

pub(super) async fn demo(globals: &Globals, args: &DemoArgs) -> Result<Exit> {
    let mut stage = match globals.format() {
        Format::Table | Format::Wide => Stage::for_people(globals.screen()),
        Format::Jsonl => Stage::for_programs(),
        Format::Json | Format::Csv | Format::Name => {
            return Err(Misuse("a demo is shown as a table or as jsonl".to_owned()).into());
        }
    };
    let stop = Stop::on_signals().context("listen to signals")?;
    // A Unix socket's path must be short, so not below a long TMPDIR.
    let dir = tempfile::Builder::new()
        .prefix("steward-demo-")
        .tempdir_in("/tmp")
        .context("create a directory in /tmp")?;
    let mut fleet = Fleet::new(dir.path());
    let run = Run {
        args,
        stop: &stop,
        deadline: Instant::now() + args.timeout,
    };
    let played = play(&run, &mut fleet, &mut stage).await;
    let asked = matches!(&played, Err(error) if error.is::<Asked>())
        || (played.is_err() && stop.urgency() > Urgency::GoOn);
    if asked {
        notice("ending agents, station and broker");
    }
    let played = match played {
        Err(error) if !asked => Err(fleet.blame(error)),
        played => played,
    };
    fleet.stop(&stop).await;
    clean_up(dir, args.keep)?;
    match played {
        Err(_) if asked => Ok(match args.exit_when_done {
            true => Exit::NotFinal,
            false => Exit::Success,
        }),
        played => played,
    }
}

fn clean_up(dir: TempDir, keep: bool) -> Result<()> {
    if keep {
        notice(&format!("kept: {}", dir.keep().display()));
        return Ok(());
    }
    let path = dir.path().to_owned();
    dir.close()
        .with_context(|| format!("remove {}", path.display()))
}

impl Run<'_> {
    /// Waits a moment; fails when the demo is to end.
    async fn pause(&self) -> Result<()> {
        tokio::select! {
            () = self.stop.draining() => Err(Asked.into()),
            () = sleep(LOOK) => Ok(()),
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }
}

async fn play(run: &Run<'_>, fleet: &mut Fleet, stage: &mut Stage) -> Result<Exit> {
    let given = run.args.nats_server.clone();
    let binary = tokio::task::spawn_blocking(move || broker::find(given.as_deref())).await??;
    fleet.start_broker(&binary)?;
    let plan = Plan::new(run.args.nodes);
    stage.say(&format!(
        "starting a broker, a station and {} agents in {}",
        plan.nodes().len(),
        fleet.dir().display()
    ))?;
    fleet.start_station()?;
    let client = Client::new(&fleet.state_dir());
    for node in plan.nodes() {
        if run.stop.urgency() > Urgency::GoOn {
            return Err(Asked.into());
        }
        fleet.start_agent(node)?;
    }
    if !wait_until_online(run, fleet, &client, &plan).await? {
        return Ok(Exit::NotFinal);
    }
    let inbox = fleet.inbox();
    for example in plan.examples() {
        drop_into(&inbox, example.file, &example.text)?;
    }
    stage.introduce(&introduction(fleet), &inbox, &fleet.state_dir())?;
    watch(run, fleet, Watcher::new(client, plan), stage).await
}

/// Returns whether every agent was online in time; says who was not.
async fn wait_until_online(
    run: &Run<'_>,
    fleet: &mut Fleet,
    client: &Client,
    plan: &Plan,
) -> Result<bool> {
    loop {
        fleet.check()?;
        // The station may not listen yet; then nobody is online.
        let nodes: Vec<NodeView> = client.get("/nodes").await.unwrap_or_default();
        let is_online = |name: &str| {
            nodes
                .iter()
                .any(|node| node.name.as_str() == name && node.state == Presence::Online)
        };
        let missing: Vec<&str> = plan
            .nodes()
            .iter()
            .map(String::as_str)
            .filter(|name| !is_online(name))
            .collect();
        if missing.is_empty() && fleet.inbox().is_dir() {
            return Ok(true);
        }
        if run.is_over() {
            notice(&format!(
                "not everything came up in time; still missing: {}\n{}",
                missing.join(", "),
                fleet.last_words()
            ));
            return Ok(false);
        }
        run.pause().await?;
    }
}

/// As an operator's tool should do it: written under another name, then renamed.
fn drop_into(inbox: &Path, file: &str, text: &str) -> Result<()> {
    let (temporary, place) = (inbox.join(format!(".{file}.tmp")), inbox.join(file));
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, &place))
        .with_context(|| format!("drop {}", place.display()))
}

async fn watch(
    run: &Run<'_>,
    fleet: &mut Fleet,
    mut watcher: Watcher,
    stage: &mut Stage,
) -> Result<Exit> {
    loop {
        fleet.check()?;
        watcher.look().await?;
        let scene: &Scene = watcher.scene();
        stage.show(scene)?;
        let verdict = watcher.plan().judge(scene);
        if run.args.exit_when_done {
            match &verdict {
                Verdict::AsExpected => {
                    // The events of the last look were asked for before its states.
                    watcher.look().await?;
                    stage.show(watcher.scene())?;
                    stage.say("everything came out as it was meant to")?;
                    return Ok(Exit::Success);
                }
                Verdict::Otherwise(surprises) => {
                    notice(&format!("came out differently: {}", surprises.join("; ")));
                    return Ok(Exit::NotSucceeded);
                }
                Verdict::Waiting(missing) if run.is_over() => {
                    notice(&format!(
                        "not everything came out in time; still missing: {}\n{}",
                        missing.join("; "),
                        fleet.last_words()
                    ));
                    return Ok(Exit::NotFinal);
                }
                Verdict::Waiting(_) => {}
            }
        }
        run.pause().await?;
    }
}

/// Says where things are and what to try, in commands that can be copied as they stand.
fn introduction(fleet: &Fleet) -> String {
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "steward".to_owned());
    let steward = format!(
        "{} --state-dir {}",
        quoted(&program),
        quoted(&fleet.state_dir().display().to_string())
    );
    let logs = fleet
        .log_socket("ship1")
        .map_or_else(String::new, |socket| {
            format!(
                "  logger -u {} -t greeter 'hello from a log'; {steward} logs -f\n",
                quoted(&socket)
            )
        });
    format!(
        "\
inbox   {inbox}
broker  {broker}

Try, in another terminal:
  {steward} node ls
  {steward} msg ls
  {steward} run --to '*' -- uname -a
  {steward} run -l fleet=north -- sh -c 'echo hello from $STEWARD_NODE'
  {steward} inbox ls
{logs}Drop a message file into the inbox, or end everything with Ctrl-C.
",
        inbox = fleet.inbox().display(),
        broker = fleet.broker_url(),
    )
}

/// Returns an error if `path` is no program.
fn must_be_program(path: &Path, advice: &str) -> Result<()> {
    if path.is_file() {
        return Ok(());
    }
    bail!("find {}: {advice}", path.display())
}
