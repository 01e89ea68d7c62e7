//! The thin binary: parse, run, exit code.

use std::process::ExitCode;

use underpass::{app, cli};

fn main() -> ExitCode {
    app::run(cli::parse())
}
