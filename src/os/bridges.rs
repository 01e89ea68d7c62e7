//! The bridges that containers are behind.
//!
//! Docker and Podman name theirs: `docker0`, `docker_gwbridge`, `br-` and the beginning of a network's number, `podman0`,
//! `cni-podman0`. A bridge of such a name that has another port than the end of a veth pair leads to hosts of a network too,
//! so it is none of these, and neither is a bridge that a person made (`br0`, `br-lan`).

use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::{Netlink, NetlinkError, netlink};

/// How many digits of its number Docker puts into the name of a network's bridge.
const DIGITS: usize = 12;

/// Their names, in order.
///
/// # Errors
/// When the kernel refuses to list.
pub async fn bridges(netlink: &Netlink) -> Result<Vec<String>, NetlinkError> {
    Ok(of_containers(&netlink.links().await?))
}

fn of_containers(links: &[LinkMessage]) -> Vec<String> {
    let is_one = |link: &&LinkMessage| {
        let mut ports = links
            .iter()
            .filter(|port| controller(port) == Some(link.header.index));
        is_bridge(link)
            && is_name(&netlink::name(link))
            && ports.all(|port| kind(port) == Some(&InfoKind::Veth))
    };
    let mut names: Vec<String> = links.iter().filter(is_one).map(netlink::name).collect();
    names.sort_unstable();
    names
}

/// Whether Docker or Podman names a bridge so.
fn is_name(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_hex = |text: &str| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.len() == DIGITS && text.bytes().all(digit)
    };
    matches!(name, "docker0" | "docker_gwbridge")
        || name.strip_prefix("br-").is_some_and(is_hex)
        || name.strip_prefix("podman").is_some_and(is_number)
        || name.strip_prefix("cni-podman").is_some_and(is_number)
}

/// Whether a device is a bridge, of whatever name.
pub(super) fn is_bridge(link: &LinkMessage) -> bool {
    kind(link) == Some(&InfoKind::Bridge)
}

fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    let infos = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })?;
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

/// The bridge that a device is a port of.
fn controller(link: &LinkMessage) -> Option<u32> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<InfoKind>, of: Option<u32>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::IfName(name.into())];
        let info = kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        link.attributes.extend(info);
        link.attributes.extend(of.map(LinkAttribute::Controller));
        link
    }

    #[test]
    fn names_that_docker_and_podman_give() {
        for name in [
            "docker0",
            "docker_gwbridge",
            "br-0123456789ab",
            "podman0",
            "podman12",
            "cni-podman0",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "br0",
            "br-lan",
            "br-0123456789a",
            "br-0123456789AB",
            "br-0123456789abc",
            "virbr0",
            "docker1",
            "podman",
            "podmanx",
            "lxdbr0",
            "",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_bridge_into_a_network_of_hosts_is_none() {
        let veth = || Some(InfoKind::Veth);
        let bridge = || Some(InfoKind::Bridge);
        let mut links = vec![
            link(1, "lo", None, None),
            link(2, "eth0", None, None),
            link(3, "docker0", bridge(), None),
            link(4, "veth1", veth(), Some(3)),
            link(5, "br-0123456789ab", bridge(), None),
            link(6, "podman0", Some(InfoKind::Dummy), None),
            link(7, "br0", bridge(), None),
        ];
        assert_eq!(of_containers(&links), ["br-0123456789ab", "docker0"]);
        links[1] = link(2, "eth0", None, Some(3));
        assert_eq!(of_containers(&links), ["br-0123456789ab"]);
    }
}
