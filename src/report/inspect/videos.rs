//! Properties of a manifest's videos that affect features, from the headers of the files.

use rayon::prelude::*;

use crate::manifest::Manifest;
use crate::media::{self, Source};

/// Maximum number of listed videos per property.
const MAX_LISTED: usize = 3;

/// Returns lines for the terminal: the number of videos, and of those with high dynamic range or interlaced frames. Empty if
/// there are no videos. Files that are missing or cannot be read are not counted.
pub(super) fn lines(manifest: &Manifest) -> Vec<String> {
    let videos: Vec<_> = manifest
        .clips
        .par_iter()
        .filter_map(|clip| match Source::of(clip) {
            Ok(Source::Video(path)) => Some((clip.id.as_str(), media::container_info(&path).ok()?)),
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
