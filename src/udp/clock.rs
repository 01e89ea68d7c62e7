//! The clock of what is sans-IO here, and of [`ping`](crate::ping).

use std::time::Instant;

use tokio::sync::Notify;
use tokio::time::sleep_until;

/// Now, as tests see it that pause the clock.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until `due`, for ever where there is no such time; `false` where `sooner` rang first, and it is to be asked again.
pub(crate) async fn is_due(due: Option<Instant>, sooner: &Notify) -> bool {
    let wait = async {
        match due {
            Some(due) => sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait => true,
        () = sooner.notified() => false,
    }
}
