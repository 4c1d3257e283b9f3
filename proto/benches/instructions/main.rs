//! Instructions per message of the main workloads, as callgrind counts them: a guard against what makes the broker
//! slower without anybody noticing. They are the same on each machine and in each run, which times are not.
//!
//! `tests/instructions` runs it and compares with `tests/instructions.txt`; docs/performance.md says more.

mod clients;
mod codec;
mod core;
mod record;
mod server;
mod workloads;

use record::Record;
use server::Server;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use workloads::{Kind, WORKLOADS, Workload};

/// Without AVX and the like: which variant of `memcpy` is used would depend on the processor.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM,-Prefer_No_VZEROUPPER";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["work", name, rounds] => work(name, rounds.parse().expect("a number of rounds")),
        [ref filters @ .., "--bench"] => return guard(filters),
        _ => println!("to be run by tests/instructions"),
    }
    ExitCode::SUCCESS
}

/// What a counted process does: it prints how many messages there were.
fn work(name: &str, rounds: usize) {
    let workload = WORKLOADS.iter().find(|workload| workload.name == name).expect("the name of a workload");
    let Kind::Core(run) = workload.kind else { panic!("{name} is counted in a broker") };
    println!("{}", run(rounds));
}

fn guard(filters: &[&str]) -> ExitCode {
    let mut record = match Record::read() {
        Ok(record) => record,
        Err(problem) => {
            println!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    let updates = env::var_os("UPDATE").is_some_and(|value| value == "1");
    if !updates && let Err(problem) = record.check_compiler() {
        println!("{problem}");
        return ExitCode::from(2);
    }
    let chosen =
        |workload: &&Workload| filters.is_empty() || filters.iter().any(|f| workload.name.contains(f));
    let figures = per_message_of_all(&WORKLOADS.iter().filter(chosen).collect::<Vec<_>>());
    if updates {
        record.update(&figures, filters.is_empty());
        return ExitCode::SUCCESS;
    }
    record.compare(&figures)
}

/// As many at a time as there are cores: a count does not suffer from what else a machine does.
fn per_message_of_all(workloads: &[&Workload]) -> Vec<(&'static str, f64)> {
    let figures = Mutex::new(vec![0.0; workloads.len()]);
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(workload) = workloads.get(at) else { return };
                    let figure = per_message(workload);
                    figures.lock().unwrap()[at] = figure;
                }
            });
        }
    });
    workloads.iter().map(|workload| workload.name).zip(figures.into_inner().unwrap()).collect()
}

/// The difference of a long run and a short one: what happens once is in both.
fn per_message(workload: &Workload) -> f64 {
    let (short, messages_of_short) = count(workload, workload.rounds);
    let (long, messages_of_long) = count(workload, workload.rounds * 3);
    (long - short) as f64 / (messages_of_long - messages_of_short) as f64
}

/// Instructions and messages of one run.
fn count(workload: &Workload, rounds: usize) -> (u64, usize) {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let file = env::temp_dir().join(format!("hikyaku-instructions-{}-{number}", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]).env("GLIBC_TUNABLES", TUNABLES);
    valgrind.arg(format!("--callgrind-out-file={}", file.display()));
    let messages = match workload.kind {
        Kind::Core(_) => {
            valgrind.arg("--toggle-collect=*counted_*").arg(env::current_exe().unwrap());
            valgrind.args(["work", workload.name, &rounds.to_string()]).stderr(Stdio::inherit());
            let output = valgrind.output().expect("valgrind is there: apt-get install valgrind");
            assert!(output.status.success(), "{} failed", workload.name);
            String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number of messages")
        }
        Kind::Server(run) => {
            let mut server = Server::start(valgrind, &broker(), &file);
            let messages = run(&mut server, rounds);
            server.stop();
            messages
        }
    };
    let instructions = total(&file);
    std::fs::remove_file(&file).unwrap();
    (instructions, messages)
}

/// The sum in a file of callgrind.
fn total(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).expect("callgrind has written its file");
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a line with the sum");
    line.trim().parse().expect("a number")
}

/// The release binary, in the folder above this program.
fn broker() -> PathBuf {
    let path = env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().join("hikyaku");
    assert!(path.exists(), "{} is not there: cargo build --release", path.display());
    path
}
