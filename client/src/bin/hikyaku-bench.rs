//! `hikyaku-bench` measures a broker.

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku_client::tool::main(hikyaku_client::tool::Tool::Bench)
}
