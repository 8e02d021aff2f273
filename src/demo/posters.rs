//! Demo posters: pictures whose palette, layout, type and shapes tell their genres, and drift from year to year.
//!
//! A poster has one to three of [`GENRES`]. The first sets the ground and the title's type; each draws its motif, in its hue.
//! Over the decade hues turn, the title sinks from the top to the foot, motifs shrink and grounds darken, so that what told
//! one genre tells another some years on. Some motifs are left out, and some belong to no genre of the poster: nothing
//! tells all.

use std::f64::consts::TAU;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::ProgressBar;
use opencv::core::{self, Mat, Point, Rect, Scalar, Size, Vector};
use opencv::imgproc;
use opencv::prelude::*;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use super::{Made, begin, write_list};
use crate::error::{Error, Result};
use crate::media::{BgrImage, jpeg};

/// What a poster may be of.
pub const GENRES: [&str; 8] = ["Action", "Animation", "Comedy", "Documentary", "Drama", "Horror", "Romance", "Sci-Fi"];
/// How often each is drawn, in relation to the others.
const WEIGHTS: [f64; 8] = [1.2, 0.8, 1.4, 0.8, 1.6, 1.0, 1.1, 0.9];
/// Hue of each in degrees, in the first year.
const HUES: [f64; 8] = [20.0, 150.0, 55.0, 205.0, 35.0, 0.0, 330.0, 235.0];
/// Degrees that hues turn from the first year to the last.
const DRIFT: f64 = 70.0;
/// Width and height in pixels.
pub const SIZE: (i32, i32) = (300, 450);
/// Of the JPEG files, of 100.
const QUALITY: i32 = 90;
/// The shares of motifs that are left out, and of those drawn though the poster is not of their genre.
const LEFT_OUT: f64 = 0.12;
const STRAY: f64 = 0.06;

/// What to make.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder to write: `manifest.csv` and `posters/`.
    pub out: PathBuf,
    /// The first year.
    pub first: i32,
    /// How many years.
    pub years: usize,
    /// Posters of each year; one of six is for validation and one for test.
    pub posters: usize,
    /// Another seed gives other posters.
    pub seed: u64,
}

/// One poster to be drawn.
struct Job {
    year: i32,
    instance: usize,
    /// Indices of its genres, the first setting the tone.
    genres: Vec<usize>,
    /// How far into the decade, in [0, 1].
    time: f64,
    file: PathBuf,
    random: Xoshiro256PlusPlus,
}

impl Job {
    fn id(&self) -> String {
        format!("{}-{:03}", self.year, self.instance)
    }

    fn labels(&self) -> String {
        let mut genres = self.genres.clone();
        genres.sort_unstable();
        genres.iter().map(|&genre| GENRES[genre]).collect::<Vec<_>>().join("|")
    }

    fn split(&self) -> &'static str {
        match self.instance % 6 {
            4 => "val",
            5 => "test",
            _ => "train",
        }
    }
}

