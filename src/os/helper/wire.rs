//! What the two ends say to each other: a small closed set of messages, and what makes a request sound.
//!
//! A message is its length in bytes as a big-endian `u32`, then so many bytes of JSON. The privileged end takes nobody's
//! word: a request says what is wanted in the terms of the plan, never routes or rules, and is checked here as if it
//! came from an enemy.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use nix::sys::socket::SockType;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::os::names::{Apart, By, Wish};
use crate::plan::far_side::TunnelAddress;
use crate::plan::{CapturePlan, DeviceKind, DevicePlan, Forwarded, PlanError, Subnet, Whose};

/// What both ends must speak; to be counted up with every change of the messages below.
pub(super) const PROTOCOL: u32 = 6;
/// The longest message, in bytes: some 20,000 subnets.
pub(super) const MOST_BYTES: usize = 1 << 20;
/// Length of the length, in bytes.
pub(super) const PREFIX: usize = size_of::<u32>();

/// The first message, from the end that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    protocol: u32,
    /// How the privileged end shall log; it writes to the same stderr.
    pub log: LogWish,
    /// Whether a network namespace comes along, to work in.
    #[serde(default)]
    pub(super) elsewhere: bool,
    /// How names will be asked for, if they will.
    #[serde(default)]
    pub names: Option<By>,
    /// By whose resolv.conf, where that is in another network.
    #[serde(default)]
    pub apart: Option<Apart>,
}

/// How much to log, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogWish {
    /// How often `-v` was given.
    pub verbose: u8,
    /// Errors only.
    pub quiet: bool,
    /// One JSON object per line.
    pub json: bool,
    /// Without colours also on a terminal.
    pub plain: bool,
}

impl Hello {
    /// Of this version.
    pub fn new(log: LogWish) -> Self {
        Self {
            protocol: PROTOCOL,
            log,
            elsewhere: false,
            names: None,
            apart: None,
        }
    }

    /// With the host's names, or those of another network.
    pub fn with_names(self, names: Option<By>, apart: Option<Apart>) -> Self {
        Self {
            names,
            apart,
            ..self
        }
    }

    /// With a network namespace beside it.
    pub(super) fn with_namespace(self) -> Self {
        Self {
            elsewhere: true,
            ..self
        }
    }

    /// Whether the other end speaks as we do.
    pub(super) fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL
    }
}

/// What is asked for, as it comes off the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Request {
    /// Make the device. Once.
    Open(#[serde(with = "Device")] DevicePlan),
    /// Capture this, and nothing else, from here on.
    Hold {
        subnets: Vec<Selector>,
        excludes: Vec<IpNet>,
        exempt: Vec<IpAddr>,
        /// Empty: everybody.
        #[serde(default)]
        users: Vec<u32>,
        #[serde(default)]
        forwarded: Carried,
        /// Also have programs ask our name server, which is captured then.
        #[serde(default)]
        names: Option<Wish>,
        /// The addresses of a tunnel, as they are typed: the device gets ours, and the far ones are captured.
        #[serde(default)]
        ends: Option<String>,
    },
    /// Connect to one of the name servers that programs in that other network had, from there.
    Near {
        server: SocketAddr,
        /// For datagrams, not for a stream.
        #[serde(default)]
        datagrams: bool,
    },
    /// Capture nothing any more.
    Release {},
}

/// How [`DevicePlan`] is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "DevicePlan", deny_unknown_fields)]
struct Device {
    name: Option<String>,
    mtu: Option<u16>,
    #[serde(default, with = "Kind")]
    kind: DeviceKind,
}

/// How [`DeviceKind`] is written.
#[derive(Serialize, Deserialize)]
#[serde(remote = "DeviceKind")]
enum Kind {
    Tun,
    PlainTun,
    Tap,
}

/// A network, and the first and last of its TCP ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selector {
    net: IpNet,
    ports: Option<(u16, u16)>,
}

/// [`Forwarded`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Carried {
    #[default]
    Containers,
    By(Vec<String>),
    All,
}

impl Carried {
    fn of(forwarded: &Forwarded) -> Self {
        match forwarded {
            Forwarded::Containers => Self::Containers,
            Forwarded::By(names) => Self::By(names.clone()),
            Forwarded::All => Self::All,
        }
    }

    fn forwarded(self) -> Forwarded {
        match self {
            Self::Containers => Forwarded::Containers,
            Self::By(names) => Forwarded::By(names),
            Self::All => Forwarded::All,
        }
    }
}

