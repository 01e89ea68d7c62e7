//! The seam to what runs a command on the server.

use std::future::Future;

use super::{ByteReader, ByteWriter, OpenError};

/// Something that runs commands on the server.
pub trait Exec: Send + Sync {
    /// What the command says.
    type Reader: ByteReader;
    /// What the command hears.
    type Writer: ByteWriter;

    /// Runs `command`, which the login's shell reads. Where both halves are dropped, it hears the end of its input.
    fn exec(
        &self,
        command: &str,
    ) -> impl Future<Output = Result<(Self::Reader, Self::Writer), OpenError>> + Send;
}

impl<E: Exec> Exec for &E {
    type Reader = E::Reader;
    type Writer = E::Writer;

    async fn exec(&self, command: &str) -> Result<(Self::Reader, Self::Writer), OpenError> {
        E::exec(self, command).await
    }
}
