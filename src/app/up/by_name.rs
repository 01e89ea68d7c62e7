//! Opening to names: a few at a time.
//!
//! sshd looks a name up with getaddrinfo(3), and does nothing else meanwhile: whoever asks for many names that are slow to be found
//! would stop every flow. And an open is in flight until the host answers, whether its name was found or not.

use std::net::IpAddr;

use tokio::sync::Semaphore;

use crate::net::{Carrier, Far, OpenError, Source};

/// Opens to names in flight: so many rows, of so many each. All opens to one name are in one row, so that one that never answers
/// leaves the others to most of the rest.
const ROWS: usize = 8;
const EACH: usize = 2;

/// Whose turn it is.
pub(super) struct Turns([Semaphore; ROWS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Semaphore::new(EACH)))
    }
}

impl Turns {
    /// That of the name that `ip` stands for.
    pub(super) fn of(&self, ip: IpAddr) -> &Semaphore {
        let last = match ip {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        &self.0[usize::from(last) % ROWS]
    }
}

/// Opens in turn, where there is one to be waited for.
pub(super) struct InTurn<'a, C>(pub(super) C, pub(super) Option<&'a Semaphore>);

impl<C: Carrier> Carrier for InTurn<'_, C> {
    type Reader = C::Reader;
    type Writer = C::Writer;

    async fn open_far(
        &self,
        source: Source,
        far: Far,
    ) -> Result<(Self::Reader, Self::Writer), OpenError> {
        let Self(carrier, turn) = self;
        let _turn = match turn {
            Some(turn) => turn.acquire().await.ok(),
            None => None,
        };
        carrier.open_far(source, far).await
    }
}
