//! Whatever lets a connection in. Each inlet ends in [`Inbound`](crate::net::Inbound)s that are accepted or refused
//! exactly once. Further inlets (socks5, http, listen) come as one file each.
//! Where a tunnel carries Ethernet, [`tap`] lets frames in instead.

mod device;
pub mod tap;
pub mod tun;
