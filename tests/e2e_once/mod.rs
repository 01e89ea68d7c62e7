//! The end-to-end tests that the carrier makes no difference to, or that choose it themselves.

mod host;

mod dns_files;
mod dns_flood;
mod dns_host;
mod dns_near;
mod dns_netns;
mod dns_resolved;
mod lab;
mod tunnel;
mod upload;
