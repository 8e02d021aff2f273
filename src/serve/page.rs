//! The web page's files, compiled into the program, and the security headers of every response.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

/// A file of the page.
pub struct Asset {
    /// URL path.
    pub path: &'static str,
    content_type: &'static str,
    /// The content.
    pub content: &'static str,
}

impl Asset {
    /// Returns the file as a response with its content type.
    pub fn response(&self) -> Response {
        ([(header::CONTENT_TYPE, self.content_type)], self.content).into_response()
    }
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All files of the page.
pub static ASSETS: [Asset; 7] = [
    Asset { path: "/", content_type: HTML, content: include_str!("page/index.html") },
    Asset { path: "/style.css", content_type: CSS, content: include_str!("page/style.css") },
    Asset { path: "/app.js", content_type: SCRIPT, content: include_str!("page/app.js") },
    Asset { path: "/predict.js", content_type: SCRIPT, content: include_str!("page/predict.js") },
    Asset { path: "/view.js", content_type: SCRIPT, content: include_str!("page/view.js") },
    Asset { path: "/download.js", content_type: SCRIPT, content: include_str!("page/download.js") },
    Asset { path: "/icon.svg", content_type: "image/svg+xml", content: include_str!("page/icon.svg") },
];

/// Security headers: no resources of other hosts, no inline scripts or styles, no embedding in frames.
pub const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
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
