//! Who runs as what, and what lets them: in the words of those that check it.

use std::path::Path;

use super::page::Page;
use crate::app::sudoers;
use crate::os::helper::capability;
use crate::os::namespace::profile;

/// Where the page has the program.
const PROGRAM: &str = "/usr/local/bin/underpass";
/// Who stands for the reader.
const USER: &str = "alice";

/// Each process, and what it is and may do.
const PROCESSES: &[(&str, &str)] = &[
    (
        "underpass up",
        "You, without a capability. It has the keys, the agent, ssh's configuration and the login, and reads every packet. \
         It leaves no core dump. Where it runs no program of yours (ProxyCommand, the installed ssh, SSH_ASKPASS) it can \
         gain no rights, writes only where host keys, the audit log, the pid file and its socket are kept (Landlock), and \
         cannot trace, mount, or load code into the kernel (seccomp).",
    ),
    (
        "underpass helper",
        "root, with CAP_NET_ADMIN alone, and nothing that it can gain; it writes only to /dev/net/tun, the terminal and below \
         /proc/sys/net, and with --dns to /etc (Landlock). up starts it, with a socket and without arguments. It makes one TUN \
         device, and routes and rules that lead to it, sets rp_filter and addr_gen_mode of it, with --dns the name server in \
         /etc/resolv.conf, or with --netns in the resolv.conf of that network, which it opens with the rights of root as that \
         container has them, and removes what a killed run has left. Asked for \
         anything else, or when up has ended, however it ended, it takes everything back and ends. It is two processes, so \
         that one can be killed.",
    ),
    (
        "underpass run, underpass shell",
        "You: no privilege is needed. The command's network is in namespaces of your own (user_namespaces(7)). The \
         command has the rights that you have; the process beside it is confined as up.",
    ),
    (
        "the other commands",
        "You. status, flows, down and reload ask a socket that only who runs the instance, and root, may open. cleanup \
         needs CAP_NET_ADMIN where there is something to remove: sudo underpass cleanup.",
    ),
];

/// The whole section.
pub(super) fn section(page: &mut Page) {
    page.section("PRIVILEGES");
    page.text(
        "Type underpass up as yourself. It asks sudo(8), else doas(1) or pkexec(1), once, for the one part that needs \
         privileges. With CAP_NET_ADMIN of its own, or as root, it asks nobody.",
    );
    for (process, what) in PROCESSES {
        page.item(process, what);
    }
    page.paragraph();
    page.text(
        "Started by sudo, up, run, shell and doctor become who called it (SUDO_USER) for good, with their groups, home, \
         keys, agent and configuration, before they connect; a file that the caller could not read is not read. Started \
         by root itself, up uses root's keys and keeps of root's capabilities CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, \
         CAP_SETGID and CAP_SETUID, for its files, and all of them where it runs programs.",
    );
    ways(page);
    namespaces(page);
}

/// What an administrator can allow, as they would type it.
fn ways(page: &mut Page) {
    page.subsection("Without a password");
    page.text("A rule for sudo, as underpass sudoers prints it:");
    page.literal(&sudoers::rule(USER, PROGRAM));
    page.paragraph();
    page.text(
        "Or a capability of the file, with which every user of this host who can run it may have packets captured; up \
         gives it up, and the helper has it alone:",
    );
    page.literal(&format!("sudo {}", capability(Path::new(PROGRAM))));
    page.paragraph();
    page.text(
        "With it /dev/net/tun has to be open to everybody, as udev makes it (mode 0666), and --netns is not to be had: \
         entering another network namespace takes CAP_SYS_ADMIN, which the rule for sudo gives before it is dropped.",
    );
}

fn namespaces(page: &mut Page) {
    page.subsection("Namespaces");
    page.text(
        "up --netns opens the namespace as you: those of ip-netns(8) are open to everybody, pid:N takes a process of \
         your own, or sudo in front of underpass (ptrace(2), PTRACE_MODE_READ). run and shell need user namespaces, and \
         say which setting forbids them where one does; underpass doctor tries it. Where Ubuntu's AppArmor restricts \
         them, this allows them to underpass:",
    );
    page.literal(&profile(PROGRAM));
}
