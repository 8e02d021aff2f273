//! The page: files compiled into the program, and the headers that keep a browser to them.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

/// A file of the page.
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    kind: &'static str,
    /// What is in it.
    pub content: &'static str,
}

impl Asset {
    /// The file as an answer.
    pub fn response(&self) -> Response {
        ([(header::CONTENT_TYPE, self.kind)], self.content).into_response()
    }
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All files of the page.
pub static ASSETS: [Asset; 7] = [
    Asset { path: "/", kind: HTML, content: include_str!("page/index.html") },
    Asset { path: "/style.css", kind: CSS, content: include_str!("page/style.css") },
    Asset { path: "/app.js", kind: SCRIPT, content: include_str!("page/app.js") },
    Asset { path: "/predict.js", kind: SCRIPT, content: include_str!("page/predict.js") },
    Asset { path: "/view.js", kind: SCRIPT, content: include_str!("page/view.js") },
    Asset { path: "/download.js", kind: SCRIPT, content: include_str!("page/download.js") },
    Asset { path: "/icon.svg", kind: "image/svg+xml", content: include_str!("page/icon.svg") },
];

/// Nothing but what the page itself brings: no other host, no inline script or style, in nobody's frame.
pub const SECURITY: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; \
         connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];
