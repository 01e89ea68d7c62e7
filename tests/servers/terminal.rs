//! A login as a person at a terminal sees it, over both carriers: what is asked, in which order it is said, and what may be seen
//! of the answers.

mod person;

use person::Person;
use underpass::plan::SshPlan;

use crate::client::Configured;
use crate::openssh::{Openssh, PASSWORD};
use crate::python::Asyncssh;
use crate::rig::Sshd;

const CARRIERS: [&str; 2] = ["russh", "openssh"];
/// What is run when the login is over.
const IN: &str = "we are in";

/// Logs in to the server of `plan`.
fn login(plan: &SshPlan, carrier: &str, more: &[&str]) -> Person {
    let ssh = Configured::new(plan);
    let mut args = ["run", "--carrier", carrier].map(str::to_owned).to_vec();
    args.extend(ssh.client.arguments.clone());
    args.extend(more.iter().map(|argument| (*argument).to_owned()));
    args.extend(["-r", "server-0", "10.77.0.0/16", "--", "echo", IN].map(str::to_owned));
    Person::at(&args, ssh)
}

/// Logs in, and runs a command that ends when it has read a line.
fn until_a_line(plan: &SshPlan, carrier: &str) -> Person {
    let ssh = Configured::new(plan);
    let args = ["run", "--carrier", carrier, "-r", "server-0"].map(str::to_owned);
    let read = "read line; echo \"got $line\"";
    let command = ["10.77.0.0/16", "--", "sh", "-c", read].map(str::to_owned);
    Person::at(&[&args[..], &ssh.client.arguments, &command].concat(), ssh)
}

/// The answer is wrong each time, and the last line says what to do.
#[test]
fn a_password_that_is_wrong_three_times() {
    let sshd = Openssh::of_passwords();
    for carrier in CARRIERS {
        let mut person = login(&sshd.plan(), carrier, &[]);
        for _ in 0..3 {
            person.is_asked("root@127.0.0.1's password: ");
            person.types("wrong\n");
        }
        let code = person.sees_the_end();
        let said = person.said();
        assert!(!said.contains("wrong\r"), "{said}");
        assert!(said.contains("password (3 times)"), "{said}");
        assert!(
            said.contains("Was the answer right, and root the right user? Compare with: ssh "),
            "{said}"
        );
        assert_eq!(code, 125, "{said}");
    }
}

/// What the server says of an answer comes before the next question, each time.
#[test]
fn a_question_comes_after_what_was_said_before_it() {
    const TRIES: usize = 12;
    let sshd = Openssh::of_patience();
    for carrier in CARRIERS {
        let many = format!("NumberOfPasswordPrompts={TRIES}");
        let mut person = login(&sshd.plan(), carrier, &["-o", &many]);
        person.is_asked("root@127.0.0.1's password: ");
        let first = person.said();
        assert!(first.ends_with("root@127.0.0.1's password: "), "{first}");
        for _ in 1..TRIES {
            person.types("wrong\n");
            let said = person.is_asked("root@127.0.0.1's password: ");
            let lines: Vec<_> = said.split("\r\n").collect();
            assert_eq!(lines.len(), 3, "{carrier}: {said:?}");
            assert_eq!(lines[0], "");
            assert!(lines[1].ends_with("Permission denied, please try again."));
        }
        person.types(&format!("{PASSWORD}\n"));
        person.sees(IN);
        assert_eq!(person.sees_the_end(), 0);
    }
}

#[test]
fn the_key_of_a_new_host_and_then_a_passphrase() {
    let sshd = Sshd::start("");
    let mut plan = sshd.plan();
    let key = sshd.path("locked");
    std::fs::copy(sshd.path("id_ed25519"), &key).unwrap();
    let mut lock = std::process::Command::new("ssh-keygen");
    lock.args(["-q", "-p", "-P", "", "-N", "a phrase", "-f"]);
    crate::place::output(lock.arg(&key));
    plan.identities = vec![key];
    for carrier in CARRIERS {
        let known = format!("UserKnownHostsFile={}", sshd.path(carrier).display());
        let mut person = login(
            &plan,
            carrier,
            &["-v", "-o", "StrictHostKeyChecking=ask", "-o", &known],
        );
        person.is_asked("(yes/no/[fingerprint])? ");
        person.types("maybe\n");
        person.is_asked("Please type 'yes', 'no' or the fingerprint: ");
        person.types("yes\n");
        let said = person.sees("Enter passphrase for key '");
        assert!(said.starts_with("yes\r\n"), "{said:?}");
        assert!(said.to_ascii_lowercase().contains("added "), "{said:?}");
        person.is_asked("': ");
        person.types("a phrase\n");
        person.sees(IN);
        assert_eq!(person.sees_the_end(), 0);
        assert!(!person.said().contains("a phrase"));
    }
}

#[test]
fn what_may_be_seen_of_an_answer() {
    let server = Asyncssh::start("questions.py");
    for carrier in CARRIERS {
        let mut person = login(&server.plan(), carrier, &["-v"]);
        let said = person.is_asked("Name: ");
        let (banner, things) = (said.find("Property"), said.find("Two things"));
        assert!(banner.is_some() && banner < things, "{said:?}");
        // A key that erases does, as on any terminal.
        person.types("nobodx\x7fy\n");
        let said = person.is_asked("Code: ");
        assert!(said.starts_with("nobodx\x08 \x08y\r\n"), "{said:?}");
        person.types("secret\n");
        person.sees(IN);
        assert_eq!(person.sees_the_end(), 0);
        assert!(!person.said().contains("secret"));
    }
}

/// Ctrl-C ends it at a question, and the terminal is as before.
#[test]
fn a_question_is_interrupted() {
    let sshd = Openssh::of_passwords();
    for carrier in CARRIERS {
        let mut person = login(&sshd.plan(), carrier, &[]);
        assert!(person.has_echo());
        person.is_asked("password: ");
        assert!(!person.has_echo());
        person.types("half\x03");
        let code = person.sees_the_end();
        assert!(person.has_echo());
        assert!(code != 0 && !person.said().contains(IN), "{code}");
    }
}

/// What is typed while ssh is at the login goes to the command, but for the answers.
#[test]
fn the_command_has_the_terminal_after_the_login() {
    let sshd = Openssh::of_passwords();
    for carrier in CARRIERS {
        let mut person = until_a_line(&sshd.plan(), carrier);
        person.is_asked("password: ");
        person.types(&format!("{PASSWORD}\n"));
        person.types("for the command\n");
        person.sees("got for the command");
        assert_eq!(person.sees_the_end(), 0);
    }
}

/// sshd lets in who has the old password, and forwards nothing: the log says why.
#[test]
fn a_password_that_has_expired() {
    let sshd = Openssh::of_expired_passwords();
    for carrier in CARRIERS {
        let mut person = until_a_line(&sshd.plan(), carrier);
        let said = person.sees("Log in once to change it: ssh ");
        let why = "root@127.0.0.1: the password has expired";
        assert!(said.contains(why), "{said}");
        person.types("enough\n");
        assert_eq!(person.sees_the_end(), 0);
    }
}
