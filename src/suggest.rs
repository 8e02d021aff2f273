//! Suggestions for misspelled names: columns, labels, splits, methods.

/// Returns the choice of which `name` is probably a misspelling, ignoring case; the first one in case of ties.
///
/// Closeness is the optimal string alignment distance (insertions, deletions, substitutions and transpositions of
/// neighboring characters): at most 1, or at most 2 for choices of five or more characters.
pub fn closest<'a>(name: &str, choices: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    if name.chars().count() < 2 {
        return None;
    }
    choices
        .into_iter()
        .map(|choice| (strsim::osa_distance(&name, &choice.to_lowercase()), choice))
        .filter(|(distance, choice)| *distance <= if choice.chars().count() >= 5 { 2 } else { 1 })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, choice)| choice)
}

/// Returns `; did you mean `NAME`?` for the choice closest to `name`, or an empty string if none is close.
pub fn did_you_mean<'a>(name: &str, choices: impl IntoIterator<Item = &'a str>) -> String {
    closest(name, choices).map(|choice| format!("; did you mean `{choice}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_closest_choice() {
        let choices = ["train", "val", "test"];
        assert_eq!(closest("trian", choices), Some("train"));
        assert_eq!(closest("VAL", choices), Some("val"));
        assert_eq!(closest("tset", choices), Some("test"));
        assert_eq!(closest("dev", choices), None);
        assert_eq!(closest("t", ["a"]), None);
        assert_eq!(did_you_mean("drama", ["Drama", "Drams"]), "; did you mean `Drama`?");
        assert_eq!(did_you_mean("drama", []), "");
    }
}
