//! Cases that a script of `tests/clients` plays: one process and one fresh broker for each.

use std::process::Command;

use hikyaku_tests::matrix::Setup;
use hikyaku_tests::process::{Broker, Process};

/// Runs one case and demands its line `ok CASE`.
pub fn run(client: Command, case: &str, setup: Setup) {
    let broker = Broker::start(setup.broker_args());
    run_at(broker.port, client, case, setup.version, || broker.log());
}

/// Runs one case against the broker at `port`, whose log is told if it fails.
pub fn run_at(port: u16, mut client: Command, case: &str, version: u8, log: impl FnOnce() -> String) {
    client.arg(port.to_string()).arg(version.to_string()).arg(case);
    let end = Process::spawn(&mut client).wait();
    assert!(
        end.code == 0 && end.stdout == format!("ok {case}\n"),
        "{}{}exit code {}; the broker says:\n{}",
        end.stdout,
        end.stderr,
        end.code,
        log()
    );
}

/// Demands that the script has exactly the cases that are tests here.
pub fn assert_cases(mut client: Command, both: &[&str], v5: &[&str]) {
    let listed = Process::spawn(client.arg("--list")).wait().stdout;
    let of_kind = |kind: &str| -> Vec<String> {
        let names = listed.lines().filter_map(|line| line.strip_prefix(kind));
        names.map(|name| name.trim().to_owned()).collect()
    };
    assert_eq!(of_kind("both "), both);
    assert_eq!(of_kind("v5 "), v5);
}

/// Makes the tests of a module from the cases of its script; `client()` in that module starts the script.
macro_rules! script_cases {
    (both { $($both:ident)* } v5 { $($v5:ident)* }) => {
        macro_rules! run {
            ($case:ident, $setup:expr) => {
                $crate::script::run(super::super::client(), stringify!($case), $setup)
            };
        }
        hikyaku_tests::matrix!(run { $($both)* } { $($v5)* });

        #[test]
        fn every_case_of_the_script_is_a_test() {
            let both = [$(stringify!($both)),*];
            let v5 = [$(stringify!($v5)),*];
            $crate::script::assert_cases(client(), &both, &v5);
        }
    };
}
pub(crate) use script_cases;
