//! One direction of a connection: bytes arrive in order, after some time, in pieces of any size, or never.

use super::random::Random;
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// Pieces on their way, with the moment each arrives.
    pieces: VecDeque<(u64, Vec<u8>)>,
    /// How many bytes were taken in and not read at the other end.
    pub held: usize,
    last_at: u64,
    /// Whether nothing arrives any more.
    pub dead: bool,
}

impl Pipe {
    /// How many more bytes it takes.
    pub fn room(&self, capacity: usize) -> usize {
        capacity.saturating_sub(self.held)
    }

    /// When something sent now arrives: never before what was sent earlier.
    pub fn arrival(&mut self, now: u64, delay: u64) -> u64 {
        self.last_at = self.last_at.max(now + delay);
        self.last_at
    }

    /// Sends bytes; gives the moments at which pieces of them arrive.
    pub fn send(
        &mut self,
        now: u64,
        bytes: &[u8],
        latency: u64,
        fragments: bool,
        random: &mut Random,
    ) -> Vec<u64> {
        self.held += bytes.len();
        if self.dead {
            return Vec::new();
        }
        let mut arrivals = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = if fragments { 1 + random.index(rest.len().min(60)) } else { rest.len() };
            let (piece, left) = rest.split_at(most);
            rest = left;
            let at = self.arrival(now, random.below(latency));
            self.pieces.push_back((at, piece.to_vec()));
            arrivals.push(at);
        }
        arrivals
    }

    /// The next piece, if it is there.
    pub fn receive(&mut self, now: u64) -> Option<Vec<u8>> {
        self.pieces.front().filter(|(at, _)| *at <= now)?;
        self.pieces.pop_front().map(|(_, piece)| piece)
    }

    /// Loses what is on its way but for some bytes.
    pub fn cut(&mut self, random: &mut Random) {
        let all: usize = self.pieces.iter().map(|(_, piece)| piece.len()).sum();
        let mut keep = random.index(all + 1);
        for (_, piece) in &mut self.pieces {
            piece.truncate(keep);
            keep -= piece.len();
        }
    }

    /// Nothing arrives any more.
    pub fn kill(&mut self) {
        self.dead = true;
        self.pieces.clear();
    }
}
