//! Programs that are run on behalf of who called sudo.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::plan::Caller;

/// Has `command` run as `caller`, with their home, shell and name in its environment, and with no groups but theirs: what
/// a person's configuration names is not to run as root, and it looks for its own files at home.
pub fn run_as(command: &mut Command, caller: &Caller) {
    command
        .uid(caller.uid)
        .gid(caller.gid)
        .env("HOME", &caller.home)
        .env("SHELL", &caller.shell)
        .env("USER", &caller.name)
        .env("LOGNAME", &caller.name);
}
