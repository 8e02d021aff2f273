//! A running kinoprobe-serve and its HTTP client.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::assert_schema;
use super::models::save_models;
use crate::support::{fixture, root, send_signal};

pub struct Server {
    pub child: Child,
    pub address: String,
    pub models: TempDir,
    pub agent: ureq::Agent,
}

pub struct HttpResponse {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
}

impl HttpResponse {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Asserts that this is an error response with the status, and returns its message.
    #[track_caller]
    pub fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        assert_schema("Error", &self.json());
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

impl Server {
    pub fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, |_| {})
    }

    pub fn start_with(flags: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let models = tempfile::tempdir().unwrap();
        save_models(models.path(), change);
        Self::serve(models, flags)
    }

    /// Starts a server of the models in a directory.
    pub fn serve(models: TempDir, flags: &[&str]) -> Self {
        let mut child =
            command(models.path()).args(flags).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("http://").expect("the first line is the URL").trim_end_matches('/').into();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { child, address, models, agent }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> HttpResponse {
        read_response(self.agent.get(self.url(path)).call().unwrap())
    }

    pub fn predict(&self, files: &[(&str, &[u8])]) -> HttpResponse {
        let parts: Vec<_> = files.iter().map(|(name, bytes)| ("file", *name, *bytes)).collect();
        self.send(&parts)
    }

    pub fn send(&self, parts: &[(&str, &str, &[u8])]) -> HttpResponse {
        let request = self.agent.post(self.url("/api/predict")).content_type("multipart/form-data; boundary=cut");
        read_response(request.send(form(parts)).unwrap())
    }

    /// Sends a signal, waits for the server to end, and returns its exit code.
    pub fn stop(&mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().code()
    }

    pub fn signal(&self, signal: &str) {
        send_signal(&self.child, signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that serves `models`.
pub fn command(models: &Path) -> Command {
    let mut command = program(models);
    command.args(["--addr", "127.0.0.1:0"]);
    command
}

/// The program with the paths of the models and the cards.
pub fn program(models: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-serve"));
    command.current_dir(root()).arg("--cards").arg(fixture("models")).arg("--models").arg(models);
    command
}

pub fn read_response(mut response: ureq::http::Response<ureq::Body>) -> HttpResponse {
    let text = response.body_mut().read_to_string().unwrap();
    HttpResponse { status: response.status().as_u16(), headers: response.headers().clone(), text }
}

/// Returns a multipart body with the boundary `cut`.
pub fn form(parts: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, name, bytes) in parts {
        let head = format!("--cut\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\r\n");
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--cut--\r\n");
    body
}

pub const REQUEST_HEAD: &str =
    "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=cut\r\n";
