//! Bytes that may hold a password, as `Debug` shows them: how many there are.

use core::fmt;

/// Shows the length alone.
pub(crate) struct Unseen<'a>(pub &'a [u8]);

impl fmt::Debug for Unseen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
