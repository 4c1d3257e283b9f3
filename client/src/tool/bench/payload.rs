//! What a message of `hikyaku-bench` carries: whose it is, which one, and when it was due.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How many bytes of a payload this takes.
pub(super) const HEAD: usize = 24;

const MAGIC: u32 = 0x6862 << 16;

/// The head of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The run that it belongs to.
    pub run: u16,
    pub publisher: u32,
    /// Counts from 0.
    pub number: u64,
    /// Nanoseconds of the wall clock.
    pub due: u64,
}

impl Head {
    /// Writes itself to the beginning of a payload that has room.
    pub fn put(&self, payload: &mut [u8]) {
        if let Some(head) = payload.first_chunk_mut::<HEAD>() {
            head[..4].copy_from_slice(&(MAGIC | u32::from(self.run)).to_be_bytes());
            head[4..8].copy_from_slice(&self.publisher.to_be_bytes());
            head[8..16].copy_from_slice(&self.number.to_be_bytes());
            head[16..].copy_from_slice(&self.due.to_be_bytes());
        }
    }

    /// The head of a payload, if it has one.
    pub fn of(payload: &[u8]) -> Option<Head> {
        let (magic, rest) = payload.split_first_chunk::<4>()?;
        let (publisher, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let due = rest.first_chunk::<8>()?;
        let magic = u32::from_be_bytes(*magic);
        (magic & 0xffff_0000 == MAGIC).then_some(Head {
            run: magic as u16,
            publisher: u32::from_be_bytes(*publisher),
            number: u64::from_be_bytes(*number),
            due: u64::from_be_bytes(*due),
        })
    }
}

/// Nanoseconds since the start, and what they are on the wall clock, for messages between programs. Within one program
/// the wall clock may jump without doing harm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    wall: u64,
}

impl Clock {
    pub fn start() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { started: Instant::now(), wall: wall.as_nanos() as u64 }
    }

    pub fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    pub fn to_wall(self, at: u64) -> u64 {
        self.wall + at
    }

    /// How long ago, at `now`, a moment of the wall clock was.
    pub fn since(&self, wall: u64, now: u64) -> u64 {
        (self.wall + now).saturating_sub(wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = Head { run: 0xabcd, publisher: 7, number: u64::MAX - 1, due: 1 << 60 };
        let mut payload = [b'x'; 30];
        head.put(&mut payload);
        assert_eq!(Head::of(&payload), Some(head));
        assert_eq!(&payload[HEAD..], b"xxxxxx");
        assert_eq!(Head::of(&payload[..HEAD - 1]), None);
        assert_eq!(Head::of(&[0; 64]), None);
    }
}
