//! `hikyaku-rr` publishes a request and shows the response.

use std::process::ExitCode;

fn main() -> ExitCode {
    hikyaku_client::tool::main(hikyaku_client::tool::Tool::Rr)
}
