//! The process that makes the namespaces and what is in them.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getegid, geteuid, getppid};

use super::obstacle::{self, Obstacle};
use super::passing::{Made, send_made, send_refused};
use super::{Inside, Setting, files, sockets};
use crate::os::apply::make as make_entry;
use crate::os::routes::{self, Entry, Route, Source, Towards};
use crate::os::{Netlink, SocketOwners, TunDevice, TunError, source};

/// Where capabilities(7) are told, as bits; number 21 is CAP_SYS_ADMIN.
const STATUS: &str = "/proc/self/status";
const SYS_ADMIN: u64 = 1 << 21;

/// Does the work of the child, and ends it.
pub(super) fn run(setting: &Setting, socket: &OwnedFd, parent: Pid) -> ! {
    match build(setting, parent) {
        Ok(made) => {
            let sent = send_made(socket, &made);
            // The device is the parent's alone now: it has to go with the parent.
            drop(made);
            if sent.is_ok() && setting.sockets {
                sockets::serve(socket);
            }
        }
        // Where nobody listens any more nobody has to be told.
        Err(why) => drop(send_refused(socket, &why)),
    }
    super::leave()
}

/// The device and the namespaces, or one line for a person.
fn build(setting: &Setting, parent: Pid) -> Result<Made, String> {
    let own_user = !may_without_user_namespace();
    enter_new(own_user).map_err(|(step, error)| obstacle::line(&Obstacle::found(step, &error)))?;
    tie_to(parent).map_err(failed("tying the process to its parent"))?;
    // What is mounted outside later shows inside too, and never the other way round (mount_namespaces(7)).
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(failed("making the mounts private"))?;
    for file in &setting.files {
        files::cover(file);
    }
    let device = TunDevice::open(&setting.device).map_err(|error| device_line(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("starting a runtime"))?;
    runtime.block_on(route(setting, &device))?;
    let namespace = |name: &str| {
        let file = File::open(format!("/proc/self/ns/{name}"));
        file.map(OwnedFd::from)
            .map_err(failed("opening /proc/self/ns"))
    };
    let inside = Inside {
        user: own_user.then(|| namespace("user")).transpose()?,
        mount: namespace("mnt")?,
        network: namespace("net")?,
    };
    Ok(Made {
        device,
        inside,
        // A kernel without it is no reason to stop.
        owners: setting.owners.then(SocketOwners::new).and_then(Result::ok),
    })
}

fn failed<E: Display>(step: &'static str) -> impl Fn(E) -> String {
    move |error| format!("could not make a private network: {step}: {error}")
}

/// No sudo helps here, so the hints differ from those of `up`.
fn device_line(error: &TunError) -> String {
    match error {
        TunError::NotPermitted | TunError::Closed => {
            "/dev/net/tun may not be opened by this user; run: sudo chmod 0666 /dev/net/tun (the usual mode: the kernel \
             asks for privileges when a device is made, and a private network has its own)"
                .to_owned()
        }
        other => other.to_string(),
    }
}

/// CAP_SYS_ADMIN lets make a network and a mount namespace right away.
fn may_without_user_namespace() -> bool {
    let status = std::fs::read_to_string(STATUS).unwrap_or_default();
    effective_capabilities(&status) & SYS_ADMIN != 0
}

fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.unwrap_or_default()
}

/// Makes the namespaces around this process; the step that failed.
fn enter_new(own_user: bool) -> Result<(), (obstacle::Step, io::Error)> {
    use obstacle::Step;
    let (user, group) = (geteuid(), getegid());
    let at = |step| move |errno: nix::errno::Errno| (step, io::Error::from(errno));
    if own_user {
        // With file capabilities /proc/self would be root's (proc_pid(5)).
        let _ = set_dumpable(true);
        unshare(CloneFlags::CLONE_NEWUSER).map_err(at(Step::User))?;
        map(user.as_raw(), group.as_raw()).map_err(|error| (Step::Map, error))?;
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(at(Step::Network))
}

/// User and group are themselves. Groups can be mapped once setgroups(2) is given up (user_namespaces(7)); those that the
/// process has it keeps.
fn map(user: u32, group: u32) -> io::Result<()> {
    let write = |file: &str, text: &str| {
        // One write(2), as the kernel asks.
        let file = File::options()
            .write(true)
            .open(format!("/proc/self/{file}"));
        file?.write_all(text.as_bytes())
    };
    match write("setgroups", "deny") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write("uid_map", &format!("{user} {user} 1\n"))?;
    write("gid_map", &format!("{group} {group} 1\n"))
}

/// The end of the parent is ours (prctl(2), PR_SET_PDEATHSIG). Set after the change of user namespace, which may clear it.
pub(super) fn tie_to(parent: Pid) -> nix::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent {
        Ok(())
    } else {
        Err(nix::errno::Errno::ESRCH)
    }
}

async fn route(setting: &Setting, device: &TunDevice) -> Result<(), String> {
    let netlink = Netlink::new().map_err(failed("opening netlink"))?;
    let loopback = netlink.index("lo").await;
    let loopback = loopback.map_err(failed("finding the loopback device"))?;
    let up = netlink.set_up(loopback).await;
    up.map_err(failed("setting the loopback device up"))?;
    let index = netlink.index(device.name()).await;
    let index = index.map_err(failed("finding the device"))?;
    for entry in entries(setting, device, source::has_ipv6()) {
        let made = make_entry(&netlink, index, &entry).await;
        made.map_err(|error| failed("setting up the device")(format!("{entry}: {error}")))?;
    }
    Ok(())
}

/// What shall hold in the namespace: in its main table, for nothing else is there.
fn entries(setting: &Setting, device: &TunDevice, has_ipv6: bool) -> Vec<Entry> {
    let source = Source {
        v6: setting.source.v6.filter(|_| has_ipv6),
        ..setting.source
    };
    let mut entries = routes::device(device.name(), device.mtu(), source, has_ipv6);
    entries.extend(setting.routes.iter().filter_map(|net| {
        let from = match net {
            IpNet::V4(_) => Some(source.v4.into()),
            IpNet::V6(_) => source.v6.map(IpAddr::V6),
        };
        Some(Entry::Route(Route {
            table: routes::MAIN,
            net: *net,
            to: Some(Towards {
                device: device.name().to_owned(),
                source: from?,
                via: None,
            }),
        }))
    }));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        assert_ne!(effective_capabilities(status) & SYS_ADMIN, 0);
        assert_eq!(
            effective_capabilities("CapEff:\t0000000000001000\n") & SYS_ADMIN,
            0
        );
        assert_eq!(effective_capabilities("CapEff:\tx\n"), 0);
        assert_eq!(effective_capabilities(""), 0);
    }
}
