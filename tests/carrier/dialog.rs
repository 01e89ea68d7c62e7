//! Logging in with the embedded SSH carrier where a person is asked: an SSH server in this process wants passwords,
//! codes in several rounds, and several methods one after the other.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, Config, Handler, Response, VerifiedPublicKey};
use russh::{MethodKind, MethodSet};
use tempfile::TempDir;
use tokio::net::TcpListener;
use underpass::carrier::{ConnectError, Link, OpensshCarrier, Prompter, RusshCarrier};
use underpass::plan::{HostKeyPolicy, SshClient, SshPlan};

use crate::person::Person;
use crate::rig;

/// What a server wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Password,
    /// A name and a code in one round, a round without questions, then another code.
    Rounds,
    /// A key, then [`Wants::Rounds`].
    KeyThenRounds,
    /// Questions without end.
    Endless,
    /// Any method, and then one more.
    More,
}

struct Server {
    wants: Wants,
    round: usize,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn see(&self, what: String) {
        self.seen.lock().unwrap().push(what);
    }

    fn partly(&self, next: MethodKind) -> Auth {
        Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(&[next][..])),
            partial_success: true,
        }
    }

    fn ask(&self, round: usize) -> Auth {
        let (name, instructions, prompts): (_, _, &'static [_]) = match round {
            1 => (
                "Two\x1b[2J factors",
                "First line\nSecond\tline\n",
                &[
                    (Cow::Borrowed("Name: "), true),
                    (Cow::Borrowed("Pick\n 1. push\n> "), false),
                ],
            ),
            2 => ("", "Nearly there", &[]),
            _ => ("", "", &[(Cow::Borrowed("Code: "), true)]),
        };
        Auth::Partial {
            name: name.into(),
            instructions: instructions.into(),
            prompts: prompts.into(),
        }
    }
}

impl Handler for Server {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        self.see(format!("{user}:{password}"));
        Ok(match self.wants {
            Wants::Password if password == "right" => Auth::Accept,
            Wants::More => self.partly(MethodKind::Password),
            // As sshd: the method may be tried again. russh's own refusal takes it off the list.
            Wants::Password if password != "last" => Auth::Reject {
                proceed_with_methods: Some(MethodSet::from(&[MethodKind::Password][..])),
                partial_success: false,
            },
            _ => Auth::reject(),
        })
    }

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        self.see("key".to_owned());
        Ok(match self.wants {
            Wants::KeyThenRounds => self.partly(MethodKind::KeyboardInteractive),
            _ => Auth::reject(),
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Some(response) = response else {
            self.round = 1;
            return Ok(self.ask(1));
        };
        let answers: Vec<_> = response
            .map(|answer| String::from_utf8_lossy(&answer).into_owned())
            .collect();
        self.see(answers.join("|"));
        let expected = ["", "me|push", "", "123"];
        self.round += 1;
        Ok(match self.round {
            _ if self.wants == Wants::Endless => self.ask(3),
            round if answers.join("|") != expected[round - 1] => Auth::reject(),
            4 => Auth::Accept,
            round => self.ask(round),
        })
    }
}

