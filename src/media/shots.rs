//! Shots: the list that `kinoprobe-shots` writes and [`Sampling::Shots`](super::Sampling::Shots) reads.
//!
//! A CSV, one line a shot, with the columns `id,shot,start_frame,end_frame,start_seconds,end_seconds,probability`. Frames
//! are those of the clip's file from 0, `end_frame` the shot's last; seconds are when the first is shown and when the last
//! no longer is. `probability` is that of a cut behind `end_frame`. Only `id`, `start_frame` and `end_frame` are read.

use std::collections::HashMap;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shot {
    /// The clip's id in the manifest.
    pub id: String,
    /// Its number in the clip, from 0.
    pub shot: usize,
    /// Its first frame.
    pub start_frame: usize,
    /// Its last frame.
    pub end_frame: usize,
    /// When its first frame is shown; 0 where there is no clock.
    pub start_seconds: f64,
    /// When its last frame is no longer shown; 0 where there is no clock.
    pub end_seconds: f64,
    /// Probability of a cut behind its last frame, in [0, 1].
    pub probability: f32,
}

/// What is read of a line.
#[derive(Deserialize)]
struct Line {
    id: String,
    start_frame: usize,
    end_frame: usize,
}

/// The shots of many clips.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shots {
    /// The list's file.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Id → shots as ranges of frames of the file, ascending and apart.
    clips: HashMap<String, Vec<Range<usize>>>,
}

impl Shots {
    /// Reads a list.
    ///
    /// # Errors
    /// The file cannot be read, lacks a column, has a number that is none, a shot that ends before it begins, or shots of a
    /// clip that are out of order or overlap.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let wrong = |line: Option<u64>, message: String| Error::Table { path: path.to_path_buf(), line, message };
        let mut clips: HashMap<String, Vec<Range<usize>>> = HashMap::new();
        for (i, line) in
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes.as_slice()).deserialize().enumerate()
        {
            let number = Some(i as u64 + 2);
            let Line { id, start_frame, end_frame } = line.map_err(|e| {
                wrong(e.position().map(|p| p.line()).or(number), format!("{e}; kinoprobe-shots writes such a list"))
            })?;
            if end_frame < start_frame {
                return Err(wrong(number, format!("end_frame {end_frame} is before start_frame {start_frame}")));
            }
            let shots = clips.entry(id).or_default();
            if shots.last().is_some_and(|before| start_frame < before.end) {
                return Err(wrong(number, "begins before the shot above it ends: sort the shots of a clip".into()));
            }
            shots.push(start_frame..end_frame + 1);
        }
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { path: path.to_path_buf(), sha256, clips })
    }

    /// The shots of a clip.
    ///
    /// # Errors
    /// The list has none of it.
    pub fn of(&self, id: &str) -> Result<&[Range<usize>]> {
        self.clips.get(id).map(Vec::as_slice).ok_or_else(|| Error::Media {
            path: self.path.clone(),
            message: format!("lists no shots of clip {id}: run kinoprobe-shots on this manifest"),
        })
    }

    /// Writes a list; what stood at `path` goes only when the list is whole.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(path: &Path, shots: &[Shot]) -> Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(folder))?;
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        let into = |e: csv::Error| Error::io(path)(e.into());
        writer
            .write_record(["id", "shot", "start_frame", "end_frame", "start_seconds", "end_seconds", "probability"])
            .map_err(into)?;
        for shot in shots {
            let Shot { id, shot, start_frame, end_frame, start_seconds, end_seconds, probability } = shot;
            let (start, end) = (format!("{start_seconds:.3}"), format!("{end_seconds:.3}"));
            writer
                .serialize((id, shot, start_frame, end_frame, start, end, format!("{probability:.6}")))
                .map_err(into)?;
        }
        let bytes = writer.into_inner().map_err(|e| Error::io(path)(e.into_error()))?;
        file.write_all(&bytes).map_err(Error::io(path))?;
        file.persist(path).map_err(|e| Error::io(path)(e.error))?;
        Ok(())
    }
}

/// Shots from the probability that each frame is the last of one: frames above the threshold lie between shots, and the
/// first of such a run ends the shot before it.
///
/// # Source
/// `predictions_to_scenes` of TransNet V2's package, but for the end, which is one behind the last frame here.
pub fn from_probabilities(probabilities: &[f32], threshold: f32) -> Vec<Range<usize>> {
    let mut shots = Vec::new();
    let (mut start, mut cut) = (0, false);
    for (i, probability) in probabilities.iter().enumerate() {
        let before = std::mem::replace(&mut cut, *probability > threshold);
        match (before, cut) {
            (true, false) => start = i,
            (false, true) if i > 0 => shots.push(start..i + 1),
            _ => {}
        }
    }
    if !cut && !probabilities.is_empty() {
        shots.push(start..probabilities.len());
    }
    // Nothing but one long transition: one shot.
    if shots.is_empty() && !probabilities.is_empty() {
        shots.push(0..probabilities.len());
    }
    shots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_above_the_threshold_end_shots() {
        let shots = |text: &str| -> Vec<(usize, usize)> {
            let probabilities: Vec<f32> = text.bytes().map(|b| if b == b'1' { 0.9 } else { 0.1 }).collect();
            from_probabilities(&probabilities, 0.5).into_iter().map(|shot| (shot.start, shot.end)).collect()
        };
        assert_eq!(shots("0000"), [(0, 4)]);
        assert_eq!(shots("0010000100"), [(0, 3), (3, 8), (8, 10)]);
        assert_eq!(shots("0011100"), [(0, 3), (5, 7)]);
        assert_eq!(shots("1100"), [(2, 4)]);
        assert_eq!(shots("0011"), [(0, 3)]);
        assert_eq!(shots("111"), [(0, 3)]);
        assert!(shots("").is_empty());
    }

    #[test]
    fn a_list_is_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lists/shots.csv");
        let shot = |id: &str, shot, start_frame, end_frame| Shot {
            id: id.into(),
            shot,
            start_frame,
            end_frame,
            start_seconds: start_frame as f64 / 25.0,
            end_seconds: (end_frame + 1) as f64 / 25.0,
            probability: 0.75,
        };
        Shots::write(&path, &[shot("a, b", 0, 0, 9), shot("a, b", 1, 12, 12), shot("c", 0, 5, 7), shot("c", 1, 8, 8)])
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"a, b\",1,12,12,0.480,0.520,0.750000\n"), "{text}");
        let shots = Shots::load(&path).unwrap();
        assert_eq!(shots.of("a, b").unwrap(), [0..10, 12..13]);
        assert_eq!(shots.of("c").unwrap(), [5..8, 8..9]);
        let error = shots.of("d").unwrap_err().to_string();
        assert!(error.contains("shots.csv: lists no shots of clip d"), "{error}");
    }

    #[test]
    fn a_wrong_list_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shots.csv");
        for (lines, expected) in [
            ("a,5,3\n", "shots.csv:2: end_frame 3 is before start_frame 5"),
            ("a,0,9\nb,0,1\na,9,12\n", "shots.csv:4: begins before"),
            ("a,0,9\na,ten,12\n", "shots.csv:3: "),
        ] {
            std::fs::write(&path, format!("id,start_frame,end_frame\n{lines}")).unwrap();
            let error = Shots::load(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        std::fs::write(&path, "id,shot\na,1\n").unwrap();
        assert!(Shots::load(&path).unwrap_err().to_string().contains("start_frame"));
    }
}
