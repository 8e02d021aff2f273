//! Thumbnails of clips as data URIs: the image, or the middle frame of a video or of a directory of frames.

use std::collections::HashMap;

use crate::manifest::Clip;

/// Maximum number of thumbnails of a page.
#[cfg(feature = "media")]
pub(super) const MAX_COUNT: usize = 120;
/// Maximum size of all data URIs of a page in bytes.
#[cfg(feature = "media")]
pub(super) const MAX_BYTES: usize = 1 << 20;

/// The thumbnail of a clip.
#[cfg_attr(not(feature = "media"), expect(dead_code))] // Only decoded clips have thumbnails.
pub(super) enum Thumbnail {
    /// A data URI with a JPEG image.
    Jpeg(String),
    /// Why there is none.
    Unavailable(String),
}

/// Thumbnails by the id of the clip.
#[derive(Default)]
pub(super) struct Thumbnails {
    by_id: HashMap<String, Thumbnail>,
}

impl Thumbnails {
    /// Returns the thumbnail of a clip; `None` for pages without thumbnails.
    pub fn of(&self, id: &str) -> Option<&Thumbnail> {
        self.by_id.get(id)
    }

    /// Decodes the clips `ids` in order, as many as the limits of a page allow. A clip that is not in `clips` or cannot be decoded is
    /// unavailable.
    #[cfg(feature = "media")]
    pub fn decode<'a>(ids: impl Iterator<Item = &'a str>, clips: &HashMap<&str, &Clip>) -> Self {
        use rayon::prelude::*;

        if clips.is_empty() {
            return Self::default();
        }
        // A clip that is shown several times is in the page several times.
        let mut occurrences: HashMap<&str, usize> = HashMap::new();
        let mut distinct = Vec::new();
        for id in ids {
            let count = occurrences.entry(id).or_insert(0);
            if *count == 0 {
                distinct.push(id);
            }
            *count += 1;
        }
        let mut ids = distinct;
        let mut count = 0;
        let within = ids.iter().take_while(|id| {
            count += occurrences[**id];
            count <= MAX_COUNT
        });
        let over = ids.split_off(within.count());
        let decode = |id: &&str| match clips.get(id) {
            Some(clip) => media::data_uri(clip).unwrap_or_else(|error| Thumbnail::Unavailable(error.to_string())),
            None => Thumbnail::Unavailable("the clip is not in the manifest".into()),
        };
        let decoded: Vec<Thumbnail> = ids.par_iter().map(decode).collect();
        let mut bytes = 0;
        let limit = || Thumbnail::Unavailable("beyond the number or size of thumbnails of a page".into());
        let limited = decoded.into_iter().zip(&ids).map(|(thumbnail, id)| match &thumbnail {
            Thumbnail::Jpeg(uri) if bytes + uri.len() * occurrences[id] > MAX_BYTES => limit(),
            Thumbnail::Jpeg(uri) => {
                bytes += uri.len() * occurrences[id];
                thumbnail
            }
            Thumbnail::Unavailable(_) => thumbnail,
        });
        let by_id = ids.iter().map(|id| id.to_string()).zip(limited).collect::<Vec<_>>();
        Self { by_id: by_id.into_iter().chain(over.into_iter().map(|id| (id.to_string(), limit()))).collect() }
    }

    /// Returns no thumbnails, since this build does not decode.
    #[cfg(not(feature = "media"))]
    pub fn decode<'a>(_: impl Iterator<Item = &'a str>, _: &HashMap<&str, &Clip>) -> Self {
        Self::default()
    }
}

#[cfg(feature = "media")]
mod media {
    use base64::prelude::{BASE64_STANDARD, Engine};

    use super::Thumbnail;
    use crate::error::{Error, Result};
    use crate::manifest::Clip;
    use crate::media::{self, Frame, FrameSink, Sampling, Transform, Window, jpeg};
    use crate::models::input::{Color, InputLayout, InputSpec, Interpolation, Resize};

    /// Length of the longer side in pixels.
    const SIDE: usize = 96;
    /// JPEG quality: about 3 kB per thumbnail.
    const QUALITY: i32 = 75;

    /// Encodes the last frame that it receives.
    #[derive(Default)]
    struct ThumbnailSink {
        jpeg: Option<Vec<u8>>,
    }

    impl FrameSink for ThumbnailSink {
        fn begin(&mut self, _: &[Window], _: &[usize]) -> Result<()> {
            Ok(())
        }

        fn frame(&mut self, _: usize, frame: &Frame<'_>) -> Result<()> {
            let image = frame.image();
            let longest = image.height.max(image.width);
            let size = [image.height, image.width].map(|side| (side * SIDE.min(longest)).div_ceil(longest).max(1));
            let mut transform = Transform::new(&InputSpec {
                name: String::new(),
                layout: InputLayout::Frames,
                frames: None,
                size,
                resize: Resize::Size(size),
                interpolation: Interpolation::Bilinear,
                antialias: true,
                color: Color::Bgr,
                scale: 1.0,
                mean: [0.0; 3],
                std: [1.0; 3],
            });
            let mut pixels = vec![0; 3 * size[0] * size[1]];
            transform.write_bytes(image, &mut pixels);
            self.jpeg = jpeg::encode(media::BgrImage::new(size[0], size[1], &pixels), QUALITY);
            Ok(())
        }
    }

    /// Decodes the middle frame of a clip.
    ///
    /// # Errors
    /// Returns an error if the clip cannot be decoded.
    pub fn data_uri(clip: &Clip) -> Result<Thumbnail> {
        let mut sink = ThumbnailSink::default();
        media::decode(clip, &Sampling::Even { frames: 1 }, &mut sink)?;
        let failed = || Error::Media { path: clip.file.clone(), message: "cannot be encoded as JPEG".into() };
        let encoded = BASE64_STANDARD.encode(sink.jpeg.ok_or_else(failed)?);
        Ok(Thumbnail::Jpeg(format!("data:image/jpeg;base64,{encoded}")))
    }
}
