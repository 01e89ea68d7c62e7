//! Commands on the server, over whatever link there is.

use super::{Steady, SteadyReader, SteadyWriter, counted};
use crate::carrier::{AnyCarrier, AnyReader, AnyWriter};
use crate::net::{Exec, OpenError};

impl Exec for Steady<AnyCarrier> {
    type Reader = SteadyReader<AnyReader>;
    type Writer = SteadyWriter<AnyWriter>;

    /// Waits while there is no link.
    async fn exec(&self, command: &str) -> Result<(Self::Reader, Self::Writer), OpenError> {
        let current = self.current().await;
        let (reader, writer) = current.link.open_exec(command).await?;
        Ok(counted(reader, writer, &current.streams))
    }
}