/// Draws the posters and writes their manifest; what is there from a run with the same settings is kept.
///
/// # Errors
/// The folder cannot be written, or a poster not be drawn or encoded.
pub fn make(settings: &Settings, bar: &ProgressBar) -> Result<Made> {
    let folder = settings.out.join("posters");
    let Settings { first, years, posters, seed, .. } = *settings;
    begin(&settings.out, &folder, &format!("posters 2 seed={seed} first={first} years={years}\n"))?;
    let jobs: Vec<Job> = (0..years * posters)
        .map(|number| {
            let (index, instance) = (number / posters, number % posters);
            let year = first + index as i32;
            let key = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ ((year as u64) << 32 | instance as u64);
            let mut random = Xoshiro256PlusPlus::seed_from_u64(key);
            let genres = draw_genres(&mut random);
            let time = index as f64 / (years - 1).max(1) as f64;
            let mut job = Job { year, instance, genres, time, file: PathBuf::new(), random };
            job.file = folder.join(format!("{}.jpg", job.id()));
            job
        })
        .collect();
    bar.set_length(jobs.len() as u64);
    let made = AtomicUsize::new(0);
    jobs.par_iter().try_for_each(|job| {
        if !job.file.exists() {
            let wrong = |error: opencv::Error| Error::Media { path: job.file.clone(), message: error.to_string() };
            let poster = draw(job).map_err(wrong)?;
            save(&poster, &job.file)?;
            made.fetch_add(1, Ordering::Relaxed);
        }
        bar.inc(1);
        Ok(())
    })?;
    bar.finish_and_clear();
    let mut manifest = String::from("id,path,labels,year,split\n");
    for job in &jobs {
        let id = job.id();
        manifest += &format!("{id},posters/{id}.jpg,{},{},{}\n", job.labels(), job.year, job.split());
    }
    write_list(&settings.out.join("manifest.csv"), &manifest)?;
    let made = made.into_inner();
    Ok(Made { clips: made, kept: jobs.len() - made, codec: "JPEG" })
}

/// One to three genres, two of four posters having two.
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
    let wrong = |message: String| Error::Media { path: file.to_path_buf(), message };
    let bytes = poster.data_bytes().map_err(|error| wrong(error.to_string()))?;
    let picture = BgrImage::new(SIZE.1 as usize, SIZE.0 as usize, bytes);
    let jpeg = jpeg::encode(picture, QUALITY).ok_or_else(|| wrong("cannot be encoded as JPEG".into()))?;
    let unfinished = file.with_extension("part.jpg");
    std::fs::write(&unfinished, jpeg).map_err(Error::io(&unfinished))?;
    std::fs::rename(&unfinished, file).map_err(Error::io(file))
}

/// A color of hue (degrees), saturation and value in [0, 1], as OpenCV's blue, green, red.
fn color(hue: f64, saturation: f64, value: f64) -> Scalar {
    let channel = |n: f64| {
        let k = (n + hue.rem_euclid(360.0) / 60.0) % 6.0;
        255.0 * (value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0))
    };
    Scalar::new(channel(1.0), channel(3.0), channel(5.0), 0.0)
}

/// A poster in the making.
struct Canvas {
    picture: Mat,
    random: Xoshiro256PlusPlus,
    /// How far into the decade.
    time: f64,
}

type Drawn<T = ()> = opencv::Result<T>;

fn draw(job: &Job) -> Drawn<Mat> {
    let (width, height) = SIZE;
    let picture = Mat::new_rows_cols_with_default(height, width, core::CV_8UC3, Scalar::default())?;
    let mut canvas = Canvas { picture, random: job.random.clone(), time: job.time };
    let tone = job.genres[0];
    canvas.ground(tone)?;
    let mut motifs: Vec<usize> = (0..GENRES.len())
        .filter(|genre| canvas.random.gen_bool(if job.genres.contains(genre) { 1.0 - LEFT_OUT } else { STRAY }))
        .collect();
    // A poster without any motif would tell nothing but its tone.
    if motifs.is_empty() {
        motifs.push(tone);
    }
    motifs.shuffle(&mut canvas.random);
    for genre in motifs {
        canvas.motif(genre)?;
    }
    canvas.title(tone)?;
    canvas.grain()?;
    Ok(canvas.picture)
}

impl Canvas {
    /// A number drawn from a range.
    fn within(&mut self, low: f64, high: f64) -> f64 {
        self.random.gen_range(low..high)
    }

    fn hue(&mut self, genre: usize) -> f64 {
        HUES[genre] + DRIFT * self.time + self.within(-14.0, 14.0)
    }

    /// A point at shares of width and height.
    fn at(&self, x: f64, y: f64) -> Point {
        Point::new((x * f64::from(SIZE.0)).round() as i32, (y * f64::from(SIZE.1)).round() as i32)
    }

