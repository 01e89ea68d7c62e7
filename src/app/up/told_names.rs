//! What `status` says of names.

use super::names::Names;
use crate::app::control::report::{NamePool, Names as Report};
use crate::os::names::By;
use crate::plan::DnsPlan;

/// What does not change while it runs: a reload leaves names as they are.
pub(super) fn fixed(dns: &DnsPlan, by: By) -> Report {
    let pool = dns.by_name.map(|pool| NamePool {
        networks: pool.nets().map(|net| net.to_string()).collect(),
        is_for_all: dns.is_all_by_name,
        ..NamePool::default()
    });
    Report {
        is_all: dns.is_all,
        domains: dns.domains.clone(),
        hosts: dns.hosts.iter().map(ToString::to_string).collect(),
        by: match by {
            By::Resolved => "systemd-resolved",
            By::Program => "resolvconf",
            By::File | By::Netns | By::Process => "/etc/resolv.conf",
        }
        .to_owned(),
        pool,
        ..Report::default()
    }
}

/// With how `names` are now.
pub(super) fn now(fixed: Report, names: &Names) -> Report {
    let counters = names.counters();
    let (used, room) = names.pool_usage().unwrap_or_default();
    let servers = names.far_servers();
    Report {
        servers: servers.iter().map(ToString::to_string).collect(),
        pool: fixed.pool.map(|pool| NamePool { used, room, ..pool }),
        questions: counters.questions,
        remembered: counters.remembered,
        failed: counters.failed,
        mismatched: counters.mismatched,
        trailing: counters.trailing,
        noise: counters.noise,
        ..fixed
    }
}
