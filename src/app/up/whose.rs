//! Whose packets are captured, in the words of the log.

use std::fmt;

use tokio::task::spawn_blocking;

use crate::app::surroundings;
use crate::plan::advice::HostNetworks;
use crate::plan::{Forwarded, Whose};

/// What is told of whose packets are captured.
#[derive(Default)]
pub(super) struct Told {
    /// Behind the subnets: see [`For`].
    pub(super) whom: String,
    /// A line for each group.
    pub(super) groups: Vec<String>,
}

/// Asks the host who they are, on a thread for what blocks: it may ask a server, and that through us.
pub(super) async fn told(whose: &Whose) -> Told {
    let whose = whose.clone();
    let asking = spawn_blocking(move || Told {
        whom: For(&whose).to_string(),
        groups: of_groups(&whose).collect(),
    });
    // An error means that this process ends.
    asking.await.unwrap_or_default()
}

/// Behind the subnets. Empty where nobody is named: this host's users, and containers on it.
struct For<'a>(&'a Whose);

impl fmt::Display for For<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users = self.0.users.iter().copied();
        let users: Vec<String> = users.map(surroundings::user_name).collect();
        if !users.is_empty() {
            write!(f, " for {} alone", users.join(", "))?;
        }
        match &self.0.forwarded {
            Forwarded::Containers => Ok(()),
            Forwarded::By(interfaces) => {
                write!(f, ", also for hosts behind {},", interfaces.join(", "))
            }
            Forwarded::All => write!(f, ", also for hosts behind this one,"),
        }
    }
}

/// A line for each group: who that is, for rules know users alone.
fn of_groups(whose: &Whose) -> impl Iterator<Item = String> {
    whose.groups.iter().map(|group| {
        let users = group.users.iter().copied();
        let users: Vec<String> = users.map(surroundings::user_name).collect();
        format!(
            "--group {}: captures for its users {}, whatever group their programs run with, and for nobody else's that run with it; reload looks anew who they are",
            group.name,
            users.join(", ")
        )
    })
}

/// A line for each interface that is named and not there: it may come, or its name be mistyped.
pub(super) fn missing(whose: &Whose, host: &HostNetworks) -> Vec<String> {
    let Forwarded::By(names) = &whose.forwarded else {
        return Vec::new();
    };
    let is_there = |name: &String| host.interfaces.iter().any(|one| one.name == *name);
    let missing = names.iter().filter(|name| !is_there(name));
    let line = |name| {
        format!(
            "--gateway={name}: there is no such interface, and nothing comes from behind it until there is; ip link shows those there are"
        )
    };
    missing.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::advice::Interface;

    #[test]
    fn an_interface_that_is_not_there_is_told_of() {
        let host = HostNetworks {
            interfaces: vec![Interface {
                name: "eth1".into(),
                bridge: false,
                addresses: Vec::new(),
            }],
            ..HostNetworks::default()
        };
        let told = |forwarded| {
            let whose = Whose {
                forwarded,
                ..Whose::default()
            };
            missing(&whose, &host)
        };
        let told_of = told(Forwarded::By(vec!["eth1".into(), "eht1".into()]));
        assert_eq!(told_of.len(), 1);
        assert!(told_of[0].starts_with("--gateway=eht1: "), "{told_of:?}");
        assert!(told(Forwarded::All).is_empty() && told(Forwarded::Containers).is_empty());
    }

    #[test]
    fn nobody_is_told_of_where_nobody_is_named() {
        let text = |users: &[u32], forwarded| {
            let users = users.to_vec();
            let groups = Vec::new();
            let whose = Whose {
                users,
                groups,
                forwarded,
            };
            For(&whose).to_string()
        };
        assert_eq!(text(&[], Forwarded::Containers), "");
        // Whoever has the number 0 is called root, and nobody has the other.
        assert_eq!(
            text(&[0, 4_294_967_294], Forwarded::Containers),
            " for root, 4294967294 alone"
        );
        let by = Forwarded::By(vec!["eth1".into(), "eth2".into()]);
        assert_eq!(text(&[], by), ", also for hosts behind eth1, eth2,");
        assert_eq!(
            text(&[], Forwarded::All),
            ", also for hosts behind this one,"
        );
    }
}
