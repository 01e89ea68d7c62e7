//! The far end in plain commands: for an administrator, where whoever logs in may not set it up, and for people who look
//! before they run something.

use ipnet::IpNet;

use super::{DeviceKind, FarSide, Probe};
use crate::plan::quoted;

/// Forwarding of IPv4 and of IPv6, as people set it.
const ALL: [&str; 2] = [
    "sysctl -w net.ipv4.ip_forward=1",
    "sysctl -w net.ipv6.conf.all.forwarding=1",
];
/// And as we do.
const EACH: [&str; 2] = [
    "sysctl -w net.ipv4.conf.<INTERFACE>.forwarding=1 # each of them, for the tunnel alone",
    "sysctl -w net.ipv6.conf.<INTERFACE>.force_forwarding=1 # each of them, for the tunnel alone; before Linux 6.17 all.forwarding",
];
const END: &str =
    "# all of this is taken back at the end, and by the server itself when the connection is lost";

/// What an administrator of the server runs as root, one command each, so that `user` of `probe` has a tunnel.
pub fn by_hand(side: &FarSide, probe: &Probe) -> Vec<String> {
    let user = quoted(&probe.user);
    let device = side.device();
    let mut commands = vec![format!(
        "ip tuntap add dev {device} mode {} user {user}",
        side.kind.word()
    )];
    commands.extend(side.ends());
    commands.extend(side.opened(probe, ALL));
    let permission = side.kind.permission();
    commands.push(format!(
        r"printf 'Match User %s\n\tPermitTunnel {permission}\n' {user} >>/etc/ssh/sshd_config"
    ));
    commands.push("systemctl reload ssh || systemctl reload sshd".to_owned());
    commands
}

/// What an administrator of the server runs as root, so that the chain `chain` of nft's lets `device` pass.
pub fn let_pass(chain: &str, device: &str) -> String {
    let rule = |way| format!("nft insert rule {chain} {way} {device} accept");
    format!("{}; {}", rule("iifname"), rule("oifname"))
}

impl FarSide {
    /// What [`super::Verb::Setup`] does on a server like `probe`, for people.
    pub fn shown(&self, probe: &Probe) -> Vec<String> {
        let mut steps = vec![format!(
            "# sshd makes {} when the tunnel is opened",
            self.device()
        )];
        steps.extend(self.ends());
        if !probe.forwards.0 {
            steps.extend(self.guard(probe.nft, "ip", "iptables"));
        }
        if self.address.v6.is_some() && !probe.forwards.1 {
            steps.extend(self.guard(probe.nft, "ip6", "ip6tables"));
        }
        steps.extend(self.opened(probe, EACH));
        steps.push(END.to_owned());
        steps
    }

    /// What keeps interfaces, let forward for the tunnel, from forwarding anything else.
    fn guard(&self, nft: bool, family: &str, iptables: &str) -> Vec<String> {
        let device = self.device();
        if nft {
            let add_rule = format!("add rule {family} underpass forward");
            return vec![format!(
                "nft 'add table {family} underpass; \
                 add chain {family} underpass forward {{ type filter hook forward priority 0; }}; \
                 {add_rule} ct state established,related accept; {add_rule} ct status dnat accept; \
                 {add_rule} iifname {{ <INTERFACES> }} oifname != {device} drop' # those interfaces forward nothing else"
            )];
        }
        vec![
            format!("{iptables} -N UNDERPASS"),
            format!(
                "{iptables} -A UNDERPASS -m conntrack --ctstate ESTABLISHED,RELATED,DNAT -j RETURN"
            ),
            format!("{iptables} -A UNDERPASS -o {device} -j RETURN"),
            format!(
                "{iptables} -A UNDERPASS -i <INTERFACE> -j DROP # each of them: it forwards nothing else"
            ),
            format!("{iptables} -I FORWARD -j UNDERPASS"),
        ]
    }

