//! Demo data: clips here, posters in [`posters`].
//!
//! Clips: 15 classes, 3 textures × 5 motions, made so that one frame tells the texture and not the motion.
//!
//! With several labels a clip, texture and motion are labels of their own (`still` is none), and independently of them
//! some clips have black bars (`letterbox`, told by one frame) or a light that comes and goes (`flicker`, told by none).
//!
//! Textures are isotropic and stationary and repeat every [`TILE`] pixels; a motion only moves the window through which
//! the texture is seen. Position, scale, colors, contrast, speed and noise are drawn for every clip.

mod encoder;
pub mod posters;

use std::f32::consts::TAU;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::ProgressBar;
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use self::encoder::{Codec, Encoder};
use crate::error::{Error, Result};
use crate::manifest::DEMO_STAMP;

/// What fills the picture.
pub const TEXTURES: [&str; 3] = ["blobs", "cells", "dots"];
/// How it moves.
pub const MOTIONS: [&str; 5] = ["still", "pan", "tilt", "spin", "zoom"];
/// What may lie over it, in clips with several labels.
pub const OVERLAYS: [&str; 2] = ["letterbox", "flicker"];
/// Width and height of the clips in pixels.
pub const SIZE: (usize, usize) = (320, 240);

/// Frames a second.
const FPS: u32 = 25;
/// Side of the texture's tile in pixels; a power of two.
const TILE: usize = 512;

/// What to make.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder to write: `manifest.csv`, `attributes.csv` and `clips/`.
    pub out: PathBuf,
    /// Clips of each class, at least 6; two of twelve are for validation and two for test.
    pub clips: usize,
    /// Another seed gives other clips.
    pub seed: u64,
    /// Give each clip one to four labels instead of one class.
    pub multi_label: bool,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// Clips encoded in this run.
    pub clips: usize,
    /// Clips that were there.
    pub kept: usize,
    /// The codec.
    pub codec: &'static str,
}

struct Job {
    texture: usize,
    motion: usize,
    instance: usize,
    overlay: Overlay,
    file: PathBuf,
}

/// What lies over a clip; nothing where all is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Overlay {
    /// Height of each black bar as a share of the picture's.
    letterbox: f32,
    /// How often a second the light comes and goes.
    flicker: f32,
}

/// The shares of the clips that have each of [`OVERLAYS`].
const OVERLAY_SHARES: [f64; 2] = [0.4, 0.3];

impl Overlay {
    fn draw(random: &mut Xoshiro256PlusPlus) -> Self {
        let [letterbox, flicker] = OVERLAY_SHARES.map(|share| random.gen_bool(share));
        let (bars, rate) = (random.gen_range(0.12..0.2), random.gen_range(1.5..4.0));
        Overlay { letterbox: if letterbox { bars } else { 0.0 }, flicker: if flicker { rate } else { 0.0 } }
    }

    /// Which of [`OVERLAYS`] it has.
    fn has(&self) -> [bool; 2] {
        [self.letterbox > 0.0, self.flicker > 0.0]
    }
}

impl Job {
    /// A number of its own for each clip, to seed what is drawn for it.
    fn number(&self) -> u64 {
        ((self.texture * 64 + self.motion) * 4096 + self.instance) as u64
    }

    /// The labels where a clip has several: one to four.
    fn labels(&self) -> Vec<&'static str> {
        let motion = Some(MOTIONS[self.motion]).filter(|&motion| motion != "still");
        let overlays = OVERLAYS.into_iter().zip(self.overlay.has()).filter_map(|(name, has)| has.then_some(name));
        std::iter::once(TEXTURES[self.texture]).chain(motion).chain(overlays).collect()
    }

    fn id(&self) -> String {
        format!("{}-{}-{:02}", TEXTURES[self.texture], MOTIONS[self.motion], self.instance)
    }

    /// Of every six clips of a class one is for validation and one for test.
    fn split(&self) -> &'static str {
        match self.instance % 6 {
            4 => "val",
            5 => "test",
            _ => "train",
        }
    }
}

