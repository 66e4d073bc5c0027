//! What is sent: message files of every kind, drawn by seeded dice, and what is to be expected of them.
//!
//! It writes texts and expectations; it touches no folder and knows no process.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::{
    dice::Dice,
    errand::{Errand, Wish},
    judge::Asked,
    witness::{Lie, Testimony},
};

/// Domains commands are spread over, so that several lanes run side by side.
const DOMAINS: [&str; 4] = ["operatingsystem", "nginx", "apache", "backup"];

/// The timeout of a command that overstays it: long enough for its first line on a busy machine.
const SHORT_TIMEOUT: &str = "2s";

/// Messages in a thousand that are called off, and how many of those run long enough to be caught at it.
const CALLED_OFF: u32 = 50;
const CATCHABLE: u32 = 500;

/// How long those run, in milliseconds.
const CAUGHT_WITHIN: (usize, usize) = (300, 800);

/// How long after its file was dropped something is asked about a message: soon, or once it has come far.
const SOON: Duration = Duration::from_millis(120);
const LATER: Duration = Duration::from_millis(900);

/// Messages in a thousand that are repeated: of those called off, of the unusual ones, and of all, unsettled.
const REPEATED_CANCELLED: u32 = 400;
const REPEATED_UNUSUAL: u32 = 300;
const REPEATED_OPEN: u32 = 20;

/// How traffic is mixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mix {
    /// The witness's program.
    pub(crate) witness: PathBuf,
    /// Where it writes.
    pub(crate) truth: PathBuf,
    pub(crate) nodes: Vec<String>,
    /// Most messages of a file.
    pub(crate) per_file: usize,
    /// Most nodes of a message.
    pub(crate) per_message: usize,
    /// How long most commands stay, at most.
    pub(crate) stay: Duration,
    /// Messages in a thousand that fail, overstay, cannot start, expire: the unusual ones.
    pub(crate) unusual: u32,
    /// Files in a thousand that are no message files.
    pub(crate) bad_files: u32,
    pub(crate) lie: Option<Lie>,
}

/// A file to be dropped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parcel {
    pub(crate) file: String,
    pub(crate) text: String,
    /// The messages in it; none if it is to be rejected.
    pub(crate) asked: Vec<Asked>,
    /// What is asked of the station about them later.
    pub(crate) errands: Vec<Errand>,
}

/// Draws files; every file and every message has a name of its own.
#[derive(Debug)]
pub(crate) struct Traffic {
    mix: Mix,
    dice: Dice,
    files: u64,
    messages: u64,
}

impl Traffic {
    pub(crate) fn new(mix: Mix, dice: Dice) -> Self {
        Self {
            mix,
            dice,
            files: 0,
            messages: 0,
        }
    }

    /// Returns dice for whoever asks about these messages.
    pub(crate) fn dice_for_errands(&self) -> Dice {
        self.dice.fork(3)
    }

    /// Returns files with `messages` messages in all, and bad ones between.
    pub(crate) fn parcels(&mut self, messages: usize) -> Vec<Parcel> {
        let mut left = messages;
        let mut parcels = Vec::new();
        while left > 0 {
            if self.dice.chance(self.mix.bad_files) {
                parcels.push(self.bad());
            }
            let count = self.dice.within(1, self.mix.per_file.min(left));
            left -= count;
            parcels.push(self.parcel(count));
        }
        parcels
    }

    fn file(&mut self) -> String {
        self.files += 1;
        format!("f{}.json", self.files)
    }

    fn bad(&mut self) -> Parcel {
        let texts = [
            r#"{"subject": "n1.command.shellcommand.x", "data": ["true"], "domian": "x"}"#,
            r#"{"subject": "n1.shellcommand", "data": ["true"]}"#,
            "[1, 2]",
            "{]}",
            r#"[{"subject": "n1.command.shellcommand.x", "data": ["true"]}, {"data": []}]"#,
        ];
        Parcel {
            text: (*self.dice.pick(&texts)).to_owned(),
            file: self.file(),
            asked: Vec::new(),
            errands: Vec::new(),
        }
    }

    fn parcel(&mut self, count: usize) -> Parcel {
        let file = self.file();
        let mut asked = Vec::new();
        let mut texts = Vec::new();
        let mut errands = Vec::new();
        for _ in 0..count {
            let (one, text) = self.message(&file, &mut errands);
            asked.push(one);
            texts.push(text);
        }
        let text = match &texts[..] {
            [one] => one.to_string(),
            _ => Value::Array(texts).to_string(),
        };
        Parcel {
            file,
            text,
            asked,
            errands,
        }
    }

