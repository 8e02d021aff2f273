//! Synthetic clips of 15 classes: 3 textures × 5 motions. A single frame shows the texture but not the motion.
//!
//! The label may be the motion alone, which a single frame does not show.
//!
//! In multi-label mode, texture and motion are separate labels (`still` is not a label). Independently of them, some
//! clips have black bars (`letterbox`, visible in a single frame) or a varying brightness (`flicker`, not visible in a single frame).

use std::path::PathBuf;

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::encoder::{Codec, Encoder};
use super::scene::{Overlay, SIZE, Scene};
use super::{FileCounts, create_missing, prepare_directory, split_of, write_if_changed};
use crate::error::{Error, Result};
use crate::files;
use crate::progress::ProgressSink;

/// The textures.
pub const TEXTURES: [&str; 3] = ["blobs", "cells", "dots"];
/// The motions.
pub const MOTIONS: [&str; 5] = ["still", "pan", "tilt", "spin", "zoom"];
/// The overlays of multi-label clips.
pub const OVERLAYS: [&str; 2] = ["letterbox", "flicker"];
/// Frames per second.
const FPS: u32 = 25;

/// What the labels of the clips are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// One of 15 classes, texture and motion.
    TextureAndMotion,
    /// One of five classes, the motion.
    Motion,
    /// One to four labels.
    Several,
}

/// Settings of [`make`].
#[derive(Debug, Clone)]
pub struct ClipSettings {
    /// The directory to write: `manifest.csv`, `attributes.csv` and `clips/`.
    pub out: PathBuf,
    /// Number of clips per texture and motion, at least 6. Of every six, one is for validation and one for test.
    pub clips: usize,
    /// Seed of the random generator.
    pub seed: u64,
    /// What the labels are. Those with several labels have overlays, the others are the same clips.
    pub labels: Labels,
}

/// Result of [`make`].
#[derive(Debug)]
pub struct ClipSummary {
    /// Numbers of clips.
    pub files: FileCounts,
    /// Name of the codec.
    pub codec: &'static str,
}

/// Creates the clips and their manifest. Clips of an earlier run with the same settings are kept.
///
/// # Errors
/// Returns an error if the directory cannot be written, or if libavcodec has neither an H.264 nor an MPEG-4 encoder.
pub fn make(settings: &ClipSettings, progress: &dyn ProgressSink) -> Result<ClipSummary> {
    let directory = settings.out.join("clips");
    std::fs::create_dir_all(&directory).map_err(Error::io(&directory))?;
    let codec = Codec::available(&directory)?;
    let several = settings.labels == Labels::Several;
    let overlays = if several { " overlays" } else { "" };
    let stamp = format!("2 seed={} codec={}{overlays}\n", settings.seed, codec.name());
    prepare_directory(&settings.out, &directory, &stamp)?;
    let mut jobs = Vec::new();
    for texture in 0..TEXTURES.len() {
        for motion in 0..MOTIONS.len() {
            for instance in 0..settings.clips {
                let mut job = ClipJob { texture, motion, instance, overlay: Overlay::default(), file: PathBuf::new() };
                if several {
                    job.overlay = Overlay::draw(&mut Xoshiro256PlusPlus::seed_from_u64(
                        settings.seed.wrapping_add(1).wrapping_mul(0xD1B5_4A32_D192_ED03) ^ job.number(),
                    ));
                }
                job.file = directory.join(format!("{}.mp4", job.id()));
                jobs.push(job);
            }
        }
    }
    let files = create_missing(&jobs, |job| &job.file, |job| encode(job, settings.seed, codec), progress)?;
    write_lists(settings, &jobs)?;
    Ok(ClipSummary { files, codec: codec.name() })
}

/// One clip to create.
struct ClipJob {
    /// Index in [`TEXTURES`].
    texture: usize,
    /// Index in [`MOTIONS`].
    motion: usize,
    instance: usize,
    overlay: Overlay,
    file: PathBuf,
}

impl ClipJob {
    /// Unique number of the clip, which seeds its random generators.
    fn number(&self) -> u64 {
        ((self.texture * 64 + self.motion) * 4096 + self.instance) as u64
    }

    /// Returns the label column of the clip's line in the manifest.
    fn label(&self, labels: Labels) -> String {
        let (texture, motion) = (TEXTURES[self.texture], MOTIONS[self.motion]);
        match labels {
            Labels::TextureAndMotion => format!("{texture}-{motion}"),
            Labels::Motion => motion.to_owned(),
            Labels::Several => {
                let motion = Some(motion).filter(|&motion| motion != "still");
                let overlays = OVERLAYS.into_iter().zip(self.overlay.present());
                let overlays = overlays.filter_map(|(name, present)| present.then_some(name));
                let labels: Vec<&str> = std::iter::once(texture).chain(motion).chain(overlays).collect();
                labels.join("|")
            }
        }
    }

    fn id(&self) -> String {
        format!("{}-{}-{:02}", TEXTURES[self.texture], MOTIONS[self.motion], self.instance)
    }
}

fn write_lists(settings: &ClipSettings, jobs: &[ClipJob]) -> Result<()> {
    let several = settings.labels == Labels::Several;
    let mut manifest = format!("id,path,{},split\n", if several { "labels" } else { "label" });
    let mut attributes = format!("id,texture,motion{}\n", if several { ",letterbox,flicker" } else { "" });
    for job in jobs {
        let (id, texture, motion) = (job.id(), TEXTURES[job.texture], MOTIONS[job.motion]);
        let label = job.label(settings.labels);
        let [letterbox, flicker] = job.overlay.present().map(u8::from);
        let overlays = if several { format!(",{letterbox},{flicker}") } else { String::new() };
        manifest += &format!("{id},clips/{id}.mp4,{label},{}\n", split_of(job.instance));
        attributes += &format!("{id},{texture},{motion}{overlays}\n");
    }
    write_if_changed(&settings.out.join("manifest.csv"), &manifest)?;
    write_if_changed(&settings.out.join("attributes.csv"), &attributes)
}

fn encode(job: &ClipJob, seed: u64, codec: Codec) -> Result<()> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ job.number());
    let scene = Scene::draw(TEXTURES[job.texture], MOTIONS[job.motion], job.overlay, &mut random);
    let partial = job.file.with_extension("part.mp4");
    let mut encoder = Encoder::create(&partial, codec, SIZE, FPS)?;
    let (width, height) = SIZE;
    let mut pixels = vec![0u8; width * height * 3];
    for frame in 0..(scene.seconds * f64::from(FPS)) as usize {
        scene.render(frame as f32 / FPS as f32, &mut random, &mut pixels);
        encoder.write(&pixels)?;
    }
    encoder.finish()?;
    files::rename(&partial, &job.file).map_err(Error::io(&job.file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_texture_motion_and_overlays() {
        let overlay = Overlay { letterbox: 0.15, flicker: 2.0 };
        let job = |motion, overlay| ClipJob { texture: 1, motion, instance: 0, overlay, file: PathBuf::new() };
        let (still, spin) = (job(0, Overlay::default()), job(3, overlay));
        assert_eq!(
            [still.label(Labels::TextureAndMotion), spin.label(Labels::TextureAndMotion)],
            ["cells-still", "cells-spin"]
        );
        assert_eq!([still.label(Labels::Motion), spin.label(Labels::Motion)], ["still", "spin"]);
        assert_eq!(
            [still.label(Labels::Several), spin.label(Labels::Several)],
            ["cells", "cells|spin|letterbox|flicker"]
        );
    }
}