/// Makes the clips and their manifest; what is there from a run with the same settings is kept.
///
/// # Errors
/// The folder cannot be written, or libavcodec can encode neither H.264 nor MPEG-4.
pub fn make(settings: &Settings, bar: &ProgressBar) -> Result<Made> {
    let folder = settings.out.join("clips");
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let codec = Codec::usable(&folder)?;
    let overlays = if settings.multi_label { " overlays" } else { "" };
    begin(&settings.out, &folder, &format!("2 seed={} codec={}{overlays}\n", settings.seed, codec.name()))?;
    let mut jobs = Vec::new();
    for texture in 0..TEXTURES.len() {
        for motion in 0..MOTIONS.len() {
            for instance in 0..settings.clips {
                let mut job = Job { texture, motion, instance, overlay: Overlay::default(), file: PathBuf::new() };
                if settings.multi_label {
                    job.overlay = Overlay::draw(&mut Xoshiro256PlusPlus::seed_from_u64(
                        settings.seed.wrapping_add(1).wrapping_mul(0xD1B5_4A32_D192_ED03) ^ job.number(),
                    ));
                }
                job.file = folder.join(format!("{}.mp4", job.id()));
                jobs.push(job);
            }
        }
    }
    bar.set_length(jobs.len() as u64);
    let made = AtomicUsize::new(0);
    jobs.par_iter().try_for_each(|job| {
        if !job.file.exists() {
            encode(job, settings.seed, codec)?;
            made.fetch_add(1, Ordering::Relaxed);
        }
        bar.inc(1);
        Ok(())
    })?;
    bar.finish_and_clear();
    write_lists(settings, &jobs)?;
    let clips = made.into_inner();
    Ok(Made { clips, kept: jobs.len() - clips, codec: codec.name() })
}

/// Makes `folder`, without anything in it that the stamp in `out` says was made with other settings than `wanted`.
fn begin(out: &Path, folder: &Path, wanted: &str) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let stamp = out.join(DEMO_STAMP);
    if std::fs::read_to_string(&stamp).unwrap_or_default() != wanted {
        std::fs::remove_dir_all(folder).map_err(Error::io(folder))?;
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        std::fs::write(&stamp, wanted).map_err(Error::io(&stamp))?;
    }
    Ok(())
}

/// Writes a list. An unchanged one keeps its time, so that nothing made from it is made again.
fn write_list(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(Error::io(path))
}

fn write_lists(settings: &Settings, jobs: &[Job]) -> Result<()> {
    let several = settings.multi_label;
    let mut manifest = format!("id,path,{},split\n", if several { "labels" } else { "label" });
    let mut attributes = format!("id,texture,motion{}\n", if several { ",letterbox,flicker" } else { "" });
    for job in jobs {
        let (id, texture, motion) = (job.id(), TEXTURES[job.texture], MOTIONS[job.motion]);
        let label = if several { job.labels().join("|") } else { format!("{texture}-{motion}") };
        let [letterbox, flicker] = job.overlay.has().map(u8::from);
        let overlays = if several { format!(",{letterbox},{flicker}") } else { String::new() };
        manifest += &format!("{id},clips/{id}.mp4,{label},{}\n", job.split());
        attributes += &format!("{id},{texture},{motion}{overlays}\n");
    }
    write_list(&settings.out.join("manifest.csv"), &manifest)?;
    write_list(&settings.out.join("attributes.csv"), &attributes)
}

fn encode(job: &Job, seed: u64, codec: Codec) -> Result<()> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ job.number());
    let scene = Scene { overlay: job.overlay, ..Scene::draw(job.texture, job.motion, &mut random) };
    let unfinished = job.file.with_extension("part.mp4");
    let mut encoder = Encoder::create(&unfinished, codec, SIZE, FPS)?;
    let (width, height) = SIZE;
    let mut pixels = vec![0u8; width * height * 3];
    for frame in 0..(scene.seconds * f64::from(FPS)) as usize {
        scene.render(frame as f32 / FPS as f32, &mut random, &mut pixels);
        encoder.write(&pixels)?;
    }
    encoder.finish()?;
    std::fs::rename(&unfinished, &job.file).map_err(Error::io(&job.file))
}

