//! The far side's services, in one program. Every stream carries the pattern of `pattern.rs`.
//!
//! | port | service |
//! |---|---|
//! | 80 | HTTP/1.1: `/` an index page, `/bytes/N` N bytes of the pattern, `/far-close` what port 5009 last read |
//! | 7 | echo |
//! | 9 | discard: counts without copying; at the client's FIN answers `COUNT` and closes |
//! | 19 | source: the pattern, until the client closes |
//! | 5001 | source of N: the client sends `N\n`, the answer is N bytes and FIN |
//! | 5002 | sink: reads to the client's FIN, then answers `COUNT CHECKSUM` |
//! | 5003 | half-close: reads to the client's FIN, then answers `COUNT CHECKSUM\n` and as many bytes of the pattern |
//! | 5005 | server speaks first: `hello from the far side\n`, then echo |
//! | 5006 | reset: after one byte from the client sends 1,000 bytes, then RST |
//! | 5007 | short: reads one line, answers `ok\n`, closes |
//! | 5008 | stuck: accepts and never reads |
//! | 5009 | far close: sends `done\n` and FIN, then reads to the client's FIN; see `/far-close` |
//!
//! Prints `ready` when all are bound, over IPv4 and IPv6.

#[allow(dead_code)]
mod pattern;

use std::io::{self, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Mutex;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpSocket, TcpStream};

use pattern::Checksum;

const READ: usize = 256 * 1024;

/// What the far-close service read from its last client.
static FAR_CLOSE: Mutex<String> = Mutex::new(String::new());

#[derive(Clone, Copy)]
enum Service {
    Http,
    Echo,
    Discard,
    Source,
    SourceOfN,
    Sink,
    HalfClose,
    Banner,
    Reset,
    Short,
    Stuck,
    FarClose,
}

const PORTS: [(u16, Service); 12] = [
    (80, Service::Http),
    (7, Service::Echo),
    (9, Service::Discard),
    (19, Service::Source),
    (5001, Service::SourceOfN),
    (5002, Service::Sink),
    (5003, Service::HalfClose),
    (5005, Service::Banner),
    (5006, Service::Reset),
    (5007, Service::Short),
    (5008, Service::Stuck),
    (5009, Service::FarClose),
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for (port, service) in PORTS {
        let socket = TcpSocket::new_v6()?;
        socket.set_reuseaddr(true)?;
        // Several of this program share the clients, where one may not have descriptors for all of them.
        socket.set_reuseport(true)?;
        // Also takes IPv4, as mapped addresses.
        socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        let listener = socket.listen(4096)?;
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(serve(service, stream))),
                    Err(error) => eprintln!("port {port}: accept: {error}"),
                }
            }
        });
    }
    println!("ready");
    io::stdout().flush()?;
    std::future::pending().await
}

async fn serve(service: Service, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match service {
        Service::Http => http(stream).await,
        Service::Echo => echo(stream).await,
        Service::Discard => discard(stream).await,
        Service::Source => send(&mut { stream }, u64::MAX).await,
        Service::SourceOfN => source_of_n(stream).await,
        Service::Sink => sink(stream).await,
        Service::HalfClose => half_close(stream).await,
        Service::Banner => banner(stream).await,
        Service::Reset => reset(stream).await,
        Service::Short => short(stream).await,
        Service::Stuck => stuck(stream).await,
        Service::FarClose => far_close(stream).await,
    }
}

/// Sends the first `len` bytes of the pattern.
async fn send(stream: &mut TcpStream, len: u64) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        at += stream.write(pattern::slice(at, len - at)).await? as u64;
    }
    Ok(())
}

/// Reads to the peer's FIN.
async fn read_to_end(stream: &mut TcpStream) -> io::Result<String> {
    let mut sum = Checksum::default();
    let mut buffer = vec![0; READ];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(sum.summary()),
            n => sum.update(&buffer[..n]),
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    // Small and grown on demand: tens of thousands of these may be idle.
    let mut buffer = vec![0; 1024];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..n]).await?;
        if n == buffer.len() && n < READ {
            buffer.resize(2 * n, 0);
        }
    }
}

