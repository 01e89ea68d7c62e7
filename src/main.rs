//! The thin binary: parse, run, exit code.

use std::process::ExitCode;

use underpass::app;

fn main() -> ExitCode {
    app::run(std::env::args_os())
}
