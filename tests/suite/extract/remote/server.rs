//! A local web server and object store with faults. The first component of a path selects the fault, the rest the file.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use crate::support::read_head;

/// Access key of the object store.
pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
/// Secret key of the object store.
pub const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A request that was answered.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path and parameters.
    pub target: String,
    /// Bytes of the body that were sent.
    pub sent: usize,
}

pub struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Serves files by their names until the process ends.
    pub fn start(files: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::default();
        let state = Arc::new((files.into_iter().collect(), Arc::clone(&requests)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state: Arc<State> = Arc::clone(&state);
                std::thread::spawn(move || serve(stream, &state)); // clients may disconnect
            }
        });
        Self { port, requests }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Returns the requests so far whose path contains `part`.
    pub fn requests(&self, part: &str) -> Vec<Request> {
        self.requests.lock().unwrap().iter().filter(|request| request.target.contains(part)).cloned().collect()
    }
}

type State = (HashMap<&'static str, Vec<u8>>, Arc<Mutex<Vec<Request>>>);

fn serve(mut stream: TcpStream, (files, log): &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(head) = read_head(&mut reader)? {
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let range = field(&head, "range");
        let path = target.split('?').next().unwrap().trim_start_matches('/');
        let (fault, name) = path.split_once('/').unwrap();
        let earlier = log.lock().unwrap().iter().filter(|request| request.target == target).count();
        if fault == "hang" && earlier == 0 {
            log.lock().unwrap().push(Request { target: target.clone(), sent: 0 });
            continue; // waits for the next request of this connection, which does not come
        }
        let response = respond(fault, files.get(name).map(Vec::as_slice), range, earlier, &head);
        let sent = response.body.len().min(response.sent);
        log.lock().unwrap().push(Request { target, sent });
        let fields = response.fields.concat();
        let length = response.body.len();
        write!(stream, "HTTP/1.1 {} X\r\nContent-Length: {length}\r\n{fields}\r\n", response.status)?;
        // In small pieces, as from a slow connection.
        for piece in response.body[..sent].chunks(1000) {
            stream.write_all(piece)?;
            stream.flush()?;
        }
        if sent < length {
            return stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

struct Response<'a> {
    status: u16,
    fields: Vec<String>,
    body: &'a [u8],
    /// Number of bytes of the body after which the connection breaks.
    sent: usize,
}

fn respond<'a>(fault: &str, file: Option<&'a [u8]>, range: Option<&str>, earlier: usize, head: &str) -> Response<'a> {
    let error =
        |status, body: &'static str| Response { status, fields: vec![], body: body.as_bytes(), sent: usize::MAX };
    let Some(file) = file else { return error(404, "no such file") };
    match fault {
        "busy" if earlier == 0 => return error(429, "slow down"),
        "busy" if earlier == 1 => return error(503, "maintenance"),
        "down" => return error(500, "internal\nerror"),
        "denied" => return error(403, "token abc is expired"),
        "bucket" if !is_signed(head) => return error(403, "SignatureDoesNotMatch"),
        "private" if !head.contains("sig=s3cr3t") => return error(403, "no signature"),
        _ => {}
    }
    let etag = match fault {
        "changing" => Some(format!("\"{earlier}\"")),
        "broken" | "unversioned" => None,
        _ => Some(format!("\"{:08x}\"", crc(file))),
    };
    let mut fields: Vec<String> = etag.iter().map(|etag| format!("ETag: {etag}\r\n")).collect();
    if fault == "bucket" {
        fields.push("Last-Modified: Fri, 27 Nov 2026 10:00:00 GMT\r\n".into());
    }
    if field(head, "if-match").is_some_and(|expected| Some(expected) != etag.as_deref()) {
        return error(412, "");
    }
    let part = range.filter(|_| !matches!(fault, "whole" | "short")).map(|range| {
        let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        (start.parse::<usize>().unwrap(), end.parse::<usize>().unwrap().saturating_add(1).min(file.len()))
    });
    let (status, body) = match part {
        Some((start, _)) if start >= file.len() => return error(416, ""),
        Some((start, end)) => {
            fields.push(format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, file.len()));
            (206, &file[start..end])
        }
        None => (200, file),
    };
    let sent = match fault {
        "broken" | "reset" if earlier.is_multiple_of(2) => body.len() / 2,
        "short" => body.len() - 1,
        _ => usize::MAX,
    };
    Response { status, fields, body, sent }
}

fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Returns a field of a request.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// Checks the signature of a request to an object store: AWS Signature Version 4.
fn is_signed(head: &str) -> bool {
    let check = || {
        let authorization = field(head, "authorization")?.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let parts: HashMap<_, _> = authorization.split(',').filter_map(|part| part.trim().split_once('=')).collect();
        let (key, scope) = parts.get("Credential")?.split_once('/')?;
        let mut request = head.split(' ');
        let (method, target) = (request.next()?, request.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let names = *parts.get("SignedHeaders")?;
        let headers: Option<String> =
            names.split(';').map(|name| Some(format!("{name}:{}\n", field(head, name)?))).collect();
        let payload = field(head, "x-amz-content-sha256")?;
        let canonical = format!("{method}\n{path}\n{query}\n{}\n{names}\n{payload}", headers?);
        let date = field(head, "x-amz-date")?;
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let signing_key = scope
            .split('/')
            .fold(format!("AWS4{SECRET_KEY}").into_bytes(), |key, part| hmac_sha256(&key, part.as_bytes()));
        Some(key == ACCESS_KEY && hex(&hmac_sha256(&signing_key, text.as_bytes())) == *parts.get("Signature")?)
    };
    check().unwrap_or(false)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 2104, for keys of up to 64 bytes.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |byte: u8| (0..64).map(|i| key.get(i).copied().unwrap_or(0) ^ byte).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}
