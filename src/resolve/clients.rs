//! Clients on streams: their questions in, their answers out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::frame::{Deframer, frame};
use super::proxy::{Client, Proxy, Respond, now};
use super::question::Way;
use super::streams::Hears;
use crate::net::{ByteReader, ByteWriter, Inbound, StreamError};

/// How long a client may take for one answer.
const WRITE: Duration = Duration::from_secs(10);

/// What a stream's task waits for.
#[derive(Debug, Default)]
pub(super) struct Bells {
    answer: Notify,
    gone: Notify,
}

impl Hears for Arc<Bells> {
    fn answer(&self) {
        self.answer.notify_one();
    }

    fn gone(&self) {
        self.gone.notify_one();
    }
}

/// A stream's place, until it is dropped.
struct Place<'a, R: Respond> {
    proxy: &'a Proxy<R>,
    stream: u64,
}

impl<R: Respond> Drop for Place<'_, R> {
    fn drop(&mut self) {
        self.proxy.with_streams(|all| all.leave(self.stream));
    }
}

impl<R: Respond> Proxy<R> {
    /// Answers the questions of one stream until it ends.
    pub async fn serve(&self, inbound: impl Inbound) {
        let bells = Arc::<Bells>::default();
        let stream = self.with_streams(|all| all.enter(now(), Arc::clone(&bells)));
        let _place = Place {
            proxy: self,
            stream,
        };
        let (reader, writer) = inbound.accept();
        tokio::select! {
            served = self.answer_stream(stream, &bells, reader, writer) => if let Err(error) = served {
                tracing::debug!("a client of the name server: {error}");
            },
            () = bells.gone.notified() => {
                tracing::debug!("a client of the name server that was idle, or does not read, makes room for others");
            }
        }
    }

    async fn answer_stream(
        &self,
        stream: u64,
        bells: &Bells,
        mut reader: impl ByteReader,
        mut writer: impl ByteWriter,
    ) -> Result<(), StreamError> {
        let mut deframer = Deframer::default();
        let (mut has_ended, mut is_idle) = (false, false);
        loop {
            self.write_answers(stream, &mut writer).await?;
            self.read_questions(stream, &mut deframer)?;
            let (may_ask, idle_at) =
                self.with_streams(|all| (all.may_ask(stream), all.idle_at(stream)));
            // What was asked at once is answered already: nothing is to come where nothing waits.
            if (has_ended || is_idle) && idle_at.is_some() {
                in_time(writer.finish()).await?;
                // It ends as well, in order: a reset would take from it what it has not read yet.
                if is_idle {
                    in_time(reader.read()).await?;
                }
                return Ok(());
            }
            tokio::select! {
                () = bells.answer.notified() => {}
                piece = reader.read(), if !has_ended && may_ask => match piece? {
                    Some(piece) => deframer.push(&piece),
                    None => has_ended = true,
                },
                () = sleep_until(idle_at.unwrap_or_else(now).into()), if idle_at.is_some() => is_idle = true,
            }
        }
    }

    async fn write_answers(
        &self,
        stream: u64,
        writer: &mut impl ByteWriter,
    ) -> Result<(), StreamError> {
        while let Some(answer) = self.with_streams(|all| all.next(stream)) {
            let (bytes, framed) = (answer.len(), frame(&answer));
            // A stuck one is not kept twice.
            drop(answer);
            if let Some(framed) = framed {
                in_time(writer.write(framed.into())).await?;
                writer.flush();
            }
            self.with_streams(|all| all.taken(now(), stream, bytes));
        }
        Ok(())
    }

    fn read_questions(&self, stream: u64, deframer: &mut Deframer) -> Result<(), StreamError> {
        while self.with_streams(|all| all.may_ask(stream))
            && let Some(message) = deframer.next_message()
        {
            self.with_streams(|all| all.asked(now(), stream));
            // Noise tells that this is no client.
            if !self.ask(Client::Stream(stream), Way::Stream, &message) {
                return Err(StreamError::Reset);
            }
        }
        Ok(())
    }
}

/// Who takes nothing for so long is let go.
async fn in_time<T>(done: impl Future<Output = Result<T, StreamError>>) -> Result<T, StreamError> {
    timeout(WRITE, done)
        .await
        .unwrap_or(Err(StreamError::Reset))
}