    /// The device with its addresses and routes, in the words of ip(8).
    fn ends(&self) -> Vec<String> {
        let device = self.device();
        let v4 = self.address.v4;
        let mut steps = vec![format!(
            "ip addr add {} peer {} dev {device}",
            v4.far, v4.ours
        )];
        if let Some(v6) = self.address.v6 {
            // Only Ethernet asks whether somebody else has the address.
            let nodad = match self.kind {
                DeviceKind::Tun => "",
                DeviceKind::Tap => " nodad",
            };
            steps.push(format!(
                "ip -6 addr add {} peer {} dev {device}{nodad}",
                v6.far, v6.ours
            ));
        }
        steps.push(format!("ip link set dev {device} mtu {} up", self.mtu));
        // The kernel adds this one only where somebody holds the device open already.
        let peer = self.address.v6.map(|v6| v6.ours);
        steps.extend(peer.map(|ours| format!("ip -6 route replace {ours} dev {device}")));
        let back = IpNet::aggregate(&self.back);
        steps.extend(back.iter().map(|net| match net {
            IpNet::V4(_) => format!("ip route add {net} dev {device}"),
            IpNet::V6(_) => format!("ip -6 route add {net} dev {device}"),
        }));
        steps
    }

    /// What passes there, and at last forwarding of IPv4 and IPv6: in the words of nft(8) or iptables(8), and of sysctl(8).
    fn opened(&self, probe: &Probe, [v4, v6]: [&str; 2]) -> Vec<String> {
        let mut steps = self.nat(probe.nft);
        if probe.nft {
            steps.push(self.beside_nft());
        }
        if !probe.forwards.0 {
            steps.push(v4.to_owned());
        }
        if self.address.v6.is_some() && !probe.forwards.1 {
            steps.push(v6.to_owned());
        }
        steps
    }

    /// Nothing in a table of nft's passes what iptables drops.
    fn beside_nft(&self) -> String {
        let device = self.device();
        format!(
            "# where iptables filters too (as Docker does): iptables -I FORWARD -i {device} -j ACCEPT; \
             iptables -I FORWARD -o {device} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
        )
    }

    fn nat(&self, nft: bool) -> Vec<String> {
        let back = IpNet::aggregate(&self.back);
        let (v4, v6): (Vec<IpNet>, Vec<IpNet>) =
            back.iter().partition(|net| matches!(net, IpNet::V4(_)));
        let texts = |first: String, nets: &[IpNet]| {
            let nets = nets.iter().map(ToString::to_string);
            std::iter::once(first).chain(nets).collect::<Vec<_>>()
        };
        let mut families = vec![(
            "ip",
            "iptables",
            texts(self.address.v4.ours.to_string(), &v4),
        )];
        if let Some(ends) = self.address.v6 {
            families.push(("ip6", "ip6tables", texts(ends.ours.to_string(), &v6)));
        }
        let commands = families
            .into_iter()
            .flat_map(|(family, iptables, sources)| match nft {
                true => vec![self.nft(family, &sources.join(", "))],
                false => self.iptables(iptables, &sources.join(",")),
            });
        commands.collect()
    }

    fn nft(&self, family: &str, sources: &str) -> String {
        let device = self.device();
        let add_rule = format!("add rule {family} underpass_{device}");
        let add_chain = format!("add chain {family} underpass_{device}");
        let mut text = format!(
            "nft 'add table {family} underpass_{device}; \
             {add_chain} prerouting {{ type nat hook prerouting priority -100; }}; \
             {add_chain} postrouting {{ type nat hook postrouting priority 100; }}; \
             {add_rule} postrouting oifname != {device} {family} saddr {{ {sources} }} masquerade; \
             {add_chain} forward {{ type filter hook forward priority 0; }}; "
        );
        // sshd ends a tunnel that this is to go through.
        if family == "ip" {
            text += &format!("{add_rule} forward oifname {device} ip length 20 drop; ");
        }
        text += &format!("{add_rule} forward ct state established,related accept");
        if !self.inbound {
            text += &format!("; {add_rule} forward oifname {device} drop");
        }
        text + "'"
    }

