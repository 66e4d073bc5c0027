//! Transfers: the machines under any schedule, packets of any bytes.

use std::time::Duration;

use proptest::prelude::*;
use steward_protocol::{
    Digest, LedgerId, MessageId,
    transfer::{
        CHUNK, Chunk, End, Failed, Failure, MAX_HEADER, Moment, Packet, PacketError, Passage,
        Transfer, Want, What, Whole,
        receiver::{self, Over, Receiver, Window},
        sender::{self, Manner, Sender},
    },
};
use uuid::Uuid;

const PIECE: usize = 10;
const WINDOW: Window = Window {
    credit: 40,
    step: 20,
    most: 1 << 20,
};

fn transfer() -> Transfer {
    Transfer {
        id: MessageId(Uuid::from_u128(1)),
        digest: Digest::of(b"order"),
        what: What::Output,
    }
}

/// Something on its way.
#[derive(Debug, Clone)]
enum Said {
    Want(Want),
    Chunk(Chunk, Vec<u8>),
}

/// What befalls the two ends and the link between them.
#[derive(Debug, Clone)]
enum Fate {
    Arrive(usize),
    Lose(usize),
    Repeat(usize),
    Produce(usize),
    Wait(u64),
    ReceiverRestarts,
    SenderRestarts,
    Rerun,
    DiskFull,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => any::<usize>().prop_map(Fate::Arrive),
        2 => any::<usize>().prop_map(Fate::Lose),
        2 => any::<usize>().prop_map(Fate::Repeat),
        4 => (1_usize..60).prop_map(Fate::Produce),
        4 => (1_u64..3000).prop_map(Fate::Wait),
        1 => Just(Fate::ReceiverRestarts),
        1 => Just(Fate::SenderRestarts),
        1 => Just(Fate::Rerun),
        1 => Just(Fate::DiskFull),
    ]
}

/// Both ends, what each of them keeps, and what is on its way.
struct World {
    now: Duration,
    dice: u64,
    source: Vec<u8>,
    attempt: u32,
    total: usize,
    manner: Manner,
    sender: Sender,
    released: u64,
    releasing: bool,
    receiver: Receiver,
    kept: Vec<u8>,
    kept_attempt: Option<u32>,
    durable: usize,
    full: bool,
    over: Option<Over>,
    way: Vec<Said>,
}

impl World {
    fn new(total: usize, manner: Manner, releasing: bool) -> Self {
        let start = Moment {
            at: Duration::ZERO,
            dice: 0,
        };
        Self {
            now: Duration::ZERO,
            dice: 1,
            source: Vec::new(),
            attempt: 1,
            total,
            manner,
            sender: Sender::new(manner, 1, PIECE, start),
            released: 0,
            releasing,
            receiver: Receiver::new(transfer(), WINDOW, None, 0),
            kept: Vec::new(),
            kept_attempt: None,
            durable: 0,
            full: false,
            over: None,
            way: Vec::new(),
        }
    }

    fn moment(&mut self) -> Moment {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        Moment {
            at: self.now,
            dice: self.dice,
        }
    }

    fn produce(&mut self, bytes: usize) {
        for _ in 0..bytes.min(self.total - self.source.len()) {
            self.source.push(byte(self.attempt, self.source.len()));
        }
        self.tell_sender();
    }

    /// What a sender finds when it looks at its source.
    fn tell_sender(&mut self) {
        let now = self.moment();
        self.sender
            .on(sender::Event::Available(self.source.len() as u64), now);
        self.sender.on(sender::Event::Released(self.released), now);
        if self.source.len() == self.total {
            let end = End::Whole(Whole {
                bytes: self.total as u64,
                blake3: Digest::of(&self.source),
                command: None,
            });
            self.sender.on(sender::Event::Ends(&end), now);
        }
        self.send();
    }

