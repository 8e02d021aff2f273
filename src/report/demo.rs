//! What classifiers recognize of the demo clips, whose label is a texture and a motion.

use super::compare::{ComparedRun, Part};
use super::markdown::percent;
use super::table::Table;
use crate::demo::clips::{MOTIONS, TEXTURES};

/// Returns the accuracy of each run for the texture, the motion and both, over its validation and test clips; `None` if the labels
/// are not those of the demo clips (`TEXTURE-MOTION`).
pub fn textures_and_motions(runs: &[ComparedRun]) -> Option<Table> {
    let mut table = Table::new(&["method · classifier", "weights", "clips", "texture", "motion", "both"], 2);
    for run in runs {
        let parts = [Part::Val, Part::Test].into_iter().filter_map(|part| run.parts.get(&part));
        let mut correct = [0u64; 3];
        let mut clips = 0u64;
        for part in parts {
            let classes: Vec<(&str, &str)> =
                part.classes.iter().map(|class| attributes(class)).collect::<Option<_>>()?;
            for row in part.labeled_rows() {
                let (truth, predicted) = (classes[*part.truth[row].first()?], classes[*part.predicted[row].first()?]);
                clips += 1;
                for (count, equal) in
                    correct.iter_mut().zip([truth.0 == predicted.0, truth.1 == predicted.1, truth == predicted])
                {
                    *count += u64::from(equal);
                }
            }
        }
        if clips > 0 {
            let weights = if run.identity.untrained { "UNTRAINED" } else { run.identity.weights.as_str() };
            let mut cells = vec![run.name.clone(), weights.into(), clips.to_string()];
            cells.extend(correct.map(|count| percent(count as f64 / clips as f64)));
            table.rows.push(cells);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Returns the texture and the motion of a class of the demo clips.
fn attributes(class: &str) -> Option<(&str, &str)> {
    class.split_once('-').filter(|(texture, motion)| TEXTURES.contains(texture) && MOTIONS.contains(motion))
}
