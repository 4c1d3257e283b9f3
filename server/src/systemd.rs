//! What a service manager is told, and what it passes on: sd_notify(3) and sd_listen_fds(3).
//!
//! Nobody has to listen: what cannot be sent is logged for debugging, and that is all.

use hikyaku::{Inherited, Remote};
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::time::{ClockId, clock_gettime};
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Tells the service manager what happens.
#[derive(Clone, Debug)]
pub struct Notifier {
    /// `NOTIFY_SOCKET`, if there is a service manager.
    to: Option<OsString>,
    /// How long it may hear nothing (`WATCHDOG_USEC`).
    watchdog: Option<Duration>,
}

/// How long a message may wait for room.
const PATIENCE: Duration = Duration::from_secs(1);

/// A shorter interval is a mistake, and keeping it would be all there is time for.
const WATCHDOG_MIN: Duration = Duration::from_millis(100);

impl Notifier {
    /// For the service manager that the environment names.
    pub fn from_env() -> Notifier {
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(own_pid());
        let watchdog = number("WATCHDOG_USEC").filter(|&n| is_ours && n > 0);
        let watchdog = watchdog.map(|n| Duration::from_micros(n).max(WATCHDOG_MIN));
        Notifier { to: env::var_os("NOTIFY_SOCKET").filter(|to| !to.is_empty()), watchdog }
    }

    /// It serves; `status` is for people.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", status.replace(char::is_control, "?")));
    }

    /// It reads its configuration again, until it is ready.
    pub fn reloading(&self) {
        // How the service manager tells this reload from one before.
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reloading.", now.as_micros()));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=Stopping.");
    }

    /// Shows twice per interval that all workers turn, if someone wants to see it. When one hangs, nothing
    /// is said any more.
    pub fn keep_watch(&self, remote: Remote) {
        let Some(interval) = self.watchdog.filter(|_| self.to.is_some()) else { return };
        let notifier = self.clone();
        std::thread::spawn(move || {
            while remote.await_turn() {
                notifier.send("WATCHDOG=1");
                std::thread::sleep(interval / 2);
            }
        });
    }

    fn send(&self, message: &str) {
        let Some(to) = &self.to else { return };
        let send = || -> io::Result<()> {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.send_to_addr(message.as_bytes(), &address(to.as_bytes())?)?;
            Ok(())
        };
        if let Err(e) = send() {
            log::debug!("The service manager at {} is not reached: {e}.", to.display());
        }
    }
}

/// The address that `NOTIFY_SOCKET` names.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
    }
}

/// The first descriptor that is passed on.
const FIRST: RawFd = 3;

/// Takes the sockets that were passed on, and the variables that say so out of the environment. Only once,
/// and before there are other threads.
///
/// # Errors
/// What is wrong with what was passed on.
pub fn take_sockets() -> Result<Vec<Inherited>, String> {
    let [count, pid, names] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"].map(take_variable);
    let Some(count) = count else { return Ok(Vec::new()) };
    if pid.is_none_or(|pid| pid.parse() != Ok(own_pid())) {
        // Meant for another process, and left behind in the environment.
        return Ok(Vec::new());
    }
    let wrong = || format!("LISTEN_FDS is '{}'; it is a number of descriptors.", count.escape_debug());
    let count = count.parse::<u16>().map_err(|_| wrong())?;
    let names = names.unwrap_or_default();
    let mut names = names.split(':');
    let numbers = FIRST..FIRST + RawFd::from(count);
    let take = |number| Inherited::new(take_descriptor(number)?, number, names.next().unwrap_or_default());
    numbers.map(take).collect()
}

#[expect(unsafe_code, reason = "the environment of a process is not guarded against its other threads")]
fn take_variable(name: &str) -> Option<String> {
    let value = env::var_os(name)?;
    // SAFETY: there is one thread.
    unsafe { env::remove_var(name) };
    Some(value.to_string_lossy().into_owned())
}

#[expect(unsafe_code, reason = "a descriptor that another process opened has nothing but its number")]
fn take_descriptor(number: RawFd) -> Result<OwnedFd, String> {
    // SAFETY: only asked whether it is open. The borrow ends with the question.
    let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) });
    flags.map_err(|e: Errno| format!("LISTEN_FDS counts descriptor {number}, which is not open ({e})."))?;
    // SAFETY: it is open, and the environment says that it is meant for this process; it is taken once, for the
    // environment does not say so any more.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&socket, FdFlags::CLOEXEC).map_err(|e| format!("Descriptor {number}: {e}."))?;
    Ok(socket)
}

fn own_pid() -> u64 {
    std::process::id().into()
}