    fn send(&mut self) {
        loop {
            let now = self.moment();
            let Some(piece) = self.sender.next(now) else {
                return;
            };
            let from = usize::try_from(piece.offset).expect("small");
            let bytes = self.source[from..from + piece.bytes].to_vec();
            assert!(bytes.is_empty() || piece.offset >= self.released);
            let chunk = Chunk {
                transfer: transfer(),
                attempt: self.sender.attempt(),
                offset: piece.offset,
                bytes: u32::try_from(bytes.len()).expect("small"),
                blake3: Digest::of(&bytes),
                end: piece.end,
            };
            self.way.push(Said::Chunk(chunk, bytes));
        }
    }

    fn arrive(&mut self, said: Said) {
        match said {
            Said::Want(want) => {
                let now = self.moment();
                for action in self.sender.on(sender::Event::Want(&want), now) {
                    if let (sender::Action::Release(offset), true) = (action, self.releasing) {
                        self.released = self.released.max(offset);
                        self.sender.on(sender::Event::Released(self.released), now);
                    }
                }
                self.send();
            }
            Said::Chunk(chunk, bytes) => {
                let now = self.moment();
                let actions = self.receiver.on(receiver::Event::Chunk(&chunk), now);
                self.carry_out(actions, &bytes);
            }
        }
    }

