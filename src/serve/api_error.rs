//! Error responses of the API: a status and a message as JSON.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::Error;

/// Seconds after which a rejected client may retry.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The error of a failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// The problem and its remedy, for the client. Contains file names of the client only.
    pub message: String,
    /// The cause of an internal error, for the server's log. Not sent to the client.
    pub cause: Option<String>,
}

impl ApiError {
    /// Creates an error that the client can correct.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), cause: None }
    }

    /// 503: the server is at capacity.
    pub fn busy(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{message}; try again in a moment"))
    }

    /// 413: a limit is exceeded.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// 422 if an image or a video of a supported format cannot be decoded, 500 for other errors. Omits the error's
    /// path, which is a path on the server.
    pub fn undecodable(name: &str, error: Error) -> Self {
        match error {
            Error::Media { message, .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{name} cannot be decoded: {message}"))
            }
            other => Self::internal(&other),
        }
    }

    /// 500: the server failed.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        let message = "internal server error; see the server's log".into();
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message, cause: Some(cause.to_string()) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.message }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_do_not_contain_server_paths() {
        let message = "no frame can be decoded".into();
        let error = ApiError::undecodable("a.mp4", Error::Media { path: "/tmp/secret".into(), message });
        assert_eq!(error.message, "a.mp4 cannot be decoded: no frame can be decoded");
        let error = ApiError::undecodable("a.mp4", Error::io("/tmp/secret")(std::io::ErrorKind::Other.into()));
        assert!(!error.message.contains("secret"));
        assert!(error.cause.unwrap().contains("secret"));
    }

    #[test]
    fn busy_sets_retry_after() {
        let response = ApiError::busy("the server is busy").into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert!(!ApiError::too_large("x").into_response().headers().contains_key(header::RETRY_AFTER));
    }
}
