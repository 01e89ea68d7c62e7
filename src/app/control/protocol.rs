//! Requests and answers, as lines of JSON.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Report;
use super::report::FlowReport;

/// The longest request in bytes, with its newline.
pub const MAX_REQUEST: usize = 4096;
/// The longest answer in bytes: a report names every subnet.
pub const MAX_ANSWER: usize = 16 << 20;

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How it is: [`Answer::Report`].
    Status {},
    /// Which connections are open or asked for, those behind number `after`: [`Answer::Flows`].
    Flows {
        /// The number of the last one that is known; 0 at first.
        after: u64,
    },
    /// End in good order: [`Answer::Stopping`] at once, and [`Answer::Ended`] at the end.
    Down {},
    /// Read subnets and exclusions again: [`Answer::Reloaded`].
    Reload {},
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// How it is.
    Report {
        /// All there is to say.
        report: Box<Report>,
    },
    /// Some connections.
    Flows {
        /// At most [`super::server::PAGE`], by their numbers.
        flows: Vec<FlowReport>,
        /// The number behind which there are more; `null` where there are none.
        next: Option<u64>,
    },
    /// It is about to end.
    Stopping {
        /// Its process.
        pid: u32,
    },
    /// It has taken everything back, or could not; its process ends now.
    Ended {
        /// Its exit code.
        exit: u8,
    },
    /// What is captured from here on.
    Reloaded {
        /// One line for a person.
        what: String,
    },
    /// It cannot be done, or makes no sense.
    Failed {
        /// Why: one line for a person.
        why: String,
    },
}

/// A line that is no request.
#[derive(Debug, Error)]
pub enum BadRequest {
    /// It ends before its newline, or is longer than [`MAX_REQUEST`].
    #[error("a request is one line of JSON, of at most {MAX_REQUEST} bytes")]
    NoLine,
    /// It is no JSON, or asks for what there is not.
    #[error("not a request that underpass {version} knows: {0}", version = env!("CARGO_PKG_VERSION"))]
    Unknown(#[from] serde_json::Error),
}

/// Reads a request: what came until a newline, the end, or [`MAX_REQUEST`] bytes.
///
/// # Errors
/// [`BadRequest`], which can be answered.
pub fn request(line: &[u8]) -> Result<Request, BadRequest> {
    match line.strip_suffix(b"\n") {
        Some(line) if line.len() < MAX_REQUEST => Ok(serde_json::from_slice(line)?),
        _ => Err(BadRequest::NoLine),
    }
}

/// Writes a request or an answer.
///
/// # Errors
/// None for these types: no map in them has keys that are no strings.
pub fn line(message: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Request; 4] = [
        Request::Status {},
        Request::Flows { after: 7 },
        Request::Down {},
        Request::Reload {},
    ];

    #[test]
    fn requests_arrive() {
        for sent in ALL {
            assert_eq!(request(&line(&sent).unwrap()).unwrap(), sent);
        }
        assert_eq!(
            String::from_utf8(line(&Request::Status {}).unwrap()).unwrap(),
            "{\"request\":\"status\"}\n"
        );
    }

    #[test]
    fn the_set_is_closed() {
        for bad in [
            "\n",
            "{}\n",
            "{\"request\":\"exec\"}\n",
            "{\"request\":\"status\",\"as\":\"root\"}\n",
            "{\"request\":\"status\"} {\"request\":\"down\"}\n",
            "{\"request\":\"status\",\"request\":\"down\"}\n",
            "\"status\"\n",
        ] {
            let error = request(bad.as_bytes());
            assert!(matches!(error, Err(BadRequest::Unknown(_))), "{bad}");
        }
        for cut in ["", "{\"request\":\"status\"}", &"[".repeat(MAX_REQUEST)] {
            let error = request(cut.as_bytes());
            assert!(matches!(error, Err(BadRequest::NoLine)), "{cut}");
        }
    }

    proptest! {
        /// Depth, size and bytes: nothing panics, and what is taken is one of the few.
        #[test]
        fn no_bytes_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..300), ends: bool) {
            if ends { bytes.push(b'\n'); }
            let _ = request(&bytes);
        }

        #[test]
        fn spoilt_requests_do_not_become_others(
            which in 0..4usize,
            at in 0..40usize,
            byte: u8,
        ) {
            let sent = ALL[which];
            let mut bytes = line(&sent).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(read) = request(&bytes) {
                // But for the number in it.
                prop_assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(&sent));
            }
        }

        #[test]
        fn nested_lines_do_not_exhaust_the_stack(depth in 0..MAX_REQUEST, open in "[\\[{]") {
            let mut text = open.repeat(depth);
            text.push('\n');
            prop_assert!(request(text.as_bytes()).is_err());
        }

        #[test]
        fn answers_arrive(why in ".*", exit: u8, pid: u32) {
            for sent in [
                Answer::Failed { why: why.clone() },
                Answer::Reloaded { what: why.clone() },
                Answer::Ended { exit },
                Answer::Stopping { pid },
            ] {
                let bytes = line(&sent).unwrap();
                prop_assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 1);
                prop_assert_eq!(serde_json::from_slice::<Answer>(&bytes).unwrap(), sent);
            }
        }
    }
}
