//! The processes behind sockets, by the descriptors that they have open (proc_pid_fd(5)).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{apart, confine};

/// Processes that owned a socket lately, and are looked at first.
const RECENT: usize = 8;
/// How long a search may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest question, in bytes: a number of 20 digits for each flow that there can be.
const MAX_QUESTION: u64 = 2 << 20;

/// A process that has a socket open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name (proc_pid_comm(5)), which it may choose itself: any bytes.
    pub name: String,
    /// The program's file, where that may be read.
    pub program: Option<String>,
}

/// Looks for the processes behind sockets. What a process of another user has open is seen by root only.
#[derive(Debug)]
pub enum Processes {
    /// Here.
    Here(Search),
    /// By a process apart: one that is confined by Landlock sees the descriptors of no other.
    Apart(BufReader<UnixStream>),
}

impl Default for Processes {
    fn default() -> Self {
        Self::Here(Search::default())
    }
}

impl Processes {
    /// Has them looked for by a process apart from here on, which may do nothing else. To be called before there is a second
    /// thread, and before this process is confined.
    ///
    /// # Errors
    /// Those of fork(2) and the like.
    pub fn apart() -> io::Result<Self> {
        let socket = apart::start(|socket| {
            // Where it cannot give up what it does not need, it does nothing.
            if confine::looker().is_ok() {
                answer_all(&socket);
            }
        })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::Apart(BufReader::new(socket)))
    }

    /// The processes that have the sockets with these inodes open; those that are not found are left out. The cost is
    /// that of reading the descriptors of every process, less where it is one of the last ones.
    pub fn with_sockets(&mut self, wanted: HashSet<u64>) -> HashMap<u64, Process> {
        match self {
            Self::Here(search) => search.with_sockets(wanted),
            Self::Apart(socket) => match ask(socket, &wanted) {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(
                        "processes are not known from here on: who looks for them is gone ({error}); a restart helps"
                    );
                    *self = Self::Here(Search::default());
                    HashMap::new()
                }
            },
        }
    }
}

/// A question and its answer, a line of JSON each.
fn ask(
    socket: &mut BufReader<UnixStream>,
    wanted: &HashSet<u64>,
) -> io::Result<HashMap<u64, Process>> {
    let mut question = serde_json::to_vec(wanted)?;
    question.push(b'\n');
    socket.get_mut().write_all(&question)?;
    let mut answer = Vec::new();
    if socket.read_until(b'\n', &mut answer)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// Until the other end is closed, or asks what it may not.
fn answer_all(socket: &UnixStream) {
    let mut search = Search::default();
    let mut questions = BufReader::new(socket);
    loop {
        let mut question = Vec::new();
        let mut limited = (&mut questions).take(MAX_QUESTION);
        if !matches!(limited.read_until(b'\n', &mut question), Ok(1..)) {
            return;
        }
        let Ok(wanted) = serde_json::from_slice(&question) else {
            return;
        };
        let Ok(mut answer) = serde_json::to_vec(&search.with_sockets(wanted)) else {
            return;
        };
        answer.push(b'\n');
        let mut socket = socket;
        if socket.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Looks at the descriptors of all processes (proc_pid_fd(5)).
#[derive(Debug, Default)]
pub struct Search {
    recent: VecDeque<u32>,
}

impl Search {
    fn with_sockets(&mut self, mut wanted: HashSet<u64>) -> HashMap<u64, Process> {
        let mut found = HashMap::new();
        let recent: Vec<u32> = self.recent.iter().copied().collect();
        let others = pids().filter(|pid| !recent.contains(pid));
        for pid in recent.iter().copied().chain(others) {
            if wanted.is_empty() {
                break;
            }
            let inodes = sockets_of(pid, &wanted);
            if inodes.is_empty() {
                continue;
            }
            self.remember(pid);
            let process = process(pid);
            for inode in inodes {
                wanted.remove(&inode);
                found.insert(inode, process.clone());
            }
        }
        found
    }

    fn remember(&mut self, pid: u32) {
        self.recent.retain(|known| *known != pid);
        self.recent.push_front(pid);
        self.recent.truncate(RECENT);
    }
}

/// The newest first: what connects now was often just started.
fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable_by(|a, b| b.cmp(a));
    pids.into_iter()
}

fn sockets_of(pid: u32, wanted: &HashSet<u64>) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| inode(fs::read_link(entry.path()).ok()?.to_str()?))
        .filter(|inode| wanted.contains(inode))
        .collect()
}

/// `socket:[12345]`
fn inode(link: &str) -> Option<u64> {
    let number = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

fn process(pid: u32) -> Process {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok();
    Process {
        pid,
        name: String::from_utf8_lossy(&name).trim_end().to_owned(),
        program: program.map(|path| path.to_string_lossy().into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read() {
        assert_eq!(inode("socket:[42]"), Some(42));
        for link in ["socket:[]", "socket:[-1]", "pipe:[42]", "socket:[42", ""] {
            assert_eq!(inode(link), None);
        }
    }

    /// The other end is a thread here: a test has several, and cannot be split.
    #[test]
    fn who_is_asked_answers_one_question_after_the_other() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = fs::metadata(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&listener)
        ))
        .map(|socket| std::os::unix::fs::MetadataExt::ino(&socket))
        .unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let other = std::thread::spawn(move || answer_all(&theirs));
        let mut processes = Processes::Apart(BufReader::new(ours));
        for _ in 0..2 {
            let found = processes.with_sockets([inode, u64::MAX].into());
            assert_eq!(found.len(), 1);
            assert_eq!(found[&inode].pid, std::process::id());
        }
        let Processes::Apart(mut ours) = processes else {
            panic!("it has answered");
        };
        ours.get_mut()
            .write_all(b"{\"not\":\"a question\"}\n")
            .unwrap();
        other.join().unwrap();
        let mut processes = Processes::Apart(ours);
        assert!(processes.with_sockets([inode].into()).is_empty());
        assert!(matches!(processes, Processes::Here(_)));
    }
}
