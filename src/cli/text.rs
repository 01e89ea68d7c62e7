//! What help and man page say beside the arguments.

// As macros, for concat! takes literals only.
macro_rules! exit_codes {
    () => {
        "\
Exit codes:
  0    success, also when stopped by Ctrl-C, SIGTERM, --for or --idle-timeout
  1    any other failure; status, flows, reload, down without --all: none runs
  2    the arguments make no sense
  3    a privilege or /dev/net/tun is missing
  4    the SSH server refused the login; after a lost connection: three times in a row
  5    the name of the instance or the device, or every routing table, is taken
  6    the server's host key is unknown, refused or has changed, also after a lost connection
  7    something of the set-up could not be taken back
  8    status: one runs that has no SSH connection at the moment
  255  the first SSH connection failed; one that is lost later is made again"
    };
}

macro_rules! up_examples {
    () => {
        "\
Examples:
  underpass up -r me@bastion 10.0.1.0/24    all of 10.0.1.0/24
  underpass up -r bastion 10/8 -x 10.5/16   all of 10.0.0.0/8 but a part
  underpass up prod                         profile prod of config.toml"
    };
}

/// The exit codes as help and man page show them; [`crate::app::exit::Exit`] is tested against it.
pub const EXIT_CODES: &str = exit_codes!();

/// The examples as the manual page shows them.
pub const EXAMPLES: &str = "\
underpass up -r me@bastion 10.0.1.0/24
    everything in 10.0.1.0/24
underpass up -r me@bastion:2222 10.0.0.0/8 -x 10.0.5.0/24 '[fd00::/64]:443'
    all of 10.0.0.0/8 but 10.0.5.0/24, and HTTPS to fd00::/64
underpass up -r me@bastion 10.0.0.0/16=100.64.0.0/16
    the far 10.0.0.0/16 as 100.64.0.0/16, where this host has the first itself
underpass up -r me@bastion 10.0.1.0/24:80-443 --dry-run
    only say what would be set up
underpass up prod --for 2h
    what profile prod of config.toml says, for two hours
underpass up @work.txt
    the arguments in the file work.txt, one per line
underpass completions bash | sudo tee /etc/bash_completion.d/underpass
    complete commands, options and profiles in bash
underpass man | man -l -
    this page";

/// The program's own help, on one screen: what it is, its commands, its options in two lines.
pub(super) const HELP: &str = "\
Route whole subnets through any SSH server you can log in to.

{usage-heading} {usage}

Commands:
{subcommands}

Options: -h help, -V version, -v more (also -vv, -vvv), -q errors only,
         --log-format json; underpass COMMAND -h says more, underpass man all
Example: underpass up -r me@bastion 10.0.1.0/24
";
pub(super) const UP_AFTER_HELP: &str = up_examples!();
pub(super) const UP_AFTER_LONG_HELP: &str = concat!(up_examples!(), "\n\n", exit_codes!());
pub(super) const RUN_AFTER_HELP: &str = "\
Examples:
  underpass run -r me@bastion 10.0.0.0/16 -- psql -h 10.0.1.20
      everything else is reached as from this host
  underpass run -r me@bastion 10.0.0.0/16 --isolate -- ./import.sh
      nothing else is reached
  underpass run -r me@bastion --all -- curl https://example.org
      everything goes through the server";
pub(super) const SHELL_AFTER_HELP: &str = "\
Example:
  underpass shell -r me@bastion 10.0.0.0/16    until exit";
pub(super) const DOCTOR_AFTER_HELP: &str = "\
Examples:
  underpass doctor
      only this host
  underpass doctor -r me@bastion 10.0.1.0/24 --probe 10.0.1.20:443
      also the server, the login, and whether a target can be reached through it";
