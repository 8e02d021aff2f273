//! Detects images that are probably not posters: unusual aspect ratio, uniform color, or unreadable.

use std::ops::RangeInclusive;

use rayon::prelude::*;

use crate::manifest::Manifest;
use crate::media::ImageStats;
use crate::report::table::Table;

/// Aspect ratios (width / height) of posters: film posters have 0.67 to 0.71, lobby cards and banners are wider, posters of
/// some regions narrower.
const ASPECT: RangeInclusive<f64> = 0.5..=0.9;
/// Standard deviation of the pixels below which an image is uniform, such as a placeholder.
const MIN_DEVIATION: f64 = 8.0;
/// Maximum number of listed images.
const MAX_LISTED: usize = 10;

/// The images of a manifest.
pub(super) struct Images {
    /// Number of images.
    count: usize,
    /// Id, width, height, aspect ratio, standard deviation of the pixels, and problem of each image.
    pub table: Table,
}

/// Checks every clip that is an image; `None` if there are none.
pub(super) fn check(manifest: &Manifest) -> Option<Images> {
    let clips: Vec<_> = manifest.clips.iter().filter(|clip| clip.is_image() && clip.file.is_file()).collect();
    let mut table = Table::new(&["id", "width", "height", "aspect", "deviation", "remark"], 1);
    table.rows = clips
        .par_iter()
        .map(|clip| match ImageStats::read(&clip.file) {
            Ok(stats) => {
                let mut remarks = Vec::new();
                if !ASPECT.contains(&stats.aspect()) {
                    remarks.push(format!("aspect ratio {:.2}", stats.aspect()));
                }
                if stats.deviation < MIN_DEVIATION {
                    remarks.push(format!("uniform color (standard deviation {:.1})", stats.deviation));
                }
                let numbers = [stats.width.to_string(), stats.height.to_string()];
                let [width, height] = numbers;
                let (aspect, deviation) = (format!("{:.3}", stats.aspect()), format!("{:.1}", stats.deviation));
                vec![clip.id.clone(), width, height, aspect, deviation, remarks.join(", ")]
            }
            Err(error) => {
                let unknown = || String::from("–");
                vec![clip.id.clone(), unknown(), unknown(), unknown(), unknown(), format!("unreadable: {error}")]
            }
        })
        .collect();
    (!clips.is_empty()).then_some(Images { count: clips.len(), table })
}

impl Images {
    /// Returns lines for the terminal: the number of images, and the first that are probably not posters.
    pub fn lines(&self) -> Vec<String> {
        let unusual: Vec<&Vec<String>> = self.table.rows.iter().filter(|row| !row[5].is_empty()).collect();
        let mut lines = vec![format!(
            "images: {}, of which {} are probably not posters (aspect ratio outside {} to {}, uniform color, or unreadable)",
            self.count,
            unusual.len(),
            ASPECT.start(),
            ASPECT.end()
        )];
        lines.extend(unusual.iter().take(MAX_LISTED).map(|row| format!("  {}: {}", row[0], row[5])));
        if unusual.len() > MAX_LISTED {
            lines.push(format!("  and {} more", unusual.len() - MAX_LISTED));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Clip;

    #[test]
    fn images_that_are_not_posters_are_listed() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, width: usize, height: usize, pixel: &dyn Fn(usize) -> u8| {
            let mut image = format!("P5\n{width} {height}\n255\n").into_bytes();
            image.extend((0..width * height).map(pixel));
            std::fs::write(directory.path().join(name), image).unwrap();
        };
        write("poster.pgm", 60, 90, &|i| (i * 37 % 251) as u8);
        write("banner.pgm", 90, 60, &|i| (i * 37 % 251) as u8);
        write("blank.pgm", 60, 90, &|i| 120 + (i % 3) as u8);
        std::fs::write(directory.path().join("broken.jpg"), "not an image").unwrap();
        let clips = ["poster.pgm", "banner.pgm", "blank.pgm", "broken.jpg", "film.mp4"].map(|name| Clip {
            id: name.into(),
            path: name.into(),
            file: directory.path().join(name),
            ..Clip::default()
        });
        let manifest =
            Manifest { source: "m.csv".into(), clips: clips.to_vec(), warnings: vec![], sha256: String::new() };
        let lines = check(&manifest).unwrap().lines();
        assert!(lines[0].starts_with("images: 4, of which 3 are probably not posters"), "{lines:?}");
        assert_eq!(lines[1], "  banner.pgm: aspect ratio 1.50");
        assert!(lines[2].starts_with("  blank.pgm: uniform color (standard deviation 0.8)"), "{lines:?}");
        assert!(lines[3].starts_with("  broken.jpg: unreadable: "), "{lines:?}");
        let without = Manifest { clips: clips[4..].to_vec(), ..manifest };
        assert!(check(&without).is_none());
    }
}
