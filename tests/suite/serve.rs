//! The server: the real program, over real HTTP, with the tiny network and models fitted to noise.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kinoprobe::classify::{self, About, Fitting, SavedModel};
use kinoprobe::dataset::{Dataset, Task};
use kinoprobe::models::fetch;
use kinoprobe::posters::PosterModels;
use kinoprobe::recipe::{ClassifierKind, Classify, Recipe};
use kinoprobe::store::{FeatureStore, Provenance};
use ndarray::Array2;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{assert_code, fixture, root, send_signal};

const LABELS: [&str; 4] = ["Action", "Comedy", "Drama", "Horror"];
const YEARS: [i32; 3] = [2004, 2005, 2006];

/// Fits a small network to noise and saves it as `dir`.
fn save_head(dir: &Path, seed: u64, labels: &[&str], sha256: &str) {
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
    let mut fitting = Fitting { seed, task: Task::MultiLabel, threads: 1, progress: &mut progress };
    let fitted = classify::build(&settings, ClassifierKind::Mlp).fit(&data, &data, &mut fitting).unwrap();
    let recipe = Recipe::load(&fixture("pipelines/tiny.toml")).unwrap();
    let provenance = Provenance { model_sha256: sha256.into(), ..Provenance::default() };
    let about = About { task: Task::MultiLabel, classes, dim: 8, ..About::of(&provenance, &recipe) };
    SavedModel { about, model: fitted.model }.save(dir).unwrap();
}

/// A trained set of poster models, as `posters.json` lists it.
fn save_models(dir: &Path, change: impl FnOnce(&mut Value)) {
    let sha256 = fetch::sha256_of(&fixture("models/tiny.onnx")).unwrap();
    for (seed, year) in YEARS.iter().enumerate() {
        // The last year knows one genre less.
        save_head(&dir.join(year.to_string()), seed as u64, &LABELS[..4 - seed / 2], &sha256);
    }
    save_head(&dir.join("all"), 9, &LABELS, &sha256);
    let year = |year: i32, thresholds: &[f32]| {
        json!({"year": year, "folder": year.to_string(), "thresholds": thresholds,
               "clips": {"train": 40, "val": 4, "test": 4}, "metrics": {"map": 0.5}})
    };
    let mut listed = json!({
        "format": "kinoprobe-posters", "format_version": 1, "method": "tiny", "card": "tiny", "weights": "file",
        "model_sha256": sha256, "untrained": false, "demo": true, "labels": LABELS, "by": "year", "window": null,
        "years": [year(2004, &[0.5; 4]), year(2005, &[0.4; 4]), year(2006, &[0.3; 3])],
        "overall": {"folder": "all", "thresholds": [0.5, 0.5, 0.5, 0.5]},
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

struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The sentence of a refusal.
    #[track_caller]
    fn refusal(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        conforms("Error", &self.json());
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
            line.trim().strip_prefix("http://").expect("the address comes first").trim_end_matches('/').into();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { child, address, models, agent }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(self.url(path)).call().unwrap())
    }

    fn predict(&self, files: &[(&str, &[u8])]) -> Answer {
        let parts: Vec<_> = files.iter().map(|(name, bytes)| ("file", *name, *bytes)).collect();
        self.send(&parts)
    }

    fn send(&self, parts: &[(&str, &str, &[u8])]) -> Answer {
        let request = self.agent.post(self.url("/api/predict")).content_type("multipart/form-data; boundary=cut");
        answer(request.send(form(parts)).unwrap())
    }

    /// Sends a signal and gives the exit code.
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

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let text = response.body_mut().read_to_string().unwrap();
    Answer { status: response.status().as_u16(), headers: response.headers().clone(), text }
}

/// A multipart body with boundary `cut`.
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

/// Asserts that `value` is what the API's description calls `schema`.
#[track_caller]
fn conforms(schema: &str, value: &Value) {
    let mut whole = openapi();
    whole["$ref"] = json!(format!("#/components/schemas/{schema}"));
    let validator = jsonschema::draft202012::new(&whole).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{schema}: {errors:?}\n{value:#}");
}

fn media(name: &str) -> Vec<u8> {
    fs::read(fixture("media").join(name)).unwrap()
}

/// A PNG's header that claims a size, and nothing after it.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    png.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    png
}

#[test]
fn pictures_get_the_scores_of_their_features_in_a_store() {
    let server = Server::start(&["--batch", "4"]);
    let pictures = ["alpha.png", "gray.png", "pixel.png", "sixteen.png", "pictures/turned_6.jpg", "pictures/cmyk.jpg"];
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = String::from("id,path\n");
    for name in pictures {
        manifest += &format!("{name},{}\n", fixture("media").join(name).display());
    }
    fs::write(folder.path().join("manifest.csv"), manifest).unwrap();
    let store = folder.path().join("tiny.h5");
    let mut extract = Command::new(env!("CARGO_BIN_EXE_kinoprobe-extract"));
    extract.current_dir(root()).args(["--method", "tiny", "--recipe"]).arg(fixture("pipelines/tiny.toml"));
    extract.arg("--models").arg(fixture("models")).arg("--manifest").arg(folder.path().join("manifest.csv"));
    assert_code(&extract.arg("--out").arg(&store).output().unwrap(), 0);
    let features = FeatureStore::open(&store).unwrap().features(0..pictures.len()).unwrap();
    let models = PosterModels::load(server.models.path()).unwrap();
    let wanted = models.scores(features.view()).unwrap();

    let bytes: Vec<Vec<u8>> = pictures.iter().map(|name| media(name)).collect();
    let files: Vec<(&str, &[u8])> =
        pictures.iter().zip(&bytes).map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let several = server.predict(&files);
    assert_eq!(several.status, 200, "{}", several.text);
    let several = several.json();
    conforms("Predictions", &several);
    assert_eq!(several["model"]["demo"], true);
    for (i, wanted) in wanted.iter().enumerate() {
        let result = &several["results"][i];
        assert_eq!((&result["name"], &result["kind"]), (&json!(pictures[i].rsplit('/').next()), &json!("image")));
        let heads = models.years.iter().zip(&wanted.years).zip(result["years"].as_array().unwrap());
        let years = heads.map(|((head, scores), got)| (&head.labels, scores, &got["genres"]));
        let overall = (&models.overall.as_ref().unwrap().labels, wanted.overall.as_ref().unwrap(), &result["overall"]);
        for (labels, scores, got) in years.chain([overall]) {
            let got = got.as_array().unwrap();
            assert_eq!(got.len(), scores.len());
            assert!(got.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));
            for (&label, &score) in labels.iter().zip(scores) {
                let genre = got.iter().find(|genre| genre["label"] == LABELS[label]).unwrap();
                let distance = (genre["score"].as_f64().unwrap() - f64::from(score)).abs();
                assert!(distance < 1e-6, "{}: {genre} against {score}", pictures[i]);
            }
        }
        // One by one or together: the same.
        let alone = server.predict(&files[i..=i]).json();
        for (ours, theirs) in
            alone["results"][0]["overall"].as_array().unwrap().iter().zip(result["overall"].as_array().unwrap())
        {
            assert!((ours["score"].as_f64().unwrap() - theirs["score"].as_f64().unwrap()).abs() < 1e-6);
        }
    }
    assert_ne!(several["results"][0]["overall"], several["results"][1]["overall"]);
}

