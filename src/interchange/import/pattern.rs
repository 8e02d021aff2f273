//! Patterns of names: `{id}_r21d.npy`.

use std::fmt;
use std::str::FromStr;

/// A pattern with one placeholder: `{id}` for the id of a clip, or `{stem}` for the name of its file without the extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    prefix: String,
    suffix: String,
    /// The placeholder is `{stem}`.
    pub by_stem: bool,
}

impl FromStr for Pattern {
    type Err = String;

    /// Parses a pattern.
    ///
    /// # Errors
    /// Returns an error if the text does not contain exactly one placeholder.
    fn from_str(text: &str) -> Result<Self, String> {
        let split = [("{id}", false), ("{stem}", true)].into_iter().filter_map(|(placeholder, by_stem)| {
            text.split_once(placeholder).map(|(prefix, suffix)| (prefix, suffix, by_stem))
        });
        match split.collect::<Vec<_>>().as_slice() {
            [(prefix, suffix, by_stem)] if !suffix.contains("{id}") && !suffix.contains("{stem}") => {
                Ok(Self { prefix: prefix.to_string(), suffix: suffix.to_string(), by_stem: *by_stem })
            }
            _ => Err("needs one {id} or one {stem}, such as '{id}_r21d.npy'".into()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let placeholder = if self.by_stem { "{stem}" } else { "{id}" };
        write!(f, "{}{placeholder}{}", self.prefix, self.suffix)
    }
}

impl Pattern {
    /// Returns `true` if the text contains a placeholder.
    pub fn is_pattern(text: &str) -> bool {
        text.contains("{id}") || text.contains("{stem}")
    }

    /// Returns what stands for the placeholder in `name`; `None` if the name does not match.
    pub fn id<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.prefix.as_str())?.strip_suffix(self.suffix.as_str()).filter(|id| !id.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched() {
        let pattern: Pattern = "{id}_r21d.npy".parse().unwrap();
        assert_eq!(pattern.id("a/b_r21d.npy"), Some("a/b"));
        assert_eq!([pattern.id("_r21d.npy"), pattern.id("a_fps.npy"), pattern.id("a_r21d.npz")], [None; 3]);
        let pattern: Pattern = "feat-{stem}.mat".parse().unwrap();
        assert_eq!((pattern.id("feat-7.mat"), pattern.by_stem), (Some("7"), true));
        assert_eq!(pattern.to_string(), "feat-{stem}.mat");
        for invalid in ["a.npy", "{id}{id}", "{id}/{stem}.npy", "{stem}{id}", ""] {
            assert!(invalid.parse::<Pattern>().is_err(), "{invalid}");
        }
    }
}
