//! Whether the host has slept.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// How often the clocks are compared. With what a sign of life takes, a loss is told within two seconds.
const TICK: Duration = Duration::from_millis(300);
/// Time that passed on `CLOCK_BOOTTIME` and not on `CLOCK_MONOTONIC` is sleep (clock_gettime(2)); less than this is not.
const SLEEP: Duration = Duration::from_millis(500);
/// A tick so late means that this process was stopped, or the virtual machine under it.
const STOPPED: Duration = Duration::from_secs(5);

/// Notices when the host, or this process, was stopped for a while.
#[derive(Debug)]
pub struct Resume {
    last: Clocks,
}

#[derive(Clone, Copy, Debug)]
struct Clocks {
    monotonic: Duration,
    boot: Duration,
}

impl Clocks {
    /// Clocks that the kernel does not have stand still.
    fn read() -> Self {
        let get = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
        Self {
            monotonic: get(ClockId::CLOCK_MONOTONIC),
            boot: get(ClockId::CLOCK_BOOTTIME),
        }
    }

    /// Whether the host was stopped between two ticks.
    fn were_stopped(self, since: Self) -> bool {
        let monotonic = self.monotonic.saturating_sub(since.monotonic);
        let boot = self.boot.saturating_sub(since.boot);
        boot.saturating_sub(monotonic) > SLEEP || monotonic.max(boot) > TICK + STOPPED
    }
}

impl Default for Resume {
    fn default() -> Self {
        Self {
            last: Clocks::read(),
        }
    }
}

impl Resume {
    /// Resolves after the host has slept. Cancel safe.
    pub async fn next(&mut self) {
        loop {
            tokio::time::sleep(TICK).await;
            let now = Clocks::read();
            let stopped = now.were_stopped(self.last);
            self.last = now;
            if stopped {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_and_stops_are_noticed_and_ticks_are_not() {
        let at = |monotonic, boot| Clocks {
            monotonic: Duration::from_millis(monotonic),
            boot: Duration::from_millis(boot),
        };
        let start = at(1_000, 9_000);
        assert!(!at(1_500, 9_500).were_stopped(start));
        assert!(!at(3_000, 11_000).were_stopped(start));
        assert!(at(1_500, 60_000).were_stopped(start));
        assert!(at(8_000, 16_000).were_stopped(start));
        assert!(!at(0, 0).were_stopped(start));
    }
}
