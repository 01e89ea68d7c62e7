//! The signals that come to us, and who sent them.
//!
//! The terminal sends its signals to the whole foreground process group, so the command has them already; what somebody
//! sends to us alone is passed on. A handler does not tell the two apart; signalfd(2) does. As the signals are blocked
//! and not handled, what was ignored when we were started (nohup(1)) is ignored by the command, too.

use std::fs::File;
use std::io;

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{getpid, getsid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Those that a command may want to hear of.
const PASSED: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
];

/// What a person or a terminal may send to a process that ends with another one, and not before.
const IGNORED: [Signal; 5] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
];

/// Makes this process deaf to them.
///
/// # Errors
/// sigaction(2).
pub(super) fn ignore() -> io::Result<()> {
    for number in IGNORED {
        #[expect(unsafe_code, reason = "actions of signals")]
        // SAFETY: an action is replaced by none; no handler runs.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// Has the kernel keep how a child ended until it is asked. Who has started us may have ignored SIGCHLD, and that outlives
/// execve(2): then nobody ever learns of an end (wait(2), NOTES).
///
/// # Errors
/// sigaction(2).
pub fn heed_children() -> io::Result<()> {
    #[expect(unsafe_code, reason = "actions of signals")]
    // SAFETY: an action is replaced by the default one, which does nothing; no handler runs.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

/// A signal that has come.
#[derive(Clone, Copy, Debug)]
pub struct Come {
    /// Which.
    pub signal: Signal,
    /// Sent by the kernel, on behalf of the terminal: the whole process group has it.
    pub by_terminal: bool,
}

/// What comes from here on.
#[derive(Debug)]
pub struct Signals {
    signals: AsyncFd<SignalFd>,
}

fn passed() -> SigSet {
    PASSED.into_iter().collect()
}

/// Keeps the signals for [`Signals`], in this thread and those that it will start; what was blocked before.
///
/// # Errors
/// Those of pthread_sigmask(3).
pub fn block() -> io::Result<SigSet> {
    Ok(passed().thread_swap_mask(SigmaskHow::SIG_BLOCK)?)
}

impl Signals {
    /// Also those that came since [`block`].
    ///
    /// # Errors
    /// Those of signalfd(2); called outside a runtime.
    pub fn new() -> io::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&passed(), flags)?;
        #[expect(unsafe_code, reason = "the runtime keeps the descriptor's number")]
        // SAFETY: the `AsyncFd` owns the descriptor, which stays open and the same as long as it lives.
        let signals = unsafe { AsyncFd::register_with_interest(signals, Interest::READABLE) }?;
        Ok(Self { signals })
    }

    /// The next one. Cancel safe.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn next(&mut self) -> io::Result<Come> {
        loop {
            let mut ready = self.signals.readable().await?;
            match ready.get_inner().read_signal()? {
                None => ready.clear_ready(),
                Some(info) => {
                    let number = i32::try_from(info.ssi_signo).unwrap_or_default();
                    let Ok(signal) = Signal::try_from(number) else {
                        continue;
                    };
                    return Ok(Come {
                        signal,
                        by_terminal: info.ssi_code == libc::SI_KERNEL && !is_for_leader(signal),
                    });
                }
            }
        }
    }

    /// Waits for one that ends a process which does not handle it; its number.
    pub async fn fatal(&mut self) -> i32 {
        loop {
            match self.next().await {
                Ok(Come {
                    signal: Signal::SIGTSTP,
                    ..
                }) => stop_ourselves(),
                Ok(Come {
                    signal: Signal::SIGWINCH,
                    ..
                }) => {}
                Ok(Come { signal, .. }) => return signal as i32,
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// A terminal that goes away tells the leader of its session alone; the foreground group hears of it when that one ends
/// (setsid(2), tty_signal_session_leader() in drivers/tty/tty_jobctrl.c).
fn is_for_leader(signal: Signal) -> bool {
    let own = getpid();
    signal == Signal::SIGHUP && getsid(None) == Ok(own)
}

/// Whether this process has a terminal; one that was hung up it has no more (tty_ioctl(4)).
pub fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Returns when somebody lets us go on. SIGSTOP, for SIGTSTP is blocked.
pub fn stop_ourselves() {
    // Our own number is always there.
    let _ = kill(getpid(), Signal::SIGSTOP);
}
