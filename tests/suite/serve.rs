//! kinoprobe-serve over HTTP, with the tiny network and classifiers trained on noise.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kinoprobe::classify::{self, FitContext, ModelMetadata, SavedModel};
use kinoprobe::dataset::{Dataset, Task};
use kinoprobe::models::fetch;
use kinoprobe::posters::PosterModels;
use kinoprobe::recipe::{Classify, Recipe};
use kinoprobe::store::{FeatureStore, Provenance};
use ndarray::Array2;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{assert_code, fixture, root, send_signal};

const LABELS: [&str; 4] = ["Action", "Comedy", "Drama", "Horror"];
const YEARS: [i32; 3] = [2004, 2005, 2006];

/// Trains a small classifier on noise and saves it in `dir`.
fn save_head(dir: &Path, seed: u64, labels: &[&str], provenance: &Provenance) {
    let noise = |i: usize, k: usize| ((i * 7919 + k * 104_729 + seed as usize * 31) % 1000) as f32 / 500.0 - 1.0;
    let count = 48;
    let classes: Vec<String> = labels.iter().map(|label| (*label).to_string()).collect();
    let data = Dataset {
        ids: (0..count).map(|i| i.to_string()).collect(),
        groups: vec![None; count],
        rows: Array2::from_shape_fn((count, 8), |(i, k)| noise(i, k)),
        offsets: (0..=count).collect(),
        targets: Array2::from_shape_fn((count, labels.len()), |(i, c)| f32::from(noise(i, c) > 0.0)),
        classes: classes.clone(),
    };
    let mut settings = Classify { standardize: true, ..Classify::default() };
    settings.mlp.hidden = 8;
    settings.training.epochs = 3;
    let mut progress = |_: &_| {};
    let mut context = FitContext { seed, task: Task::MultiLabel, threads: 1, progress: &mut progress };
    let fitted = classify::build(&settings.fit_settings()).fit(&data, &data, &mut context).unwrap();
    let recipe = Recipe::load(&fixture("pipelines/tiny.toml")).unwrap();
    let metadata = ModelMetadata::new(provenance, &recipe.method, settings.classifier, settings.pooling);
    let mut metadata = ModelMetadata { classes, dim: 8, ..metadata };
    metadata.identity.task = Task::MultiLabel;
    SavedModel { metadata, model: fitted.model }.save(dir).unwrap();
}

/// Returns the provenance of features of the tiny network.
fn tiny_provenance() -> Provenance {
    let model_sha256 = fetch::sha256_file(&fixture("models/tiny.onnx")).unwrap();
    Provenance { model_sha256, precision: "f32".into(), ..Provenance::default() }
}

/// Writes poster models and their posters.json, modified by `change`.
fn save_models(dir: &Path, change: impl FnOnce(&mut Value)) {
    let provenance = tiny_provenance();
    for (seed, year) in YEARS.iter().enumerate() {
        // The model of the last year lacks one genre.
        save_head(&dir.join(year.to_string()), seed as u64, &LABELS[..4 - seed / 2], &provenance);
    }
    save_head(&dir.join("all"), 9, &LABELS, &provenance);
    let year = |year: i32, thresholds: &[f32]| {
        json!({"year": year, "directory": year.to_string(), "thresholds": thresholds,
               "clips": {"train": 40, "val": 4, "test": 4}, "metrics": {"map": 0.5}})
    };
    let mut listed = json!({
        "format": "kinoprobe-posters", "format_version": 1, "method": "tiny", "card": "tiny", "weights": "file",
        "model_sha256": provenance.model_sha256, "precision": "f32", "untrained": false, "demo": true, "labels": LABELS, "by": "year", "window": null,
        "years": [year(2004, &[0.5; 4]), year(2005, &[0.4; 4]), year(2006, &[0.3; 3])],
        "overall": {"directory": "all", "thresholds": [0.5, 0.5, 0.5, 0.5]},
    });
    change(&mut listed);
    fs::write(dir.join("posters.json"), listed.to_string()).unwrap();
}

