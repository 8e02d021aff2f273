//! What a request is refused with: a status, and a sentence as JSON.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::Error;

/// Seconds after which a client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request gets no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// What is wrong and what to do. Names files only as the client does.
    pub sentence: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into() }
    }

    /// Too much at once.
    pub fn busy(sentence: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{sentence}; try again in a moment"))
    }

    /// Beyond a limit.
    pub fn too_large(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    }

    /// A picture or a video of a known format that cannot be decoded. The error's path is the server's: it is left out.
    pub fn undecodable(name: &str, error: Error) -> Self {
        match error {
            Error::Media { message, .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{name} cannot be decoded: {message}"))
            }
            other => Self::failed(&other),
        }
    }

    /// The server's own fault: told to its operator, not to the client.
    pub fn failed(error: &dyn std::fmt::Display) -> Self {
        eprintln!("serve: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log says why")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let again = self.status == StatusCode::SERVICE_UNAVAILABLE;
        let mut response = (self.status, Json(json!({ "error": self.sentence }))).into_response();
        if again {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_server_is_told_to_nobody() {
        let message = "no frame can be decoded".into();
        let refusal = Refusal::undecodable("a.mp4", Error::Media { path: "/tmp/secret".into(), message });
        assert_eq!(refusal.sentence, "a.mp4 cannot be decoded: no frame can be decoded");
        let refusal = Refusal::undecodable("a.mp4", Error::io("/tmp/secret")(std::io::ErrorKind::Other.into()));
        assert!(!refusal.sentence.contains("secret"));
    }

    #[test]
    fn busy_says_when_to_try_again() {
        let response = Refusal::busy("the server is busy").into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert!(!Refusal::too_large("x").into_response().headers().contains_key(header::RETRY_AFTER));
    }
}
