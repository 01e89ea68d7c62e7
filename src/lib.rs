//! underpass routes whole subnets through any SSH server you can log in to. A TUN device captures packets for
//! the chosen networks, smoltcp terminates TCP in user space, every flow becomes one `direct-tcpip` channel.
//! Nothing is installed on the server, no proxy is set on the client, and an application cannot tell the
//! tunnel from the network: open means open, refused means refused.
//!
//! # The picture
//!
//! ```text
//!    apps, containers                                                                hosts in the far subnet
//!         |  IP packets                                                                        ^
//!         v                                                                                    |
//!   +-----------+   Inbound{source,target}      +---------+   open(target)   +-----------+    SSH
//!   |  inlet/   |------------------------------>|  relay  |----------------->|  carrier/ |---direct-tcpip-->
//!   |  tun      |<==== accept()/refuse() =======|         |<==== stream =====|  russh    |
//!   |           |      one byte stream each way +---------+                  |  openssh  |
//!   |           |   a question for a name       +---------+   open(server)   |           |
//!   |           |------------------------------>| resolve |----------------->|           |
//!   |           |<---------- answer ------------+---------+<==== stream =====|           |
//!   |           |   what is no TCP              +---------+ packets, command |           |
//!   |           |------------------------------>| udp     |----------------->|           |
//!   +-----+-----+<---------- answer ------------| ping    |<==== stream =====+-----------+
//!         | handle_* / poll_*                   +---------+
//!   +-----v---------------------------+    plan: what was meant      app: who is wired to whom
//!   | engine/   no clock, no sockets, |    os:   the only privileged room (tun, routes, rules, names)
//!   | packet flow tcp route reject    | <- the sans-IO line
//!   | datagram echo ways              |
//!   +---------------------------------+
//! ```
//! A request travels left to right, bytes travel both ways, names point only rightwards and down.
//!
//! # The rooms
//!
//! | room | lives there | may not know |
//! |---|---|---|
//! | [`cli`] | arguments as typed; one definition feeds help, man page, completions | files, sockets |
//! | [`plan`] | arguments, environment, config.toml and ssh's effective configuration become one valid [`plan::Plan`], or an error that says what to change | tokio, engine, os |
//! | [`app`] | wiring, asking `ssh -G`, start in stages, shutdown and undo order, exit codes; [`app::control`]: how a run is asked, reloaded and ended; [`mod@app::run`]: a command with a network of its own; [`app::doctor`]; `app/far_end.rs`: the sockets of this program where it is UDP's helper on a server | protocols |
//! | [`net`] | plain values and the seam traits [`net::Inbound`], [`net::Carrier`], [`net::Exec`] | everything but std and bytes |
//! | [`engine`] | the sans-IO core: packets and far-side answers in, packets, new flows and questions for names out; what is no TCP as [`engine::Ways`] have it | tokio, clocks, SSH, descriptors |
//! | [`inlet`] | whatever lets a connection in: [`inlet::tun`]; each request is accepted or refused exactly once; [`inlet::tap`] passes frames on | carriers |
//! | [`mod@relay`] | open, then accept or refuse, then copy: half-close, counts. One page | TUN, smoltcp, SSH |
//! | [`carrier`] | opens the far side: [`carrier::russh`], replaced by [`carrier::steady`] when it is lost, the dial budget, the table of failure texts; [`carrier::openssh`] over [`carrier::channels`], which carries [`carrier::packets`] too; [`carrier::direct`] for what `run` reaches without a server, [`carrier::clients`] for who reaches a port that `run` publishes | inlets, engine |
//! | [`resolve`] | a name server whose questions travel as DNS over TCP in a carrier's streams, or as datagrams to the name servers of the host: sans-IO [`resolve::Resolver`] with cache, joins and retries; [`resolve::Proxy`] gives it streams and a clock | engine, inlets, which carrier |
//! | [`udp`] | UDP by a small program on the server, over one command's stream: sans-IO [`udp::Mux`]; [`udp::Proxy`] gives it the stream and a clock; [`udp::Upload`]: how this program becomes the small one, [`udp::FarEnd`]: the same stream seen from there | engine, inlets, which carrier |
//! | [`ping`] | echo requests by the server's own `ping`, or by TCP: sans-IO [`ping::Hosts`]; [`ping::Pinger`] gives it a clock | engine, inlets, which carrier |
//! | [`audit`] | who connected where and when, one JSON line each: handed over by a flow, or by [`audit::Conversations`] where there is none; written by a thread of its own | carriers, inlets, engine |
//! | [`os`] | [`os::helper`], the privileged part; [`os::names`]: whom programs ask for names; tun, netlink, namespaces, changes of the network, children that end with us, standard streams, confinement, run directories, systemd, memory and limits of the process: desired state in, undo out; the only `unsafe`; the memory of a socket's rings (`os/ring.rs`) | engine, carriers |
//! | [`stats`] | counters of how flows ended, and their bytes | deciding anything |
//!
//! `tests/architecture.rs` holds the table of who may name whom. To come: further inlets as one file each.
//!
//! # The data path
//!
//! A flow is an island: its smoltcp interface and socket, its timers and its state stand behind one lock of
//! its own, shared by the driver (packets in) and its relay (bytes in and out). The table's lock is held only to
//! look a flow up. Whoever changed a flow drains its packets to the TUN, where a write of one packet is atomic,
//! so no central loop stands between two flows. A SYN is kept as a packet, not as a socket, until the far side
//! has answered. One task per flow relays; it holds no buffer of its own: the socket's rings are the buffers,
//! one per direction. Packets come and go as super-segments of up to 64 KB (IFF_VNET_HDR), which the kernel cuts
//! only when they leave this host.
//!
//! The tasks have half of the cores, four at most; where that is one, a runtime of one thread (`app/threads.rs`), which stays awake
//! while one connection is being opened, where answers come within 300 us (`inlet/tun/busy_poll.rs`). What sleeps in the
//! kernel (the file of a backlog, a question on the terminal, a key's passphrase) has threads for that, the audit log one of its own.
//!
//! What many flows have in common is done together: the flows that are ready hand over what they have, and then the session of
//! their connection writes it at once (`app/up/in_turn.rs`); deadlines are rounded up, so that those of many flows are one
//! (`engine/timers.rs`); rings that a flow lets go wait for the next one (`os/memory.rs`). A packet lies where processors copy it
//! fastest (`engine/scratch.rs`). What smoltcp takes wrong of a peer without fault is seen to before it gets there (`engine/said.rs`).
//!
//! # What is no TCP
//!
//! By itself UDP is refused and ping is silent: SSH forwards TCP. `app/up/beside/` carries them where that is asked for; each
//! packet's way is [`engine::Ways`], looked up before anything else.
//!
//! | asked for | it takes on the server | UDP | ping | everything else |
//! |---|---|---|---|---|
//! | `--tunnel` | PermitTunnel; root or sudo, or an administrator once | packets | packets | packets; TCP as ever by `direct-tcpip` |
//! | `--tunnel=full` | the same | packets | packets | packets, TCP as well: far hosts connect to this one |
//! | `--tunnel=ethernet` | the same | frames | frames | frames of a TAP device; no engine looks at them |
//! | `--udp` | a command, python3 or perl; or socat or nc, for one question and its answer | datagrams ([`udp`]) | | |
//! | `--udp --upload-helper` | a command, and a place where a file can be run from | datagrams, by this program over there | | |
//! | `--ping` | a command, and its own ping | | hosts that it hears of ([`ping`]) | |
//! | `--ping=probe` | nothing | | hosts of which a TCP port opens or refuses | |
//!
//! A tunnel is what `ssh -w` makes, without its pain: TCP is not carried over TCP, and one command does the six steps. In this
//! order, by one script that is sent as text and leaves no file but in `/run` ([`plan::far_side`]): the server is asked what it is
//! ([`plan::far_side::Probe`]), a device is made where sudo has to, ssh's control socket opens `tun@openssh.com` (PROTOCOL 2.3 of
//! OpenSSH), and addresses, forwarding and NAT are set. At the end they are taken back; when the connection dies a watchdog there
//! does so within seconds, and all of it is done again, with the same addresses, when there is a connection again. Who may not do
//! it is shown the commands for an administrator, and has TCP meanwhile. The addresses of both ends are of 198.19.128.0/18 and
//! fd75:6e64:6572:7074::/64, a pair that neither side has a route for, unless `--tunnel-address` names one.
//!
//! Packets wait in front of the channel, in a queue for each flow (`carrier/channels/fair.rs`), for 100 ms at most: the oldest go
//! where there are too many. Only what the path takes without a queue is on its way (`carrier/channels/flight.rs`): sshd, given
//! its whole window at once, copies megabytes for each packet and loses nearly all for seconds. What is longer than the tunnel's
//! MTU is told to its sender (ICMP 3/4, ICMPv6 2). Where the server has no IPv6, or none of it was asked for, nothing of IPv6 goes
//! through the tunnel, and its TCP goes as ever.
//!
//! With `--udp`, a datagram that this host cuts into fragments is not carried: 1,472 bytes go with IPv4, 1,452 with IPv6, more with
//! `--mtu 65520`. The audit log has these datagrams,
//! pings, and the conversations that a tunnel's packets are; [`audit`] says when each has ended. A reload that would change one of these
//! ways is refused.
//!
//! # Other addresses
//!
//! `FAR=LOCAL` shows a network behind the server under other addresses here, one for one ([`plan::mapping`]): for a host whose
//! own network has the same ones. Device, rules, privileged part and engine know LOCAL alone, and so does an exclusion. Where a
//! flow leads is decided once, when it begins (`app/up/leads.rs`); the carrier is asked for FAR, and no packet costs more. A
//! reload changes that for new flows alone. Whatever shows a flow shows both addresses, and what a server forbids is named as
//! the server knows it.
//!
//! `up -N` takes further networks from the server's routing table (`plan/far_networks.rs`), asked for once, after the first
//! login: a command that the server has to permit. What this host has a route of its own for is left alone; a reload keeps what
//! was found.
//!
//! # Names
//!
//! `run --dns` and `shell --dns` put a name server of ours into the command's network, at 198.18.x.53 beside the network's own
//! address, which is outside what is captured. `up --dns` has one at 198.19.255.53 (and .54 for a second instance, and so on),
//! and the privileged part brings programs to it ([`os::names`]). Where systemd-resolved looks after names, that asks it by the
//! device, for the domains that were given or for all names, and all of that goes with the device; who else sets it is
//! overruled. resolvconf is told of it. Elsewhere `/etc/resolv.conf` names it ([`os::resolv_conf`]), again whenever somebody
//! writes that: what they wrote stays beside it, and is put back at the end, after a SIGKILL by whichever process is left, by
//! the next start or by `cleanup`. Then a name that nobody else has is looked up as programs do, and who answers instead is
//! named.
//!
//! With `--netns` a resolv.conf of that network names it, and the host's own stays as it is: `/etc/netns/NAME/resolv.conf`,
//! which ip-netns(8) mounts for programs that it starts there, or what process N of `pid:N` has in a mount namespace of its
//! own, as containers do; one that this host, or a process in a third network, reads as well is left alone. Such a file is
//! written over in place, since who has it mounted sees no other, and holds what was there as comments, so that whoever finds it
//! can put it back (`os/names/netns`). Programs that run already follow it, both
//! ways, where NAME had a file; where it had none they read the host's, and only those that start later find private names.
//! Programs that only join the network (nsenter(1)) read the host's always. Names that are not the far side's are asked of whom
//! that file named, from that network: Docker's 127.0.0.11 too. With `--dns` for all names container names are not found; with
//! domains they are. No lookup checks it: no process of ours has that network's files.
//!
//! Datagrams to its port 53 come out of the engine as they are, connections as flows that [`resolve`] answers instead of the
//! relay. It asks the server's own name servers (`/etc/resolv.conf` over an exec, else over sftp), or those of `--dns-server`,
//! over one stream each. With domains, other names go to the resolver that the host has, from the host, by datagrams as
//! programs ask it, and over TCP what does not fit, or where datagrams stay without answers (`resolve/datagrams.rs`). A name that
//! belongs to the far side is never asked elsewhere, but for the SSH server's own and those of hosts among the words of a ProxyCommand,
//! as they are and below each domain of the `search` line, without which there is no far side: while there is no connection the answer is SERVFAIL, a second after its loss and at once from then on.
//!
//! Where a network is shown as another one, addresses in answers are written over where they stand, hints of HTTPS records with
//! them, and the name of an address is asked for as that of the one it stands for. The answer no longer says that its signatures
//! are good, and who checks them finds that they are not: records of a mapped network cannot be signed for where it is shown.
//!
//! Where no network of a family is captured, a name of the far side has no address of that family, so that nobody waits for one
//! that leads nowhere: below the domains of `--dns` no address at all, with all names none that is private. A name that has
//! others only has none then.
//!
//! Where nobody can be asked, `--dns-names` answers for the names of the far side with addresses of networks of its own
//! (198.19.0.0/20 and fd75:6e64:6572:706f::/116, the next ones for a second instance, or those that it says), which are
//! captured as others are. A connection to one is opened by the name that it stands for, which the server looks up; where it
//! finds none, the application hears that there is no route to the host. A name keeps its address while a connection uses it,
//! and for five minutes after it was asked for; which one it is follows from the name, so that it is the same after a restart.
//! sshd looks names up one by one, and does nothing else for that connection meanwhile. So names are opened over connections of
//! their own (`carrier/by_name`), each closed after a minute without use: one that was not found before goes where no flow is, as
//! long as there are fewer than four, and one that took long and was not found is refused at once for as long again. Where the login asks somebody, over a
//! ProxyCommand and with `--connections 1` there is no further connection: names are looked up one at a time, and one that nobody
//! answers for holds up everything until the server's resolver gives up (10 s and more, by its resolv.conf). `--connections 2`
//! helps where the login asks nobody.
//!
//! Targets that are names (`up -r prod db.example.com:5432 '*.internal.example.com'`) are captured so as well, the other names of
//! the far side as `--dns` says, if at all. Routes for what a name server answers would have to follow each TTL, and would lead
//! whatever else a shared address serves through the server; an address that stands for one name does neither, and lets a port
//! be captured for one host alone, whose other ports are out of reach then. A reload that would change names is refused.
//!
//! # The server's end of a tunnel
//!
//! [`plan::far_side`] is what a server has to be told so that whole packets go through it: text for its shell, and what that says
//! back. Root there, or sudo, has addresses, NAT and forwarding set up by one script, in tables named by the device; forwarding
//! is for each interface alone, and a rule keeps what was not forwarded before from being so now. The same script takes all of it
//! back, by a watchdog where nobody asks for that: within seconds of the device's end, or of nobody holding it any more. Who may
//! not do this gets the commands for an administrator. [`app::up::beside::far_side`] runs it over the carrier.
//!
//! Hosts over there may connect to this one with `--tunnel=full` and `=ethernet` alone. Else both ends see to it: a rule of the
//! server's, and the engine, which takes answers to what went out and ICMP errors, which quote it (`engine/asked.rs`), whoever has set up the
//! server. In either case what routers and neighbours say of a link stays out of a tunnel of packets.
//!
//! # The carriers
//!
//! A [`net::Carrier`] opens streams; a [`carrier::Link`] is one that is logged in, and may be lost. There are two:
//!
//! - [`carrier::russh`]: the SSH client that is built in. It takes ssh's effective configuration from `ssh -G`, and says
//!   which option that matters it does not honour (`plan/ssh_config/table.rs` has them all).
//! - [`carrier::openssh`]: a private `ssh -M` of our own, spoken to over its control socket. ssh does all logins and prompts,
//!   on a pseudo-terminal of ours, so that what it has to say is shown before what it asks; its channels are ours, so a flow's
//!   window opens as its application reads.
//!
//! Packets of a tunnel go over openssh alone, as russh opens no such channels. TCP beside them takes whichever carrier it would take
//! without a tunnel; where that is russh, packets have a connection of their own (`carrier/packets/apart.rs`), which comes and goes with
//! the carrier's. There is one connection for both where there is to be one, and where everything goes as packets.
//!
//! `--carrier auto`, the default, takes the built-in SSH, which costs less CPU for every byte, unless ssh's configuration asks for
//! what only ssh can do. The log says which one was taken, and why. On a long path openssh may download faster, and has to be
//! asked for.
//!
//! Both beside `ssh -L` in the same rounds (`scripts/bench --peers underpass,underpass-openssh,ssh-L`, medians of 3 quick rounds,
//! OpenSSH 9.2, aes128-gcm, 2 cores shared by everything); in brackets the ratio to `ssh -L`:
//!
//! | | russh | openssh | `ssh -L` |
//! |---|---:|---:|---:|
//! | download, 1 / 8 flows, Mbit/s | 10,151 (0.9) / 8,125 (1.1) | 6,003 (0.55) / 5,086 (0.64) | 10,642 / 7,409 |
//! | upload, 1 / 8 flows, Mbit/s | 11,539 (1.5) / 10,781 (1.6) | 5,694 (0.73) / 5,319 (0.74) | 7,361 / 6,947 |
//! | download, 20 ms round trip, Mbit/s (in later runs) | 2,360 (3.1) | 4,014 (5.1) | 793 |
//! | download, 100 ms, 1 / 8 flows, Mbit/s (in later runs) | 504 (3.2) / 3,921 (3.0) | 1,311 (7.8) / 1,931 (1.5) | 167 / 1,321 |
//! | client CPU of a download, 1 / 8 flows, s/GB | 0.616 / 0.82 | 1.27 / 1.5 | 0.486 / 0.676 |
//! | client CPU of an upload, 1 / 8 flows, s/GB | 0.531 / 0.578 | 1.28 / 1.42 | 0.809 / 0.985 |
//! | short connections, 1 / 32 at a time, per second | 2,542 (0.8) / 6,997 (0.82) | 2,121 (0.67) / 6,420 (0.71) | 3,171 / 8,559 |
//! | echo, idle / beside a download, p50 ms | 0.25 / 0.458 | 0.328 / 1.29 | 0.26 / 1.49 |
//! | beside a reader that stops for 20 s, one of 1 MB/s and a download (in a run of its own): echo, p50 ms | 0.44 | 1.37 | 1.12 |
//! | a download beside those two readers, of that beside an ordinary flow | 2.3 | 2.0 | 2.2 |
//! | client memory meanwhile, MB; bytes lost | 22, and up to 1 GiB in a file; 0 | 26; 0 | 7; 0 |
//!
//! What a download over openssh reaches on a long path is decided in ssh: in one turn it reads up to 256 KiB from the network,
//! but its control socket takes 214 KiB (`net.core.wmem_default`), and the buffer where the rest of a burst waits grows by
//! copying the whole of it for each packet (sshbuf.c). So a window grows to 2 MiB more than the path holds, or 4 below
//! 1.2 Gbit/s (`carrier/channels/budget.rs`). With twice what the path holds, and what was taken for its round trip growing
//! with the queue, that buffer became 40 MB. Mbit/s of the first and the second download of a connection, three in turn:
//!
//! | round trip | with twice | with 2 or 4 MiB more |
//! |---|---|---|
//! | 20 ms | 660 949, 1,071 22, 734 383 | 2,765 3,838, 2,253 3,767, 2,098 3,851 |
//! | 40 ms | 511 774, 456 470, 718 106 | 1,425 3,759, 1,831 1,786, 1,351 3,356 |
//! | 100 ms | 448 318, 383 2,167, 209 428 | 692 1,670, 1,013 1,005, 1,097 1,605 |
//!
//! Still one download in four of eight flows at 100 ms got 91 Mbit/s, for 90 s of CPU a GB: once something waits there, ssh takes
//! longer to copy than the next packet needs to come, until all that was granted has come. So windows are granted in parts, over
//! four fifths of a round trip (`carrier/channels/pace.rs`): what comes in one burst is granted in one, and comes in one again. And
//! glibc serves ssh's buffers from the heap (`carrier/openssh/client.rs`), as more than half of the copying was in new pages. Five of five
//! then got 1,909-1,967 Mbit/s, and 1,257-1,319 with one flow, at 16 MiB for one and 24 for all.
//!
//! Eight downloads at once over one connection until 40 GB have come (`scripts/soak russh 40`, `scripts/soak openssh 40`): russh
//! 41 GB in 32 s, openssh 40 GB in 51 s, and all eight go on.
//!
//! # Staying up
//!
//! [`carrier::steady`] is a carrier over links that come and go; its table says what is done when. When a link is lost its
//! streams end at once, so that applications try again; what they open then is held, its SYN unanswered, until there is a link
//! again or they give up. Routes and rules stay, and the addresses of a server that has moved are exempted before it
//! is connected to. The server that answers after a loss must have the host key of the one before.
//!
//! # Invariants
//!
//! 1. No SYN-ACK before the far side accepted. Refused, unreachable, prohibited and timed out look to the
//!    application as they would on the real network. One exception: without `--dns`, what stands in a command's network for a
//!    name server of this host takes a stream before that has; it may speak nothing but UDP (`app/run/ways.rs`).
//! 2. A flow that nobody reads, or reads slowly, slows no other flow. Memory is bounded per flow and in all. No
//!    byte is lost. What the embedded carrier leaves to be wished for here is said under "Bounds", and what names do where
//!    they have no connection of their own under "Names".
//! 3. The cost of a packet does not depend on how many flows are open.
//! 4. However the process ends, SIGKILL included, nothing that captures traffic stays: the device and its
//!    routes vanish with its descriptor, and rules that point into an empty table, or a device that was being
//!    made, are removed by the next start or by `underpass cleanup`. While it runs, routes and rules of ours that somebody takes
//!    away, as systemd-networkd does when it starts, are made again within a moment (`os/apply.rs`).
//! 5. A host key that is unknown or has changed is never accepted silently.
//! 6. Only what was asked for is captured. Of what the host forwards that is only what comes from containers behind Docker's
//!    and Podman's bridges, unless `--gateway` asks for more. The SSH connection itself never is; nor, under `0.0.0.0/0` and `::/0`,
//!    is what the host has a route of its own for.
//! 7. Bad input (packets, SSH replies, files, arguments) gets a clear error or a counted drop, never a panic.
//!
//! # Privileges
//!
//! A small part makes the device and sets routes (fewer than 1,000 lines of its own, and fewer than 2,300 of [`os`] that it
//! calls, and with `--dns` 800 more for names, and 650 more with `--netns`; comments, tests and libraries apart;
//! `tests/architecture.rs` counts them): it has `CAP_NET_ADMIN` alone, can gain nothing more, and, where the kernel has
//! Landlock, may write only to the TUN device, the terminal and network settings, and with `--dns` to `/etc` (resolvconf: also
//! `/run`; systemd-resolved: neither, it is spoken to). It takes four requests, in the terms of the plan, works out itself what
//! follows from them, and ends with an undo at anything else. It is two processes that watch each other: whichever process of
//! `up` is killed, the host is as before within a second. Both killed at once leave rules that lead nowhere, for the main
//! process lets the device go then; the next start or `underpass cleanup` removes them.
//!
//! Keys, agent, configuration and packets belong to the user; started by sudo, underpass becomes who called. The main process
//! leaves no core dump and, unless it is root, has no capabilities. Where it runs no program of the user's (ProxyCommand, the
//! installed ssh, askpass) it gains no rights, writes only where host keys, the audit log and the pid file are kept, to its
//! run directory and to the terminal (Landlock), and cannot trace, mount, or load code into the kernel (seccomp). Root keeps
//! what concerns files, and everything where it runs programs.
//!
//! Two things are done by processes apart, forked before that, each of which answers one question and ends with the main
//! process. Landlock hides the descriptors of other processes, so one without it says for the audit log which process has a
//! socket: of the user who runs underpass, and where that is root of everybody. And a caller of sudo may not write to
//! `/run`: one that is root writes our number to `/run/NAME.pid`, where no process that runs has its own, and removes it.
//!
//! `run` and `shell` need no privileges: the command's network is a namespace of the user's own. The process that becomes the
//! command is forked before there is a login; the one beside it, which logs in and reads packets, is confined as that of `up`,
//! and as root may send signals besides. Nothing is taken from the command.
//!
//! A file that another user could have written is never followed as configuration; run by sudo, no file is read that
//! the caller could not read.
//!
//! # Bounds
//!
//! Nothing grows without end, but for what russh keeps of flows that are over where each login asks somebody. Per flow, and over
//! all flows:
//!
//! | what | per flow | in all | where |
//! |---|---|---|---|
//! | flows | | 65,536, of which 16,384 may wait for the far side's answer | [`engine::Config`] |
//! | ring to the application | 512 KiB | 512 MiB, then 32 KiB for each flow | `engine/tcp.rs`, `engine/flow.rs` |
//! | ring from the application | 256 KiB; 128 KiB for those accepted while 1,024 exist | by the number of flows | `engine/tcp.rs` |
//! | messages that russh has queued for a flow | 2 MiB (64 of 32 KiB) | by the number of flows | `carrier/russh/login.rs` |
//! | kept by russh for flows that are over | 4 KiB where we closed first, 1 KiB where it was refused | 16 MiB per connection, which another one then replaces; where that cannot log in by itself, one warning at 256 MiB | `carrier/russh/load.rs`, `connection.rs` |
//! | backlog in memory | 1.5 MiB, and one piece of 256 KiB that came out of the file | 64 MiB, then 512 KiB for each flow | `carrier/russh/backlog.rs` |
//! | backlog in a file | 1 GiB | 8 GiB | `carrier/russh/backlog.rs` |
//! | window granted to the server | 3 MiB, and 480 KiB per ms of round trip, 12 MiB at most, 14 from 80 ms on | by the number of flows | `carrier/russh/login.rs` |
//! | taken off a connection before other tasks have their turn | 256 KiB alone, 64 KiB beside others that carry little, 512 KiB of several | 2 MiB | `carrier/russh/turns.rs` |
//! | waiting to be sent through a jump host or a ProxyCommand | | flows hold back from 512 KiB, 64 MiB per connection at most | `carrier/russh/route/outbox.rs` |
//! | read from a server while a write to it waits | | 16 MiB per connection | `carrier/russh/ahead.rs` |
//! | packets on their way into a tunnel (`tun@openssh.com`) | 1 MiB, 100 ms: the oldest goes | 2 MiB | `carrier/channels/fair.rs` |
//! | packets that are on their way, or that sshd has not written | | 128 KiB; on a path longer than 5 ms what it takes, 2 MiB at most | `carrier/channels/flight.rs` |
//! | packets that have come out of it and that nobody takes | | 1 MiB, 4,096: the oldest goes; 4 MiB of window | `carrier/openssh/packets.rs`, `carrier/channels/budget.rs` |
//! | conversations by packets whose answers are let in | | 65,536: of a few the one silent for longest goes; 180 s of silence | `engine/asked.rs` |
//! | window granted over ssh's own channels | 1 MiB; on a path longer than 5 ms as the application takes, 16 MiB at most | 4 MiB for the busy ones, 24 MiB on a long path; what is promised at first 64 MiB, then 32 KiB for each flow | `carrier/channels/budget.rs` |
//! | names being looked up | | per connection 4 that were found before, or 1 other; 1 in all where they share the connection | `carrier/by_name/choice.rs` |
//! | SSH connections for names | | none before the first; up to 4, each as a name needs one and for a minute longer, 16 at most where each carries 900 channels | `carrier/by_name/choice.rs`, `idle.rs` |
//! | names known as found, and as not to be found | | 16,384 each | `carrier/by_name/memory.rs` |
//! | questions for names that wait, and answers that clients have not taken | 64; 128 KiB, and 32 KiB in the ring | 256 connections, of which the longest idle or stuck one goes; 16 MiB; the rest as [`resolve`] says | `resolve/streams.rs` |
//! | opens in flight | 256 per host, fewer the more there are: down to 1 (64 for a host that has answered before) | 4,096, the last 1,024 for hosts that have answered before | [`carrier::dial`] |
//! | SSH connections | 1 | 2 where the login asks nobody, up to 4 to keep bulk transfers and new flows apart, 16 for thousands of flows, one for each 800 beyond, 72 at most; over a ProxyCommand 1; as many as `--connections` says; beside them one for a tunnel's packets | `carrier/russh/pool/choice.rs`, `carrier/packets/apart.rs` |
//! | clients of the control socket | | 16; a request 4 KiB, 512 flows in an answer, 1 s to ask, 5 s to take the answer | [`app::control`] |
//! | conversations of pings and of a tunnel, for the audit log | | 16,384: the one that is silent for longest goes | `audit/conversations.rs` |
//! | audit lines that wait for the disk | | 32,768; what comes then is counted, and told once | [`audit`] |
//! | log of a daemon where no service takes it | | 1 MiB, and the 1 MiB before | `app/log/kept.rs` |
//! | users of a group (`--group`) | | 256 | `plan/whose.rs` |
//! | channels | 1 | 900 per connection where thousands come at once, 16,000 at most (sshd: 16,384) | `carrier/russh/pool/choice.rs` |
//! | masters (`ssh -M`) | 1 | as many as `--connections` says, else a further one at 900 channels, or after 8,000 refused opens; 16 at most | `carrier/openssh/pool.rs`, `shared.rs` |
//!
//! Rings are committed as they are first touched, and both are given back when nothing was written to them or read for 250 ms
//! (`os/ring.rs`): a flow that carries little holds little, an idle one 6.3 KB in all (measured with 10,000 and 50,000). The file has no
//! name; it is in `$TMPDIR`, else in `/var/tmp`. A SYN beyond a bound is dropped and counted as `no_room`: the kernel sends it
//! again. A connection that has carried 32 GiB, is 6 hours old, or has made russh keep 16 MiB takes no new flows once another
//! can, and is let go with its last one.
//!
//! What isolation the embedded carrier lacks, since russh gives the server new window on receipt and one task reads for
//! all flows of a connection:
//!
//! - A flow that nobody reads, or reads slowly (below 100 Mbit/s, judged every 20 ms), beside others: the server goes on
//!   sending at full speed, into the file, up to the bounds. One that reads faster is left on the wire: the others of its
//!   connection come at its pace.
//! - At the bounds of the file, or when its file system is full or takes nothing for a while, that flow holds up every flow of its
//!   connection, both ways, until it is read or ended, or the file goes on (measured with a full disk: of 20 idle flows over two connections, the 10 beside it
//!   stood still and went on when it ended; new flows opened in under 1 ms). New flows take the other connections; where
//!   all are held up, an open waits 10 seconds for a better one. An open that was under way there waits with it,
//!   for it cannot be taken back. The first time is a WARN. A server that asks for signs of life
//!   (`ClientAliveInterval`) may end a connection that is held up.
//! - New flows keep away from a connection with a flow that is not read. While only such flows are on it, it takes
//!   next to nothing off the wire: TCP holds the server back. Whoever shares it may wait 20 ms for its first bytes. Each of them
//!   takes two messages (64 KiB) in three seconds into its backlog, so that the loss of the connection is noticed: in some 5 seconds
//!   where the server's process is gone, after the usual silence where its host is. A server that is there but says nothing
//!   more, or is gone behind a jump host or a ProxyCommand, is noticed behind what it had sent: after a minute or two, and
//!   at the bounds of the file only when the flow is read or ended.
//! - Flows of one connection share its TCP connection: a lost packet, or a transfer that fills it, delays them together. A
//!   new flow goes to a connection with fewer than 32 channels and without a bulk transfer (in the last 200 ms, unless it was
//!   a download that is over) where there is one, to the fullest of them, else to that with the fewest channels; flows that
//!   come by the hundred are packed together.
//!
//! A server that lies about what it may send: russh takes data beyond the window and the packet size that it has granted, as long
//! as a packet of SSH's own holds it (256 KiB). What comes is the flow's, bounded by its backlog as all is
//! (`tests/snapshots/servers_lies__on_a_channel.snap`, `more_than_the_window`). Over openssh our channels end the connection then
//! (`WindowExceeded` and `PacketTooLarge`, `carrier/channels/fault.rs`).
//!
//! # Very many flows
//!
//! `cargo run --release --example lab-scale` drives the engine in virtual time, beside so many idle flows that were used once:
//!
//! | idle flows | 1,000 | 10,000 | 100,000 | 1,000,000 |
//! |---|---|---|---|---|
//! | a packet (64 KB) of a download / an upload beside them, us | 3.8 / 4.5 | 3.8 / 4.2 | 3.7 / 4.4 | 3.7 / 4.6 |
//! | an ACK of the download, us | 0.54 | 0.53 | 0.53 | 0.53 |
//! | a packet of each flow in turn, us | 0.97 | 1.4 | 1.7 | 2.3 |
//! | an open / a keepalive, us | 5.7 / 0.41 | 6.1 / 0.49 | 6.2 / 0.51 | 6.7 / 0.71 |
//! | the longest open, ms (the table grows) | 3 | 1 | 9 | 190 |
//! | memory of the engine for a flow, KB; page tables beside | 1.3; 1.5 | 1.2; 1.3 | 1.1; 1.3 | 1.1; 1.3 |
//!
//! So a packet costs the same (invariant 3), but for what the processor's caches no longer hold. The whole program takes 6.3 KB
//! for a flow, beside page tables: 3.1 are the queue that russh has for each channel, 1.1 the engine's, 2.1 the rest. 100,000
//! flows are 0.63 GB and 1,000,000 are 6.3 GB. The walls, in turn:
//!
//! 1. 64,000 connections from one address to one port (the ports of a host); two far addresses have twice as many. From half
//!    of that on a kernel looks long for a free one.
//! 2. 65,536 flows ([`engine::Config`]), for 72 SSH connections with 900 channels each. More would take more of both: russh and
//!    sshd walk all channels of a connection again and again, and sshd has 1,024 descriptors.
//! 3. 131,000 flows of which every other one has ended: the rings are mappings, and Linux has 65,530 of them for a process
//!    (`vm.max_map_count`). Those beside each other are one, 63 for 1,000,000 flows, but each that goes from between others makes
//!    two of it. Rings cut from few large mappings would move that.
//! 4. Memory.
//!
//! # What an application sees
//!
//! | the far side | on the wire | `connect()` says |
//! |---|---|---|
//! | opened | SYN-ACK | success |
//! | connection refused | RST | ECONNREFUSED |
//! | no route to host, host unreachable, no such name | ICMP 3/1, ICMPv6 1/3 | EHOSTUNREACH |
//! | network unreachable | ICMP 3/0, ICMPv6 1/0 | ENETUNREACH |
//! | timed out, or no answer | nothing | the application's own time-out |
//! | administratively prohibited (`PermitOpen`, `AllowTcpForwarding`) | ICMP 3/13, ICMPv6 1/1 | EHOSTUNREACH over IPv4, EACCES over IPv6; one WARN names the setting |
//! | permission denied: a packet filter beyond the server said prohibited | ICMP 3/13, ICMPv6 1/1 | EHOSTUNREACH over IPv4, EACCES over IPv6 |
//! | far EOF | FIN | `read()` returns 0; writing goes on |
//! | channel closed before our own EOF | RST, behind all that came before it | ECONNRESET |
//! | takes nothing for ten seconds after the application's own RST: its channel is closed | nothing | |
//! | SSH connection lost | RST, behind all that came before it | ECONNRESET; what it opens next waits |
//! | no SSH connection at the moment | nothing, until there is one | waits, up to the application's own time-out |
//! | UDP, unless `--tunnel` or `--udp` carries it | ICMP 3/3, ICMPv6 1/4 | ECONNREFUSED: QUIC falls back to TCP at once; questions to the name server of `--dns` are answered |
//! | ping, unless `--tunnel` or `--ping` asks | nothing | silence: no reply that was not heard from the host |
pub mod app;
pub mod audit;
pub mod carrier;
pub mod cli;
pub mod engine;
pub mod inlet;
pub mod net;
pub mod os;
pub mod ping;
pub mod plan;
pub mod relay;
pub mod resolve;
pub mod stats;
pub mod udp;
