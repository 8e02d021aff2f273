//! Drawing of synthetic posters.

use std::f64::consts::TAU;

use opencv::core::{self, Mat, Point, Rect, Scalar, Size, Vector};
use opencv::imgproc;
use opencv::prelude::*;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

/// The genres of posters.
pub const GENRES: [&str; 8] = ["Action", "Animation", "Comedy", "Documentary", "Drama", "Horror", "Romance", "Sci-Fi"];
/// Width and height in pixels.
pub(super) const SIZE: (i32, i32) = (300, 450);

/// Hue of each genre in the first year, in degrees.
const HUES: [f64; 8] = [20.0, 150.0, 55.0, 205.0, 35.0, 0.0, 330.0, 235.0];
/// Rotation of hues from the first year to the last, in degrees.
const HUE_DRIFT: f64 = 70.0;
/// Probability that the motif of one of the poster's genres is omitted.
const OMIT_PROBABILITY: f64 = 0.12;
/// Probability that the motif of another genre is added.
const STRAY_PROBABILITY: f64 = 0.06;

/// Converts hue (degrees), saturation and value (in [0, 1]) to blue, green and red.
fn color(hue: f64, saturation: f64, value: f64) -> Scalar {
    let channel = |n: f64| {
        let k = (n + hue.rem_euclid(360.0) / 60.0) % 6.0;
        255.0 * (value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0))
    };
    Scalar::new(channel(1.0), channel(3.0), channel(5.0), 0.0)
}

/// A poster that is being drawn.
struct Canvas {
    image: Mat,
    random: Xoshiro256PlusPlus,
    /// Position in the decade, in [0, 1].
    time: f64,
}

type Result<T = ()> = opencv::Result<T>;

/// Draws a poster of some genres (indices in [`GENRES`]; the first determines background and title). `time` is its
/// position in the decade, in [0, 1].
pub(super) fn draw(genres: &[usize], time: f64, random: Xoshiro256PlusPlus) -> Result<Mat> {
    let (width, height) = SIZE;
    let image = Mat::new_rows_cols_with_default(height, width, core::CV_8UC3, Scalar::default())?;
    let mut canvas = Canvas { image, random, time };
    let primary = genres[0];
    canvas.background(primary)?;
    let mut motifs: Vec<usize> = (0..GENRES.len())
        .filter(|genre| {
            canvas.random.gen_bool(if genres.contains(genre) { 1.0 - OMIT_PROBABILITY } else { STRAY_PROBABILITY })
        })
        .collect();
    // Without any motif, only the primary genre would be recognizable.
    if motifs.is_empty() {
        motifs.push(primary);
    }
    motifs.shuffle(&mut canvas.random);
    for genre in motifs {
        canvas.motif(genre)?;
    }
    canvas.title(primary)?;
    canvas.noise()?;
    Ok(canvas.image)
}

