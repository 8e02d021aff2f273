//! Metrics, and requests beyond the capacity of the server.

use std::io::Write as _;
use std::net::TcpStream;

use super::media;
use super::server::{REQUEST_HEAD, Server};

#[test]
fn metrics_count_requests_and_images() {
    let server = Server::start(&[]);
    server.predict(&[("a.png", &media("gray.png"))]);
    server.predict(&[("a.txt", b"text")]);
    let text = server.get("/metrics").text;
    for line in [
        "kinoprobe_requests_total{route=\"/api/predict\",status=\"200\"} 1",
        "kinoprobe_requests_total{route=\"/api/predict\",status=\"415\"} 1",
        "kinoprobe_predict_seconds_count 1",
        "kinoprobe_batch_images_sum 1.0",
        "kinoprobe_free_slots 128",
        "# EOF",
    ] {
        assert!(text.lines().any(|other| other == line), "missing {line} in\n{text}");
    }
    assert!(text.contains("kinoprobe_resident_memory_bytes "), "{text}");
}

#[test]
fn requests_beyond_capacity_are_rejected_with_retry_after() {
    let server = Server::start(&["--queue", "2"]);
    let poster = media("pictures/turned_3.jpg");
    // Two incomplete requests occupy both slots.
    let incomplete: Vec<TcpStream> = (0..2).map(|_| start_request(&server.address)).collect();
    while !server.get("/metrics").text.contains("kinoprobe_free_slots 0") {
        std::thread::yield_now();
    }
    let rejected = server.predict(&[("a.jpg", &poster)]);
    assert_eq!(rejected.headers["retry-after"], "1");
    assert!(rejected.error(503).contains("try again"));
    assert_eq!(server.get("/healthz").status, 200);
    // The slots of disconnected clients are released.
    drop(incomplete);
    while !server.get("/metrics").text.contains("kinoprobe_free_slots 2") {
        std::thread::yield_now();
    }
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let client = || (0..10).map(|_| server.predict(&[("a.jpg", &poster)]).status).collect::<Vec<u16>>();
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200), "{statuses:?}");
}

/// Sends the head of a request and the start of its body.
fn start_request(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{REQUEST_HEAD}Content-Length: 1000\r\n\r\n--cut\r\n").unwrap();
    stream
}
