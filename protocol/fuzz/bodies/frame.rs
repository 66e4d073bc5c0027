//! Everything that arrives from a broker, decoded from arbitrary bytes: it is never a panic, and what was
//! decoded is encoded as something that is decoded again.

use steward_protocol::{
    Ack, Cancel, Confirm, Envelope, FaultEvent, Frame, Hello, Origin, Reign, Welcome, logs::Kept,
};

pub(crate) fn run(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 8 {
        0 => {
            if let Ok(envelope) = Envelope::decode(bytes)
                && let Ok(encoded) = envelope.encode()
            {
                Envelope::decode(&encoded).expect("what was encoded can be decoded");
            }
        }
        1 => again::<Origin, Ack>(bytes),
        2 => again::<Origin, Hello>(bytes),
        3 => again::<Origin, FaultEvent>(bytes),
        4 => again::<Reign, Welcome>(bytes),
        5 => again::<Reign, Confirm>(bytes),
        6 => again::<Reign, Kept>(bytes),
        _ => again::<Reign, Cancel>(bytes),
    }
}

fn again<H, B>(bytes: &[u8])
where
    H: serde::Serialize + serde::de::DeserializeOwned,
    B: steward_protocol::envelope::Body + serde::Serialize + serde::de::DeserializeOwned,
{
    if let Ok(frame) = Frame::<H, B>::decode(bytes)
        && let Ok(encoded) = frame.encode()
    {
        Frame::<H, B>::decode(&encoded).expect("what was encoded can be decoded");
    }
}
