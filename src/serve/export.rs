//! The page as a static site that runs the models in the visitor's browser: `kinoprobe-serve --export`.
//!
//! The site holds the page's files with another `predict.js`, ONNX Runtime for browsers, the network, the heads, and
//! `models.json`: what the API says of the models, and what the browser must know to run them. Any static host serves it,
//! from any folder; nothing is loaded from elsewhere and no picture is sent anywhere.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::page::{ASSETS, Asset};
use super::{Chosen, Options, answer};
use crate::cli::Outcome;
use crate::error::{Error, Result};

/// The file that tells the browser of the models, and a folder that it is an exported site.
const MODELS: &str = "models.json";
/// Where ONNX Runtime for browsers lies, beside the working directory or in the sources.
const RUNTIME: &str = "third_party/onnxruntime-web";
/// Its files, and what they are called in a site: some hosts do not know the ending `.mjs`.
const RUNTIME_FILES: [(&str, &str); 4] = [
    ("ort.wasm.min.mjs", "ort.js"),
    ("ort-wasm-simd-threaded.mjs", "ort-wasm.js"),
    ("ort-wasm-simd-threaded.wasm", "ort-wasm.wasm"),
    ("LICENSE", "LICENSE"),
];
/// The file of [`RUNTIME`] that says its version.
const VERSION: &str = "VERSION";

/// What a site has that the page does not, or has otherwise.
const SCRIPTS: [(&str, &str); 5] = [
    ("predict.js", include_str!("site/predict.js")),
    ("answer.js", include_str!("site/answer.js")),
    ("picture.js", include_str!("site/picture.js")),
    ("transform.js", include_str!("site/transform.js")),
    ("worker.js", include_str!("site/worker.js")),
];

/// What the server's headers say, as far as a page itself can say it. WebAssembly must be compiled.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; \
                      connect-src 'self'; worker-src 'self'; form-action 'none'; base-uri 'none'";

/// Writes the site into the folder `dir`, which is made where it is missing; a site that is there is made anew.
///
/// # Errors
/// The models, the card or the weights cannot be had, or do not fit each other; ONNX Runtime for browsers is missing;
/// `dir` holds something else; a file cannot be written.
pub fn export(options: &Options, dir: &Path) -> Result<Outcome> {
    let Chosen { models, card, prepared } = Chosen::load(options)?;
    let runtime = runtime()?;
    make_room(dir)?;

    for Asset { path, content, .. } in &ASSETS {
        match *path {
            "/" => write(&dir.join("index.html"), guarded(content).as_bytes())?,
            path => write(&dir.join(&path[1..]), content.as_bytes())?,
        }
    }
    for (name, content) in SCRIPTS {
        write(&dir.join(name), content.as_bytes())?;
    }
    for (name, here) in RUNTIME_FILES {
        copy(&runtime.join(name), &dir.join("onnxruntime").join(here))?;
    }
    let network = copy(&prepared.onnx, &dir.join("network.onnx"))?;
    let mut heads = Vec::new();
    let posters = &models.posters;
    let years = posters.years.iter().map(|year| &year.folder);
    for folder in years.chain(posters.overall.iter().map(|all| &all.folder)) {
        let file = format!("heads/{folder}.onnx");
        let bytes = copy(&options.models.join(folder).join("model.onnx"), &dir.join(&file))?;
        heads.push(json!({ "file": file, "bytes": bytes }));
    }

    let version = std::fs::read_to_string(runtime.join(VERSION)).map_err(Error::io(runtime.join(VERSION)))?;
    let provider = format!("ONNX Runtime {} in the browser", version.trim());
    let mut said = answer::described(&models, &provider);
    said["untrained"] = json!(posters.untrained || prepared.untrained);
    let known = json!({
        "models": [said],
        "limits": { "picture_megabytes": options.limits.picture_megabytes, "megapixels": options.limits.megapixels },
        "network": { "file": "network.onnx", "bytes": network, "input": card.input, "output": card.output.name },
        "heads": heads,
    });
    // Last: what tells of the models is there only where they are.
    write(&dir.join(MODELS), compact(&known).as_bytes())?;
    println!("{}", dir.display());
    Ok(Outcome::Done)
}

fn compact(value: &Value) -> String {
    format!("{value}\n")
}

/// The folder of ONNX Runtime for browsers.
fn runtime() -> Result<PathBuf> {
    let places = [PathBuf::from(RUNTIME), Path::new(env!("CARGO_MANIFEST_DIR")).join(RUNTIME)];
    let is_whole = |place: &PathBuf| place.join(VERSION).is_file();
    places.into_iter().find(is_whole).ok_or_else(|| Error::Config {
        path: RUNTIME.into(),
        message: "ONNX Runtime for browsers is missing: run setup/web.sh".into(),
    })
}

/// Makes the folder; what an earlier site left of its models goes.
fn make_room(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let is_site = dir.join(MODELS).is_file();
    let is_empty = std::fs::read_dir(dir).map_err(Error::io(dir))?.next().is_none();
    if !is_site && !is_empty {
        let message = "is not empty, and no exported site: name a new folder".into();
        return Err(Error::Config { path: dir.to_path_buf(), message });
    }
    let heads = dir.join("heads");
    if is_site && heads.is_dir() {
        std::fs::remove_dir_all(&heads).map_err(Error::io(&heads))?;
    }
    Ok(())
}

/// The page, kept to its own files by itself, where no server's header does it.
fn guarded(html: &str) -> String {
    html.replacen(
        "<head>\n",
        &format!("<head>\n<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n"),
        1,
    )
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let mut file = std::fs::File::create(path).map_err(Error::io(path))?;
    file.write_all(content).map_err(Error::io(path))
}

/// Copies a file and gives its length in bytes.
fn copy(from: &Path, to: &Path) -> Result<u64> {
    let content = std::fs::read(from).map_err(Error::io(from))?;
    write(to, &content)?;
    Ok(content.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_keeps_to_its_own_files() {
        let html = guarded(ASSETS.iter().find(|asset| asset.path == "/").unwrap().content);
        assert_eq!(html.matches(POLICY).count(), 1);
        let scripts = SCRIPTS.iter().map(|(_, content)| *content).chain(ASSETS.iter().map(|asset| asset.content));
        for content in scripts.chain([html.as_str()]) {
            let elsewhere = content.replace("http://www.w3.org/2000/svg", ""); // a name space, never fetched
            assert!(!elsewhere.contains("://"), "{content}");
        }
    }

    #[test]
    fn a_folder_with_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        make_room(dir.path()).unwrap();
        write(&dir.path().join("thesis.txt"), b"years of work").unwrap();
        let error = make_room(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is not empty, and no exported site"), "{error}");
        write(&dir.path().join(MODELS), b"{}").unwrap();
        write(&dir.path().join("heads/1999.onnx"), b"old").unwrap();
        make_room(dir.path()).unwrap();
        assert!(!dir.path().join("heads").exists());
    }
}
