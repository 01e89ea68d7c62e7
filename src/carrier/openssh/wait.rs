//! A login that takes long: what is waited for is said, and a handshake has an end.

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::client::Asks;
use super::facts::Stage;
use super::words::Words;
use crate::carrier::TO_PERSON;
use crate::plan::{Route, SshPlan};

/// Silence after which it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(3);
/// How long a handshake may take where nothing is configured.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Resolves when the handshake has taken longer than ConnectTimeout; ssh itself only sees to it that the server's version
/// comes in that time.
pub(super) async fn overdue(mut stages: watch::Receiver<Stage>, plan: &SshPlan) {
    let patience = plan.dialling.timeout.unwrap_or(HANDSHAKE);
    // An error is the end of ssh, which somebody else waits for.
    let has_begun = stages
        .wait_for(|stage| *stage >= Stage::Handshake)
        .await
        .is_ok();
    let is_over = stages.wait_for(|stage| *stage > Stage::Handshake);
    if !has_begun || timeout(patience, is_over).await.is_ok() {
        pending().await
    }
}

/// Says after a while what is waited for, once, and where it does not come into a question of ssh's on the terminal, which it `may_ask`
/// on. A login that asks nobody has nobody who waits for it.
pub(super) async fn tell(
    words: &Mutex<Words>,
    plan: &SshPlan,
    asks: Asks,
    may_ask: bool,
) -> Infallible {
    sleep(SILENCE).await;
    let line = {
        let words = words.lock().unwrap_or_else(PoisonError::into_inner);
        waiting_for(&words, plan, may_ask)
    };
    if let (Asks::Person, Some(line)) = (asks, line) {
        info!(target: TO_PERSON, "{line}");
    }
    pending().await
}

fn waiting_for(words: &Words, plan: &SshPlan, may_ask: bool) -> Option<String> {
    let facts = &words.facts;
    let server = facts
        .peer
        .map_or_else(|| plan.alias.clone(), |peer| peer.to_string());
    // The jump host may ask, too.
    let may_ask_on_the_way = may_ask && matches!(plan.route, Route::Jump(_));
    match facts.stage {
        Stage::Start | Stage::Greeting if may_ask_on_the_way => None,
        Stage::HostKey | Stage::Login if may_ask => None,
        Stage::Start => Some(format!("waiting for ssh to find {}", plan.host)),
        Stage::Connecting => Some(format!("waiting for {server} to take the connection")),
        Stage::Greeting => Some(match plan.route {
            Route::Direct => format!("connected to {server}, waiting for its SSH banner"),
            Route::Command(_) => {
                format!("waiting for the SSH banner of {server} from the ProxyCommand")
            }
            Route::Jump(_) => {
                format!("waiting for the SSH banner of {server} through the jump host")
            }
        }),
        Stage::Handshake => Some(format!("waiting for the host key of {server}")),
        Stage::HostKey | Stage::Login => {
            let tried = words.tried();
            Some(format!(
                "waiting for {server} to let us in (tried: {tried})"
            ))
        }
        Stage::Done => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn line(stage: Stage, route: Route, may_ask: bool) -> Option<String> {
        let mut words = Words::of(1, Arc::default());
        words.facts.stage = stage;
        let plan = SshPlan {
            route,
            ..SshPlan::new("prod", 22, "me")
        };
        waiting_for(&words, &plan, may_ask)
    }

    #[test]
    fn a_question_is_left_alone() {
        let jump = || Route::Jump(Box::new(SshPlan::new("gw", 22, "me")));
        assert_eq!(line(Stage::Login, Route::Direct, true), None);
        assert_eq!(line(Stage::HostKey, Route::Direct, true), None);
        assert_eq!(line(Stage::Greeting, jump(), true), None);
        for stage in [
            Stage::Start,
            Stage::Connecting,
            Stage::Greeting,
            Stage::Handshake,
        ] {
            assert!(line(stage, Route::Direct, true).unwrap().contains("prod"));
            assert!(line(stage, jump(), false).is_some());
        }
        assert!(line(Stage::Login, Route::Direct, false).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_an_end() {
        let mut plan = SshPlan::new("h", 22, "me");
        plan.dialling.timeout = Some(Duration::from_secs(7));
        let stage = watch::Sender::new(Stage::Greeting);
        let late = Duration::from_secs(100);
        assert!(
            timeout(late, overdue(stage.subscribe(), &plan))
                .await
                .is_err()
        );
        stage.send_replace(Stage::Handshake);
        let soon = Duration::from_secs(8);
        assert!(
            timeout(soon, overdue(stage.subscribe(), &plan))
                .await
                .is_ok()
        );
        stage.send_replace(Stage::HostKey);
        assert!(
            timeout(late, overdue(stage.subscribe(), &plan))
                .await
                .is_err()
        );
    }
}
