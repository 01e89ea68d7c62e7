//! How the privileged end is started.
//!
//! It is this program again, as `underpass helper`, with the socket as its stdin: sudo, doas and pkexec close the
//! descriptors above 2, keep 0, and ask for the password on the terminal. It has no arguments, so a rule of sudoers can
//! allow exactly it.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockopt, sockopt,
};
use nix::unistd::Uid;
use thiserror::Error;

use super::client::Process;
use crate::os::privilege;
use crate::os::tun::CLONE_DEVICE;

/// The subcommand.
pub const SUBCOMMAND: &str = "helper";

/// The privileged end could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// No privileges, and nothing to get them with.
    #[error(
        "making the device and setting routes needs privileges: install sudo, or once as root: {grant}"
    )]
    NoWay {
        /// What root can do instead, as a command.
        grant: String,
    },
    /// A call failed.
    #[error("could not start the privileged part of underpass: {0}")]
    Io(#[from] io::Error),
}

/// Programs that run others as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elevator {
    /// sudo(8).
    Sudo,
    /// doas(1).
    Doas,
    /// pkexec(1).
    Pkexec,
}

impl Elevator {
    const ALL: [Self; 3] = [Self::Sudo, Self::Doas, Self::Pkexec];

    /// Its command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sudo => "sudo",
            Self::Doas => "doas",
            Self::Pkexec => "pkexec",
        }
    }

    /// What has it run `program helper`; it may ask somebody where there is a terminal.
    fn arguments(self, has_terminal: bool) -> &'static [&'static str] {
        match (self, has_terminal) {
            (Self::Sudo, true) => &["--"],
            (Self::Sudo, false) => &["-n", "--"],
            (Self::Doas, true) => &[],
            (Self::Doas, false) => &["-n"],
            (Self::Pkexec, _) => &[],
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Sudo => "allow it: underpass sudoers | sudo tee /etc/sudoers.d/underpass",
            Self::Doas => "allow it in doas.conf",
            Self::Pkexec => "allow it in polkit",
        }
    }

    /// The first that is installed.
    fn find(path: Option<OsString>) -> Option<(Self, PathBuf)> {
        let directories: Vec<_> = env::split_paths(&path?).collect();
        Self::ALL.into_iter().find_map(|elevator| {
            let mut places = directories.iter().map(|dir| dir.join(elevator.name()));
            Some((elevator, places.find(|place| is_executable(place))?))
        })
    }
}

fn is_executable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file()
}

/// How the privileged end would be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// As we are: we may do it ourselves, or we are root and nobody can give us more.
    Direct,
    /// By a program that may ask for a password.
    By(Elevator, PathBuf),
}

impl Way {
    /// Whether it is [`Self::Direct`].
    pub fn is_direct() -> bool {
        privilege::may_set_network() || Uid::effective().is_root()
    }

    /// The way that there is.
    ///
    /// # Errors
    /// [`StartError::NoWay`].
    pub fn find() -> Result<Self, StartError> {
        if Self::is_direct() {
            return Ok(Self::Direct);
        }
        match Elevator::find(env::var_os("PATH")) {
            Some((elevator, path)) => Ok(Self::By(elevator, path)),
            None => Err(StartError::NoWay { grant: grant("") }),
        }
    }

    /// Starts it, with `words` as its stderr; what goes wrong from here on shows itself in the greeting.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn start(&self, words: Stdio) -> Result<(UnixStream, Process), StartError> {
        let (ours, theirs) = UnixStream::pair()?;
        let (mut command, hint) = self.command();
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(words);
        let process = Process {
            program: match self {
                Self::Direct => program().display().to_string(),
                Self::By(elevator, _) => elevator.name().to_owned(),
            },
            child: command.spawn()?,
            hint,
        };
        Ok((ours, process))
    }

    fn command(&self) -> (Command, String) {
        match self {
            Self::Direct => {
                let mut command = Command::new(program());
                // Out of reach of the keys that end us: it ends after us.
                command.arg(SUBCOMMAND).process_group(0);
                (command, "see above".to_owned())
            }
            Self::By(elevator, path) => {
                let mut command = Command::new(path);
                command
                    .args(elevator.arguments(has_terminal()))
                    .arg(program())
                    .arg(SUBCOMMAND);
                let hint = format!("{}; or once: {}", elevator.hint(), grant("sudo "));
                (command, hint)
            }
        }
    }
}

/// This program's file; also where it was replaced meanwhile.
pub fn program() -> PathBuf {
    let own = PathBuf::from("/proc/self/exe");
    match env::current_exe() {
        Ok(path) if path.exists() => path,
        _ => own,
    }
}

/// What makes this program do without root, each command after `by`.
fn grant(by: &str) -> String {
    use nix::unistd::{AccessFlags, access};
    let is_closed = access(CLONE_DEVICE, AccessFlags::R_OK | AccessFlags::W_OK)
        .is_err_and(|errno| errno == Errno::EACCES);
    grant_of(by, is_closed, &program())
}

/// A capability opens no device that has another mode than udev's.
fn grant_of(by: &str, is_closed: bool, program: &Path) -> String {
    let open = match is_closed {
        true => format!("{by}chmod 666 {CLONE_DEVICE} && "),
        false => String::new(),
    };
    format!("{open}{by}{}", capability(program))
}

/// What gives the program at this path the one privilege, as a command of root's.
pub fn capability(program: &Path) -> String {
    format!("setcap cap_net_admin+ep {}", program.display())
}

/// Whether somebody can be asked.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// The socket that the privileged end was started with, as its stdin; stdin is `/dev/null` from then on.
///
/// # Errors
/// `InvalidInput` where stdin is no such socket: a person has typed the command.
pub fn socket_on_stdin() -> io::Result<UnixStream> {
    let stdin = io::stdin();
    let is_ours = getsockopt(&stdin, sockopt::SockType) == Ok(SockType::Stream)
        && getpeername::<SockaddrStorage>(0)
            .is_ok_and(|peer| peer.family() == Some(AddressFamily::Unix));
    if !is_ours {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let socket = nix::unistd::dup(&stdin)?;
    nix::fcntl::fcntl(
        &socket,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    )?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_no_help_where_the_device_is_closed() {
        let program = Path::new("/bin/underpass");
        assert_eq!(
            grant_of("", false, program),
            "setcap cap_net_admin+ep /bin/underpass"
        );
        assert_eq!(
            grant_of("sudo ", true, program),
            "sudo chmod 666 /dev/net/tun && sudo setcap cap_net_admin+ep /bin/underpass"
        );
    }
}