#[test]
fn a_video_gives_genres_over_time() {
    let server = Server::start(&["--frames", "3"]);
    let answer = server.predict(&[("a trailer.mp4", &media("plain.mp4"))]);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    conforms("Predictions", &answer);
    let result = &answer["results"][0];
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
fn without_a_model_for_all_overall_is_the_mean_of_the_years() {
    let server = Server::start_with(&[], |listed| listed["overall"] = Value::Null);
    let answer = server.predict(&[("a.png", &media("gray.png"))]).json();
    conforms("Predictions", &answer);
    conforms("Models", &server.get("/api/models").json());
    let result = &answer["results"][0];
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
fn bad_files_are_refused_with_their_status_and_a_sentence() {
    let server =
        Server::start(&["--files", "2", "--picture-megabytes", "1", "--request-megabytes", "2", "--seconds", "2"]);
    let jpeg = media("pictures/turned_3.jpg");
    let good = media("gray.png");
    let says = |files: &[(&str, &[u8])], status: u16, sentence: &str| {
        let said = server.predict(files).refusal(status);
        assert!(said.contains(sentence), "{said}");
        let temporary = std::env::temp_dir();
        let (ours, theirs) = (root().to_str().unwrap(), temporary.to_str().unwrap());
        assert!(!said.contains(ours) && !said.contains(theirs), "a path of the server: {said}");
    };
    says(&[("text.jpg", b"no picture at all")], 415, "text.jpg is neither a picture");
    says(&[("list.mp4", b"#EXTM3U\nfile:///etc/passwd\n")], 415, "list.mp4 is neither");
    says(&[("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")], 415, "neither a picture");
    says(&[("empty.png", b"")], 422, "empty.png is empty");
    says(&[("half.jpg", &jpeg[..jpeg.len() / 2])], 422, "half.jpg cannot be decoded: the picture is cut off");
    says(&[("half.png", &good[..good.len() - 20])], 422, "half.png cannot be decoded");
    says(&[("noise.jpg", &[&b"\xff\xd8\xff\xe0"[..], &[7; 600]].concat())], 422, "noise.jpg cannot be decoded");
    says(&[("head.mp4", &media("plain.mp4")[..900])], 422, "head.mp4 cannot be decoded");
    says(&[("sound.mp4", &media("audio_only.mp4"))], 422, "no video stream");
    says(&[("bomb.png", &png_claiming(60_000, 60_000))], 413, "bomb.png claims 3600000000 pixels");
    says(&[("long.mp4", &media("plain.mp4"))], 413, "long.mp4 is longer than 2 seconds");
    says(&[("large.png", &[&good[..], &[0; 1 << 20]].concat())], 413, "large.png has more than 1 MB");
    says(&[("large.mp4", &[&media("ten.mp4")[..], &vec![0; 2 << 20]].concat())], 413, "the request is too large");
    says(&[("a.png", &good), ("b.png", &good), ("c.png", &good)], 413, "at most 2 files");
    says(&[("a.png", &good), ("b.txt", b"text")], 415, "b.txt is neither");
    says(&[], 400, "in a field called file");
    assert!(server.send(&[("picture", "a.png", &good)]).refusal(400).contains("in a field called file"));
    let plain = server.agent.post(server.url("/api/predict")).content_type("text/plain").send("x").unwrap();
    answer(plain).refusal(400);
    let cut = server.agent.post(server.url("/api/predict")).content_type("multipart/form-data; boundary=cut");
    answer(cut.send(&form(&[("file", "a.png", &good)])[..80]).unwrap()).refusal(400);
    // After all that it works as before.
    assert_eq!(server.predict(&[("../a/b.png", &good)]).json()["results"][0]["name"], "b.png");
}

#[test]
fn every_route_and_status_is_described_and_safe() {
    let server = Server::start(&[]);
    let mut described: Vec<String> = openapi()["paths"].as_object().unwrap().keys().cloned().collect();
    described.sort();
    let mut served = vec!["/api/predict".to_string()];
    for path in described.iter().filter(|path| *path != "/api/predict") {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}");
        let kinds = &openapi()["paths"][path]["get"]["responses"]["200"]["content"];
        let kind = answer.headers["content-type"].to_str().unwrap();
        assert!(kinds.as_object().unwrap().keys().any(|known| kind.starts_with(known)), "{path}: {kind}");
        served.push(path.clone());
    }
    served.sort();
    assert_eq!(served, described);

    let page = server.get("/").text;
    for attribute in ["src=\"", "href=\""] {
        for link in page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(described.contains(&format!("/{link}")), "the page asks for {link}");
        }
    }
    assert!(!page.contains("style=") && !page.contains("onclick") && !page.contains("http"), "inline or elsewhere");
    let api = openapi();
    for source in ["api.rs", "upload.rs", "refusal.rs"] {
        // Each status that the code can give stands in the description.
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

    assert!(server.get("/nowhere").refusal(404).contains("/nowhere"));
    assert!(server.get("/../Cargo.toml").refusal(404).contains("nothing at"));
    server.get("/api/predict").refusal(405);
    answer(server.agent.post(server.url("/healthz")).send_empty().unwrap()).refusal(405);
    conforms("Models", &server.get("/api/models").json());
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
fn prometheus_reads_what_was_counted() {
    let server = Server::start(&[]);
    server.predict(&[("a.png", &media("gray.png"))]);
    server.predict(&[("a.txt", b"text")]);
    let text = server.get("/metrics").text;
    for line in [
        "kinoprobe_requests_total{route=\"/api/predict\",status=\"200\"} 1",
        "kinoprobe_requests_total{route=\"/api/predict\",status=\"415\"} 1",
        "kinoprobe_predict_seconds_count 1",
        "kinoprobe_batch_pictures_sum 1.0",
        "kinoprobe_free_places 128",
        "# EOF",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("kinoprobe_resident_memory_bytes "), "{text}");
}

#[test]
fn under_load_some_are_refused_and_told_when_to_come_back() {
    let server = Server::start(&["--queue", "2"]);
    let poster = media("pictures/turned_3.jpg");
    // Two requests that have begun hold both places.
    let held: Vec<TcpStream> = (0..2).map(|_| begin(&server.address)).collect();
    while !server.get("/metrics").text.contains("kinoprobe_free_places 0") {
        std::thread::yield_now();
    }
    let refused = server.predict(&[("a.jpg", &poster)]);
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.refusal(503).contains("try again"));
    assert_eq!(server.get("/healthz").status, 200);
    // Clients that vanish give their places back.
    drop(held);
    while !server.get("/metrics").text.contains("kinoprobe_free_places 2") {
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

const WHOLE: &str =
    "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=cut\r\n";

/// Begins a request and does not end it.
fn begin(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{WHOLE}Content-Length: 1000\r\n\r\n--cut\r\n").unwrap();
    stream
}

#[test]
fn a_signal_lets_requests_finish_that_have_begun() {
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start(&[]);
        let body = form(&[("file", "a.png", &media("gray.png"))]);
        let mut stream = TcpStream::connect(&server.address).unwrap();
        write!(stream, "{WHOLE}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        stream.write_all(&body[..50]).unwrap();
        while !server.get("/metrics").text.contains("kinoprobe_free_places 127") {
            std::thread::yield_now();
        }
        server.signal(signal);
        // The door is closed before the guests have left.
        while TcpStream::connect(&server.address).is_ok() {
            std::thread::yield_now();
        }
        stream.write_all(&body[50..]).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
    // With nothing to do it ends at once.
    let mut server = Server::start(&[]);
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.stop("-TERM"), Some(0));
}

#[test]
fn models_that_do_not_fit_are_refused_with_a_sentence() {
    let refused = |change: &dyn Fn(&mut Value), expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        save_models(folder.path(), change);
        let output = command(folder.path()).output().unwrap();
        assert_code(&output, 1);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(expected), "{said}");
    };
    refused(&|listed| listed["model_sha256"] = json!("00ff"), "was fitted to features of another network");
    refused(&|listed| listed["years"][0]["thresholds"] = json!([0.5]), "knows 4 genres");
    refused(&|listed| listed["labels"] = json!(["Action", "Comedy"]), "knows a genre \"Drama\"");
    refused(&|listed| listed["card"] = json!("huge"), "no such model card; there are tiny");
    refused(&|listed| listed["years"][1]["folder"] = json!("1999"), "1999");
    let empty = tempfile::tempdir().unwrap();
    let output = command(&PathBuf::from(empty.path())).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("posters.json: No such file"));
}

