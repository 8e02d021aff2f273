//! Selection of the columns of a table that are features.

use std::collections::BTreeMap;

/// Names of columns that describe a clip or a row, in the exports of this program and of pandas.
const DESCRIPTIONS: [&str; 20] = [
    "",
    "Unnamed: 0",
    "__index_level_0__",
    "index",
    "path",
    "label",
    "labels",
    "split",
    "group",
    "year",
    "start",
    "end",
    "row",
    "start_frame",
    "start_seconds",
    "end_seconds",
    "padded",
    "scale",
    "fps",
    "frame_count",
];

/// Names of columns and variables with the ids of clips, in order of preference.
pub(super) const ID_NAMES: [&str; 6] = ["id", "ids", "clip_id", "video_id", "name", "names"];

/// Columns that form one matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FeatureColumns {
    /// Common prefix of the columns, such as `f` of `f0`, `f1`, `f2`; empty if they have no numbered names.
    pub name: String,
    /// Indices of the columns in the table.
    pub columns: Vec<usize>,
}

/// Groups numeric columns, given with their index in the table. Each series of names with a common prefix and consecutive numbers
/// from 0 or 1 is a group; without any, all columns that do not describe a clip or row are one group.
pub(super) fn feature_columns(columns: &[(usize, &str)]) -> Vec<FeatureColumns> {
    let mut series: BTreeMap<&str, Vec<(u64, usize)>> = BTreeMap::new();
    for &(index, name) in columns {
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        if let Ok(number) = name[prefix.len()..].parse() {
            series.entry(prefix).or_default().push((number, index));
        }
    }
    let mut groups = Vec::new();
    for (prefix, mut numbered) in series {
        numbered.sort_unstable();
        let first = numbered[0].0;
        let is_consecutive = numbered.iter().zip(first..).all(|(&(number, _), expected)| number == expected);
        if first <= 1 && numbered.len() > 1 && is_consecutive {
            groups.push(FeatureColumns {
                name: prefix.into(),
                columns: numbered.into_iter().map(|(_, index)| index).collect(),
            });
        }
    }
    let is_feature = |name: &str| !DESCRIPTIONS.contains(&name) && !ID_NAMES.contains(&name);
    if groups.is_empty() {
        let columns: Vec<usize> =
            columns.iter().filter(|(_, name)| is_feature(name)).map(|&(index, _)| index).collect();
        if !columns.is_empty() {
            groups.push(FeatureColumns { name: String::new(), columns });
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(names: &[&str]) -> Vec<(String, Vec<usize>)> {
        let columns: Vec<(usize, &str)> = names.iter().copied().enumerate().collect();
        feature_columns(&columns).into_iter().map(|group| (group.name, group.columns)).collect()
    }

    #[test]
    fn numbered_columns_are_features() {
        assert_eq!(groups(&["year", "f1", "f0", "f2"]), [("f".to_string(), vec![2, 1, 3])]);
        assert_eq!(groups(&["", "0", "1", "2"]), [(String::new(), vec![1, 2, 3])]);
        assert_eq!(groups(&["x_00", "x_01", "y_1", "y_2"]), [("x_".into(), vec![0, 1]), ("y_".into(), vec![2, 3])]);
        assert_eq!(groups(&["f10", "f9", "f8", "f7", "f6", "f5", "f4", "f3", "f2", "f1", "f0"])[0].1[10], 0);
    }

    #[test]
    fn without_numbered_columns_all_but_descriptions_are_features() {
        assert_eq!(groups(&["id", "mean", "std", "start_seconds", "x3"]), [(String::new(), vec![1, 2, 4])]);
        assert_eq!(groups(&["id", "year"]), []);
        // The numbers have a gap, or start after 1.
        assert_eq!(groups(&["f0", "f2"]), [(String::new(), vec![0, 1])]);
        assert_eq!(groups(&["f5", "f6"]), [(String::new(), vec![0, 1])]);
    }
}
