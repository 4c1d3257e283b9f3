//! Writing lines to who may have stopped reading them.
//!
//! A pipe that nobody empties would stop whoever logs: every worker, and the thread that waits for signals. So nobody
//! waits long for room in one: lines that do not fit are counted, and the count is told when there is room again. The
//! other end shares the descriptor's flags, so it is asked whether there is room instead of made non-blocking.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

/// The lines that were lost on the way to a pipe or socket.
#[derive(Debug, Default)]
pub struct Outlet {
    lost: Mutex<u64>,
}

/// Two that write to the same pipe would both find the room that is there for one.
static TURN: Mutex<()> = Mutex::new(());
/// How long room is waited for. Once that was in vain, not at all until there is some.
const PATIENCE_MS: i64 = 100;
/// As much may be written at once wherever there is room (PIPE_BUF).
const CHUNK_BYTES: usize = 4096;

impl Outlet {
    /// Writes `lines`, each with its end, or counts them. `time` begins the line that tells the count.
    pub fn write(&self, to: impl AsFd, lines: &str, time: &str) {
        let to = to.as_fd();
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines.split_inclusive('\n') {
            let written = match *lost {
                0 => write(to, line.as_bytes(), PATIENCE_MS),
                1 => write(to, format!("{time}Warning: A line of the log was lost.\n{line}").as_bytes(), 0),
                n => {
                    write(to, format!("{time}Warning: {n} lines of the log were lost.\n{line}").as_bytes(), 0)
                }
            };
            *lost = if written { 0 } else { lost.saturating_add(1) };
        }
    }
}

/// Whether all was written.
fn write(to: BorrowedFd<'_>, mut bytes: &[u8], patience_ms: i64) -> bool {
    while !bytes.is_empty() {
        if !has_room(to, patience_ms) {
            return false;
        }
        match rustix::io::write(to, &bytes[..bytes.len().min(CHUNK_BYTES)]) {
            Ok(n @ 1..) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
        }
    }
    true
}

fn has_room(to: BorrowedFd<'_>, patience_ms: i64) -> bool {
    let patience = Timespec { tv_sec: 0, tv_nsec: patience_ms * 1_000_000 };
    let mut asked = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
    // If nobody is at the other end, that is an answer, too: writing fails then.
    matches!(poll(&mut asked, Some(&patience)), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    #[test]
    fn nobody_waits_for_who_does_not_read_and_the_loss_is_told() {
        let (pipe_end, pipe) = std::io::pipe().unwrap();
        let (socket_end, socket) = UnixStream::pair().unwrap();
        let ends: [(Box<dyn Read>, _); 2] =
            [(Box::new(pipe_end), pipe.as_fd()), (Box::new(socket_end), socket.as_fd())];
        for (mut end, fd) in ends {
            let (outlet, line) = (Outlet::default(), "x".repeat(999) + "\n");
            let begin = Instant::now();
            let lines = 2000;
            (0..lines).for_each(|_| outlet.write(fd, &line, "1: "));
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
            let lost = *outlet.lost.lock().unwrap();
            let came = (lines - lost) as usize;
            assert!(lost > 0 && came > 0);
            let mut got = vec![0; came * line.len()];
            end.read_exact(&mut got).unwrap();
            assert!(got.chunks(line.len()).all(|l| l == line.as_bytes()));
            outlet.write(fd, "again\nand\n", "1: ");
            let expected = format!("1: Warning: {lost} lines of the log were lost.\nagain\nand\n");
            let mut got = vec![0; expected.len()];
            end.read_exact(&mut got).unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), expected);
            drop(end);
            outlet.write(fd, "to nobody\n", "");
            assert_eq!(*outlet.lost.lock().unwrap(), 1);
        }
    }
}
