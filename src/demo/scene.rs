//! Rendering of synthetic clips.
//!
//! Textures are isotropic and stationary, and repeat every [`TILE`] pixels. A motion moves the viewport over the texture.
//! Position, scale, colors, contrast, speed and noise are random for every clip.

use std::f32::consts::TAU;

use rand::Rng;
use rand_xoshiro::Xoshiro256PlusPlus;

/// Side of the texture tile in pixels; a power of two.
const TILE: usize = 512;
/// Width and height of the clips in pixels.
pub(super) const SIZE: (usize, usize) = (320, 240);

/// The overlays of a clip.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Overlay {
    /// Height of each black bar as a fraction of the frame height; 0 for none.
    pub(super) letterbox: f32,
    /// Frequency of the brightness in Hz; 0 for none.
    pub(super) flicker: f32,
}

impl Overlay {
    /// Probabilities of black bars and of flicker.
    const PROBABILITIES: [f64; 2] = [0.4, 0.3];

    /// Draws random overlays.
    pub(super) fn draw(random: &mut Xoshiro256PlusPlus) -> Self {
        let [letterbox, flicker] = Self::PROBABILITIES.map(|probability| random.gen_bool(probability));
        let (height, frequency) = (random.gen_range(0.12..0.2), random.gen_range(1.5..4.0));
        Overlay { letterbox: if letterbox { height } else { 0.0 }, flicker: if flicker { frequency } else { 0.0 } }
    }

    /// Whether there are black bars, and whether there is flicker.
    pub(super) fn present(&self) -> [bool; 2] {
        [self.letterbox > 0.0, self.flicker > 0.0]
    }
}

/// The content of one clip: a texture, seen through a moving viewport.
pub(super) struct Scene {
    /// Intensities in [0, 1], ([`TILE`], [`TILE`]).
    tile: Vec<f32>,
    motion: &'static str,
    /// Duration of the clip.
    pub(super) seconds: f64,
    /// Pixels, revolutions or periods per second.
    speed: f32,
    /// Initial phase of a zoom, in radians.
    phase: f32,
    /// Center of the viewport in the tile.
    center: [f32; 2],
    scale: f32,
    angle: f32,
    /// Blue, green and red for intensity 0.
    dark: [f32; 3],
    /// Blue, green and red for intensity 1.
    bright: [f32; 3],
    /// Sensor noise. Every row of every frame uses a random section of it.
    grain: Vec<f32>,
    overlay: Overlay,
}

impl Scene {
    /// Draws a random scene.
    pub(super) fn draw(texture: &str, motion: &'static str, overlay: Overlay, random: &mut Xoshiro256PlusPlus) -> Self {
        let tile = match texture {
            "blobs" => blobs(random),
            "cells" => cells(random),
            _ => dots(random),
        };
        let direction = if random.gen_bool(0.5) { 1.0 } else { -1.0 };
        let speed = match motion {
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
            overlay,
        }
    }

    /// Renders the frame at `time` seconds: blue, green and red bytes, row by row.
    pub(super) fn render(&self, time: f32, random: &mut Xoshiro256PlusPlus, pixels: &mut [u8]) {
        let (mut center, mut scale, mut angle) = (self.center, self.scale, self.angle);
        match self.motion {
            "pan" => center = self.shifted(time, [1.0, 0.0]),
            "tilt" => center = self.shifted(time, [0.0, 1.0]),
            "spin" => angle += TAU * self.speed * time,
            // The scale oscillates, so that single frames have the scales of other motions.
            "zoom" => scale *= (0.45 * (TAU * self.speed * time + self.phase).sin()).exp2(),
            _ => {}
        }
        // Pan and tilt follow the axes of the frame, regardless of the angle of the texture.
        let (sin, cos) = angle.sin_cos();
        let (width, height) = SIZE;
        let bar = (self.overlay.letterbox * height as f32) as usize;
        // Without flicker, the sine is 0 and the brightness 1.
        let brightness = 1.0 + 0.4 * (TAU * self.overlay.flicker * time).sin();
        for (y, row) in pixels.chunks_exact_mut(width * 3).enumerate() {
            let grain = &self.grain[random.gen_range(0..self.grain.len() - width)..][..width];
            let dy = (y as f32 - height as f32 / 2.0) / scale;
            // The bars are black apart from the noise.
            let brightness = if y < bar || y >= height - bar { 0.0 } else { brightness };
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let dx = (x as f32 - width as f32 / 2.0) / scale;
                let value = self.sample(center[0] + cos * dx - sin * dy, center[1] + sin * dx + cos * dy);
                for (channel, out) in pixel.iter_mut().enumerate() {
                    let color = self.dark[channel] + (self.bright[channel] - self.dark[channel]) * value;
                    *out = (color * brightness + grain[x]) as u8;
                }
            }
        }
    }

    /// Returns the center of the viewport after moving along an axis of the frame.
    fn shifted(&self, time: f32, axis: [f32; 2]) -> [f32; 2] {
        let (sin, cos) = self.angle.sin_cos();
        let distance = self.speed * time / self.scale;
        [
            self.center[0] + distance * (cos * axis[0] - sin * axis[1]),
            self.center[1] + distance * (sin * axis[0] + cos * axis[1]),
        ]
    }

    /// Samples the tile bilinearly; it repeats in both directions.
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

/// Band-limited noise: plane waves of one frequency in all directions.
fn blobs(random: &mut Xoshiro256PlusPlus) -> Vec<f32> {
    let frequency = random.gen_range(11.0..16.0f32);
    let waves: Vec<[f32; 3]> = (0..24)
        .map(|i| {
            let direction = (i as f32 + random.r#gen::<f32>()) / 24.0 * std::f32::consts::PI;
            // An integer number of periods per tile, so that it repeats.
            [(frequency * direction.cos()).round(), (frequency * direction.sin()).round(), random.gen_range(0.0..TAU)]
        })
        .collect();
    tile(|x, y| {
        let sum: f32 = waves.iter().map(|[u, v, phase]| (TAU * (u * x + v * y) + phase).cos()).sum();
        (0.5 + 0.25 * sum / 3.5).clamp(0.0, 1.0)
    })
}

/// Voronoi cells with dark walls (Worley noise).
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

/// Bright discs of similar size.
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

/// Evaluates a function of coordinates in [0, 1) for every pixel of a tile.
fn tile(value: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let side = TILE as f32;
    (0..TILE * TILE).map(|i| value((i % TILE) as f32 / side, (i / TILE) as f32 / side)).collect()
}
