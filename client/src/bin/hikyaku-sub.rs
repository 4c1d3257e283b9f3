//! `hikyaku-sub` shows messages.

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku_client::tool::main(hikyaku_client::tool::Tool::Sub)
}
