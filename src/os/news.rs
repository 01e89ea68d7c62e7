//! Which of the kernel's messages tell of something new. Much is said again and again: an address with each router advertisement
//! and each lease that is renewed (`inet6_prefix_notify`, `rtmsg_ifa`), and a network manager sets its routes anew as often.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use nix::libc;
use rtnetlink::packet_core::NlasIterator;

use super::routes::PROTOCOL;

/// What of a link's flags says whether packets go through.
const CARRIES: u32 = (libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOWER_UP) as u32;
/// What of an address's flags says whether it is used: `IFA_F_OPTIMISTIC`, `IFA_F_DADFAILED`, `IFA_F_DEPRECATED` and
/// `IFA_F_TENTATIVE` of linux/if_addr.h.
const IN_USE: u8 = 0x04 | 0x08 | 0x20 | 0x40;
/// Attributes that say which address it is: `IFA_ADDRESS` and `IFA_LOCAL` (linux/if_addr.h).
const WHICH_ADDRESS: [u16; 2] = [1, 2];
/// Attributes that say which route it is: `RTA_DST`, `RTA_PRIORITY` and `RTA_TABLE` (linux/rtnetlink.h).
const WHICH_ROUTE: [u16; 3] = [1, 6, 15];
/// What is left of a route's life, which changes by itself: `RTA_CACHEINFO` and `RTA_EXPIRES` (linux/rtnetlink.h).
const AGES: [u16; 2] = [12, 23];
/// Lengths of `struct ifaddrmsg` (linux/if_addr.h) and `struct rtmsg` (linux/rtnetlink.h), in bytes.
const ADDRESS: usize = 8;
const ROUTE: usize = 12;
/// Addresses and routes that are remembered. Where there are more, they are news once more.
const REMEMBERED: usize = 4096;

/// What is known, to tell news from repetitions.
#[derive(Debug)]
pub(super) struct News {
    own_device: u32,
    /// The flags of links by index, of those that have been told of. As many as there are links at most.
    links: HashMap<u32, u32>,
    /// How addresses and routes are, by which they are.
    known: HashMap<u64, u64>,
}

impl News {
    /// Nothing has been told of yet. In what the device of index `own_device` does, nothing is new.
    pub(super) fn new(own_device: u32) -> Self {
        Self {
            own_device,
            links: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// What is new in a message, in a word. The fixed part of `struct ifinfomsg`, `ifaddrmsg` or `rtmsg` (linux/rtnetlink.h,
    /// linux/if_addr.h) says whose it is.
    pub(super) fn of(&mut self, kind: u16, body: &[u8]) -> Option<&'static str> {
        match kind {
            libc::RTM_NEWLINK => {
                let (index, flags) = (word(body, 4)?, word(body, 8)? & CARRIES);
                let is_new = self.links.insert(index, flags) != Some(flags);
                (is_new && index != self.own_device).then(|| self.gone("a link"))
            }
            libc::RTM_DELLINK => {
                let index = word(body, 4)?;
                self.links.remove(&index);
                (index != self.own_device).then(|| self.gone("a link"))
            }
            libc::RTM_NEWADDR | libc::RTM_DELADDR => self.address(kind, body),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => self.route(kind, body),
            _ => None,
        }
    }

    /// What is known of addresses and routes may be no more: routes of IPv4 go without a word with a link that goes down, and with
    /// the last address of a device (`fib_sync_down_dev`, net/ipv4/fib_semantics.c).
    fn gone(&mut self, what: &'static str) -> &'static str {
        self.known.clear();
        what
    }

    /// Messages were lost.
    pub(super) fn forget(&mut self) {
        self.links.clear();
        self.known.clear();
    }

    fn address(&mut self, kind: u16, body: &[u8]) -> Option<&'static str> {
        let (fixed, attributes) = body.split_at_checked(ADDRESS)?;
        if word(fixed, 4)? == self.own_device {
            return None;
        }
        if kind == libc::RTM_DELADDR {
            return Some(self.gone("an address"));
        }
        // Family and length of the prefix, and the device.
        let which = digest((ADDRESS, &fixed[..2], &fixed[4..]), attributes, |kind| {
            WHICH_ADDRESS.contains(&kind)
        });
        let how = u64::from(fixed[2] & IN_USE);
        self.is_new(which, Some(how)).then_some("an address")
    }

    fn route(&mut self, kind: u16, body: &[u8]) -> Option<&'static str> {
        let (fixed, attributes) = body.split_at_checked(ROUTE)?;
        if fixed[5] == PROTOCOL {
            return None;
        }
        // Family, lengths of the prefixes, type of service and table.
        let which = digest((ROUTE, &fixed[..5]), attributes, |kind| {
            WHICH_ROUTE.contains(&kind)
        });
        let how = (kind == libc::RTM_NEWROUTE)
            .then(|| digest(fixed, attributes, |kind| !AGES.contains(&kind)));
        self.is_new(which, how).then_some("a route")
    }