    fn message(&mut self, file: &str, errands: &mut Vec<Errand>) -> (Asked, Value) {
        self.messages += 1;
        let mut asked = Asked {
            name: format!("m{}", self.messages),
            file: file.to_owned(),
            nodes: self.nodes(),
            success_codes: vec![0],
            idempotent: self.dice.chance(60),
            startable: true,
            may_expire: false,
            overstays: false,
            witnessed: true,
        };
        let mut text = json!({
            "name": asked.name,
            "to": asked.nodes,
            "method": "shellcommand",
            "domain": self.dice.pick(&DOMAINS),
            "ordered": self.dice.chance(600),
            "idempotent": asked.idempotent,
        });
        let mut testimony = Testimony {
            file: self.mix.truth.clone(),
            token: asked.name.clone(),
            stay: self.dice.time(self.mix.stay),
            code: 0,
            lie: self.mix.lie,
        };
        let unusual = self.dice.chance(self.mix.unusual);
        if unusual {
            self.unusual(&mut asked, &mut text, &mut testimony);
        }
        self.errands(&asked, unusual, &mut testimony, errands);
        let program = match asked.startable {
            true => self.mix.witness.display().to_string(),
            false => "/nonexistent/program".to_owned(),
        };
        let mut data = vec![program];
        data.extend(testimony.arguments());
        text["data"] = json!(data);
        (asked, text)
    }

    fn nodes(&mut self) -> Vec<String> {
        let mut left = self.mix.nodes.clone();
        let count = self.dice.within(1, self.mix.per_message.min(left.len()));
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(left.swap_remove(self.dice.below(left.len())));
        }
        nodes
    }

    /// Decides what is asked about a message after it was dropped.
    fn errands(
        &mut self,
        asked: &Asked,
        unusual: bool,
        testimony: &mut Testimony,
        errands: &mut Vec<Errand>,
    ) {
        let called_off = self.dice.chance(CALLED_OFF);
        if called_off {
            if self.dice.chance(CATCHABLE) && testimony.stay < LATER {
                let (low, high) = CAUGHT_WITHIN;
                let millis = u64::try_from(self.dice.within(low, high)).unwrap_or(0);
                testimony.stay = Duration::from_millis(millis);
            }
            let mut nodes = asked.nodes.clone();
            if self.dice.chance(300) {
                nodes.truncate(1);
            }
            let after = match self.dice.chance(500) {
                true => self.dice.time(SOON),
                false => self.dice.time(LATER),
            };
            errands.push(Errand::new(asked, nodes, after, Wish::Cancel));
        }
        let repeated = match (called_off, unusual) {
            (true, _) => REPEATED_CANCELLED,
            (false, true) => REPEATED_UNUSUAL,
            _ => 0,
        };
        let wish = match self.dice.chance(repeated) {
            true => Wish::RetryEnded,
            false if self.dice.chance(REPEATED_OPEN) => Wish::RetryOpen,
            false => return,
        };
        let longest = match wish {
            Wish::RetryOpen => SOON * 2,
            _ => LATER,
        };
        let after = self.dice.time(longest);
        errands.push(Errand::new(asked, asked.nodes.clone(), after, wish));
    }

    fn unusual(&mut self, asked: &mut Asked, text: &mut Value, testimony: &mut Testimony) {
        match self.dice.below(10) {
            0..=2 => testimony.code = 3,
            3 => {
                testimony.code = 4;
                asked.success_codes = vec![0, 4];
                text["success_codes"] = json!([0, 4]);
            }
            4 => asked.startable = false,
            5 => {
                testimony.stay = Duration::from_secs(60);
                asked.overstays = true;
                text["timeout"] = json!(SHORT_TIMEOUT);
            }
            6..=8 => {
                asked.may_expire = true;
                text["expires"] = json!(format!("{}ms", self.dice.within(50, 2000)));
            }
            _ => testimony.stay = self.mix.stay * 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(seed: u64) -> Traffic {
        let mix = Mix {
            witness: PathBuf::from("/w"),
            truth: PathBuf::from("/t"),
            nodes: ["n1", "n2", "n3"].map(str::to_owned).to_vec(),
            per_file: 7,
            per_message: 2,
            stay: Duration::from_millis(50),
            unusual: 300,
            bad_files: 200,
            lie: None,
        };
        Traffic::new(mix, Dice::new(seed))
    }

    #[test]
    fn a_seed_gives_the_same_files_with_as_many_messages_as_asked() {
        let parcels = traffic(5).parcels(100);
        assert_eq!(parcels, traffic(5).parcels(100));
        assert_ne!(parcels, traffic(6).parcels(100));
        assert_eq!(
            parcels
                .iter()
                .map(|parcel| parcel.asked.len())
                .sum::<usize>(),
            100
        );
    }

    #[test]
    fn the_station_reads_good_files_and_refuses_bad_ones() {
        for parcel in traffic(1).parcels(500) {
            let read = steward_station::inbox::read(
                parcel.text.as_bytes(),
                steward_station::inbox::Format::Json,
            );
            assert_eq!(read.is_ok(), !parcel.asked.is_empty(), "{}", parcel.text);
        }
    }
}
