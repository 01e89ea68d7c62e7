//! Commands on the server, over whatever link there is.

use super::{Steady, SteadyReader, SteadyWriter, counted, lost_under_it};
use crate::carrier::{AnyCarrier, AnyReader, AnyWriter};
use crate::net::{Exec, OpenError};

impl Exec for Steady<AnyCarrier> {
    type Reader = SteadyReader<AnyReader>;
    type Writer = SteadyWriter<AnyWriter>;

    /// Waits while there is no link, and for the next one where this one was lost under it.
    async fn exec(&self, command: &str) -> Result<(Self::Reader, Self::Writer), OpenError> {
        loop {
            let current = self.current().await;
            match current.link.open_exec(command).await {
                Ok((reader, writer)) => return Ok(counted(reader, writer, &current.streams)),
                Err(error) => {
                    drop(current);
                    lost_under_it(error).await?;
                }
            }
        }
    }
}