/// One clip: a texture, seen through a moving window.
struct Scene {
    tile: Vec<f32>,
    motion: usize,
    seconds: f64,
    /// Pixels, turns or doublings a second.
    speed: f32,
    phase: f32,
    center: [f32; 2],
    scale: f32,
    angle: f32,
    dark: [f32; 3],
    bright: [f32; 3],
    /// Sensor noise; every row of every frame takes another stretch of it.
    grain: Vec<f32>,
    overlay: Overlay,
}

impl Scene {
    fn draw(texture: usize, motion: usize, random: &mut Xoshiro256PlusPlus) -> Self {
        let tile = match TEXTURES[texture] {
            "blobs" => blobs(random),
            "cells" => cells(random),
            _ => dots(random),
        };
        let direction = if random.gen_bool(0.5) { 1.0 } else { -1.0 };
        let speed = match MOTIONS[motion] {
            "pan" | "tilt" => random.gen_range(50.0..110.0),
            "spin" => random.gen_range(0.15..0.35),
            "zoom" => random.gen_range(0.5..0.9),
            _ => 0.0,
        };
        let noise = random.gen_range(2.0..9.0);
        let grain = (0..1 << 14).map(|_| (random.r#gen::<f32>() + random.r#gen::<f32>() - 1.0) * 2.0 * noise).collect();
        let brightness = random.gen_range(40.0..100.0);
        let contrast = random.gen_range(70.0..130.0);
        let mut tint = || random.gen_range(-30.0..30.0);
        let (dark_tint, bright_tint) = ([tint(), tint(), tint()], [tint(), tint(), tint()]);
        Scene {
            tile,
            motion,
            seconds: random.gen_range(2.0..4.0),
            speed: speed * direction,
            phase: random.gen_range(0.0..TAU),
            center: [random.gen_range(0.0..TILE as f32), random.gen_range(0.0..TILE as f32)],
            scale: random.gen_range(0.7..1.4),
            angle: random.gen_range(0.0..TAU),
            dark: dark_tint.map(|t| brightness + t),
            bright: bright_tint.map(|t| brightness + contrast + t),
            grain,
            overlay: Overlay::default(),
        }
    }

    fn render(&self, time: f32, random: &mut Xoshiro256PlusPlus, pixels: &mut [u8]) {
        let (mut center, mut scale, mut angle) = (self.center, self.scale, self.angle);
        match MOTIONS[self.motion] {
            "pan" => center = self.shifted(time, [1.0, 0.0]),
            "tilt" => center = self.shifted(time, [0.0, 1.0]),
            "spin" => angle += TAU * self.speed * time,
            // To and fro, so that no scale belongs to this motion alone.
            "zoom" => scale *= (0.45 * (TAU * self.speed * time + self.phase).sin()).exp2(),
            _ => {}
        }
        // Pan and tilt follow the picture's axes; the texture itself lies at any angle.
        let (sin, cos) = angle.sin_cos();
        let (width, height) = SIZE;
        let bar = (self.overlay.letterbox * height as f32) as usize;
        // Without flicker the sine is 0 and the light 1.
        let light = 1.0 + 0.4 * (TAU * self.overlay.flicker * time).sin();
        for (y, row) in pixels.chunks_exact_mut(width * 3).enumerate() {
            let grain = &self.grain[random.gen_range(0..self.grain.len() - width)..][..width];
            let dy = (y as f32 - height as f32 / 2.0) / scale;
            // Black bars still show the camera's noise.
            let light = if y < bar || y >= height - bar { 0.0 } else { light };
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let dx = (x as f32 - width as f32 / 2.0) / scale;
                let value = self.sample(center[0] + cos * dx - sin * dy, center[1] + sin * dx + cos * dy);
                for (channel, out) in pixel.iter_mut().enumerate() {
                    let color = self.dark[channel] + (self.bright[channel] - self.dark[channel]) * value;
                    *out = (color * light + grain[x]) as u8;
                }
            }
        }
    }

    /// The window's center after moving along an axis of the picture.
    fn shifted(&self, time: f32, axis: [f32; 2]) -> [f32; 2] {
        let (sin, cos) = self.angle.sin_cos();
        let distance = self.speed * time / self.scale;
        [
            self.center[0] + distance * (cos * axis[0] - sin * axis[1]),
            self.center[1] + distance * (sin * axis[0] + cos * axis[1]),
        ]
    }

    /// The tile at a point, bilinear, repeating.
    fn sample(&self, x: f32, y: f32) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (fx, fy) = (x - left, y - top);
        let at = |dx: i32, dy: i32| {
            let column = (left as i32 + dx) as usize & (TILE - 1);
            let row = (top as i32 + dy) as usize & (TILE - 1);
            self.tile[row * TILE + column]
        };
        let upper = at(0, 0) * (1.0 - fx) + at(1, 0) * fx;
        let lower = at(0, 1) * (1.0 - fx) + at(1, 1) * fx;
        upper * (1.0 - fy) + lower * fy
    }
}