    /// How large motifs are: they shrink over the years.
    fn scale(&mut self) -> f64 {
        (1.15 - 0.45 * self.time) * self.within(0.8, 1.2)
    }

    /// A vertical gradient in the tone of a genre; later years are darker and less saturated.
    fn ground(&mut self, tone: usize) -> Drawn {
        let hue = self.hue(tone);
        // Lightness and saturation of the ground: comedies are bright, horror is dark, documentaries are gray.
        let (saturation, value) = match GENRES[tone] {
            "Action" => (0.7, 0.55),
            "Animation" => (0.6, 0.95),
            "Comedy" => (0.35, 1.0),
            "Documentary" => (0.08, 0.85),
            "Drama" => (0.35, 0.5),
            "Horror" => (0.6, 0.16),
            "Romance" => (0.3, 0.95),
            _ => (0.8, 0.3),
        };
        let fade = 1.0 - 0.35 * self.time;
        let (saturation, value) = (saturation * (1.0 - 0.3 * self.time), value * fade * self.within(0.85, 1.1));
        let (top, foot) = (value.min(1.0), (value * self.within(0.35, 0.8)).min(1.0));
        let turn = self.within(-25.0, 25.0);
        for y in 0..SIZE.1 {
            let share = f64::from(y) / f64::from(SIZE.1);
            let ink = color(hue + turn * share, saturation, top + (foot - top) * share);
            let row = Rect::new(0, y, SIZE.0, 1);
            imgproc::rectangle(&mut self.picture, row, ink, imgproc::FILLED, imgproc::LINE_8, 0)?;
        }
        Ok(())
    }

    fn motif(&mut self, genre: usize) -> Drawn {
        match GENRES[genre] {
            "Action" => self.burst(genre),
            "Animation" => self.blobs(genre),
            "Comedy" => self.balloons(genre),
            "Documentary" => self.contact_sheet(genre),
            "Drama" => self.figures(genre),
            "Horror" => self.scratches(genre),
            "Romance" => self.hearts(genre),
            _ => self.planet(genre),
        }
    }

    fn polygon(&mut self, corners: &[Point], ink: Scalar) -> Drawn {
        let corners: Vector<Point> = corners.iter().copied().collect();
        let polygons: Vector<Vector<Point>> = [corners].into_iter().collect();
        imgproc::fill_poly(&mut self.picture, &polygons, ink, imgproc::LINE_AA, 0, Point::default())
    }

    fn disc(&mut self, center: Point, radius: f64, ink: Scalar) -> Drawn {
        let radius = radius.round().max(1.0) as i32;
        imgproc::circle(&mut self.picture, center, radius, ink, imgproc::FILLED, imgproc::LINE_AA, 0)
    }

    /// Action: a spiky burst and streaks that fly from it.
    fn burst(&mut self, genre: usize) -> Drawn {
        let (hue, scale) = (self.hue(genre), self.scale());
        let (x, y) = (self.within(0.25, 0.75), self.within(0.3, 0.65));
        let center = self.at(x, y);
        for _ in 0..14 {
            let (angle, length) = (self.within(0.0, TAU), self.within(120.0, 280.0) * scale);
            let end = Point::new(center.x + (angle.cos() * length) as i32, center.y + (angle.sin() * length) as i32);
            let ink = color(hue, 0.5, 1.0);
            imgproc::line(&mut self.picture, center, end, ink, 1 + (2.0 * scale) as i32, imgproc::LINE_AA, 0)?;
        }
        for (size, saturation) in [(95.0, 0.95), (60.0, 0.6), (30.0, 0.2)] {
            let corners: Vec<Point> = (0..26)
                .map(|i| {
                    let angle = TAU * f64::from(i) / 26.0;
                    let reach = if i % 2 == 0 { self.within(0.8, 1.25) } else { 0.5 };
                    let length = size * scale * reach;
                    Point::new(center.x + (angle.cos() * length) as i32, center.y + (angle.sin() * length) as i32)
                })
                .collect();
            self.polygon(&corners, color(hue + 15.0 * (1.0 - saturation), saturation, 1.0))?;
        }
        Ok(())
    }