struct Server {
    child: Child,
    address: String,
    models: TempDir,
    agent: ureq::Agent,
}

struct HttpResponse {
    status: u16,
    headers: ureq::http::HeaderMap,
    text: String,
}

impl HttpResponse {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Asserts that this is an error response with the status, and returns its message.
    #[track_caller]
    fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        assert_schema("Error", &self.json());
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, |_| {})
    }

    fn start_with(flags: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let models = tempfile::tempdir().unwrap();
        save_models(models.path(), change);
        let mut child =
            command(models.path()).args(flags).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("http://").expect("the first line is the URL").trim_end_matches('/').into();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { child, address, models, agent }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> HttpResponse {
        read_response(self.agent.get(self.url(path)).call().unwrap())
    }

    fn predict(&self, files: &[(&str, &[u8])]) -> HttpResponse {
        let parts: Vec<_> = files.iter().map(|(name, bytes)| ("file", *name, *bytes)).collect();
        self.send(&parts)
    }

    fn send(&self, parts: &[(&str, &str, &[u8])]) -> HttpResponse {
        let request = self.agent.post(self.url("/api/predict")).content_type("multipart/form-data; boundary=cut");
        read_response(request.send(form(parts)).unwrap())
    }

    /// Sends a signal, waits for the server to end, and returns its exit code.
    fn stop(&mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().code()
    }

    fn signal(&self, signal: &str) {
        send_signal(&self.child, signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(models: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinoprobe-serve"));
    command.current_dir(root()).args(["--addr", "127.0.0.1:0", "--device", "auto", "--cards"]).arg(fixture("models"));
    command.arg("--models").arg(models);
    command
}

fn read_response(mut response: ureq::http::Response<ureq::Body>) -> HttpResponse {
    let text = response.body_mut().read_to_string().unwrap();
    HttpResponse { status: response.status().as_u16(), headers: response.headers().clone(), text }
}

/// Returns a multipart body with the boundary `cut`.
fn form(parts: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, name, bytes) in parts {
        let head = format!("--cut\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\r\n");
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--cut--\r\n");
    body
}

fn openapi() -> Value {
    serde_json::from_str(include_str!("../../src/serve/openapi.json")).unwrap()
}

/// Asserts that `value` matches the schema of this name in the OpenAPI description.
#[track_caller]
fn assert_schema(schema: &str, value: &Value) {
    let mut root = openapi();
    root["$ref"] = json!(format!("#/components/schemas/{schema}"));
    let validator = jsonschema::draft202012::new(&root).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{schema}: {errors:?}\n{value:#}");
}

fn media(name: &str) -> Vec<u8> {
    fs::read(fixture("media").join(name)).unwrap()
}

/// Returns the header of a PNG of this size, without image data.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    png.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    png
}

#[test]
fn image_scores_match_those_of_extracted_features() {
    let server = Server::start(&["--batch", "4"]);
    let images = ["alpha.png", "gray.png", "pixel.png", "sixteen.png", "pictures/turned_6.jpg", "pictures/cmyk.jpg"];
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = String::from("id,path\n");
    for name in images {
        manifest += &format!("{name},{}\n", fixture("media").join(name).display());
    }
    fs::write(dir.path().join("manifest.csv"), manifest).unwrap();
    let store = dir.path().join("tiny.h5");
    let mut extract = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
    extract.current_dir(root()).args(["--method", "tiny", "--recipe"]).arg(fixture("pipelines/tiny.toml"));
    extract.arg("--models").arg(fixture("models")).arg("--manifest").arg(dir.path().join("manifest.csv"));
    assert_code(&extract.arg("--out").arg(&store).output().unwrap(), 0);
    let features = FeatureStore::open(&store).unwrap().features(0..images.len()).unwrap();
    let models = PosterModels::load(server.models.path()).unwrap();
    let expected = models.scores(features.view()).unwrap();

    let bytes: Vec<Vec<u8>> = images.iter().map(|name| media(name)).collect();
    let files: Vec<(&str, &[u8])> = images.iter().zip(&bytes).map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let batch = server.predict(&files);
    assert_eq!(batch.status, 200, "{}", batch.text);
    let batch = batch.json();
    assert_schema("Predictions", &batch);
    assert_eq!(batch["model"]["demo"], true);
    for (i, expected) in expected.iter().enumerate() {
        let result = &batch["results"][i];
        assert_eq!((&result["name"], &result["kind"]), (&json!(images[i].rsplit('/').next()), &json!("image")));
        let heads = models.years.iter().zip(&expected.years).zip(result["years"].as_array().unwrap());
        let years = heads.map(|((head, scores), got)| (&head.labels, scores, &got["genres"]));
        let overall =
            (&models.overall.as_ref().unwrap().labels, expected.overall.as_ref().unwrap(), &result["overall"]);
        for (labels, scores, got) in years.chain([overall]) {
            let got = got.as_array().unwrap();
            assert_eq!(got.len(), scores.len());
            assert!(got.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));
            for (&label, &score) in labels.iter().zip(scores) {
                let genre = got.iter().find(|genre| genre["label"] == LABELS[label]).unwrap();
                let distance = (genre["score"].as_f64().unwrap() - f64::from(score)).abs();
                assert!(distance < 1e-6, "{}: {genre} against {score}", images[i]);
            }
        }
        // A request with a single file has the same scores.
        let single = server.predict(&files[i..=i]).json();
        for (a, b) in
            single["results"][0]["overall"].as_array().unwrap().iter().zip(result["overall"].as_array().unwrap())
        {
            assert!((a["score"].as_f64().unwrap() - b["score"].as_f64().unwrap()).abs() < 1e-6);
        }
    }
    assert_ne!(batch["results"][0]["overall"], batch["results"][1]["overall"]);
}

#[test]
fn videos_have_scores_per_frame() {
    let server = Server::start(&["--frames", "3"]);
    let response = server.predict(&[("a trailer.mp4", &media("plain.mp4"))]);
    assert_eq!(response.status, 200, "{}", response.text);
    let response = response.json();
    assert_schema("Predictions", &response);
    let result = &response["results"][0];
    assert_eq!((&result["name"], &result["kind"]), (&json!("a trailer.mp4"), &json!("video")));
    let frames = result["frames"].as_array().unwrap();
    let seconds: Vec<f64> = frames.iter().map(|frame| frame["seconds"].as_f64().unwrap()).collect();
    assert!(seconds.len() == 3 && seconds[0] == 0.0 && seconds.windows(2).all(|pair| pair[0] < pair[1]), "{seconds:?}");
    for genre in result["overall"].as_array().unwrap() {
        let of = |frame: &Value| {
            let found = frame["genres"].as_array().unwrap().iter().find(|other| other["label"] == genre["label"]);
            found.unwrap()["score"].as_f64().unwrap()
        };
        let mean = frames.iter().map(of).sum::<f64>() / 3.0;
        assert!((mean - genre["score"].as_f64().unwrap()).abs() < 1e-5);
    }
}

#[test]
fn overall_is_the_mean_over_the_years_without_an_overall_model() {
    let server = Server::start_with(&[], |listed| {
        listed["overall"] = Value::Null;
        listed.as_object_mut().unwrap().remove("precision"); // files of earlier versions have no precision
    });
    let response = server.predict(&[("a.png", &media("gray.png"))]).json();
    assert_schema("Predictions", &response);
    assert_schema("Models", &server.get("/api/models").json());
    let result = &response["results"][0];
    for genre in result["overall"].as_array().unwrap() {
        let years = result["years"].as_array().unwrap().iter();
        let scores: Vec<f64> = years
            .flat_map(|year| year["genres"].as_array().unwrap())
            .filter(|other| other["label"] == genre["label"])
            .map(|other| other["score"].as_f64().unwrap())
            .collect();
        assert_eq!(scores.len(), if genre["label"] == "Horror" { 2 } else { 3 });
        assert!((scores.iter().sum::<f64>() / scores.len() as f64 - genre["score"].as_f64().unwrap()).abs() < 1e-6);
    }
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

#[test]
fn routes_match_the_openapi_description_and_have_security_headers() {
    let server = Server::start(&[]);
    let mut described: Vec<String> = openapi()["paths"].as_object().unwrap().keys().cloned().collect();
    described.sort();
    let mut served = vec!["/api/predict".to_string()];
    for path in described.iter().filter(|path| *path != "/api/predict") {
        let response = server.get(path);
        assert_eq!(response.status, 200, "{path}");
        let content_types = &openapi()["paths"][path]["get"]["responses"]["200"]["content"];
        let content_type = response.headers["content-type"].to_str().unwrap();
        let is_described =
            content_types.as_object().unwrap().keys().any(|described| content_type.starts_with(described));
        assert!(is_described, "{path}: {content_type}");
        served.push(path.clone());
    }
    served.sort();
    assert_eq!(served, described);

    let page = server.get("/").text;
    for attribute in ["src=\"", "href=\""] {
        for link in page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(described.contains(&format!("/{link}")), "the page links to {link}");
        }
    }
    assert!(
        !page.contains("style=") && !page.contains("onclick") && !page.contains("http"),
        "inline styles or scripts, or resources of other hosts"
    );
    let api = openapi();
    for source in ["api.rs", "upload.rs", "api_error.rs"] {
        // Every status in the code is described.
        let code = fs::read_to_string(root().join("src/serve").join(source)).unwrap();
        for (name, status) in [
            ("BAD_REQUEST", "400"),
            ("REQUEST_TIMEOUT", "408"),
            ("PAYLOAD_TOO_LARGE", "413"),
            ("UNSUPPORTED_MEDIA_TYPE", "415"),
            ("UNPROCESSABLE_ENTITY", "422"),
            ("TOO_MANY_REQUESTS", "429"),
            ("INTERNAL_SERVER_ERROR", "500"),
            ("SERVICE_UNAVAILABLE", "503"),
        ] {
            let described = api["paths"]["/api/predict"]["post"]["responses"].get(status).is_some();
            assert!(described || !code.contains(name), "{status} of {source}");
        }
    }

    assert!(server.get("/nowhere").error(404).contains("/nowhere"));
    assert!(server.get("/../Cargo.toml").error(404).contains("no resource at"));
    server.get("/api/predict").error(405);
    read_response(server.agent.post(server.url("/healthz")).send_empty().unwrap()).error(405);
    assert_schema("Models", &server.get("/api/models").json());
    assert_eq!(server.get("/api/openapi.json").json(), openapi());
    assert_eq!(server.get("/healthz").json(), json!({"status": "ok"}));

    for path in ["/", "/app.js", "/nowhere", "/api/models"] {
        let headers = server.get(path).headers;
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(
            (header("x-content-type-options"), header("referrer-policy")),
            ("nosniff".into(), "no-referrer".into())
        );
    }
}

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

const REQUEST_HEAD: &str =
    "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=cut\r\n";

/// Sends the head of a request and the start of its body.
fn start_request(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{REQUEST_HEAD}Content-Length: 1000\r\n\r\n--cut\r\n").unwrap();
    stream
}

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

#[test]
fn zero_frames_per_video_are_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let output = command(dir.path()).args(["--frames", "0"]).output().unwrap();
    assert_code(&output, 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--frames"));
}

#[test]
fn inconsistent_models_are_rejected() {
    let assert_rejected = |change: &dyn Fn(&mut Value), expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        save_models(dir.path(), change);
        let output = command(dir.path()).output().unwrap();
        assert_code(&output, 1);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains(expected), "{message}");
    };
    assert_rejected(&|listed| listed["model_sha256"] = json!("00ff"), "was fitted to features of another network");
    assert_rejected(&|listed| listed["years"][0]["thresholds"] = json!([0.5]), "has 4 genres");
    assert_rejected(&|listed| listed["labels"] = json!(["Action", "Comedy"]), "has the genre \"Drama\"");
    assert_rejected(&|listed| listed["card"] = json!("huge"), "no such model card; known: tiny");
    assert_rejected(&|listed| listed["years"][1]["directory"] = json!("1999"), "1999");
    assert_rejected(&|listed| listed["precision"] = json!("bf16"), "unknown variant `bf16`, expected `f32`");
    let dir = tempfile::tempdir().unwrap();
    save_models(dir.path(), |_| {});
    save_head(&dir.path().join("all"), 9, &LABELS, &Provenance { precision: "bf16".into(), ..tiny_provenance() });
    let output = command(dir.path()).output().unwrap();
    assert_code(&output, 1);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("was fitted to features of precision bf16, but posters.json lists f32"), "{message}");
    let empty = tempfile::tempdir().unwrap();
    let output = command(&PathBuf::from(empty.path())).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("posters.json: No such file"));
}

