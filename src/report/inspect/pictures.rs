//! Pictures of a manifest that are no posters: of another shape, of one color, not readable.

use std::ops::RangeInclusive;

use rayon::prelude::*;

use crate::manifest::Manifest;
use crate::media::ImageStats;
use crate::report::table::Table;

/// Width over height of posters: film posters are 0.67 to 0.71, lobby cards and banners wider, some regions' narrower.
const ASPECT: RangeInclusive<f64> = 0.5..=0.9;
/// Standard deviation of the pixels below which a picture counts as flat: a blank, or a placeholder.
const FLAT: f64 = 8.0;
/// Pictures that are named.
const NAMED: usize = 10;

/// The pictures of a manifest.
pub(super) struct Pictures {
    /// How many there are.
    count: usize,
    /// Every one: id, width, height, aspect, deviation, and what is wrong with it as a poster, if anything is.
    pub table: Table,
}

/// Looks at every clip that is a picture; `None` where there is none.
pub(super) fn look(manifest: &Manifest) -> Option<Pictures> {
    let clips: Vec<_> = manifest.clips.iter().filter(|clip| clip.is_image() && clip.file.is_file()).collect();
    let mut table = Table::new(&["id", "width", "height", "aspect", "deviation", "remark"], 1);
    table.rows = clips
        .par_iter()
        .map(|clip| match ImageStats::read(&clip.file) {
            Ok(still) => {
                let mut remarks = Vec::new();
                if !ASPECT.contains(&still.aspect()) {
                    remarks.push(format!("width over height {:.2}", still.aspect()));
                }
                if still.deviation < FLAT {
                    remarks.push(format!("one color (deviation {:.1})", still.deviation));
                }
                let numbers = [still.width.to_string(), still.height.to_string()];
                let [width, height] = numbers;
                let (aspect, deviation) = (format!("{:.3}", still.aspect()), format!("{:.1}", still.deviation));
                vec![clip.id.clone(), width, height, aspect, deviation, remarks.join(", ")]
            }
            Err(error) => {
                let nothing = || String::from("–");
                vec![clip.id.clone(), nothing(), nothing(), nothing(), nothing(), format!("cannot be read: {error}")]
            }
        })
        .collect();
    (!clips.is_empty()).then_some(Pictures { count: clips.len(), table })
}

impl Pictures {
    /// How many there are, and which are no posters, the first by name.
    pub fn lines(&self) -> Vec<String> {
        let strange: Vec<&Vec<String>> = self.table.rows.iter().filter(|row| !row[5].is_empty()).collect();
        let mut lines = vec![format!(
            "pictures: {}, of which {} do not look like posters (width over height outside {} to {}, one color, or unreadable)",
            self.count,
            strange.len(),
            ASPECT.start(),
            ASPECT.end()
        )];
        lines.extend(strange.iter().take(NAMED).map(|row| format!("  {}: {}", row[0], row[5])));
        if strange.len() > NAMED {
            lines.push(format!("  and {} more", strange.len() - NAMED));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Clip;

    #[test]
    fn what_is_no_poster_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, width: usize, height: usize, pixel: &dyn Fn(usize) -> u8| {
            let mut picture = format!("P5\n{width} {height}\n255\n").into_bytes();
            picture.extend((0..width * height).map(pixel));
            std::fs::write(folder.path().join(name), picture).unwrap();
        };
        write("poster.pgm", 60, 90, &|i| (i * 37 % 251) as u8);
        write("banner.pgm", 90, 60, &|i| (i * 37 % 251) as u8);
        write("blank.pgm", 60, 90, &|i| 120 + (i % 3) as u8);
        std::fs::write(folder.path().join("broken.jpg"), "no picture").unwrap();
        let clips = ["poster.pgm", "banner.pgm", "blank.pgm", "broken.jpg", "film.mp4"].map(|name| Clip {
            id: name.into(),
            path: name.into(),
            file: folder.path().join(name),
            ..Clip::default()
        });
        let manifest =
            Manifest { source: "m.csv".into(), clips: clips.to_vec(), warnings: vec![], sha256: String::new() };
        let lines = look(&manifest).unwrap().lines();
        assert!(lines[0].starts_with("pictures: 4, of which 3 do not look like posters"), "{lines:?}");
        assert_eq!(lines[1], "  banner.pgm: width over height 1.50");
        assert!(lines[2].starts_with("  blank.pgm: one color (deviation 0.8)"), "{lines:?}");
        assert!(lines[3].starts_with("  broken.jpg: cannot be read: "), "{lines:?}");
        let without = Manifest { clips: clips[4..].to_vec(), ..manifest };
        assert!(look(&without).is_none());
    }
}
