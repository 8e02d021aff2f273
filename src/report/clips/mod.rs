//! The clips behind the results of a report: those of each confusion, likely label errors, and the worst errors with their
//! nearest training clips; in HTML with thumbnails.

mod gallery;
mod groups;
mod neighbors;
mod thumbnails;

use std::collections::HashMap;

use maud::{Markup, html};

use crate::dataset::DatasetSplits;
use crate::error::Result;
use crate::evaluate::Predictions;
use crate::manifest::Clip;

use self::gallery::Gallery;
pub(super) use self::groups::label_errors;
use self::thumbnails::Thumbnails;

/// Default of [`ClipSources::thumbnails`].
#[cfg(feature = "media")]
const DEFAULT_THUMBNAILS: usize = 3;

/// Flags of programs that write pages.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct PageFlags {
    /// Maximum number of thumbnails of each confusion in report.html [default: 3]; 0: do not decode any. At most 120 thumbnails and
    /// 1 MiB of them are in a page
    #[cfg(feature = "media")]
    #[arg(long, value_name = "N")]
    pub thumbnails: Option<usize>,
}

impl PageFlags {
    /// Returns the maximum number of thumbnails of each confusion; 0 in builds that do not decode.
    pub fn thumbnails(&self) -> usize {
        #[cfg(feature = "media")]
        return self.thumbnails.unwrap_or(DEFAULT_THUMBNAILS);
        #[cfg(not(feature = "media"))]
        0
    }

    /// Returns `true` if a flag was given.
    pub fn is_given(&self) -> bool {
        #[cfg(feature = "media")]
        return self.thumbnails.is_some();
        #[cfg(not(feature = "media"))]
        false
    }
}

/// The clips of a report and their features, as far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClipSources<'a> {
    /// The clips with their files.
    pub clips: &'a [Clip],
    /// The features, with those of training clips.
    pub data: Option<&'a DatasetSplits>,
    /// Maximum number of thumbnails of each confusion; 0 for a report without thumbnails.
    pub thumbnails: usize,
}

/// Returns the sections of a page on the clips of each part, in the order of `parts`, which are names and predictions. Thumbnails are
/// limited per page, those of the first parts first.
///
/// # Errors
/// Returns an error if features cannot be read.
pub(super) fn sections(parts: &[(&str, &Predictions)], sources: &ClipSources<'_>) -> Result<Vec<Markup>> {
    let galleries: Vec<Vec<Gallery>> =
        parts.iter().map(|(name, part)| groups::galleries(name, part, sources)).collect::<Result<_>>()?;
    let clips: HashMap<&str, &Clip> = sources.clips.iter().map(|clip| (clip.id.as_str(), clip)).collect();
    let ids = galleries.iter().flatten().flat_map(Gallery::ids);
    let thumbnails = if sources.thumbnails > 0 { Thumbnails::decode(ids, &clips) } else { Thumbnails::default() };
    let section = |galleries: &Vec<Gallery>| html! { @for gallery in galleries { (gallery.html(&thumbnails)) } };
    Ok(galleries.iter().map(section).collect())
}