    /// Remembers how `which` is, or that it is gone; whether that is news.
    fn is_new(&mut self, which: u64, how: Option<u64>) -> bool {
        let Some(how) = how else {
            self.known.remove(&which);
            return true;
        };
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(which, how) != Some(how)
    }
}

/// Of the fixed part of a message and those of its attributes that `counts` says.
fn digest(fixed: impl Hash, attributes: &[u8], counts: impl Fn(u16) -> bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    fixed.hash(&mut hasher);
    let whole = NlasIterator::new(attributes).map_while(Result::ok);
    for attribute in whole.filter(|attribute| counts(attribute.kind())) {
        (attribute.kind(), attribute.value()).hash(&mut hasher);
    }
    hasher.finish()
}

/// The four bytes at `at`.
fn word(body: &[u8], at: usize) -> Option<u32> {
    let bytes = body.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 7;

    fn link(index: u32, flags: i32) -> Vec<u8> {
        let flags = flags.to_ne_bytes();
        [&[0; 4], &index.to_ne_bytes(), &flags, &[0; 4][..]].concat()
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = 4 + value.len() as u16;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// 10.0.0.`host`/24 on a device, with what is left of its life in seconds.
    fn address(index: u32, flags: u8, host: u8, life: u32) -> Vec<u8> {
        let fixed = [[2, 24, flags, 0], index.to_ne_bytes()].concat();
        // IFA_LOCAL and IFA_CACHEINFO.
        let life = [life; 4].map(u32::to_ne_bytes).concat();
        [fixed, attribute(2, &[10, 0, 0, host]), attribute(6, &life)].concat()
    }

    /// To 10.0.0.0/24 by 192.0.2.`gateway`, with what is left of its life.
    fn route(protocol: u8, gateway: u8, life: u32) -> Vec<u8> {
        let fixed = vec![2, 24, 0, 0, 254, protocol, 0, 1, 0, 0, 0, 0];
        // RTA_DST, RTA_GATEWAY and RTA_EXPIRES.
        let (to, by) = (
            attribute(1, &[10, 0, 0, 0]),
            attribute(5, &[192, 0, 2, gateway]),
        );
        [fixed, to, by, attribute(23, &life.to_ne_bytes())].concat()
    }

    #[test]
    fn a_link_is_news_when_it_begins_or_ends_to_carry() {
        let mut news = News::new(OWN);
        let up = libc::IFF_UP | libc::IFF_RUNNING;
        let mut of = |body: Vec<u8>| news.of(libc::RTM_NEWLINK, &body);
        assert_eq!(of(link(3, up)), Some("a link"));
        assert_eq!(of(link(3, up | libc::IFF_PROMISC)), None);
        assert_eq!(of(link(3, libc::IFF_UP)), Some("a link"));
        assert_eq!(of(link(OWN, up)), None);
    }

    /// As the kernel says it with each router advertisement that gives a prefix some more time.
    #[test]
    fn an_address_whose_time_is_prolonged_is_no_news() {
        let mut news = News::new(OWN);
        let new = |news: &mut News, body: Vec<u8>| news.of(libc::RTM_NEWADDR, &body);
        assert_eq!(new(&mut news, address(3, 0x80, 1, 60)), Some("an address"));
        for life in [59, 86_400] {
            assert_eq!(new(&mut news, address(3, 0x80, 1, life)), None);
        }
        assert_eq!(
            new(&mut news, address(3, 0xa0, 1, 0)),
            Some("an address"),
            "deprecated"
        );
        assert_eq!(
            new(&mut news, address(4, 0x80, 1, 60)),
            Some("an address"),
            "elsewhere"
        );
        assert_eq!(
            new(&mut news, address(3, 0x80, 2, 60)),
            Some("an address"),
            "another"
        );
        let gone = news.of(libc::RTM_DELADDR, &address(3, 0xa0, 1, 0));
        assert_eq!(gone, Some("an address"));
        assert_eq!(
            new(&mut news, address(3, 0xa0, 1, 0)),
            Some("an address"),
            "again"
        );
    }

    #[test]
    fn a_route_that_is_set_as_it_is_is_no_news() {
        let mut news = News::new(OWN);
        let new = |news: &mut News, body: Vec<u8>| news.of(libc::RTM_NEWROUTE, &body);
        assert_eq!(new(&mut news, route(3, 1, 60)), Some("a route"));
        assert_eq!(new(&mut news, route(3, 1, 1800)), None);
        assert_eq!(
            new(&mut news, route(3, 2, 1800)),
            Some("a route"),
            "another way"
        );
        assert_eq!(
            new(&mut news, route(3, 1, 1800)),
            Some("a route"),
            "the first again"
        );
        assert_eq!(
            news.of(libc::RTM_DELROUTE, &route(3, 1, 0)),
            Some("a route")
        );
        assert_eq!(new(&mut news, route(3, 1, 1800)), Some("a route"));
    }

    /// Of IPv4 it goes without a word, and is the same when it is set again.
    #[test]
    fn a_route_that_comes_back_with_its_link_is_news() {
        let mut news = News::new(OWN);
        let route = route(3, 1, 0);
        let up = libc::IFF_UP | libc::IFF_RUNNING;
        let links = [(0, "down"), (up, "up")];
        for (kind, body) in [
            (libc::RTM_DELLINK, link(3, 0)),
            (libc::RTM_DELADDR, address(3, 0, 1, 0)),
        ] {
            news.of(libc::RTM_NEWROUTE, &route);
            assert_eq!(news.of(libc::RTM_NEWROUTE, &route), None);
            assert!(news.of(kind, &body).is_some());
            assert_eq!(news.of(libc::RTM_NEWROUTE, &route), Some("a route"));
        }
        for (flags, how) in links {
            assert!(news.of(libc::RTM_NEWLINK, &link(3, flags)).is_some());
            assert_eq!(
                news.of(libc::RTM_NEWROUTE, &route),
                Some("a route"),
                "{how}"
            );
        }
    }

    #[test]
    fn what_we_do_ourselves_is_no_news() {
        let mut news = News::new(OWN);
        for kind in [libc::RTM_NEWROUTE, libc::RTM_DELROUTE] {
            assert_eq!(news.of(kind, &route(PROTOCOL, 1, 0)), None);
        }
        for kind in [libc::RTM_NEWADDR, libc::RTM_DELADDR] {
            assert_eq!(news.of(kind, &address(OWN, 0, 1, 0)), None);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut news = News::new(OWN);
        for index in 100..20_000 {
            news.of(libc::RTM_NEWADDR, &address(index, 0, 1, 0));
        }
        assert!(news.known.len() <= REMEMBERED);
    }

    #[test]
    fn cut_messages_are_no_news() {
        for length in 0..ROUTE {
            let mut news = News::new(OWN);
            let body = &route(3, 1, 0)[..length];
            assert_eq!(news.of(libc::RTM_NEWROUTE, body), None, "{length}");
        }
    }
}