    /// Animation: outlined blobs with eyes.
    fn blobs(&mut self, genre: usize) -> Drawn {
        let (hue, scale) = (self.hue(genre), self.scale());
        for _ in 0..self.random.gen_range(3..6) {
            let (x, y) = (self.within(0.12, 0.88), self.within(0.3, 0.85));
            let (center, radius) = (self.at(x, y), self.within(26.0, 48.0) * scale);
            let turned = hue + self.within(-50.0, 50.0);
            self.disc(center, radius + 3.0, Scalar::all(20.0))?;
            self.disc(center, radius, color(turned, 0.75, 1.0))?;
            for side in [-0.35, 0.35] {
                let eye = Point::new(center.x + (side * radius) as i32, center.y - (0.2 * radius) as i32);
                self.disc(eye, radius * 0.26, Scalar::all(255.0))?;
                self.disc(eye, radius * 0.12, Scalar::all(10.0))?;
            }
        }
        Ok(())
    }

    /// Comedy: bright balloons on strings.
    fn balloons(&mut self, genre: usize) -> Drawn {
        let (hue, scale) = (self.hue(genre), self.scale());
        for i in 0..self.random.gen_range(5..10) {
            let (x, y) = (self.within(0.08, 0.92), self.within(0.15, 0.75));
            let center = self.at(x, y);
            let radius = self.within(14.0, 30.0) * scale;
            let string = Point::new(center.x + 4, center.y + (radius * 3.4) as i32);
            imgproc::line(&mut self.picture, center, string, Scalar::all(90.0), 1, imgproc::LINE_AA, 0)?;
            let ink = color(hue + if i % 2 == 0 { 0.0 } else { 120.0 }, 0.8, 1.0);
            let size = Size::new(radius as i32, (radius * 1.2) as i32);
            imgproc::ellipse(
                &mut self.picture,
                center,
                size,
                0.0,
                0.0,
                360.0,
                ink,
                imgproc::FILLED,
                imgproc::LINE_AA,
                0,
            )?;
            let shine = Point::new(center.x - (0.35 * radius) as i32, center.y - (0.45 * radius) as i32);
            self.disc(shine, radius * 0.18, Scalar::all(255.0))?;
        }
        Ok(())
    }

    /// Documentary: a strip of framed photographs.
    fn contact_sheet(&mut self, genre: usize) -> Drawn {
        let (hue, scale) = (self.hue(genre), self.scale());
        let (columns, left, top) = (3, self.within(14.0, 40.0), self.within(110.0, 200.0));
        let side = 74.0 * scale;
        for cell in 0..6 {
            let (x, y) =
                (left + (cell % columns) as f64 * (side + 8.0), top + (cell / columns) as f64 * (side * 0.8 + 8.0));
            let frame = Rect::new(x as i32, y as i32, side as i32, (side * 0.75) as i32);
            imgproc::rectangle(&mut self.picture, frame, Scalar::all(245.0), imgproc::FILLED, imgproc::LINE_8, 0)?;
            let photo = Rect::new(frame.x + 4, frame.y + 4, frame.width - 8, frame.height - 8);
            let value = self.within(0.25, 0.8);
            imgproc::rectangle(&mut self.picture, photo, color(hue, 0.22, value), imgproc::FILLED, imgproc::LINE_8, 0)?;
            let horizon = photo.y + (f64::from(photo.height) * self.within(0.35, 0.75)) as i32;
            let land = Rect::new(photo.x, horizon, photo.width, photo.y + photo.height - horizon);
            imgproc::rectangle(
                &mut self.picture,
                land,
                color(hue, 0.3, value * 0.5),
                imgproc::FILLED,
                imgproc::LINE_8,
                0,
            )?;
        }
        Ok(())
    }