/// Returns a working directory with placeholder files of ONNX Runtime Web.
fn dir_with_runtime() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().join("third_party/onnxruntime-web");
    fs::create_dir_all(&runtime).unwrap();
    for name in ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm", "LICENSE"] {
        fs::write(runtime.join(name), name).unwrap();
    }
    fs::write(runtime.join("VERSION"), "1.2.3\n").unwrap();
    dir
}

#[test]
fn exported_site_contains_page_runtime_and_models() {
    let server = Server::start(&[]);
    let dir = dir_with_runtime();
    let site = dir.path().join("a/site");
    let export = || command(server.models.path()).current_dir(&dir).arg("--export").arg(&site).output().unwrap();
    assert_code(&export(), 0);

    let read = |name: &str| fs::read_to_string(site.join(name)).unwrap();
    for name in ["app.js", "view.js", "download.js", "style.css", "icon.svg"] {
        assert_eq!(read(name), server.get(&format!("/{name}")).text, "{name}");
    }
    let policy = "script-src 'self' 'wasm-unsafe-eval'";
    assert!(read("index.html").contains(policy) && !server.get("/").text.contains(policy));
    assert!(read("predict.js").contains("worker.js") && !read("predict.js").contains("api/predict"));
    assert_eq!(read("onnxruntime/ort-wasm.js"), "ort-wasm-simd-threaded.mjs");

    let site_models: Value = serde_json::from_str(&read("models.json")).unwrap();
    let mut description = server.get("/api/models").json()["models"][0].take();
    description["provider"] = json!("ONNX Runtime 1.2.3 in the browser");
    assert_eq!(site_models["models"][0], description);
    let resize = &site_models["network"]["input"]["resize"];
    assert_eq!((resize, &site_models["network"]["output"]), (&json!({"size": [64, 64]}), &json!("code")));
    let heads = site_models["heads"].as_array().unwrap();
    let files: Vec<&str> = heads.iter().map(|head| head["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["heads/2004.onnx", "heads/2005.onnx", "heads/2006.onnx", "heads/all.onnx"]);
    for part in heads.iter().chain([&site_models["network"]]) {
        let length = fs::metadata(site.join(part["file"].as_str().unwrap())).unwrap().len();
        assert_eq!(part["bytes"], json!(length));
    }

    // An existing site is overwritten, but not a directory with other files.
    assert_code(&export(), 0);
    fs::remove_file(site.join("models.json")).unwrap();
    let rejected = export();
    assert_code(&rejected, 1);
    assert!(String::from_utf8_lossy(&rejected.stderr).contains("not an exported site: choose another one"));
}