/// A folder to export from, with something in the place of ONNX Runtime for browsers.
fn with_runtime() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("third_party/onnxruntime-web");
    fs::create_dir_all(&runtime).unwrap();
    for name in ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm", "LICENSE"] {
        fs::write(runtime.join(name), name).unwrap();
    }
    fs::write(runtime.join("VERSION"), "1.2.3\n").unwrap();
    folder
}

#[test]
fn a_static_site_has_the_page_and_all_that_its_browser_needs() {
    let server = Server::start(&[]);
    let folder = with_runtime();
    let site = folder.path().join("a/site");
    let export = || command(server.models.path()).current_dir(&folder).arg("--export").arg(&site).output().unwrap();
    assert_code(&export(), 0);

    let read = |name: &str| fs::read_to_string(site.join(name)).unwrap();
    for name in ["app.js", "view.js", "download.js", "style.css", "icon.svg"] {
        assert_eq!(read(name), server.get(&format!("/{name}")).text, "{name}");
    }
    let policy = "script-src 'self' 'wasm-unsafe-eval'";
    assert!(read("index.html").contains(policy) && !server.get("/").text.contains(policy));
    assert!(read("predict.js").contains("worker.js") && !read("predict.js").contains("api/predict"));
    assert_eq!(read("onnxruntime/ort-wasm.js"), "ort-wasm-simd-threaded.mjs");

    let known: Value = serde_json::from_str(&read("models.json")).unwrap();
    let mut said = server.get("/api/models").json()["models"][0].take();
    said["provider"] = json!("ONNX Runtime 1.2.3 in the browser");
    assert_eq!(known["models"][0], said);
    let resize = &known["network"]["input"]["resize"];
    assert_eq!((resize, &known["network"]["output"]), (&json!({"size": [64, 64]}), &json!("code")));
    let heads = known["heads"].as_array().unwrap();
    let files: Vec<&str> = heads.iter().map(|head| head["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["heads/2004.onnx", "heads/2005.onnx", "heads/2006.onnx", "heads/all.onnx"]);
    for part in heads.iter().chain([&known["network"]]) {
        let length = fs::metadata(site.join(part["file"].as_str().unwrap())).unwrap().len();
        assert_eq!(part["bytes"], json!(length));
    }

    // Once more over it, but not over a folder of something else.
    assert_code(&export(), 0);
    fs::remove_file(site.join("models.json")).unwrap();
    let refused = export();
    assert_code(&refused, 1);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no exported site: name a new folder"));
}
