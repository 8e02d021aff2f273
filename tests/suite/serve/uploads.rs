//! Rejected uploads.

use super::media;
use super::server::{Server, form, read_response};
use crate::support::root;

/// Returns the header of a PNG of this size, without image data.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    png.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    png
}

#[test]
fn invalid_files_are_rejected_with_status_and_message() {
    let server =
        Server::start(&["--files", "2", "--image-megabytes", "1", "--request-megabytes", "2", "--seconds", "2"]);
    let jpeg = media("pictures/turned_3.jpg");
    let good = media("gray.png");
    let assert_rejected = |files: &[(&str, &[u8])], status: u16, expected: &str| {
        let message = server.predict(files).error(status);
        assert!(message.contains(expected), "{message}");
        let temporary = std::env::temp_dir();
        for path in [root().to_str().unwrap(), temporary.to_str().unwrap()] {
            assert!(!message.contains(path), "a path of the server: {message}");
        }
    };
    assert_rejected(&[("text.jpg", b"not an image")], 415, "text.jpg is not a supported image");
    assert_rejected(&[("list.mp4", b"#EXTM3U\nfile:///etc/passwd\n")], 415, "list.mp4 is not a supported image");
    assert_rejected(&[("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")], 415, "not a supported image");
    assert_rejected(&[("empty.png", b"")], 422, "empty.png is empty");
    assert_rejected(
        &[("half.jpg", &jpeg[..jpeg.len() / 2])],
        422,
        "half.jpg cannot be decoded: the image is truncated",
    );
    assert_rejected(&[("half.png", &good[..good.len() - 20])], 422, "half.png cannot be decoded");
    assert_rejected(
        &[("noise.jpg", &[&b"\xff\xd8\xff\xe0"[..], &[7; 600]].concat())],
        422,
        "noise.jpg cannot be decoded",
    );
    assert_rejected(&[("head.mp4", &media("plain.mp4")[..900])], 422, "head.mp4 cannot be decoded");
    assert_rejected(&[("sound.mp4", &media("audio_only.mp4"))], 422, "no video stream");
    assert_rejected(&[("bomb.png", &png_header(60_000, 60_000))], 413, "bomb.png has 3600000000 pixels");
    assert_rejected(&[("long.mp4", &media("plain.mp4"))], 413, "long.mp4 is longer than 2 seconds");
    assert_rejected(&[("large.png", &[&good[..], &[0; 1 << 20]].concat())], 413, "large.png is larger than 1 MB");
    assert_rejected(
        &[("large.mp4", &[&media("ten.mp4")[..], &vec![0; 2 << 20]].concat())],
        413,
        "the request is too large",
    );
    assert_rejected(&[("a.png", &good), ("b.png", &good), ("c.png", &good)], 413, "the limit is 2 per request");
    assert_rejected(&[("a.png", &good), ("b.txt", b"text")], 415, "b.txt is not a supported image");
    assert_rejected(&[], 400, "in a field named `file`");
    assert!(server.send(&[("image", "a.png", &good)]).error(400).contains("in a field named `file`"));
    let plain = server.agent.post(server.url("/api/predict")).content_type("text/plain").send("x").unwrap();
    read_response(plain).error(400);
    let cut = server.agent.post(server.url("/api/predict")).content_type("multipart/form-data; boundary=cut");
    read_response(cut.send(&form(&[("file", "a.png", &good)])[..80]).unwrap()).error(400);
    // The server still works.
    assert_eq!(server.predict(&[("../a/b.png", &good)]).json()["results"][0]["name"], "b.png");
}