    fn carry_out(&mut self, actions: Vec<receiver::Action>, bytes: &[u8]) {
        let mut more = Vec::new();
        for action in actions {
            let now = self.moment();
            match action {
                receiver::Action::Reset(attempt) => {
                    self.kept.clear();
                    self.durable = 0;
                    self.kept_attempt = Some(attempt);
                }
                receiver::Action::Append(_) | receiver::Action::Sync if self.full => {
                    self.kept.truncate(self.durable);
                    self.full = false;
                    more = self.receiver.on(receiver::Event::Stuck, now);
                    break;
                }
                receiver::Action::Append(known) => self.kept.extend_from_slice(&bytes[known..]),
                receiver::Action::Sync => {
                    self.durable = self.kept.len();
                    more.extend(self.receiver.on(receiver::Event::Synced, now));
                }
                receiver::Action::Verify(whole) => {
                    let right = self.durable as u64 == whole.bytes
                        && Digest::of(&self.kept) == whole.blake3;
                    let event = if right {
                        receiver::Event::Right
                    } else {
                        receiver::Event::Wrong
                    };
                    more.extend(self.receiver.on(event, now));
                }
                receiver::Action::Say(want) => {
                    assert!(want.offset <= self.durable as u64, "only what is durable");
                    self.way.push(Said::Want(want));
                }
                receiver::Action::Over(over) => self.over = Some(over),
            }
        }
        if !more.is_empty() {
            self.carry_out(more, bytes);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.moment();
        let actions = self.receiver.on(receiver::Event::Time, now);
        self.carry_out(actions, &[]);
        self.send();
    }

    fn befall(&mut self, fate: &Fate) {
        let pick = |at: usize, way: &Vec<Said>| (!way.is_empty()).then(|| at % way.len());
        match *fate {
            Fate::Arrive(at) => {
                if let Some(at) = pick(at, &self.way) {
                    let said = self.way.remove(at);
                    self.arrive(said);
                }
            }
            Fate::Lose(at) => {
                if let Some(at) = pick(at, &self.way) {
                    self.way.remove(at);
                }
            }
            Fate::Repeat(at) => {
                if let Some(at) = pick(at, &self.way) {
                    let said = self.way[at].clone();
                    self.way.push(said);
                }
            }
            Fate::Produce(bytes) => self.produce(bytes),
            Fate::Wait(millis) => self.pass(Duration::from_millis(millis)),
            Fate::ReceiverRestarts if self.over.is_none() => self.restart_receiver(),
            Fate::SenderRestarts => self.restart_sender(),
            Fate::Rerun if self.over.is_none() => {
                self.attempt += 1;
                self.source.clear();
                self.released = 0;
                self.restart_sender();
            }
            Fate::ReceiverRestarts | Fate::Rerun => {}
            Fate::DiskFull => self.full = true,
        }
    }

    fn restart_receiver(&mut self) {
        self.kept.truncate(self.durable);
        let durable = self.durable as u64;
        self.receiver = Receiver::new(transfer(), WINDOW, self.kept_attempt, durable);
        let now = self.moment();
        let actions = self.receiver.on(receiver::Event::Begin, now);
        self.carry_out(actions, &[]);
    }

    fn restart_sender(&mut self) {
        let now = self.moment();
        self.sender = Sender::new(self.manner, self.attempt, PIECE, now);
        self.tell_sender();
    }

    /// Lets everything arrive in its order until it is over.
    fn be_fair(&mut self) {
        self.full = false;
        self.produce(self.total);
        let end = self.now + Duration::from_secs(600);
        while self.over.is_none() {
            assert!(self.now < end, "not over after ten minutes of a fair link");
            while !self.way.is_empty() {
                let said = self.way.remove(0);
                self.arrive(said);
            }
            self.pass(Duration::from_millis(100));
        }
    }
}

/// What a run writes.
fn byte(attempt: u32, at: usize) -> u8 {
    u8::try_from((at * 7 + at / 251 + attempt as usize * 13) % 256).expect("below 256")
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![Just(Manner::Offered), Just(Manner::Asked)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_befalls_them_the_bytes_arrive_as_they_were_once_the_link_is_fair(
        total in 0_usize..400,
        manner in manner(),
        releasing in any::<bool>(),
        fates in prop::collection::vec(fate(), 0..200),
    ) {
        let mut world = World::new(total, manner, releasing);
        world.restart_receiver();
        for fate in &fates {
            world.befall(fate);
        }
        world.be_fair();
        match &world.over {
            Some(Over::Done(whole)) => {
                prop_assert_eq!(whole.bytes, total as u64);
                prop_assert_eq!(world.durable, total);
                // A run that was over before the next one began is as good as that one.
                let attempt = world.kept_attempt.expect("something came");
                let bytes: Vec<u8> = (0..total).map(|at| byte(attempt, at)).collect();
                prop_assert_eq!(&world.kept, &bytes);
            }
            other => prop_assert!(false, "ended with {:?}", other),
        }
    }

    #[test]
    fn no_bytes_make_the_packet_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(Packet::<Passage>::decode(&bytes));
        let mut near = packet(b"some bytes");
        for (at, byte) in bytes.iter().enumerate() {
            let place = (at * 31 + usize::from(*byte)) % near.len();
            near[place] ^= byte;
            drop(Packet::<Passage>::decode(&near));
        }
    }
}

fn packet(bytes: &[u8]) -> Vec<u8> {
    let send = Passage {
        v: 1,
        ledger_id: LedgerId(Uuid::from_u128(7)),
        epoch: 3,
    };
    let chunk = Chunk {
        transfer: transfer(),
        attempt: 1,
        offset: 5,
        bytes: u32::try_from(bytes.len()).expect("small"),
        blake3: Digest::of(bytes),
        end: None,
    };
    Packet::encode(send, chunk, bytes).expect("small enough")
}

#[test]
fn a_packet_damaged_in_any_one_bit_is_refused() {
    let sound = packet(b"some bytes");
    let read = Packet::<Passage>::decode(&sound).expect("it is sound");
    assert_eq!(read.bytes, b"some bytes");
    for bit in 0..sound.len() * 8 {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Packet::<Passage>::decode(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_packet_cut_short_or_with_a_header_beyond_the_limit_is_refused() {
    let sound = packet(&[7; CHUNK]);
    assert!(Packet::<Passage>::decode(&sound).is_ok());
    for length in [0, 3, 4, 100, sound.len() - 1] {
        assert!(
            Packet::<Passage>::decode(&sound[..length]).is_err(),
            "{length}"
        );
    }
    let mut long = sound.clone();
    let header = u32::try_from(MAX_HEADER + 1).expect("small");
    long[..4].copy_from_slice(&header.to_be_bytes());
    assert!(matches!(
        Packet::<Passage>::decode(&long),
        Err(PacketError::TooLarge { .. })
    ));
}

fn now() -> Moment {
    Moment {
        at: Duration::from_secs(1),
        dice: 0,
    }
}

fn chunk(offset: u64, bytes: u32, end: Option<End>) -> Chunk {
    Chunk {
        transfer: transfer(),
        attempt: 1,
        offset,
        bytes,
        blake3: Digest::of(b""),
        end,
    }
}

#[test]
fn a_transfer_that_the_sender_ends_without_its_last_byte_is_over_and_says_why() {
    let mut receiver = Receiver::new(transfer(), WINDOW, Some(1), 20);
    let failed = Failed::new(Failure::Changed, "it has another length now");
    let last = chunk(20, 0, Some(End::Failed(failed.clone())));
    let actions = receiver.on(receiver::Event::Chunk(&last), now());
    assert_eq!(actions, [receiver::Action::Over(Over::Failed(failed))]);
    assert_eq!(receiver.wake_at(), None);
}

#[test]
fn more_than_is_taken_is_refused_in_words_at_the_limit_and_not_before() {
    for (bytes, expected) in [
        (WINDOW.most - 1, true),
        (WINDOW.most, true),
        (WINDOW.most + 1, false),
    ] {
        let mut receiver = Receiver::new(transfer(), WINDOW, Some(1), 0);
        let whole = Whole {
            bytes,
            blake3: Digest::of(b""),
            command: None,
        };
        let last = chunk(0, 0, Some(End::Whole(whole)));
        let actions = receiver.on(receiver::Event::Chunk(&last), now());
        let refused = actions.iter().any(|action| {
            matches!(action, receiver::Action::Over(Over::Failed(failed)) if failed.why == Failure::TooLarge)
        });
        assert_eq!(!refused, expected, "{bytes}");
    }
}

#[test]
fn what_is_wrong_twice_fails_and_is_not_asked_for_for_ever() {
    let mut receiver = Receiver::new(transfer(), WINDOW, Some(1), 0);
    let whole = Whole {
        bytes: 5,
        blake3: Digest::of(b"right"),
        command: None,
    };
    for turn in 0..2 {
        let last = chunk(0, 5, Some(End::Whole(whole.clone())));
        receiver.on(receiver::Event::Chunk(&last), now());
        receiver.on(receiver::Event::Synced, now());
        let actions = receiver.on(receiver::Event::Wrong, now());
        let over = actions
            .iter()
            .any(|action| matches!(action, receiver::Action::Over(_)));
        assert_eq!(over, turn == 1, "turn {turn}: {actions:?}");
    }
}

#[test]
fn what_was_released_is_not_to_be_had_any_more_and_an_old_word_does_no_harm() {
    let mut sender = Sender::new(Manner::Asked, 1, PIECE, now());
    sender.on(sender::Event::Available(100), now());
    sender.on(sender::Event::Released(50), now());
    let mut receiver = Receiver::new(transfer(), WINDOW, Some(1), 0);
    let begin = receiver.on(receiver::Event::Begin, now());
    let [receiver::Action::Say(want)] = begin.as_slice() else {
        panic!("{begin:?}");
    };
    sender.on(sender::Event::Want(want), now());
    let piece = sender.next(now()).expect("it says so");
    let chunk = chunk(piece.offset, 0, piece.end);
    let mut ahead = Receiver::new(transfer(), WINDOW, Some(1), 50);
    assert_eq!(ahead.on(receiver::Event::Chunk(&chunk), now()), []);
    let actions = receiver.on(receiver::Event::Chunk(&chunk), now());
    assert!(
        matches!(actions.as_slice(), [receiver::Action::Over(Over::Failed(failed))] if failed.why == Failure::Released),
        "{actions:?}"
    );
}