async fn discard(mut stream: TcpStream) -> io::Result<()> {
    let mut count = 0;
    let mut buffer = vec![0; READ];
    loop {
        stream.readable().await?;
        // tcp(7): with MSG_TRUNC the received bytes are discarded and not copied.
        let read = stream.try_io(Interest::READABLE, || {
            Ok(recv(stream.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)?)
        });
        match read {
            Ok(0) => break,
            Ok(n) => count += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    stream.write_all(format!("{count}\n").as_bytes()).await
}

async fn source_of_n(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let Ok(len) = line.trim().parse() else {
        return Ok(());
    };
    let mut stream = stream.into_inner();
    send(&mut stream, len).await?;
    stream.shutdown().await?;
    // Closing with unread bytes would be an RST.
    read_to_end(&mut stream).await.map(drop)
}

async fn sink(mut stream: TcpStream) -> io::Result<()> {
    let summary = read_to_end(&mut stream).await?;
    stream.write_all(format!("{summary}\n").as_bytes()).await
}

async fn half_close(mut stream: TcpStream) -> io::Result<()> {
    let summary = read_to_end(&mut stream).await?;
    stream.write_all(format!("{summary}\n").as_bytes()).await?;
    let count = summary.split(' ').next().and_then(|n| n.parse().ok());
    send(&mut stream, count.unwrap_or(0)).await
}

async fn banner(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"hello from the far side\n").await?;
    echo(stream).await
}

async fn reset(mut stream: TcpStream) -> io::Result<()> {
    stream.read_u8().await?;
    send(&mut stream, 1000).await?;
    stream.set_zero_linger()
}

async fn short(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    stream.write_all(b"ok\n").await
}

async fn stuck(stream: TcpStream) -> io::Result<()> {
    let _open = stream;
    std::future::pending().await
}

async fn far_close(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"done\n").await?;
    stream.shutdown().await?;
    let summary = read_to_end(&mut stream)
        .await
        .unwrap_or_else(|error| error.to_string());
    if let Ok(mut last) = FAR_CLOSE.lock() {
        *last = summary;
    }
    Ok(())
}

async fn http(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(request) = read_request(&mut stream).await? else {
            return Ok(());
        };
        let keep = respond(stream.get_mut(), &request).await?;
        if !keep {
            return stream.get_mut().shutdown().await;
        }
    }
}

struct Request {
    path: String,
    keep_alive: bool,
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut request = Request {
        path: line.split(' ').nth(1).unwrap_or("/").to_owned(),
        keep_alive: line.trim_end().ends_with("HTTP/1.1"),
    };
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let header = line.trim_end().to_ascii_lowercase();
        match header.as_str() {
            "" => return Ok(Some(request)),
            "connection: close" => request.keep_alive = false,
            "connection: keep-alive" => request.keep_alive = true,
            _ => {}
        }
    }
}

/// Answers one request; true if the connection stays open.
async fn respond(stream: &mut TcpStream, request: &Request) -> io::Result<bool> {
    let bytes = request
        .path
        .strip_prefix("/bytes/")
        .and_then(|n| n.parse::<u64>().ok());
    let (status, body) = match (bytes, request.path.as_str()) {
        (Some(_), _) => ("200 OK", String::new()),
        (None, "/") => ("200 OK", "<h1>the far side</h1>\n".to_owned()),
        (None, "/far-close") => (
            "200 OK",
            FAR_CLOSE
                .lock()
                .map(|last| last.clone())
                .unwrap_or_default(),
        ),
        _ => ("404 Not Found", "no such page\n".to_owned()),
    };
    let length = bytes.unwrap_or(body.len() as u64);
    let connection = if request.keep_alive {
        "keep-alive"
    } else {
        "close"
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await?;
    if let Some(len) = bytes {
        send(stream, len).await?;
    }
    Ok(request.keep_alive)
}