/// A request that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(super) enum Order {
    Open(DevicePlan),
    Hold {
        capture: CapturePlan,
        /// Addresses of the SSH server.
        exempt: Vec<IpAddr>,
        names: Option<Wish>,
        ends: Option<TunnelAddress>,
    },
    Near(SocketAddr, SockType),
    Release,
}

/// What the privileged end answers, one to each message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// To [`Hello`].
    Ready,
    /// The device; its descriptor comes along.
    Opened(Opened),
    /// It is captured.
    Held,
    /// The connection is begun; its descriptor comes along.
    Near,
    /// Nothing is captured; a line for each part that could not be taken back.
    Released { left: Vec<String> },
    /// It was not done, and nothing was changed.
    Refused(Refusal),
}

/// The device that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) mtu: u16,
    pub(super) offload: bool,
    /// Number of the slot that was claimed.
    pub(super) slot: u32,
    /// What a killed run had left and was removed, in words.
    pub(super) cleared: Option<String>,
    /// The name servers that programs in that other network had.
    pub(super) near: Vec<SocketAddr>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{text}")]
pub struct Refusal {
    /// What kind of reason.
    pub kind: RefusalKind,
    /// One line for a person, with what to do.
    pub text: String,
}

/// The kinds of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// A privilege or `/dev/net/tun` is missing.
    Privilege,
    /// The device's name or every slot is taken.
    Busy,
    /// Nothing is left to capture.
    Nothing,
    /// The request was none, or came at the wrong time; this ends the privileged end.
    Senseless,
    /// Anything else.
    Failed,
}

/// What came is no message of ours.
#[derive(Debug, Error)]
pub(super) enum WireError {
    /// Longer than [`MOST_BYTES`], or nothing at all.
    #[error("a message of {0} bytes")]
    Length(usize),
    /// Not the JSON that was expected.
    #[error("a message that is not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// Understood, but no sound request.
    #[error("a request that makes no sense: {0}")]
    Senseless(String),
}

