//! Signals, waited for with a time limit.

use signal_hook::iterator::Signals;
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Signals that came and were not looked at.
pub struct Inbox {
    signals: Signals,
    /// Each signal leaves a byte here.
    bell: UnixStream,
}

impl Inbox {
    /// Takes these signals from now on.
    pub fn open(signals: &[i32]) -> io::Result<Inbox> {
        let inbox = Signals::new(signals)?;
        let (bell, rope) = UnixStream::pair()?;
        for &signal in signals {
            // After the one above, which has noted the signal when this rings.
            pipe::register(signal, rope.try_clone()?)?;
        }
        Ok(Inbox { signals: inbox, bell })
    }

    /// Waits for signals: there may be none, if another call has taken them already. `None` if nothing came
    /// within `patience`, which must not be zero.
    pub fn wait(&mut self, patience: Option<Duration>) -> io::Result<Option<Vec<i32>>> {
        self.bell.set_read_timeout(patience)?;
        match self.bell.read(&mut [0; 64]) {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(Some(self.signals.pending().collect()))
    }
}