    fn iptables(&self, iptables: &str, sources: &str) -> Vec<String> {
        let device = self.device();
        let chain = format!("UNDERPASS-{device}");
        let append = format!("{iptables} -A {chain}");
        let mut commands = vec![
            format!("{iptables} -t nat -N {chain}"),
            format!("{iptables} -t nat -A {chain} -s {sources} ! -o {device} -j MASQUERADE"),
            format!("{iptables} -t nat -I POSTROUTING -j {chain}"),
            format!("{iptables} -N {chain}"),
        ];
        if iptables == "iptables" {
            commands.push(format!(
                "{append} -o {device} -m length --length 20 -j DROP"
            ));
        }
        if !self.inbound {
            commands.push(format!(
                "{append} -o {device} -m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP"
            ));
        }
        commands.push(format!("{append} -o {device} -j ACCEPT"));
        commands.push(format!("{append} -i {device} -j ACCEPT"));
        commands.push(format!("{iptables} -I FORWARD -j {chain}"));
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_steps_or_so() {
        let mut side = FarSide {
            id: 1,
            unit: 64,
            kind: DeviceKind::Tun,
            address: "198.19.128.1,198.19.128.2".parse().unwrap(),
            back: Vec::new(),
            mtu: 1500,
            inbound: false,
        };
        let said = "underpass-probe 1\nuid 5\nuser al ice\nend\n";
        let mut probe = Probe::read(said).unwrap();
        assert_eq!(
            by_hand(&side, &probe),
            [
                "ip tuntap add dev tun64 mode tun user 'al ice'",
                "ip addr add 198.19.128.2 peer 198.19.128.1 dev tun64",
                "ip link set dev tun64 mtu 1500 up",
                "iptables -t nat -N UNDERPASS-tun64",
                "iptables -t nat -A UNDERPASS-tun64 -s 198.19.128.1 ! -o tun64 -j MASQUERADE",
                "iptables -t nat -I POSTROUTING -j UNDERPASS-tun64",
                "iptables -N UNDERPASS-tun64",
                "iptables -A UNDERPASS-tun64 -o tun64 -m length --length 20 -j DROP",
                "iptables -A UNDERPASS-tun64 -o tun64 -m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP",
                "iptables -A UNDERPASS-tun64 -o tun64 -j ACCEPT",
                "iptables -A UNDERPASS-tun64 -i tun64 -j ACCEPT",
                "iptables -I FORWARD -j UNDERPASS-tun64",
                "sysctl -w net.ipv4.ip_forward=1",
                r"printf 'Match User %s\n\tPermitTunnel point-to-point\n' 'al ice' >>/etc/ssh/sshd_config",
                "systemctl reload ssh || systemctl reload sshd",
            ]
        );
        let shown = side.shown(&probe);
        let setting =
            "sysctl -w net.ipv4.conf.<INTERFACE>.forwarding=1 # each of them, for the tunnel alone";
        assert_eq!(shown[shown.len() - 2], setting);
        assert!(shown.iter().all(|step| !step.contains("ip_forward")));
        assert!(shown.contains(&"iptables -A UNDERPASS -o tun64 -j RETURN".to_owned()));
        side.kind = DeviceKind::Tap;
        side.address = "198.19.128.1,198.19.128.2,fd00::1,fd00::2".parse().unwrap();
        side.back = vec!["172.17.0.0/16".parse().unwrap()];
        (probe.forwards, probe.nft) = ((true, false), true);
        assert_eq!(
            [side.ends(), side.opened(&probe, ALL)].concat(),
            [
                "ip addr add 198.19.128.2 peer 198.19.128.1 dev tap64",
                "ip -6 addr add fd00::2 peer fd00::1 dev tap64 nodad",
                "ip link set dev tap64 mtu 1500 up",
                "ip -6 route replace fd00::1 dev tap64",
                "ip route add 172.17.0.0/16 dev tap64",
                "nft 'add table ip underpass_tap64; add chain ip underpass_tap64 prerouting { type nat hook prerouting priority -100; }; add chain ip underpass_tap64 postrouting { type nat hook postrouting priority 100; }; add rule ip underpass_tap64 postrouting oifname != tap64 ip saddr { 198.19.128.1, 172.17.0.0/16 } masquerade; add chain ip underpass_tap64 forward { type filter hook forward priority 0; }; add rule ip underpass_tap64 forward oifname tap64 ip length 20 drop; add rule ip underpass_tap64 forward ct state established,related accept; add rule ip underpass_tap64 forward oifname tap64 drop'",
                "nft 'add table ip6 underpass_tap64; add chain ip6 underpass_tap64 prerouting { type nat hook prerouting priority -100; }; add chain ip6 underpass_tap64 postrouting { type nat hook postrouting priority 100; }; add rule ip6 underpass_tap64 postrouting oifname != tap64 ip6 saddr { fd00::1 } masquerade; add chain ip6 underpass_tap64 forward { type filter hook forward priority 0; }; add rule ip6 underpass_tap64 forward ct state established,related accept; add rule ip6 underpass_tap64 forward oifname tap64 drop'",
                "# where iptables filters too (as Docker does): iptables -I FORWARD -i tap64 -j ACCEPT; iptables -I FORWARD -o tap64 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
                "sysctl -w net.ipv6.conf.all.forwarding=1",
            ]
        );
    }
}
