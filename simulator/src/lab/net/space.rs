//! Network namespaces: every part of a world on a host of its own, joined to the broker's by a link that can be
//! spoilt.
//!
//! A namespace lives as long as the process that holds it, and that one ends with the laboratory: nothing is
//! named, nothing is left behind. It knows nothing of messages.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::super::{
    child::{Holder, tool},
    dice::Dice,
    layout::Layout,
    world::Who,
};

/// The port of the broker; nobody else is in its namespace.
const PORT: u16 = 4222;

/// How long a namespace may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// What goes wrong on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Trouble {
    /// The link is down.
    Cut,
    /// Nothing reaches the part; what it says is heard.
    Deaf,
    /// Nothing the part says is heard; everything reaches it.
    Mute,
    /// A thin link: 64 kbit/s each way.
    Slow,
    /// A tenth to a half of all packets is lost.
    Loss,
    /// Every packet to the broker is answered with a reset.
    Reset,
}

impl Trouble {
    pub(crate) const ALL: [Self; 6] = [
        Self::Cut,
        Self::Deaf,
        Self::Mute,
        Self::Slow,
        Self::Loss,
        Self::Reset,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Deaf => "half-cut towards it",
            Self::Mute => "half-cut from it",
            Self::Slow => "slow",
            Self::Loss => "loss",
            Self::Reset => "reset storm",
        }
    }
}

/// The namespaces of one world.
#[derive(Debug)]
pub(crate) struct Spaces {
    hub: Holder,
    parts: BTreeMap<Who, Part>,
}

/// A namespace beside the hub's, and the number of its link.
#[derive(Debug)]
struct Part {
    holder: Holder,
    number: usize,
}

impl Spaces {
    /// Makes a namespace for everybody in `layout`, and writes into it how everybody is started there.
    pub(crate) fn make(layout: &mut Layout) -> Result<Self> {
        let lab = layout.programs.lab.display().to_string();
        let mut spaces = Self {
            hub: hold(&lab)?,
            parts: BTreeMap::new(),
        };
        inside(&spaces.hub, &["ip", "link", "set", "lo", "up"])?;
        layout.listen = ("0.0.0.0".to_owned(), PORT);
        layout.prefixes.insert(Who::Broker, way_into(&spaces.hub));
        for (number, who) in layout.members().into_iter().enumerate() {
            if who == Who::Broker {
                continue;
            }
            let holder = hold(&lab)?;
            layout.prefixes.insert(who, way_into(&holder));
            layout
                .urls
                .insert(who, format!("nats://10.77.{number}.1:{PORT}"));
            let part = Part { holder, number };
            part.join(&spaces.hub)?;
            spaces.parts.insert(who, part);
        }
        Ok(spaces)
    }

    fn part(&self, who: Who) -> Result<&Part> {
        self.parts
            .get(&who)
            .with_context(|| format!("find the namespace of the {who}"))
    }

    /// Makes trouble on the link of `who`.
    pub(crate) fn spoil(&self, who: Who, trouble: Trouble, dice: &mut Dice) -> Result<()> {
        let part = self.part(who)?;
        let (link, host) = (part.link(), &part.holder);
        let percent = dice.within(10, 50).to_string();
        match trouble {
            Trouble::Cut => inside(&self.hub, &["ip", "link", "set", &link, "down"]),
            Trouble::Deaf => filter(host, "input", "iif lab0 counter drop"),
            Trouble::Mute => filter(host, "output", "oif lab0 counter drop"),
            Trouble::Loss => filter(
                host,
                "input",
                &format!("iif lab0 numgen random mod 100 < {percent} counter drop"),
            ),
            Trouble::Slow => {
                thin(&self.hub, &link)?;
                thin(host, "lab0")
            }
            Trouble::Reset => filter(
                &self.hub,
                "input",
                &format!("iif {link} tcp dport {PORT} counter reject with tcp reset"),
            ),
        }
    }

    /// Makes everything well on the link of `who`.
    pub(crate) fn heal(&self, who: Who, trouble: Trouble) -> Result<()> {
        let part = self.part(who)?;
        match trouble {
            Trouble::Cut => inside(&self.hub, &["ip", "link", "set", &part.link(), "up"]),
            Trouble::Deaf | Trouble::Mute | Trouble::Loss => unfilter(&part.holder),
            Trouble::Slow => {
                thick(&self.hub, &part.link())?;
                thick(&part.holder, "lab0")
            }
            Trouble::Reset => unfilter(&self.hub),
        }
    }
}

impl Part {
    /// The name of the hub's end of the link; the other end is called `lab0`.
    fn link(&self) -> String {
        format!("v{}", self.number)
    }

    fn join(&self, hub: &Holder) -> Result<()> {
        let (link, pid) = (self.link(), self.holder.pid().to_string());
        let ours = format!("10.77.{}.1/24", self.number);
        let theirs = format!("10.77.{}.2/24", self.number);
        inside(
            hub,
            &[
                "ip", "link", "add", &link, "type", "veth", "peer", "name", "lab0", "netns", &pid,
            ],
        )?;
        inside(hub, &["ip", "addr", "add", &ours, "dev", &link])?;
        inside(hub, &["ip", "link", "set", &link, "up"])?;
        inside(&self.holder, &["ip", "addr", "add", &theirs, "dev", "lab0"])?;
        inside(&self.holder, &["ip", "link", "set", "lo", "up"])?;
        inside(&self.holder, &["ip", "link", "set", "lab0", "up"])
    }
}

/// Starts a process in a network namespace of its own.
fn hold(lab: &str) -> Result<Holder> {
    let mut holder = Holder::start(&["unshare", "-n", lab, "hold"])?;
    let own = fs::read_link("/proc/self/ns/net").context("read our own namespace")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let theirs = PathBuf::from(format!("/proc/{}/ns/net", holder.pid()));
        if fs::read_link(theirs).is_ok_and(|theirs| theirs != own) {
            return Ok(holder);
        }
        if Instant::now() > deadline || !holder.is_running() {
            bail!("make a network namespace: {}", super::HOW);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn way_into(holder: &Holder) -> Vec<String> {
    let namespace = format!("--net=/proc/{}/ns/net", holder.pid());
    vec!["nsenter".to_owned(), namespace, "--".to_owned()]
}

fn inside(holder: &Holder, command: &[&str]) -> Result<()> {
    let way = way_into(holder);
    let whole: Vec<&str> = way
        .iter()
        .map(String::as_str)
        .chain(command.iter().copied())
        .collect();
    tool(&whole, super::PACKAGES).map(drop)
}

fn filter(holder: &Holder, hook: &str, rule: &str) -> Result<()> {
    let rules = format!(
        "add table inet lab; add chain inet lab {hook} {{ type filter hook {hook} priority 0; policy accept; }}; add rule inet lab {hook} {rule}"
    );
    inside(holder, &["nft", &rules])
}

/// Another trouble's rules go with this one's: a link is never the worse for being healed.
fn unfilter(holder: &Holder) -> Result<()> {
    inside(
        holder,
        &["nft", "add table inet lab; delete table inet lab"],
    )
}

fn thin(holder: &Holder, device: &str) -> Result<()> {
    inside(
        holder,
        &[
            "tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", "64kbit", "burst",
            "4kb", "latency", "400ms",
        ],
    )
}

fn thick(holder: &Holder, device: &str) -> Result<()> {
    // Healed twice is as good: then there is nothing to take away.
    inside(holder, &["tc", "qdisc", "del", "dev", device, "root"]).ok();
    Ok(())
}
