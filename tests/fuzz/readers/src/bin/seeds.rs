//! Writes the initial corpus that is not a file of the repository: a journal with clips and a failure.
//! Usage: seeds FOLDER

use std::path::PathBuf;

use kinoprobe::store::{ClipRows, Failure, Journal, Payload, Provenance, RowSource, Values};
use ndarray::Array2;

fn main() -> kinoprobe::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: seeds FOLDER"));
    let mut journal = Journal::open(&folder.join("seed.h5"), Payload::Features { dim: 4 }, &Provenance::default())?;
    for id in ["a", "b"] {
        let row = RowSource { start_frame: 0, start_seconds: 0.0, end_seconds: 0.1, padded: false };
        journal.push(&ClipRows {
            id: id.into(),
            path: format!("{id}.mp4"),
            frame_count: 2,
            fps: 25.0,
            duration_seconds: 0.08,
            rows: vec![row, row],
            values: Values::Features(Array2::from_elem((2, 4), 0.5)),
        })?;
    }
    journal.push_failure(Failure { id: "c".into(), stage: "decode".into(), error: "no video stream".into() })?;
    journal.checkpoint(1.0)
}