    /// Drama: one to three figures, standing against the light.
    fn figures(&mut self, genre: usize) -> Drawn {
        let (hue, scale) = (self.hue(genre), self.scale());
        let count = self.random.gen_range(1..4);
        for i in 0..count {
            let x = (f64::from(i) + 1.0) / (f64::from(count) + 1.0) + self.within(-0.06, 0.06);
            let head = self.at(x, self.time.mul_add(0.12, 0.42));
            let radius = 19.0 * scale;
            let ink = color(hue, 0.45, self.random.gen_range(0.08..0.3));
            let below = |dx: f64, dy: f64| Point::new(head.x + (dx * radius) as i32, head.y + (dy * radius) as i32);
            let body = [
                below(-0.5, 0.8),
                below(0.5, 0.8),
                below(1.9, 2.2),
                below(2.1, 12.0),
                below(-2.1, 12.0),
                below(-1.9, 2.2),
            ];
            self.polygon(&body, ink)?;
            self.disc(head, radius, ink)?;
        }
        Ok(())
    }

    /// Horror: scratches, drips from the top, two eyes.
    fn scratches(&mut self, genre: usize) -> Drawn {
        let (hue, scale) = (self.hue(genre), self.scale());
        let ink = color(hue, 0.95, 0.7);
        for _ in 0..self.random.gen_range(7..13) {
            let x = self.within(0.0, 1.0);
            let (length, half) = (self.within(0.08, 0.34) * scale, self.within(3.0, 8.0) as i32);
            let (from, tip) = (self.at(x, 0.0), self.at(x, length));
            self.polygon(&[Point::new(from.x - half, 0), Point::new(from.x + half, 0), tip], ink)?;
            self.disc(tip, 3.0, ink)?;
        }
        let (x, y) = (self.within(0.3, 0.7), self.within(0.45, 0.65));
        for i in 0..4 {
            let (from, to) =
                (self.at(x - 0.2 + 0.08 * f64::from(i), y - 0.12), self.at(x - 0.08 + 0.08 * f64::from(i), y + 0.16));
            imgproc::line(&mut self.picture, from, to, ink, (4.0 * scale) as i32 + 1, imgproc::LINE_AA, 0)?;
        }
        Ok(())
    }

    /// Romance: hearts.
    fn hearts(&mut self, genre: usize) -> Drawn {
        let (hue, scale) = (self.hue(genre), self.scale());
        for i in 0..self.random.gen_range(2..6) {
            let (x, y) = (self.within(0.15, 0.85), self.within(0.25, 0.8));
            let size = (if i == 0 { 52.0 } else { self.within(12.0, 28.0) }) * scale;
            let center = self.at(x, y);
            // The curve x = 16 sin³ t, y = 13 cos t − 5 cos 2t − 2 cos 3t − cos 4t.
            let corners: Vec<Point> = (0..48)
                .map(|step| {
                    let t = TAU * f64::from(step) / 48.0;
                    let across = t.sin().powi(3);
                    let up = (13.0 * t.cos() - 5.0 * (2.0 * t).cos() - 2.0 * (3.0 * t).cos() - (4.0 * t).cos()) / 16.0;
                    Point::new(center.x + (across * size) as i32, center.y - (up * size) as i32)
                })
                .collect();
            self.polygon(&corners, color(hue, 0.65, 0.95))?;
        }
        Ok(())
    }

