//! What help and man page say beside the arguments.

// As macros, for concat! takes literals only.
macro_rules! exit_codes {
    () => {
        "\
Exit codes:
  0    success, also when stopped by Ctrl-C, SIGTERM, --for or --idle-timeout
  1    any other failure; status, down, reload: none runs
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
  sudo underpass up -r me@bastion 10.0.1.0/24    all of 10.0.1.0/24
  sudo underpass up -r bastion 10/8 -x 10.5/16   all of 10.0.0.0/8 but a part
  sudo underpass up -r bastion 10.0.1.7:5432     one port of one host
  sudo underpass up prod                         profile prod of config.toml"
    };
}

/// The exit codes as help and man page show them; [`crate::app::exit::Exit`] is tested against it.
pub const EXIT_CODES: &str = exit_codes!();

pub(super) const AFTER_HELP: &str = "\
Example:
  sudo underpass up -r me@bastion 10.0.1.0/24

underpass COMMAND -h shows a command; --help says more, and lists the exit codes.";
pub(super) const AFTER_LONG_HELP: &str = concat!(
    "Example:\n  sudo underpass up -r me@bastion 10.0.1.0/24\n\n",
    exit_codes!()
);
pub(super) const UP_AFTER_HELP: &str = up_examples!();
pub(super) const UP_AFTER_LONG_HELP: &str = concat!(up_examples!(), "\n\n", exit_codes!());
pub(super) const DOCTOR_AFTER_HELP: &str = "\
Examples:
  underpass doctor
      only this host
  underpass doctor -r me@bastion 10.0.1.0/24 --probe 10.0.1.20:443
      also the server, the login, and whether a target can be reached through it";
