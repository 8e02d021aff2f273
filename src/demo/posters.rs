//! Synthetic posters whose palette, layout, typography and shapes depend on their genres, and drift from year to year.
//!
//! A poster has one to three of [`GENRES`]. The first determines the background and the font of the title; each adds its
//! motif, in its hue. Over the decade hues rotate, the title moves from top to bottom, motifs shrink and backgrounds darken,
//! so that a feature of one genre becomes one of another. Some motifs are omitted and some are of no genre of the poster,
//! so that no classifier can be perfect.

use std::path::{Path, PathBuf};

use opencv::core::{Mat, MatTraitConstManual as _};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::canvas::{self, SIZE};
use super::{FileCounts, create_missing, prepare_directory, split_of, write_if_changed};
use crate::error::{Error, Result};
use crate::files;
use crate::media::{BgrImage, jpeg};
use crate::progress::ProgressSink;

pub use super::canvas::GENRES;

/// Relative frequencies of the genres.
const WEIGHTS: [f64; 8] = [1.2, 0.8, 1.4, 0.8, 1.6, 1.0, 1.1, 0.9];
/// Quality of the JPEG files, 1 to 100.
const QUALITY: i32 = 90;

/// Settings of [`make`].
#[derive(Debug, Clone)]
pub struct PosterSettings {
    /// The directory to write: `manifest.csv` and `posters/`.
    pub out: PathBuf,
    /// The first year.
    pub first_year: i32,
    /// Number of years.
    pub years: usize,
    /// Number of posters per year. Of every six, one is for validation and one for test.
    pub posters_per_year: usize,
    /// Seed of the random generator.
    pub seed: u64,
}

/// One poster to draw.
struct PosterJob {
    year: i32,
    instance: usize,
    /// Indices in [`GENRES`]. The first determines background and title.
    genres: Vec<usize>,
    /// Position in the decade, in [0, 1].
    time: f64,
    file: PathBuf,
    random: Xoshiro256PlusPlus,
}

impl PosterJob {
    fn id(&self) -> String {
        format!("{}-{:03}", self.year, self.instance)
    }

    fn labels(&self) -> String {
        let mut genres = self.genres.clone();
        genres.sort_unstable();
        genres.iter().map(|&genre| GENRES[genre]).collect::<Vec<_>>().join("|")
    }

    fn create(&self) -> Result<()> {
        let failed = |error: opencv::Error| Error::Media { path: self.file.clone(), message: error.to_string() };
        save(&canvas::draw(&self.genres, self.time, self.random.clone()).map_err(failed)?, &self.file)
    }
}

/// Draws the posters and writes their manifest. Posters of an earlier run with the same settings are kept.
///
/// # Errors
/// Returns an error if the directory cannot be written, or a poster cannot be drawn or encoded.
pub fn make(settings: &PosterSettings, progress: &dyn ProgressSink) -> Result<FileCounts> {
    let directory = settings.out.join("posters");
    let PosterSettings { first_year, years, posters_per_year, seed, .. } = *settings;
    let stamp = format!("posters 2 seed={seed} first={first_year} years={years}\n");
    prepare_directory(&settings.out, &directory, &stamp)?;
    let jobs: Vec<PosterJob> = (0..years * posters_per_year)
        .map(|number| {
            let (index, instance) = (number / posters_per_year, number % posters_per_year);
            let year = first_year + index as i32;
            let key = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ ((year as u64) << 32 | instance as u64);
            let mut random = Xoshiro256PlusPlus::seed_from_u64(key);
            let genres = draw_genres(&mut random);
            let time = index as f64 / (years - 1).max(1) as f64;
            let mut job = PosterJob { year, instance, genres, time, file: PathBuf::new(), random };
            job.file = directory.join(format!("{}.jpg", job.id()));
            job
        })
        .collect();
    let counts = create_missing(&jobs, |job| &job.file, PosterJob::create, progress)?;
    let mut manifest = String::from("id,path,labels,year,split\n");
    for job in &jobs {
        let id = job.id();
        manifest += &format!("{id},posters/{id}.jpg,{},{},{}\n", job.labels(), job.year, split_of(job.instance));
    }
    write_if_changed(&settings.out.join("manifest.csv"), &manifest)?;
    Ok(counts)
}

/// Draws one to three genres; half of the posters have two.
fn draw_genres(random: &mut Xoshiro256PlusPlus) -> Vec<usize> {
    let count = [1, 2, 2, 3][random.gen_range(0..4)];
    let all: Vec<usize> = (0..GENRES.len()).collect();
    let mut genres: Vec<usize> = all
        .choose_multiple_weighted(random, count, |&genre| WEIGHTS[genre])
        .expect("weights are positive")
        .copied()
        .collect();
    genres.shuffle(random);
    genres
}

fn save(poster: &Mat, file: &Path) -> Result<()> {
    let failed = |message: String| Error::Media { path: file.to_path_buf(), message };
    let bytes = poster.data_bytes().map_err(|error| failed(error.to_string()))?;
    let image = BgrImage::new(SIZE.1 as usize, SIZE.0 as usize, bytes);
    let jpeg = jpeg::encode(image, QUALITY).ok_or_else(|| failed("cannot be encoded as JPEG".into()))?;
    let partial = file.with_extension("part.jpg");
    std::fs::write(&partial, jpeg).map_err(Error::io(&partial))?;
    files::rename(&partial, file).map_err(Error::io(file))
}
