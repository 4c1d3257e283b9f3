//! Who comes while a reload has been asked for and is not done waits for it.
//!
//! The system chooses the thread that takes a signal, and that notes it when it runs next: on a busy machine later than
//! connections come that were made after the signal was sent. So no thread takes it but the one that accepts: no call of the
//! system returns there before what was sent earlier is noted. A look after each connection that was accepted is enough.

use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes who connects wait for a reload, a second at most: [`Hold::begin`] and [`Hold::end`] stand around one that
/// ends with [`Remote::configure`](crate::Remote::configure).
#[derive(Clone, Debug, Default)]
pub struct Hold {
    signal: Option<Signal>,
    /// Set by the signal itself.
    asked: Arc<AtomicBool>,
    underway: Arc<AtomicBool>,
}

impl Hold {
    /// Who connects after this signal was sent waits for the reload that it asks for. To be called before any other thread
    /// is started, and before others take note of the signal: the calling thread and those it starts do not take
    /// it any more. The server's thread that accepts does.
    ///
    /// # Errors
    /// If it is no signal, or none that can be caught.
    pub fn at(signal: i32) -> io::Result<Hold> {
        let hold = Hold { signal: Some(Signal::try_from(signal)?), ..Hold::default() };
        hold.mask().thread_block()?;
        signal_hook::flag::register(signal, Arc::clone(&hold.asked))?;
        Ok(hold)
    }

    /// A reload begins. It is to read what was written before the signals that have come.
    pub fn begin(&self) {
        self.underway.store(true, Ordering::SeqCst);
        // A signal from here on asks for another one.
        self.asked.store(false, Ordering::SeqCst);
    }

    /// It is done, whatever came of it.
    pub fn end(&self) {
        self.underway.store(false, Ordering::SeqCst);
    }

    /// Asked after a connection was accepted, by the thread that did: has it to wait?
    pub(crate) fn is_on(&self) -> bool {
        // In this order: `begin` sets the one before it clears the other.
        self.asked.load(Ordering::SeqCst) || self.underway.load(Ordering::SeqCst)
    }

    /// The calling thread is the one that accepts.
    pub(crate) fn take_signal_here(&self) -> io::Result<()> {
        Ok(self.mask().thread_unblock()?)
    }

    fn mask(&self) -> SigSet {
        self.signal.into_iter().collect()
    }
}
