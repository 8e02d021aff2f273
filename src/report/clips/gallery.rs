//! Groups of clips with captions, and their HTML.

use maud::{Markup, html};

use super::thumbnails::{Thumbnail, Thumbnails};

/// A section: groups of clips.
pub(super) struct Gallery {
    pub heading: String,
    /// What the groups are.
    pub note: String,
    pub groups: Vec<ClipGroup>,
}

/// A title and clips.
pub(super) struct ClipGroup {
    pub title: String,
    pub clips: Vec<ShownClip>,
}

/// A clip with its caption.
pub(super) struct ShownClip {
    pub id: String,
    pub caption: String,
}

impl Gallery {
    /// Returns the ids of the clips in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().flat_map(|group| group.clips.iter().map(|clip| clip.id.as_str()))
    }

    /// Formats the section.
    pub fn html(&self, thumbnails: &Thumbnails) -> Markup {
        html! {
            h3 { (self.heading) }
            p { (self.note) }
            div.gallery {
                @for group in &self.groups {
                    div.group {
                        b { (group.title) }
                        div.clips { @for clip in &group.clips { (clip.html(thumbnails.of(&clip.id))) } }
                    }
                }
            }
        }
    }
}

impl ShownClip {
    fn html(&self, thumbnail: Option<&Thumbnail>) -> Markup {
        html! {
            figure.clip title=(self.id) {
                @match thumbnail {
                    Some(Thumbnail::Jpeg(uri)) => { img src=(uri) alt=(self.id); }
                    Some(Thumbnail::Unavailable(reason)) => { div.missing title=(reason) { (self.id) } }
                    None => {}
                }
                figcaption { (self.id) br; (self.caption) }
            }
        }
    }
}