    /// Science fiction: stars and a planet with a ring.
    fn planet(&mut self, genre: usize) -> Drawn {
        let (hue, scale) = (self.hue(genre), self.scale());
        for _ in 0..70 {
            let (x, y, size) = (self.within(0.0, 1.0), self.within(0.0, 1.0), self.within(0.6, 2.2));
            let star = self.at(x, y);
            self.disc(star, size, Scalar::all(250.0))?;
        }
        let (x, y, radius) = (self.within(0.25, 0.75), self.within(0.2, 0.6), self.within(38.0, 62.0) * scale);
        let center = self.at(x, y);
        for step in 0..5 {
            let shrink = f64::from(step) * 0.13;
            let lit = Point::new(center.x - (shrink * radius * 0.5) as i32, center.y - (shrink * radius * 0.5) as i32);
            self.disc(lit, radius * (1.0 - shrink), color(hue, 0.7, 0.35 + 0.13 * f64::from(step)))?;
        }
        let ring = Size::new((radius * 1.8) as i32, (radius * 0.45) as i32);
        let (tilt, ink) = (self.within(-30.0, 30.0), color(hue + 30.0, 0.35, 0.95));
        imgproc::ellipse(&mut self.picture, center, ring, tilt, 0.0, 360.0, ink, 3, imgproc::LINE_AA, 0)
    }

    /// The title in the type of a genre, sinking over the years, and lines of credits at the foot.
    fn title(&mut self, tone: usize) -> Drawn {
        const FIRST: [&str; 8] = ["THE", "LAST", "NIGHT", "LITTLE", "DARK", "MY", "LOST", "BLUE"];
        const SECOND: [&str; 8] = ["RIVER", "HOUSE", "MOON", "ROAD", "SUMMER", "ISLAND", "GARDEN", "STORM"];
        let font = match GENRES[tone] {
            "Action" | "Sci-Fi" => imgproc::FONT_HERSHEY_DUPLEX,
            "Animation" | "Comedy" => imgproc::FONT_HERSHEY_SIMPLEX,
            "Romance" => imgproc::FONT_HERSHEY_SCRIPT_COMPLEX,
            "Drama" | "Horror" => imgproc::FONT_HERSHEY_TRIPLEX,
            _ => imgproc::FONT_HERSHEY_COMPLEX,
        };
        let thickness = if matches!(GENRES[tone], "Action" | "Animation" | "Comedy") { 4 } else { 2 };
        let top = 0.17 + 0.55 * self.time + self.within(-0.03, 0.03);
        // Bright on dark and dark on bright.
        let under = self.picture.roi(Rect::new(0, (top * f64::from(SIZE.1)) as i32, SIZE.0, 30))?.clone_pointee();
        let light = core::mean_def(&under)?.0[..3].iter().sum::<f64>() / 3.0;
        let hue = self.hue(tone);
        let ink = if light > 120.0 { color(hue, 0.8, 0.2) } else { color(hue, 0.15, 1.0) };
        for (line, words) in [FIRST, SECOND].into_iter().enumerate() {
            let word = words[self.random.gen_range(0..words.len())];
            let mut below = 0;
            let plain = imgproc::get_text_size(word, font, 1.0, thickness, &mut below)?;
            let scale =
                (f64::from(SIZE.0) * self.random.gen_range(0.55..0.85) / f64::from(plain.width)).min(2.4 - self.time);
            let size = imgproc::get_text_size(word, font, scale, thickness, &mut below)?;
            let place = Point::new((SIZE.0 - size.width) / 2, (top * f64::from(SIZE.1)) as i32 + 52 * line as i32);
            imgproc::put_text(&mut self.picture, word, place, font, scale, ink, thickness, imgproc::LINE_AA, false)?;
        }
        for line in 0..3 {
            let y = SIZE.1 - 34 + 9 * line;
            let mut x = 24 + self.random.gen_range(0..20);
            while x < SIZE.0 - 30 {
                let length = self.random.gen_range(5..22);
                let bar = Rect::new(x, y, length, 3);
                imgproc::rectangle(&mut self.picture, bar, ink, imgproc::FILLED, imgproc::LINE_8, 0)?;
                x += length + 5;
            }
        }
        Ok(())
    }

    /// A little noise, as of a scan.
    fn grain(&mut self) -> Drawn {
        let strength = self.random.gen_range(1..9);
        for byte in self.picture.data_bytes_mut()? {
            *byte = byte.saturating_add_signed(self.random.gen_range(-strength..=strength));
        }
        Ok(())
    }
}