struct Rig {
    dir: TempDir,
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    async fn start(wants: Wants, methods: &[MethodKind]) -> Self {
        let host_key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let config = Arc::new(Config {
            keys: vec![host_key],
            methods: MethodSet::from(methods),
            auth_rejection_time: Duration::ZERO,
            ..Config::default()
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::default());
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = Server {
                    wants,
                    round: 0,
                    seen: Arc::clone(&log),
                };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = russh::server::run_stream(config, stream, server).await {
                        let _ = session.await;
                    }
                });
            }
        });
        let dir = TempDir::new().unwrap();
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        key.write_openssh_file(dir.path().join("key"), LineEnding::LF)
            .unwrap();
        Self { dir, port, seen }
    }

    fn plan(&self) -> SshPlan {
        SshPlan {
            identities: vec![self.dir.path().join("key")],
            host_keys: HostKeyPolicy::AcceptNew,
            known_hosts: vec![self.dir.path().join("known_hosts")],
            ..SshPlan::new("127.0.0.1", self.port, "me")
        }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn login(plan: &SshPlan, person: &Arc<Person>) -> Result<String, ConnectError> {
    let prompter = Arc::clone(person) as Arc<dyn Prompter>;
    let carrier = RusshCarrier::connect(plan, prompter).await?;
    let how = carrier.description().authentication.clone();
    carrier.shutdown().await;
    Ok(how)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password() {
    let rig = Rig::start(Wants::Password, &[MethodKind::Password]).await;
    let person = Person::saying(&["wrong", "right"]);
    assert_eq!(login(&rig.plan(), &person).await.unwrap(), "password");
    assert_eq!(rig.seen(), ["me:wrong", "me:right"]);
    let question = "me@127.0.0.1's password: *";
    let again = format!("Permission denied, please try again.\n{question}");
    assert_eq!(person.questions(), [question, &again]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_as_often_as_configured() {
    let rig = Rig::start(Wants::Password, &[MethodKind::Password]).await;
    let person = Person::saying(&["1", "2", "3", "4"]);
    let error = login(&rig.plan(), &person).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Refused { methods, tried, .. }
            if methods == "password" && tried == "password (3 times)"),
        "{error}"
    );
    let mut once = rig.plan();
    once.login.password_prompts = 1;
    let person = Person::saying(&["1", "2"]);
    login(&once, &person).await.unwrap_err();
    assert_eq!(person.asked(), 1);
    // A server with which nothing is left after a refusal.
    let error = login(&rig.plan(), &Person::saying(&["last", "right"])).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_in_batch_mode_or_where_it_is_switched_off() {
    let methods = [MethodKind::Password, MethodKind::KeyboardInteractive];
    let rig = Rig::start(Wants::Password, &methods).await;
    let person = Person::saying(&["right", "right"]);
    let mut batch = rig.plan();
    batch.login.batch = true;
    let error = login(&batch, &person).await.unwrap_err().to_string();
    assert!(error.contains("without BatchMode"), "{error}");
    let mut off = rig.plan();
    (off.login.password, off.login.keyboard_interactive) = (false, false);
    login(&off, &person).await.unwrap_err();
    assert_eq!(person.asked(), 0);
    // Nobody there.
    let error = login(&rig.plan(), &Person::saying(&[])).await.unwrap_err();
    let said = "tried: keyboard-interactive (not answered), password (nobody to ask)";
    assert!(error.to_string().contains(said), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_in_several_rounds() {
    let rig = Rig::start(Wants::Rounds, &[MethodKind::KeyboardInteractive]).await;
    let person = Person::saying(&["me", "push", "123"]);
    let how = login(&rig.plan(), &person).await.unwrap();
    assert_eq!(how, "keyboard-interactive");
    assert_eq!(rig.seen(), ["me|push", "", "123"]);
    assert_eq!(
        person.questions(),
        [
            "Two[2J factors\nFirst line\nSecond line\n(me@127.0.0.1) Name: ",
            "(me@127.0.0.1) Pick\n 1. push\n> *",
            "(me@127.0.0.1) Code: ",
        ]
    );
    // A wrong code, then all of it again.
    let person = Person::saying(&["me", "push", "999", "me", "push", "123"]);
    login(&rig.plan(), &person).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_and_then_a_code() {
    let methods = [MethodKind::PublicKey, MethodKind::Password];
    let rig = Rig::start(Wants::KeyThenRounds, &methods).await;
    let person = Person::saying(&["me", "push", "123"]);
    let how = login(&rig.plan(), &person).await.unwrap();
    assert!(how.ends_with("key, then keyboard-interactive"), "{how}");
    assert_eq!(rig.seen(), ["key", "me|push", "", "123"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_methods_is_the_users_choice() {
    let methods = [MethodKind::PublicKey, MethodKind::Password];
    let rig = Rig::start(Wants::Password, &methods).await;
    let mut plan = rig.plan();
    plan.login.preferred = Some(vec!["gssapi-with-mic".into(), "password".into()]);
    login(&plan, &Person::saying(&["right"])).await.unwrap();
    assert_eq!(rig.seen(), ["me:right"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_has_enough() {
    let rig = Rig::start(Wants::Endless, &[MethodKind::KeyboardInteractive]).await;
    let person = Person::saying(&["x"; 100]);
    let error = login(&rig.plan(), &person).await.unwrap_err().to_string();
    assert!(error.contains("rounds of its questions"), "{error}");
    let rig = Rig::start(Wants::More, &[MethodKind::Password]).await;
    let person = Person::saying(&["x"; 100]);
    let mut plan = rig.plan();
    plan.login.password_prompts = 100;
    let error = login(&plan, &person).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    assert!(person.asked() < 20);
}

/// Says what a person would, to ssh's questions.
const ASKPASS: &str = "#!/bin/sh\ncase \"$1\" in\n*Name:*) echo me ;;\n*Pick*) echo push ;;\n*Code:*) echo 123 ;;\nesac\n";

/// The installed ssh asks by a program that its environment names, so that this test runs again in a process with one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_in_several_rounds_over_the_installed_ssh() {
    if std::env::var_os("SSH_ASKPASS_REQUIRE").is_none_or(|value| value != "force") {
        let dir = TempDir::new_in("/tmp").unwrap();
        let program = dir.path().join("askpass");
        std::fs::write(&program, ASKPASS).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
        let test = "codes_in_several_rounds_over_the_installed_ssh";
        let mut again = rig::one_test(module_path!(), test);
        again.env("SSH_ASKPASS", &program);
        again.env("SSH_ASKPASS_REQUIRE", "force");
        rig::assert_passes(again);
        return;
    }
    let methods = [MethodKind::PublicKey, MethodKind::Password];
    for (wants, methods, seen) in [
        (
            Wants::Rounds,
            &[MethodKind::KeyboardInteractive][..],
            &["me|push", "", "123"][..],
        ),
        (
            Wants::KeyThenRounds,
            &methods,
            &["key", "me|push", "", "123"],
        ),
    ] {
        let rig = Rig::start(wants, methods).await;
        let options = format!(
            "-F none -l me -p {} -i {}/key -o UserKnownHostsFile={}/known_hosts -o StrictHostKeyChecking=accept-new",
            rig.port,
            rig.dir.path().display(),
            rig.dir.path().display(),
        );
        let client = SshClient {
            arguments: options.split(' ').map(str::to_owned).collect(),
        };
        let carrier = OpensshCarrier::connect(&rig.plan(), &client).await.unwrap();
        assert_eq!(carrier.description().authentication, "keyboard-interactive");
        carrier.shutdown().await;
        assert_eq!(rig.seen(), seen);
    }
}
