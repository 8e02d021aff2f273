//! Properties of a manifest's videos that affect features, from the headers of the files.

use rayon::prelude::*;

use crate::manifest::Manifest;
use crate::media::{self, Source};

/// Maximum number of listed videos per property.
const MAX_LISTED: usize = 3;

/// Returns lines for the terminal: the number of videos, and of those with high dynamic range or interlaced frames. Empty if
/// there are no videos. Files that are missing or cannot be read are not counted, nor are remote
/// files, which are not opened.
pub(super) fn lines(manifest: &Manifest) -> Vec<String> {
    let videos: Vec<_> = manifest
        .clips
        .par_iter()
        .filter(|clip| clip.url.is_none())
        .filter_map(|clip| match Source::of(clip) {
            Ok(Source::Video(location)) => Some((clip.id.as_str(), media::container_info(&location).ok()?)),
            _ => None,
        })
        .collect();
    if videos.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("videos: {}", videos.len())];
    let mut list = |property: &str, ids: Vec<&str>| {
        if let Some(first) = ids.get(..ids.len().min(MAX_LISTED)).filter(|first| !first.is_empty()) {
            let more = if ids.len() > MAX_LISTED { ", …" } else { "" };
            lines.push(format!("  {} {property}: {}{more}", ids.len(), first.join(", ")));
        }
    };
    let with = |property: fn(&media::ContainerInfo) -> bool| {
        videos.iter().filter(|(_, info)| property(info)).map(|(id, _)| *id).collect()
    };
    list("with high dynamic range (PQ or HLG), which is converted without tone mapping", with(|info| info.hdr));
    list("with interlaced frames (recipe: deinterlace = \"auto\")", with(|info| info.interlaced));
    lines
}

#[cfg(test)]
mod tests {
    use ffmpeg_next::color::{Space, TransferCharacteristic};

    use super::*;
    use crate::manifest::Clip;
    use crate::media::test_video::TestVideo;

    #[test]
    fn counts_videos_with_high_dynamic_range_and_interlaced_frames() {
        let directory = tempfile::tempdir().unwrap();
        let clip = |name: &str| Clip { id: name.into(), file: directory.path().join(name), ..Clip::default() };
        let clips: Vec<Clip> = ["plain.mp4", "hdr.mkv", "interlaced.mp4", "missing.mp4"].map(clip).to_vec();
        let (transfer, matrix) = (TransferCharacteristic::ARIB_STD_B67, Space::BT2020NCL);
        TestVideo::default().write(&clips[0].file);
        TestVideo { transfer, matrix, ..TestVideo::default() }.write(&clips[1].file);
        let options = &[("x264-params", "tff=1"), ("flags", "+ilme+ildct")];
        TestVideo { options, ..TestVideo::default() }.write(&clips[2].file);
        let manifest = Manifest { source: "m.csv".into(), clips, warnings: vec![], sha256: String::new() };
        let lines = lines(&manifest);
        assert_eq!(lines[0], "videos: 3");
        assert!(lines[1].starts_with("  1 with high dynamic range") && lines[1].ends_with(": hdr.mkv"), "{lines:?}");
        assert!(
            lines[2].starts_with("  1 with interlaced frames") && lines[2].ends_with(": interlaced.mp4"),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 3);
    }
}