impl From<WireError> for io::Error {
    fn from(error: WireError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// A message with its length.
///
/// # Errors
/// [`WireError::Length`] when it is too long to be sent.
pub(super) fn encode(message: &impl Serialize) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![0; PREFIX];
    serde_json::to_writer(&mut bytes, message)?;
    let length = body_length(bytes.len() - PREFIX)?;
    bytes[..PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// The length in `prefix`, if it is one that may be.
///
/// # Errors
/// [`WireError::Length`].
pub(super) fn length(prefix: [u8; PREFIX]) -> Result<usize, WireError> {
    let length = u32::from_be_bytes(prefix) as usize;
    body_length(length).map(|_| length)
}

fn body_length(length: usize) -> Result<u32, WireError> {
    if !(1..=MOST_BYTES).contains(&length) {
        return Err(WireError::Length(length));
    }
    u32::try_from(length).map_err(|_| WireError::Length(length))
}

/// The message in `body`, which is one without its length.
///
/// # Errors
/// [`WireError::Json`].
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    Ok(serde_json::from_slice(body)?)
}

impl Request {
    pub(super) fn hold(
        capture: &CapturePlan,
        exempt: &[IpAddr],
        names: Option<&Wish>,
        ends: Option<TunnelAddress>,
    ) -> Self {
        let selector = |subnet: &Subnet| Selector {
            net: subnet.net,
            ports: subnet.ports.as_ref().map(|p| (*p.start(), *p.end())),
        };
        Self::Hold {
            subnets: capture.subnets.iter().map(selector).collect(),
            excludes: capture.excludes.clone(),
            exempt: exempt.to_vec(),
            users: capture.whose.users.clone(),
            forwarded: Carried::of(&capture.whose.forwarded),
            names: names.cloned(),
            ends: ends.map(|ends| ends.to_string()),
        }
    }

    /// Checks everything that a plan promises.
    ///
    /// # Errors
    /// [`WireError::Senseless`] with what a plan never says.
    pub(super) fn check(self) -> Result<Order, WireError> {
        let senseless = |error: PlanError| WireError::Senseless(error.to_string());
        match self {
            Self::Open(plan) => {
                plan.check().map_err(senseless)?;
                Ok(Order::Open(plan))
            }
            Self::Hold {
                subnets,
                excludes,
                exempt,
                users,
                forwarded,
                names,
                ends,
            } => {
                let capture = CapturePlan {
                    subnets: subnets.into_iter().map(Selector::subnet).collect(),
                    excludes,
                    whose: Whose::of(users, forwarded.forwarded()),
                    keeps_addresses: false,
                };
                capture.check().map_err(senseless)?;
                if let Some(names) = names.as_ref().filter(|names| !names.is_sound()) {
                    let text = format!("names of {:?} and {:?}", names.domains, names.networks);
                    return Err(WireError::Senseless(text));
                }
                let ends = ends.map(|text| text.parse()).transpose();
                let ends = ends.map_err(|error| senseless(PlanError::BadTunnelAddress(error)))?;
                Ok(Order::Hold {
                    capture,
                    exempt,
                    names,
                    ends,
                })
            }
            Self::Near { server, datagrams } => Ok(Order::Near(
                server,
                match datagrams {
                    true => SockType::Datagram,
                    false => SockType::Stream,
                },
            )),
            Self::Release {} => Ok(Order::Release),
        }
    }
}

impl Selector {
    fn subnet(self) -> Subnet {
        Subnet {
            net: self.net,
            ports: self.ports.map(|(first, last)| first..=last),
            far: None,
        }
    }
}

impl Refusal {
    pub(super) fn new(kind: RefusalKind, text: impl ToString) -> Self {
        Self {
            kind,
            text: text.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(json: &str) -> Result<Order, WireError> {
        decode::<Request>(json.as_bytes())?.check()
    }

    #[test]
    fn what_is_said_arrives() {
        let capture = CapturePlan {
            subnets: vec![Subnet {
                net: "10.0.0.0/8".parse().unwrap(),
                ports: Some(80..=443),
                far: None,
            }],
            excludes: vec!["fd00::/64".parse().unwrap()],
            whose: Whose::of(vec![0, 1000], Forwarded::By(vec!["eth1".into()])),
            keeps_addresses: false,
        };
        let exempt = vec!["192.0.2.1".parse().unwrap()];
        let names = Some(Wish {
            by: By::Resolved,
            domains: vec!["corp.internal".into()],
            networks: vec!["10.0.0.0/8".parse().unwrap()],
        });
        let ends = Some("198.19.128.1,198.19.128.2".parse().unwrap());
        let bytes = encode(&Request::hold(&capture, &exempt, names.as_ref(), ends)).unwrap();
        let (prefix, body) = bytes.split_first_chunk().unwrap();
        assert_eq!(length(*prefix).unwrap(), body.len());
        let arrived = decode::<Request>(body).unwrap().check().unwrap();
        let expected = Order::Hold {
            capture,
            exempt,
            names,
            ends,
        };
        assert_eq!(arrived, expected);
    }

    #[test]
    fn the_kind_of_device_arrives() {
        for kind in [DeviceKind::Tun, DeviceKind::PlainTun, DeviceKind::Tap] {
            let plan = DevicePlan {
                kind,
                ..DevicePlan::default()
            };
            let bytes = encode(&Request::Open(plan.clone())).unwrap();
            let arrived = decode::<Request>(&bytes[PREFIX..]).unwrap().check();
            assert_eq!(arrived.unwrap(), Order::Open(plan));
        }
        let silent = order(r#"{"Open":{"name":null,"mtu":null}}"#).unwrap();
        assert_eq!(silent, Order::Open(DevicePlan::default()));
    }

    #[test]
    fn requests_that_no_plan_makes_are_refused() {
        for json in [
            r#"{"Open":{"name":"../x","mtu":null}}"#,
            r#"{"Open":{"name":"lo","mtu":null}}"#,
            r#"{"Open":{"name":"a name","mtu":null}}"#,
            r#"{"Open":{"name":"sixteen-bytes-xx","mtu":null}}"#,
            r#"{"Open":{"name":null,"mtu":1279}}"#,
            r#"{"Open":{"name":null,"mtu":70000}}"#,
            r#"{"Open":{"name":null,"mtu":null,"kind":"Bridge"}}"#,
            r#"{"Open":{"name":null,"mtu":null,"kind":null}}"#,
            r#"{"Open":{"name":null,"mtu":1500,"route":"10.0.0.0/8"}}"#,
            r#"{"Open":{}} {"Open":{}}"#,
            r#"{"Hold":{"subnets":[],"excludes":[],"exempt":[]}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"names":"192.0.2.1"}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"names":{"by":"File","domains":["a b"],"networks":[]}}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"names":{"by":"File","domains":["a"],"networks":[]}}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"names":{"by":"Resolved","domains":[],"networks":["10.0.0.1/8"]}}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"names":{"by":"Hosts","domains":[],"networks":[]}}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.1/8","ports":null}],"excludes":[],"exempt":[]}}"#,
            r#"{"Hold":{"subnets":[{"net":"127.0.0.0/8","ports":null}],"excludes":[],"exempt":[]}}"#,
            r#"{"Hold":{"subnets":[{"net":"224.0.0.0/4","ports":null}],"excludes":[],"exempt":[]}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/33","ports":null}],"excludes":[],"exempt":[]}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":[0,80]}],"excludes":[],"exempt":[]}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":[81,80]}],"excludes":[],"exempt":[]}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":["10.0.0.1/8"],"exempt":[]}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"users":[4294967295]}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"users":[-1]}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"users":["root"]}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"forwarded":"Some"}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"forwarded":{"By":["a b"]}}}"#,
            r#"{"Hold":{"subnets":[{"net":"10.0.0.0/8","ports":null}],"excludes":[],"exempt":[],"forwarded":{"By":["sixteen-bytes-xx"]}}}"#,
            r#""Release""#,
            r#"{"Near":{"server":"a.test:53"}}"#,
            r#"{"Near":{}}"#,
            r#"{"Exec":{"command":"sh"}}"#,
            "[[[[",
            "",
        ] {
            assert!(order(json).is_err(), "{json}");
        }
        assert!(order(r#"{"Open":{"name":"underpass-vpc","mtu":1400}}"#).is_ok());
        assert_eq!(order(r#"{"Release":{}}"#).unwrap(), Order::Release);
    }

    #[test]
    fn a_length_is_bounded() {
        assert!(length([0; 4]).is_err());
        assert!(length([0xff; 4]).is_err());
        assert_eq!(length([0, 0x10, 0, 0]).unwrap(), MOST_BYTES);
        assert!(length([0, 0x10, 0, 1]).is_err());
    }

    /// Deep nesting must not exhaust the stack.
    #[test]
    fn deep_nesting_is_refused() {
        let deep = "[".repeat(MOST_BYTES);
        assert!(decode::<Request>(deep.as_bytes()).is_err());
    }

    /// Texts that look like requests, to get past the first bytes.
    fn like_a_request() -> impl Strategy<Value = String> {
        let net = prop_oneof![
            any::<(u32, u8)>()
                .prop_map(|(ip, width)| format!("{}/{width}", std::net::Ipv4Addr::from_bits(ip))),
            any::<(u128, u8)>()
                .prop_map(|(ip, width)| format!("{}/{width}", std::net::Ipv6Addr::from_bits(ip))),
            ".{0,20}",
        ];
        let ports = prop_oneof![
            Just("null".to_owned()),
            any::<(i32, u16)>().prop_map(|(a, b)| format!("[{a},{b}]")),
        ];
        let subnet = (net.clone(), ports)
            .prop_map(|(net, ports)| format!(r#"{{"net":{net:?},"ports":{ports}}}"#));
        let subnets = prop::collection::vec(subnet, 0..4);
        let hold = (subnets, prop::collection::vec(net, 0..3)).prop_map(|(subnets, excludes)| {
            let subnets = subnets.join(",");
            format!(r#"{{"Hold":{{"subnets":[{subnets}],"excludes":{excludes:?},"exempt":[]}}}}"#)
        });
        let open = ("\\PC{0,20}", any::<u32>())
            .prop_map(|(name, mtu)| format!(r#"{{"Open":{{"name":{name:?},"mtu":{mtu}}}}}"#));
        prop_oneof![hold, open]
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Request>(&bytes).map(Request::check);
            let _ = decode::<Hello>(&bytes);
            let _ = decode::<Reply>(&bytes);
        }

        /// What gets through is what a plan may say.
        #[test]
        fn what_gets_through_is_sound(json in like_a_request()) {
            match order(&json) {
                Ok(Order::Hold { capture, .. }) => {
                    prop_assert!(!capture.subnets.is_empty());
                    for subnet in &capture.subnets {
                        prop_assert_eq!(subnet.net, subnet.net.trunc());
                        prop_assert!(!subnet.net.network().is_loopback() || subnet.net.prefix_len() < 8);
                        prop_assert!(subnet.ports.as_ref().is_none_or(|p| *p.start() > 0 && !p.is_empty()));
                    }
                }
                Ok(Order::Open(plan)) => {
                    let name = plan.name.unwrap_or_default();
                    prop_assert!(name.len() < 16 && !name.contains(['/', ' ', '%', '\0']));
                    prop_assert!(plan.mtu.is_none_or(|mtu| mtu >= 1280));
                }
                Ok(Order::Release | Order::Near(..)) => prop_assert!(false, "nobody asked for it"),
                Err(_) => {}
            }
        }
    }
}
