//! Random numbers for connections, asked of the system for many at once: each question is a system call.

/// What a connection gets.
type Entropy = [u8; 16];

const MANY: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Chance {
    drawn: Vec<Entropy>,
}

impl Chance {
    /// Numbers that nobody else gets.
    ///
    /// # Errors
    /// If the system has none.
    pub fn draw(&mut self) -> Result<Entropy, getrandom::Error> {
        if let Some(entropy) = self.drawn.pop() {
            return Ok(entropy);
        }
        let mut many = [Entropy::default(); MANY];
        getrandom::fill(many.as_flattened_mut())?;
        let [first, rest @ ..] = many;
        self.drawn.extend(rest);
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nobody_gets_what_another_has() {
        let mut chance = Chance::default();
        let drawn: BTreeSet<Entropy> = (0..3 * MANY).map(|_| chance.draw().unwrap()).collect();
        assert_eq!(drawn.len(), 3 * MANY);
    }
}
