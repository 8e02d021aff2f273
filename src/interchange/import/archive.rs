//! Sources with all clips in one file: one matrix and a list of ids, or one variable per clip.

use ndarray::{Array2, ArrayD, Axis};

use super::pattern::Pattern;
use super::{ImportOptions, Item, Items, Place, ids, select_numbers};
use crate::error::{Error, Result};
use crate::interchange::table::ID_NAMES;
use crate::interchange::{File, Kind, Variable, describe, describe_shape, open};

/// Finds the clips of the file.
pub(super) fn collect(options: &ImportOptions) -> Result<Items> {
    let path = options.source.as_path();
    let mut file = open(path)?;
    match options.key.as_deref() {
        Some(key) if Pattern::is_pattern(key) => variable_per_clip(options, key, file),
        key => one_matrix(options, key, file.as_mut()),
    }
}

/// One variable per clip, whose name contains the id.
fn variable_per_clip(options: &ImportOptions, key: &str, file: Box<dyn File>) -> Result<Items> {
    let path = options.source.as_path();
    let invalid = |message: String| Error::Import { path: path.to_path_buf(), message };
    let pattern: Pattern = key.parse().map_err(|error| invalid(format!("--key {key}: {error}")))?;
    if options.ids.is_some() || options.ids_key.is_some() {
        return Err(invalid(format!(
            "--key '{key}' takes the ids from the names of the variables: omit --ids and --ids-key"
        )));
    }
    let named = file.variables().iter().enumerate().filter(|(_, variable)| matches!(variable.kind, Kind::Numbers(_)));
    let items: Vec<Item> = named
        .filter_map(|(i, variable)| Some(Item { id: pattern.id(&variable.name)?.into(), place: Place::Variable(i) }))
        .collect();
    if items.is_empty() {
        let variables: Vec<String> = file.variables().iter().take(super::MAX_SHOWN).map(describe).collect();
        return Err(invalid(format!("no variable matches '{key}'; it has {}", variables.join(", "))));
    }
    let origin = format!("{} variables of {}", items.len(), path.display());
    Ok(Items { items, by_stem: pattern.by_stem, matrix: None, file: Some(file), origin })
}

/// One matrix with the rows of all clips.
fn one_matrix(options: &ImportOptions, key: Option<&str>, file: &mut dyn File) -> Result<Items> {
    let path = options.source.as_path();
    let invalid = |message: String| Error::Import { path: path.to_path_buf(), message };
    let features = select_numbers(file, key).map_err(invalid)?;
    let array = file.numbers(features).map_err(invalid)?;
    let (ids, ids_origin) = read_ids(options, file, features)?;
    let (matrix, rows_per_id) = matrix(array, ids.len(), options.transposed)
        .map_err(|message| invalid(format!("{message} (ids from {ids_origin})")))?;
    let mut items: Vec<Item> = Vec::new();
    for (i, id) in ids.into_iter().enumerate() {
        match items.last_mut() {
            Some(Item { id: last, place: Place::Rows(_, count) }) if options.sequences && *last == id => {
                *count += rows_per_id
            }
            _ => items.push(Item { id, place: Place::Rows(i * rows_per_id, rows_per_id) }),
        }
    }
    if options.sequences {
        let mut known = std::collections::HashSet::new();
        if let Some(item) = items.iter().find(|item| !known.insert(item.id.as_str())) {
            return Err(invalid(format!("the rows of `{}` are not consecutive: sort the rows by clip", item.id)));
        }
    }
    let name = describe(&file.variables()[features]);
    let origin = format!("{}: {name}, ids from {ids_origin}", path.display());
    Ok(Items { items, by_stem: false, matrix: Some(matrix), file: None, origin })
}

/// Reads the ids of the rows. Also returns where they were found.
fn read_ids(options: &ImportOptions, file: &mut dyn File, features: usize) -> Result<(Vec<String>, String)> {
    let path = options.source.as_path();
    let invalid = |message: String| Error::Import { path: path.to_path_buf(), message };
    if let Some(ids) = &options.ids {
        return Ok((ids::read(ids)?, ids.display().to_string()));
    }
    let texts: Vec<&Variable> = file.variables().iter().filter(|v| matches!(v.kind, Kind::Texts(_))).collect();
    let named = match &options.ids_key {
        Some(key) => Some(key.clone()),
        None => {
            let named = ID_NAMES.into_iter().find(|name| texts.iter().any(|text| text.name == *name));
            named.map(str::to_string).or(if let [only] = texts[..] { Some(only.name.clone()) } else { None })
        }
    };
    let Some(name) = named else {
        let found = match texts.as_slice() {
            [] => String::new(),
            texts => format!(" (it has {})", texts.iter().map(|text| describe(text)).collect::<Vec<_>>().join(", ")),
        };
        return Err(invalid(format!(
            "no ids of the rows of {}{found}: pass --ids FILE with one id per line, or --ids-key NAME",
            describe(&file.variables()[features])
        )));
    };
    let named = |texts: bool| {
        let is_text = |variable: &Variable| matches!(variable.kind, Kind::Texts(_));
        file.variables().iter().position(|variable| variable.name == name && is_text(variable) == texts)
    };
    let index = named(true)
        .or_else(|| named(false))
        .ok_or_else(|| invalid(format!("has no variable `{name}` with ids: pass --ids FILE")))?;
    if !matches!(file.variables()[index].kind, Kind::Texts(_)) {
        let found = describe(&file.variables()[index]);
        return Err(invalid(format!("{found} contains no strings: write ids as strings, or pass --ids FILE")));
    }
    Ok((file.texts(index).map_err(invalid)?, format!("`{name}`")))
}

/// Returns the rows of all clips, (R, D), and the number of rows per id. The array has one vector (N, D) or one sequence (N, T, D) per
/// id; axes of length 1 after the first are ignored.
fn matrix(array: ArrayD<f32>, ids: usize, transposed: bool) -> Result<(Array2<f32>, usize), String> {
    let shape = array.shape().to_vec();
    let mut array = array;
    while array.ndim() > 2 {
        let Some(axis) = (1..array.ndim()).find(|&axis| array.shape()[axis] == 1) else { break };
        array = array.remove_axis(Axis(axis));
    }
    if transposed {
        if array.ndim() != 2 {
            return Err(format!("has {} values: --transpose applies to a matrix", describe_shape(&shape)));
        }
        array = array.reversed_axes().as_standard_layout().into_owned();
    }
    let (rows_per_id, dim) = match *array.shape() {
        [_, dim] => (1, dim),
        [_, rows, dim] => (rows, dim),
        _ => return Err(format!("has {} values: it needs the axes N × D, or N × T × D", describe_shape(&shape))),
    };
    let clips = array.shape()[0];
    if clips != ids {
        let remedy = match shape.as_slice() {
            [_, columns] if !transposed && *columns == ids => "; its columns are the clips: pass --transpose",
            _ => "; each row needs an id",
        };
        return Err(format!("has {clips} rows ({}), but {ids} ids{remedy}", describe_shape(&shape)));
    }
    if array.is_empty() {
        return Err(format!("is empty ({})", describe_shape(&shape)));
    }
    let matrix = array.into_shape_with_order((clips * rows_per_id, dim)).map_err(|error| error.to_string())?;
    Ok((matrix, rows_per_id))
}
