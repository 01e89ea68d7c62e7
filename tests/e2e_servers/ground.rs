//! Where the servers are: on the loopback of a lab's bastion, which the rows share. SSH leaves from there, and each run has a
//! host of its own whose packets it captures (`--netns`), so that rows may run side by side.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use underpass::plan::SshPlan;

use crate::client::Configured;
use crate::common::{Host, Lab, Underpass, V4, V6};

/// The lab that the rows share, as long as one of them needs it.
fn shared() -> Arc<Lab> {
    static LAB: Mutex<Weak<Lab>> = Mutex::new(Weak::new());
    let mut shared = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let lab = Arc::new(Lab::up());
        *shared = Arc::downgrade(&lab);
        lab
    })
}

/// Runs `test` where the lab's bastion is: what it starts and what it connects to is there.
pub(crate) fn in_the_bastion(test: impl FnOnce(&Lab) + Send + 'static) {
    let lab = shared();
    let (namespace, inside) = (
        File::open(lab.namespace("bastion")).unwrap(),
        Arc::clone(&lab),
    );
    let thread = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        test(&inside);
    });
    let result = thread.join();
    // Here, and not there: whoever is in a lab's hosts ends with it.
    drop(lab);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// What is asked for, and what the log says of it.
pub(crate) struct Choice {
    arguments: &'static str,
    told: &'static str,
}

/// The built-in SSH as what is taken where nobody asks for one, and the user's own.
pub(crate) const CHOICES: [Choice; 2] = [
    Choice {
        arguments: "--carrier auto",
        told: "carrier: the built-in SSH (less CPU for every byte; nothing configured asks for ssh itself)",
    },
    Choice {
        arguments: "--carrier openssh",
        told: "carrier: the installed ssh (--carrier)",
    },
];

/// Nobody asks for one, and ssh is needed.
pub(crate) const NEEDS_SSH: Choice = Choice {
    arguments: "--carrier auto -o RekeyLimit=1G",
    told: "carrier: the installed ssh (only ssh honours RekeyLimit)",
};

/// `underpass up` through the server of a plan.
pub(crate) struct Run<'a> {
    pub(crate) underpass: Underpass,
    application: Host<'a>,
    lab: &'a Lab,
    _ssh: Configured,
}

impl<'a> Run<'a> {
    /// `askpass` answers questions.
    pub(crate) fn start(
        lab: &'a Lab,
        plan: &SshPlan,
        choice: &Choice,
        askpass: Option<&Path>,
    ) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("run{}", COUNT.fetch_add(1, Relaxed));
        let application = lab.further_host(&name);
        let ssh = Configured::new(plan);
        // A session of its own: there is no tty to ask on.
        let mut command = Command::new("setsid");
        command
            .args([env!("CARGO_BIN_EXE_underpass"), "up", "--name", &name])
            .args(["-r", "server-0"])
            .args(&ssh.client.arguments)
            .args(choice.arguments.split(' '))
            .args(["--netns", &lab.namespace(&name), V4.subnet, V6.subnet]);
        if let Some(count) = plan.connections {
            command.args(["--connections", &count.to_string()]);
        }
        lab.is_home_of(&mut command);
        if let Some(program) = askpass {
            command
                .env("SSH_ASKPASS", program)
                .env("SSH_ASKPASS_REQUIRE", "force");
        }
        let mut run = Self {
            underpass: Underpass::start(command),
            application,
            lab,
            _ssh: ssh,
        };
        run.underpass.wait_for_line(choice.told);
        run
    }

    /// What a probe of the application's host finds.
    pub(crate) fn result(&self, args: &str) -> String {
        self.lab.result(&self.application.role, args)
    }

    /// Pages come whole, over both versions of IP, and a closed port is told at once, as `closed`.
    pub(crate) fn carries(&self, closed: &str) {
        for net in [V4, V6] {
            let page = self.result(&format!("http {} 80 1000003", net.host));
            assert_eq!(page, "ok", "{}", net.host);
            let found = self.result(&format!("connect {} 81", net.host));
            assert_eq!(found, closed, "{}", net.host);
        }
    }

    pub(crate) fn ends(mut self) {
        assert_eq!(self.underpass.stop(Signal::SIGTERM).code(), Some(0));
    }
}

/// A server that forwards, over both carriers.
pub(crate) fn carries(lab: &Lab, plan: &SshPlan) {
    for choice in &CHOICES {
        carries_by(lab, plan, choice, None, REFUSED);
    }
}

/// One that does, over one of them.
pub(crate) fn carries_by(
    lab: &Lab,
    plan: &SshPlan,
    choice: &Choice,
    askpass: Option<&Path>,
    closed: &str,
) {
    let run = Run::start(lab, plan, choice, askpass);
    run.carries(closed);
    run.ends();
}

/// What connect(2) says of a closed port.
pub(crate) const REFUSED: &str = "ECONNREFUSED";