impl Canvas {
    /// Draws a number from [low, high).
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        self.random.gen_range(low..high)
    }

    fn hue(&mut self, genre: usize) -> f64 {
        HUES[genre] + HUE_DRIFT * self.time + self.uniform(-14.0, 14.0)
    }

    /// Returns the point at fractions of width and height.
    fn point(&self, x: f64, y: f64) -> Point {
        Point::new((x * f64::from(SIZE.0)).round() as i32, (y * f64::from(SIZE.1)).round() as i32)
    }

    /// Draws the scale of a motif, which decreases over the years.
    fn scale(&mut self) -> f64 {
        (1.15 - 0.45 * self.time) * self.uniform(0.8, 1.2)
    }

    /// Draws a vertical gradient in the hue of a genre. Later years are darker and less saturated.
    fn background(&mut self, genre: usize) -> Result {
        let hue = self.hue(genre);
        // Comedies are bright, horror is dark, documentaries are gray.
        let (saturation, value) = match GENRES[genre] {
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
        let (saturation, value) = (saturation * (1.0 - 0.3 * self.time), value * fade * self.uniform(0.85, 1.1));
        let (top, bottom) = (value.min(1.0), (value * self.uniform(0.35, 0.8)).min(1.0));
        let turn = self.uniform(-25.0, 25.0);
        for y in 0..SIZE.1 {
            let fraction = f64::from(y) / f64::from(SIZE.1);
            let ink = color(hue + turn * fraction, saturation, top + (bottom - top) * fraction);
            let row = Rect::new(0, y, SIZE.0, 1);
            imgproc::rectangle(&mut self.image, row, ink, imgproc::FILLED, imgproc::LINE_8, 0)?;
        }
        Ok(())
    }

    fn motif(&mut self, genre: usize) -> Result {
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

    fn polygon(&mut self, corners: &[Point], ink: Scalar) -> Result {
        let corners: Vector<Point> = corners.iter().copied().collect();
        let polygons: Vector<Vector<Point>> = [corners].into_iter().collect();
        imgproc::fill_poly(&mut self.image, &polygons, ink, imgproc::LINE_AA, 0, Point::default())
    }

    fn disc(&mut self, center: Point, radius: f64, ink: Scalar) -> Result {
        let radius = radius.round().max(1.0) as i32;
        imgproc::circle(&mut self.image, center, radius, ink, imgproc::FILLED, imgproc::LINE_AA, 0)
    }

    /// Action: a spiky burst with streaks.
    fn burst(&mut self, genre: usize) -> Result {
        let (hue, scale) = (self.hue(genre), self.scale());
        let (x, y) = (self.uniform(0.25, 0.75), self.uniform(0.3, 0.65));
        let center = self.point(x, y);
        for _ in 0..14 {
            let (angle, length) = (self.uniform(0.0, TAU), self.uniform(120.0, 280.0) * scale);
            let end = Point::new(center.x + (angle.cos() * length) as i32, center.y + (angle.sin() * length) as i32);
            let ink = color(hue, 0.5, 1.0);
            imgproc::line(&mut self.image, center, end, ink, 1 + (2.0 * scale) as i32, imgproc::LINE_AA, 0)?;
        }
        for (size, saturation) in [(95.0, 0.95), (60.0, 0.6), (30.0, 0.2)] {
            let corners: Vec<Point> = (0..26)
                .map(|i| {
                    let angle = TAU * f64::from(i) / 26.0;
                    let reach = if i % 2 == 0 { self.uniform(0.8, 1.25) } else { 0.5 };
                    let length = size * scale * reach;
                    Point::new(center.x + (angle.cos() * length) as i32, center.y + (angle.sin() * length) as i32)
                })
                .collect();
            self.polygon(&corners, color(hue + 15.0 * (1.0 - saturation), saturation, 1.0))?;
        }
        Ok(())
    }

    /// Animation: outlined blobs with eyes.
    fn blobs(&mut self, genre: usize) -> Result {
        let (hue, scale) = (self.hue(genre), self.scale());
        for _ in 0..self.random.gen_range(3..6) {
            let (x, y) = (self.uniform(0.12, 0.88), self.uniform(0.3, 0.85));
            let (center, radius) = (self.point(x, y), self.uniform(26.0, 48.0) * scale);
            let turned = hue + self.uniform(-50.0, 50.0);
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
    fn balloons(&mut self, genre: usize) -> Result {
        let (hue, scale) = (self.hue(genre), self.scale());
        for i in 0..self.random.gen_range(5..10) {
            let (x, y) = (self.uniform(0.08, 0.92), self.uniform(0.15, 0.75));
            let center = self.point(x, y);
            let radius = self.uniform(14.0, 30.0) * scale;
            let string = Point::new(center.x + 4, center.y + (radius * 3.4) as i32);
            imgproc::line(&mut self.image, center, string, Scalar::all(90.0), 1, imgproc::LINE_AA, 0)?;
            let ink = color(hue + if i % 2 == 0 { 0.0 } else { 120.0 }, 0.8, 1.0);
            let size = Size::new(radius as i32, (radius * 1.2) as i32);
            imgproc::ellipse(
                &mut self.image,
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

    /// Documentary: a contact sheet of framed photographs.
    fn contact_sheet(&mut self, genre: usize) -> Result {
        let (hue, scale) = (self.hue(genre), self.scale());
        let (columns, left, top) = (3, self.uniform(14.0, 40.0), self.uniform(110.0, 200.0));
        let side = 74.0 * scale;
        for cell in 0..6 {
            let (x, y) =
                (left + (cell % columns) as f64 * (side + 8.0), top + (cell / columns) as f64 * (side * 0.8 + 8.0));
            let frame = Rect::new(x as i32, y as i32, side as i32, (side * 0.75) as i32);
            imgproc::rectangle(&mut self.image, frame, Scalar::all(245.0), imgproc::FILLED, imgproc::LINE_8, 0)?;
            let photo = Rect::new(frame.x + 4, frame.y + 4, frame.width - 8, frame.height - 8);
            let value = self.uniform(0.25, 0.8);
            imgproc::rectangle(&mut self.image, photo, color(hue, 0.22, value), imgproc::FILLED, imgproc::LINE_8, 0)?;
            let horizon = photo.y + (f64::from(photo.height) * self.uniform(0.35, 0.75)) as i32;
            let land = Rect::new(photo.x, horizon, photo.width, photo.y + photo.height - horizon);
            imgproc::rectangle(
                &mut self.image,
                land,
                color(hue, 0.3, value * 0.5),
                imgproc::FILLED,
                imgproc::LINE_8,
                0,
            )?;
        }
        Ok(())
    }

    /// Drama: one to three silhouettes.
    fn figures(&mut self, genre: usize) -> Result {
        let (hue, scale) = (self.hue(genre), self.scale());
        let count = self.random.gen_range(1..4);
        for i in 0..count {
            let x = (f64::from(i) + 1.0) / (f64::from(count) + 1.0) + self.uniform(-0.06, 0.06);
            let head = self.point(x, self.time.mul_add(0.12, 0.42));
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

    /// Horror: drips from the top and scratches.
    fn scratches(&mut self, genre: usize) -> Result {
        let (hue, scale) = (self.hue(genre), self.scale());
        let ink = color(hue, 0.95, 0.7);
        for _ in 0..self.random.gen_range(7..13) {
            let x = self.uniform(0.0, 1.0);
            let (length, half) = (self.uniform(0.08, 0.34) * scale, self.uniform(3.0, 8.0) as i32);
            let (from, tip) = (self.point(x, 0.0), self.point(x, length));
            self.polygon(&[Point::new(from.x - half, 0), Point::new(from.x + half, 0), tip], ink)?;
            self.disc(tip, 3.0, ink)?;
        }
        let (x, y) = (self.uniform(0.3, 0.7), self.uniform(0.45, 0.65));
        for i in 0..4 {
            let (from, to) = (
                self.point(x - 0.2 + 0.08 * f64::from(i), y - 0.12),
                self.point(x - 0.08 + 0.08 * f64::from(i), y + 0.16),
            );
            imgproc::line(&mut self.image, from, to, ink, (4.0 * scale) as i32 + 1, imgproc::LINE_AA, 0)?;
        }
        Ok(())
    }

    /// Romance: hearts.
    fn hearts(&mut self, genre: usize) -> Result {
        let (hue, scale) = (self.hue(genre), self.scale());
        for i in 0..self.random.gen_range(2..6) {
            let (x, y) = (self.uniform(0.15, 0.85), self.uniform(0.25, 0.8));
            let size = (if i == 0 { 52.0 } else { self.uniform(12.0, 28.0) }) * scale;
            let center = self.point(x, y);
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
    fn planet(&mut self, genre: usize) -> Result {
        let (hue, scale) = (self.hue(genre), self.scale());
        for _ in 0..70 {
            let (x, y, size) = (self.uniform(0.0, 1.0), self.uniform(0.0, 1.0), self.uniform(0.6, 2.2));
            let star = self.point(x, y);
            self.disc(star, size, Scalar::all(250.0))?;
        }
        let (x, y, radius) = (self.uniform(0.25, 0.75), self.uniform(0.2, 0.6), self.uniform(38.0, 62.0) * scale);
        let center = self.point(x, y);
        for step in 0..5 {
            let shrink = f64::from(step) * 0.13;
            let lit = Point::new(center.x - (shrink * radius * 0.5) as i32, center.y - (shrink * radius * 0.5) as i32);
            self.disc(lit, radius * (1.0 - shrink), color(hue, 0.7, 0.35 + 0.13 * f64::from(step)))?;
        }
        let ring = Size::new((radius * 1.8) as i32, (radius * 0.45) as i32);
        let (tilt, ink) = (self.uniform(-30.0, 30.0), color(hue + 30.0, 0.35, 0.95));
        imgproc::ellipse(&mut self.image, center, ring, tilt, 0.0, 360.0, ink, 3, imgproc::LINE_AA, 0)
    }

    /// Draws the title in the font of a genre, lower with every year, and lines of credits at the bottom.
    fn title(&mut self, genre: usize) -> Result {
        const FIRST: [&str; 8] = ["THE", "LAST", "NIGHT", "LITTLE", "DARK", "MY", "LOST", "BLUE"];
        const SECOND: [&str; 8] = ["RIVER", "HOUSE", "MOON", "ROAD", "SUMMER", "ISLAND", "GARDEN", "STORM"];
        let font = match GENRES[genre] {
            "Action" | "Sci-Fi" => imgproc::FONT_HERSHEY_DUPLEX,
            "Animation" | "Comedy" => imgproc::FONT_HERSHEY_SIMPLEX,
            "Romance" => imgproc::FONT_HERSHEY_SCRIPT_COMPLEX,
            "Drama" | "Horror" => imgproc::FONT_HERSHEY_TRIPLEX,
            _ => imgproc::FONT_HERSHEY_COMPLEX,
        };
        let thickness = if matches!(GENRES[genre], "Action" | "Animation" | "Comedy") { 4 } else { 2 };
        let top = 0.17 + 0.55 * self.time + self.uniform(-0.03, 0.03);
        // Bright on a dark background and vice versa.
        let behind = self.image.roi(Rect::new(0, (top * f64::from(SIZE.1)) as i32, SIZE.0, 30))?.clone_pointee();
        let brightness = core::mean_def(&behind)?.0[..3].iter().sum::<f64>() / 3.0;
        let hue = self.hue(genre);
        let ink = if brightness > 120.0 { color(hue, 0.8, 0.2) } else { color(hue, 0.15, 1.0) };
        for (line, words) in [FIRST, SECOND].into_iter().enumerate() {
            let word = words[self.random.gen_range(0..words.len())];
            let mut baseline = 0;
            let unscaled = imgproc::get_text_size(word, font, 1.0, thickness, &mut baseline)?;
            let scale = (f64::from(SIZE.0) * self.random.gen_range(0.55..0.85) / f64::from(unscaled.width))
                .min(2.4 - self.time);
            let size = imgproc::get_text_size(word, font, scale, thickness, &mut baseline)?;
            let origin = Point::new((SIZE.0 - size.width) / 2, (top * f64::from(SIZE.1)) as i32 + 52 * line as i32);
            imgproc::put_text(&mut self.image, word, origin, font, scale, ink, thickness, imgproc::LINE_AA, false)?;
        }
        for line in 0..3 {
            let y = SIZE.1 - 34 + 9 * line;
            let mut x = 24 + self.random.gen_range(0..20);
            while x < SIZE.0 - 30 {
                let length = self.random.gen_range(5..22);
                let bar = Rect::new(x, y, length, 3);
                imgproc::rectangle(&mut self.image, bar, ink, imgproc::FILLED, imgproc::LINE_8, 0)?;
                x += length + 5;
            }
        }
        Ok(())
    }

    /// Adds a little noise, as in a scan.
    fn noise(&mut self) -> Result {
        let strength = self.random.gen_range(1..9);
        for byte in self.image.data_bytes_mut()? {
            *byte = byte.saturating_add_signed(self.random.gen_range(-strength..=strength));
        }
        Ok(())
    }
}
