//! How much memory all workers together may hold for clients.
//!
//! A worker tells the common sum when what it holds has changed by a [`GRAIN`], and its shard how much that may hold: what it
//! holds, and what is left for all. So no message touches the sum, and what is held goes beyond the limit by no more
//! than what the workers take in between two looks: a turn, or a mebibyte.

use hikyaku_proto::broker::{Input, Shard};
use hikyaku_proto::time::Instant;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a worker may hold more or less than the sum says.
const GRAIN: u64 = 64 << 10;

/// What all workers hold, and may.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Sums>);

#[derive(Debug)]
struct Sums {
    held: AtomicU64,
    limit: AtomicU64,
}

/// One worker's part.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    /// What the sum has of it.
    told: u64,
}

impl Budget {
    /// So many bytes; `None` for [`usual`].
    pub(crate) fn new(limit: Option<u64>) -> Budget {
        let budget = Budget(Arc::new(Sums { held: AtomicU64::new(0), limit: AtomicU64::new(u64::MAX) }));
        budget.limit(limit);
        budget
    }

    /// The limit from now on.
    pub(crate) fn limit(&self, limit: Option<u64>) {
        self.0.limit.store(limit.unwrap_or_else(usual), Ordering::Relaxed);
    }

    /// The part of a worker that holds nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), told: 0 }
    }
}

impl Share {
    /// Tells the others what `shard` holds, and it what it may.
    pub(crate) fn settle(&mut self, now: Instant, shard: &mut Shard) {
        let Sums { held, limit } = &*self.budget.0;
        let own = shard.memory();
        if own.abs_diff(self.told) >= GRAIN {
            // Nothing else is read by these numbers. What all have told adds up to no less than nothing.
            held.fetch_add(own.wrapping_sub(self.told), Ordering::Relaxed);
            self.told = own;
        }
        let others = held.load(Ordering::Relaxed).saturating_sub(self.told);
        let most = limit.load(Ordering::Relaxed).saturating_sub(others);
        shard.handle(now, Input::Memory(most));
    }
}

/// Three quarters of the memory this process may have: of the machine's, or of its control group's if that has less.
/// The rest is for what is not counted: buffers of TLS, of the store, of the system. No limit where that is not known.
pub(crate) fn usual() -> u64 {
    let machine = machine(Path::new("/proc/meminfo"));
    let group = group(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
    machine.into_iter().chain(group).min().map_or(u64::MAX, |bytes| bytes / 4 * 3)
}

/// `MemTotal` of this file.
fn machine(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest limit of the control groups that the process is in: of version 2, or of the memory controller of version 1.
fn group(of_process: &Path, root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(of_process).ok()?;
    let limits = text.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (top, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|c| c == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        // In a container the path may be that of the host, which is not there: the top is the group then.
        let path = top.join(path.trim_start_matches('/'));
        let groups = path.ancestors().take_while(|group| group.starts_with(&top));
        groups
            .filter_map(|group| std::fs::read_to_string(group.join(file)).ok()?.trim().parse().ok())
            .collect()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hikyaku_proto::broker::{Config, ConnId, Placement};

    #[test]
    fn the_smallest_limit_above_the_process_counts() {
        let dir = std::env::temp_dir().join(format!("hikyaku-budget-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let find = || group(&dir.join("cgroup"), &dir.join("fs"));
        assert_eq!(find(), None);
        write("cgroup", "0::/system.slice/hikyaku.service\n");
        write("fs/system.slice/hikyaku.service/memory.max", "max\n");
        assert_eq!(find(), None);
        write("fs/system.slice/memory.max", "4096\n");
        write("fs/memory.max", "8192\n");
        assert_eq!(find(), Some(4096));
        write("fs/system.slice/hikyaku.service/memory.max", "2048\n");
        assert_eq!(find(), Some(2048));
        // Version 1, in a container that does not see its own path.
        write("cgroup", "5:cpu:/docker/x\n4:hugetlb,memory:/docker/x\n");
        write("fs/memory/memory.limit_in_bytes", "1024\n");
        assert_eq!(find(), Some(1024));
        write("meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
        assert_eq!(machine(&dir.join("meminfo")), Some(16 << 20));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_one_worker_holds_another_may_not() {
        let now = Instant::ZERO;
        let shard =
            |id| Shard::new(id, 2, 1, Arc::new(Config::default()), Arc::new(Placement::new(1, 2)), now);
        let (mut a, mut b) = (shard(0), shard(1));
        let budget = Budget::new(Some(1 << 20));
        let (mut of_a, mut of_b) = (budget.share(), budget.share());
        let open = |shard: &mut Shard, count| {
            for index in 0..count {
                let conn = ConnId { index, generation: 0 };
                let opened =
                    Input::Opened { conn, listener: 0, peer: None, identity: None, entropy: [0; 16] };
                shard.handle(now, opened);
            }
        };
        open(&mut a, 600);
        of_a.settle(now, &mut a);
        assert_eq!(budget.0.held.load(Ordering::Relaxed), a.memory());
        open(&mut b, 300);
        of_b.settle(now, &mut b);
        assert_eq!(budget.0.held.load(Ordering::Relaxed), a.memory() + b.memory());
        a.handle(now, Input::Shutdown);
        of_a.settle(now, &mut a);
        assert_eq!(budget.0.held.load(Ordering::Relaxed), b.memory());
    }
}
