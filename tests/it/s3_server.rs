//! Servers on loopback for the tests of object stores: a real S3-protocol server, one that spoils answers on their way,
//! and a plain web server.
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;

pub(crate) const KEY: &str = "AKIDTEST";
pub(crate) const SECRET: &str = "secret of the tests";
pub(crate) const BUCKET: &str = "bucket";

/// An S3-protocol server whose bucket is a folder.
pub(crate) struct S3Server {
    root: tempfile::TempDir,
    pub(crate) address: SocketAddr,
}

impl S3Server {
    /// Starts one on a thread of its own; it ends with the process.
    pub(crate) fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let files = FileSystem::new(root.path()).unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let mut service = S3ServiceBuilder::new(files);
                service.set_auth(SimpleAuth::from_single(KEY, SECRET));
                let service = service.build();
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let service = service.clone();
                    tokio::task::spawn_local(async move {
                        let _ =
                            Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                    });
                }
            });
        });
        Self { root, address: told.recv_timeout(Duration::from_secs(20)).unwrap() }
    }

    /// The folder behind the bucket.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.root.path().join(BUCKET)
    }

    /// Copies every file of `folder` below `prefix`.
    pub(crate) fn fill(&self, folder: &Path, prefix: &str) {
        let to = self.bucket().join(prefix);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// What happens to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None.
    Pass,
    /// The request is answered with 503 and never passed on.
    Unavailable,
    /// The connection closes in the middle of the body.
    CloseInBody,
    /// The same, and the answer has no e-tag by which a reader could go on.
    CloseInBodyWithoutTag,
    /// The body is cut in half and its declared length with it.
    Truncate,
    /// So is the range that the answer claims to be.
    TruncateRange,
    /// Nothing comes back for longer than anybody waits.
    Stall,
}

/// Starts a server that passes requests on to `upstream`, with the fault that `choose` has for the number of a request
/// (from 0) and its first line.
pub(crate) fn faulty(
    upstream: SocketAddr,
    choose: impl Fn(usize, &str) -> Fault + Send + Sync + 'static,
) -> SocketAddr {
    let count = AtomicUsize::new(0);
    serve(move |mut client, head| {
        let line = head.lines().next().unwrap_or_default().to_owned();
        let fault = choose(count.fetch_add(1, Ordering::SeqCst), &line);
        match fault {
            Fault::Unavailable => {
                let answer = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = client.write_all(answer.as_bytes());
            }
            Fault::Stall => thread::sleep(Duration::from_secs(30)),
            _ => {
                let _ = client.write_all(&spoiled(fault, &passed_on(upstream, &head)));
            }
        }
    })
}

fn passed_on(upstream: SocketAddr, head: &str) -> Vec<u8> {
    let mut server = TcpStream::connect(upstream).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (line, rest) = head.split_once("\r\n").unwrap();
    server.write_all(format!("{line}\r\nConnection: close\r\n{rest}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).unwrap();
    answer
}

fn spoiled(fault: Fault, answer: &[u8]) -> Vec<u8> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let (head, body) = (String::from_utf8(answer[..end].to_vec()).unwrap(), &answer[end + 4..]);
    let half = body.len() / 2;
    let kept = if fault == Fault::Pass { body } else { &body[..half] };
    let mut lines = Vec::new();
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match (name.to_ascii_lowercase().as_str(), fault) {
            ("etag", Fault::CloseInBodyWithoutTag) | ("connection", _) => {}
            ("content-length", Fault::Truncate | Fault::TruncateRange) if !body.is_empty() => {
                lines.push(format!("content-length: {half}"));
            }
            ("content-range", Fault::TruncateRange) if half > 0 => {
                let (range, size) = value.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
                let start: usize = range.split_once('-').unwrap().0.parse().unwrap();
                lines.push(format!("content-range: bytes {start}-{}/{size}", start + half - 1));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    let mut spoiled = format!("{}\r\nconnection: close\r\n\r\n", lines.join("\r\n")).into_bytes();
    spoiled.extend_from_slice(kept);
    spoiled
}

/// Starts a web server of the files in `folder` that knows HEAD and ranges.
pub(crate) fn web(folder: &Path) -> SocketAddr {
    let folder = folder.to_owned();
    serve(move |mut client, head| {
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        let Ok(bytes) = fs::read(folder.join(path.trim_start_matches('/'))) else {
            let _ = client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        };
        let range =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
        let (status, from, to) = match range.as_deref().and_then(|range| range.split_once('-')) {
            Some((from, to)) => ("206 Partial Content", from.parse().unwrap(), to.parse::<usize>().unwrap() + 1),
            None => ("200 OK", 0, bytes.len()),
        };
        let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", to - from);
        if range.is_some() {
            answer += &format!("Content-Range: bytes {from}-{}/{}\r\n", to - 1, bytes.len());
        }
        answer += "\r\n";
        let _ = client.write_all(answer.as_bytes());
        if method == "GET" {
            let _ = client.write_all(&bytes[from..to]);
        }
    })
}

/// Answers each connection's one request on a thread of its own, from the request's head.
fn serve(answer: impl Fn(TcpStream, String) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), answer) = (client, Arc::clone(&answer)) else { continue };
            thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") {
                    if client.read(&mut byte).unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                }
                answer(client, String::from_utf8_lossy(&head).into_owned());
            });
        }
    });
    address
}
