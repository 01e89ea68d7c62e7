//! Whether several connections, one after the other, are to the same server.

use super::error::{ConnectError, HostKeyError};

/// The host key of the first one that told any, which all that follow have to have.
#[derive(Debug, Default)]
pub(super) struct FirstHostKey(String);

impl FirstHostKey {
    /// A connection is there, whose host key this is; empty where that is not told.
    pub(super) fn note(&mut self, host_key: &str) {
        if self.0.is_empty() {
            host_key.clone_into(&mut self.0);
        }
    }

    /// The same, of one that may be another server's.
    ///
    /// # Errors
    /// [`HostKeyError::NotAsBefore`].
    pub(super) fn recognise(&mut self, offered: &str) -> Result<(), ConnectError> {
        self.note(offered);
        if offered.is_empty() || self.0 == offered {
            return Ok(());
        }
        Err(ConnectError::HostKey(HostKeyError::NotAsBefore {
            offered: offered.to_owned(),
            before: self.0.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_follow_have_the_host_key_of_the_first() {
        let mut first = FirstHostKey::default();
        first.recognise("").unwrap();
        first.recognise("SHA256:a").unwrap();
        first.recognise("SHA256:a").unwrap();
        // Where it is not told.
        first.recognise("").unwrap();
        first.note("SHA256:b");
        let error = first.recognise("SHA256:b").unwrap_err();
        assert!(matches!(error, ConnectError::HostKey(_)), "{error}");
    }
}