/// Band-limited noise: waves of one length in all directions.
fn blobs(random: &mut Xoshiro256PlusPlus) -> Vec<f32> {
    let frequency = random.gen_range(11.0..16.0f32);
    let waves: Vec<[f32; 3]> = (0..24)
        .map(|i| {
            let direction = (i as f32 + random.r#gen::<f32>()) / 24.0 * std::f32::consts::PI;
            // Whole waves a tile, so that it repeats.
            [(frequency * direction.cos()).round(), (frequency * direction.sin()).round(), random.gen_range(0.0..TAU)]
        })
        .collect();
    tile(|x, y| {
        let sum: f32 = waves.iter().map(|[u, v, phase]| (TAU * (u * x + v * y) + phase).cos()).sum();
        (0.5 + 0.25 * sum / 3.5).clamp(0.0, 1.0)
    })
}

/// Cells with dark walls: the nearest two of random points.
fn cells(random: &mut Xoshiro256PlusPlus) -> Vec<f32> {
    let count = random.gen_range(110..170);
    let points: Vec<[f32; 3]> =
        (0..count).map(|_| [random.r#gen(), random.r#gen(), random.gen_range(0.45..1.0)]).collect();
    tile(|x, y| {
        let (mut first, mut second, mut shade) = (f32::MAX, f32::MAX, 0.0);
        for [px, py, value] in &points {
            let wrapped = |d: f32| d - d.round();
            let (dx, dy) = (wrapped(x - px), wrapped(y - py));
            let distance = dx * dx + dy * dy;
            if distance < first {
                (second, first, shade) = (first, distance, *value);
            } else if distance < second {
                second = distance;
            }
        }
        let wall = (second.sqrt() - first.sqrt()) * TILE as f32;
        shade * (wall / 5.0).clamp(0.0, 1.0)
    })
}

/// Bright discs of like size.
fn dots(random: &mut Xoshiro256PlusPlus) -> Vec<f32> {
    let count = random.gen_range(190..260);
    let discs: Vec<[f32; 3]> =
        (0..count).map(|_| [random.r#gen(), random.r#gen(), random.gen_range(5.0..9.0)]).collect();
    tile(|x, y| {
        let wrapped = |d: f32| (d - d.round()) * TILE as f32;
        let inside = |[px, py, radius]: &[f32; 3]| {
            let (dx, dy) = (wrapped(x - px), wrapped(y - py));
            (radius - (dx * dx + dy * dy).sqrt() + 0.5).clamp(0.0, 1.0)
        };
        discs.iter().map(inside).fold(0.0, f32::max)
    })
}

/// A tile from a function of coordinates in 0..1.
fn tile(value: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let side = TILE as f32;
    (0..TILE * TILE).map(|i| value((i % TILE) as f32 / side, (i / TILE) as f32 / side)).collect()
}
