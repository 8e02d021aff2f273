//! Shutdown by signals.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::media;
use super::server::{REQUEST_HEAD, Server, form};

#[test]
fn shutdown_finishes_requests_in_progress() {
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start(&[]);
        let body = form(&[("file", "a.png", &media("gray.png"))]);
        let mut stream = TcpStream::connect(&server.address).unwrap();
        write!(stream, "{REQUEST_HEAD}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        stream.write_all(&body[..50]).unwrap();
        while !server.get("/metrics").text.contains("kinoprobe_free_slots 127") {
            std::thread::yield_now();
        }
        server.signal(signal);
        // New connections are rejected while the request is in progress.
        while TcpStream::connect(&server.address).is_ok() {
            std::thread::yield_now();
        }
        stream.write_all(&body[50..]).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
    // An idle server ends at once.
    let mut server = Server::start(&[]);
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.stop("-TERM"), Some(0));
}
