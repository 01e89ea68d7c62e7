//! What a killed run left behind.

use std::collections::BTreeMap;
use std::fmt;

use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};

use super::apply::is_gone;
use super::routes::{MAIN, PROTOCOL};
use super::slot::{Slot, Tables};
use super::{Netlink, NetlinkError, names, orphan};

/// What was found and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Rules removed.
    pub rules: usize,
    /// Routes removed.
    pub routes: usize,
    /// Devices removed.
    pub devices: usize,
    /// `/etc/resolv.conf` put back, or to be put back.
    pub resolvers: usize,
}

impl Cleared {
    /// Whether there was nothing to remove.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Cleared {
    /// `2 rules, 1 route`; what there was none of is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.rules, "rule"),
            (self.routes, "route"),
            (self.devices, "device"),
            (self.resolvers, "name server setting"),
        ];
        let mut comma = "";
        for (count, word) in counts.into_iter().filter(|(count, _)| *count > 0) {
            let plural = if count == 1 { "" } else { "s" };
            write!(f, "{comma}{count} {word}{plural}")?;
            comma = ", ";
        }
        Ok(())
    }
}

/// Rules and routes of one slot.
#[derive(Default)]
struct Left {
    rules: Vec<RuleMessage>,
    routes: Vec<RouteMessage>,
}

/// Removes rules and routes that carry our protocol number and lie in a slot that nobody claims, or in
/// `own`. Rules go first, so that nothing is captured half. Then devices that nobody holds.
///
/// # Errors
/// When the kernel refuses to list or to remove.
pub async fn clear(netlink: &Netlink, own: Option<&Slot>) -> Result<Cleared, NetlinkError> {
    let mut cleared = Cleared::default();
    for (number, left) in find(netlink).await? {
        let is_own = own.is_some_and(|slot| slot.number() == number);
        // Held while we clear, so that nobody starts in it meanwhile.
        let claim = Slot::try_claim(number).map_err(NetlinkError::Socket)?;
        if is_own || claim.is_some() {
            remove(netlink, left, &mut cleared).await?;
        }
    }
    cleared.devices = orphan::clear(netlink).await?;
    cleared.resolvers = names::left::put_back(own).await;
    Ok(cleared)
}

/// What nobody claims, without removing it; devices are not counted.
///
/// # Errors
/// When the kernel refuses to list.
pub async fn left(netlink: &Netlink) -> Result<Cleared, NetlinkError> {
    let mut found = Cleared::default();
    for (number, left) in find(netlink).await? {
        if Slot::try_claim(number)
            .map_err(NetlinkError::Socket)?
            .is_some()
        {
            found.rules += left.rules.len();
            found.routes += left.routes.len();
        }
    }
    found.resolvers = names::left::count();
    Ok(found)
}

async fn find(netlink: &Netlink) -> Result<BTreeMap<u32, Left>, NetlinkError> {
    let mut slots: BTreeMap<u32, Left> = BTreeMap::new();
    for rule in netlink.rules().await? {
        if let Some(slot) = slot_of_rule(&rule) {
            slots.entry(slot).or_default().rules.push(rule);
        }
    }
    let protocol = RouteProtocol::Other(PROTOCOL);
    for route in netlink.routes(Some(protocol)).await? {
        if let Some(slot) = slot_of_route(&route) {
            slots.entry(slot).or_default().routes.push(route);
        }
    }
    Ok(slots)
}

async fn remove(netlink: &Netlink, left: Left, cleared: &mut Cleared) -> Result<(), NetlinkError> {
    for rule in left.rules {
        cleared.rules += count(netlink.delete_rule(rule).await)?;
    }
    for route in left.routes {
        cleared.routes += count(netlink.delete_route(route).await)?;
    }
    Ok(())
}

fn count(result: Result<(), NetlinkError>) -> Result<usize, NetlinkError> {
    match result {
        Ok(()) => Ok(1),
        Err(error) if is_gone(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

fn slot_of_rule(rule: &RuleMessage) -> Option<u32> {
    let ours = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
    rule.attributes.contains(&ours).then_some(())?;
    let (mut table, mut priority) = (None, None);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Table(number) => table = Some(*number),
            RuleAttribute::Priority(number) => priority = Some(*number),
            _ => {}
        }
    }
    match table? {
        MAIN => Tables::slot_of_main(priority?),
        table => Tables::slot_of(table),
    }
}

fn slot_of_route(route: &RouteMessage) -> Option<u32> {
    let table = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    (route.header.protocol == RouteProtocol::Other(PROTOCOL)).then_some(())?;
    Tables::slot_of(table?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cleared_in_words() {
        let shown = |rules, routes, devices| {
            let cleared = Cleared {
                rules,
                routes,
                devices,
                resolvers: 0,
            };
            cleared.to_string()
        };
        assert_eq!(shown(2, 1, 0), "2 rules, 1 route");
        assert_eq!(shown(0, 0, 1), "1 device");
    }
}
