//! Unicode normalization of labels. Keyboards and file systems write the same label in different forms, such as `é` as one
//! code point or as `e` with a combining accent; normalization form C (UAX #15) makes them equal.

use std::borrow::Cow;
use std::collections::BTreeSet;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::clip::Clip;
use super::problems::count_of;

/// Returns a label in normalization form C.
pub fn normalize_label(label: &str) -> Cow<'_, str> {
    if is_nfc(label) { Cow::Borrowed(label) } else { Cow::Owned(label.nfc().collect()) }
}

/// Normalizes the labels of clips, and returns a warning if that changed any.
pub(super) fn normalize_labels<'a>(clips: impl Iterator<Item = &'a mut Clip>) -> Option<String> {
    let mut changed = BTreeSet::new();
    for clip in clips.filter(|clip| clip.labels.iter().any(|label| !is_nfc(label))) {
        let mut distinct: Vec<String> = Vec::new();
        for label in std::mem::take(&mut clip.labels) {
            let normalized = normalize_label(&label).into_owned();
            if normalized != label {
                changed.insert(normalized.clone());
            }
            if !distinct.contains(&normalized) {
                distinct.push(normalized);
            }
        }
        clip.labels = distinct;
    }
    let first = changed.first()?;
    Some(format!("Unicode normalization (NFC) changed {}, such as `{first}`", count_of(changed.len(), "label")))
}
