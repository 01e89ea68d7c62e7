//! Names of the private network: a DNS server inside the captured networks, whose questions travel to a far resolver as DNS
//! over TCP inside a carrier's stream (RFC 7766), and whose answers come back untouched.
//!
//! ```text
//!   datagram or stream                    one pipelined stream for each far resolver
//!   ------------------>  +----------+  --------------------------------------->
//!       question         | Resolver |      frames of many questions
//!   <------------------  +----------+  <---------------------------------------
//!        answer           cache, joins,     answers in any order
//!                         zones, retries
//! ```
//! [`Resolver`] is sans-IO: messages and `now` in, messages out. [`Proxy`] gives it streams, clients and a clock. Name servers near
//! the host, which may speak nothing but UDP, are asked so first: [`DatagramsFirst`] makes a stream of it.
//!
//! Messages are taken apart by hickory-proto and not put together again by it, but where the name of a mapped address was asked
//! for ([`View`]): an answer goes to who asked as the bytes that the far resolver sent, with id, the question's spelling, the TTLs
//! and the addresses of mapped networks written over. So types that nobody here knows, signatures and compression arrive as they
//! were. hickory-resolver would give parsed records instead.
//!
//! # Bounds
//!
//! | what | bound |
//! |---|---|
//! | questions that wait for an answer | 4,096; a further one is answered SERVFAIL |
//! | who waits for them | 8,192, and 256 for the same one; a further one is answered SERVFAIL |
//! | questions under way on one stream | 128; the rest waits in order |
//! | datagrams to a name server that wait for their answers | 256, each on a socket of its own, for 5 s, and on a stream of its own besides where the last three were not answered in 600 ms |
//! | remembered answers | 8 MiB and 16,384 of them; the ones not used longest go |
//! | how long an answer is remembered | its TTL, a day at most; that there is none, 3 hours at most, a minute where a near name server says so; near answers no longer than the same ones are asked there |
//! | how long one resolver may take | 1.5 s, then the next one is asked too, where there is one, and its stream is given up once nobody waits for it; after 4.5 s in all the answer is SERVFAIL |
//! | names that addresses stand for, where nobody is asked | 16,384; each keeps its address for 5 minutes at least, then the one not needed longest goes; a further one is answered SERVFAIL |
//! | clients' streams | 256; for a further one goes which has been idle, or has not read, longest. Each with 64 questions that wait, ended after 30 s of silence, or 10 s for one answer |
//! | answers that clients' streams have not taken | 128 KiB for one, or 8 MiB for all, and no further question is read (but of who waits for nothing); beyond 16 MiB goes which has not read longest |

mod answer;
mod by_name;
mod cache;
mod clients;
mod datagrams;
mod frame;
mod pool;
mod proxy;
mod question;
mod resolver;
mod streams;
mod upstream;
mod view;
mod zones;

pub use datagrams::{Answers, Datagrams, DatagramsFirst, Questions, Socket, answer_over_streams};
pub use frame::{Deframer, frame};
pub use pool::{Named, Pools};
pub use proxy::{Held, Proxy, Respond};
pub use question::Way;
pub use resolver::{Config, Counters, Reply, Resolver, Taken};
pub use view::{AsItIs, View};
pub use zones::{NameError, Side, Zones};

#[cfg(test)]
mod tests;
