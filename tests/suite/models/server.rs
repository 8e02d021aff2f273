//! A local HTTP server of one file, with configurable faults. It also works as a proxy.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::support::read_head;

/// How the server responds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behavior {
    /// Supports ranges and `If-Range`, with the version `"one"`.
    Plain,
    /// As `Plain`, but the first response breaks off in the middle.
    BreaksOnce,
    /// Always sends the full file.
    IgnoresRange,
    /// Responds with status 404.
    Missing,
}

pub struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves `file` under every path until the process ends.
    pub fn start(file: Vec<u8>, behavior: Behavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(stream, &file, behavior, &log); // clients may disconnect
            }
        });
        Self { port, requests }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Returns the headers of the requests so far, in lower case.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, file: &[u8], behavior: Behavior, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(head) = read_head(&mut reader)? {
        let head = head.to_lowercase();
        let earlier = {
            let mut log = log.lock().unwrap();
            log.push(head.clone());
            log.len() - 1
        };
        if head.starts_with("connect") {
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            continue; // the server answers for every host
        }
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let same = field("if-range:").is_none_or(|version| version == "\"one\"");
        let start = field("range: bytes=").and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
        let start = start.filter(|_| same && behavior != Behavior::IgnoresRange);
        let (status, extra, body) = match start {
            _ if behavior == Behavior::Missing => ("404 Not Found", String::new(), &file[..0]),
            Some(start) if start >= file.len() => {
                ("416 Range Not Satisfiable", format!("Content-Range: bytes */{}\r\n", file.len()), &file[..0])
            }
            Some(start) => {
                let range = format!("Content-Range: bytes {start}-{}/{}\r\n", file.len() - 1, file.len());
                ("206 Partial Content", range, &file[start..])
            }
            None => ("200 OK", String::new(), file),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"one\"\r\n{extra}\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        if behavior == Behavior::BreaksOnce && earlier == 0 {
            stream.write_all(&body[..body.len() / 2])?;
            return stream.shutdown(std::net::Shutdown::Both);
        }
        stream.write_all(body)?;
    }
    Ok(())
}
