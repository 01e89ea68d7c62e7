//! CheckHostIP: what is known of the server's address counts beside what is known of its name.

use russh::keys::PublicKey;
use tracing::warn;

use super::super::known_hosts::{Known, Verdict, host_name};
use super::{HostKeyCheck, type_name, words};
use crate::carrier::error::HostKeyError;
use crate::plan::HostKeyPolicy;

impl HostKeyCheck {
    /// The name of the server's address, where CheckHostIP asks to look for that, too: not for loopback, nor where the
    /// host was given by its address.
    fn address_name(&self) -> Option<String> {
        let address = self.address.filter(|_| self.plan.check_host_ip)?;
        let is_host = self.plan.host.parse() == Ok(address);
        (!is_host && !address.is_loopback())
            .then(|| host_name(&address.to_string(), self.plan.port))
    }

    fn address_verdict(&self, key: &PublicKey) -> Option<(String, Verdict)> {
        let name = self.address_name()?;
        let verdict = self
            .known
            .of(std::slice::from_ref(&name))
            .verdict(key.key_data());
        Some((name, verdict))
    }

    /// The name of the server's address where it is new, to be written down with the key. One that is known by another key
    /// is asked about, or refused, as ssh does.
    pub(super) fn new_address(&self, key: &PublicKey) -> Result<Option<String>, HostKeyError> {
        match self.address_verdict(key) {
            None | Some((_, Verdict::Known(_))) => Ok(None),
            Some((name, Verdict::Unknown)) => Ok(Some(name)),
            Some((_, Verdict::Revoked(place))) => Err(self.revoked(key, place)),
            Some((name, Verdict::Changed(known))) => {
                self.other_address(key, name, &known)?;
                Ok(None)
            }
        }
    }

    fn other_address(
        &self,
        key: &PublicKey,
        address: String,
        known: &Known,
    ) -> Result<(), HostKeyError> {
        let algorithm = type_name(&key.algorithm());
        let warning = format!(
            "the {algorithm} host key for '{}' differs from the key for the IP address '{address}'. Offending key for IP in {}",
            self.host(),
            words::at(&known.place)
        );
        let goes_on = match self.plan.host_keys {
            HostKeyPolicy::Yes | HostKeyPolicy::AcceptNew => false,
            HostKeyPolicy::No => {
                warn!("{warning}");
                true
            }
            HostKeyPolicy::Ask => self.is_confirmed(
                format!(
                    "Warning: {warning}\nAre you sure you want to continue connecting (yes/no)? "
                ),
                "Please type 'yes' or 'no': ",
                None,
            ),
        };
        if goes_on {
            return Ok(());
        }
        Err(HostKeyError::AddressDiffers {
            host: self.host().to_owned(),
            remove: words::remove(known, &address).into(),
            address,
            algorithm: algorithm.into(),
            file: known.place.file.clone(),
            line: known.place.line,
        })
    }

    /// The server's address and what is known of its key, where that is not the changed key of the host.
    pub(super) fn differing_address(
        &self,
        key: &PublicKey,
        host: &Known,
    ) -> Option<(String, &'static str)> {
        let (name, verdict) = self.address_verdict(key)?;
        let what = match verdict {
            Verdict::Known(_) => "is unchanged",
            Verdict::Unknown => "is unknown",
            Verdict::Changed(known) if known.place == host.place => return None,
            Verdict::Changed(_) | Verdict::Revoked(_) => "has a different value",
        };
        Some((name, what))
    }
}
