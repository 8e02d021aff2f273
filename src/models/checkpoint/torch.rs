//! `torch.save`'s two formats: the zip archive (torch ≥ 1.6) and the older run of pickles followed by raw storages.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;
use std::sync::Arc;

use super::pickle::{Machine, StorageReference, TensorReference, Value};
use super::{Source, Tensor};

type Tensors = Result<BTreeMap<String, Tensor>, String>;

/// Names under which training scripts file a state_dict.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "weights", "module"];
/// A pickle of more than this is no state_dict's table of contents.
const MAX_PICKLE: u64 = 256 << 20;
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const LEGACY_PROTOCOL: i64 = 1001;

/// A zip archive `NAME/data.pkl`, `NAME/data/KEY`, …; torch stores its members uncompressed.
pub(super) fn read_zip(source: &Arc<Source>) -> Tensors {
    let file = std::fs::File::open(&source.path).map_err(|e| e.to_string())?;
    let mut archive =
        zip::ZipArchive::new(BufReader::new(file)).map_err(|e| format!("is no whole zip archive ({e})"))?;
    // name below the archive's one folder → position and length
    let mut members = HashMap::new();
    let mut folder = None;
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(|e| format!("is a damaged zip archive ({e})"))?;
        let stored = member.compression() == zip::CompressionMethod::Stored && !member.encrypted();
        let place = stored.then(|| (member.data_start(), member.size()));
        let Some((top, name)) = member.name().split_once('/') else { continue };
        if name == "data.pkl" {
            folder = Some(top.to_owned());
        }
        members.insert((top.to_owned(), name.to_owned()), place);
    }
    let folder = folder.ok_or("is a zip archive without data.pkl, so no torch checkpoint")?;
    let find = |name: &str| match members.get(&(folder.clone(), name.to_owned())) {
        Some(Some(place)) => Ok(Some(*place)),
        Some(None) => Err(format!("{name} is compressed inside the archive; save it with torch.save")),
        None => Ok(None),
    };
    if let Some((position, len)) = find("byteorder")?
        && source.read(position, len.min(16))? != b"little"
    {
        return Err("was saved on a big-endian machine".into());
    }
    let (position, len) = find("data.pkl")?.ok_or("has no data.pkl")?;
    if len > MAX_PICKLE {
        return Err(format!("has a data.pkl of {len} bytes, which is no state_dict's"));
    }
    let pickle = source.read(position, len)?;
    let mut machine = Machine::default();
    let root = machine.load(&mut pickle.as_slice())?;
    tensors(source, &machine, &root, |storage| {
        let (position, len) = find(&format!("data/{}", storage.key))?.ok_or("its data is not in the archive")?;
        Ok((position, len / storage.dtype.size() as u64))
    })
}

/// Pickles of a magic number, a version, facts of the machine, the object and the storages' keys; then each storage
/// as its number of elements (i64) and its data.
pub(super) fn read_legacy(source: &Arc<Source>) -> Tensors {
    let mut file = std::fs::File::open(&source.path).map_err(|e| e.to_string())?;
    let mut input = Counted { inner: BufReader::new(&file), position: 0 };
    let mut machine = Machine::default();
    let magic = machine.load(&mut input).map_err(|_| "is no torch checkpoint")?;
    if !matches!(&magic, Value::Long(bytes) if **bytes == LEGACY_MAGIC) {
        return Err("is a pickle, but not torch's; save it with torch.save".into());
    }
    if !matches!(machine.load(&mut input)?, Value::Int(LEGACY_PROTOCOL)) {
        return Err("has another version of torch's older format than 1001".into());
    }
    let system = machine.load(&mut input)?;
    let big = machine.entries(&system).unwrap_or_default().iter().any(
        |(key, value)| matches!((key, value), (Value::Text(key), Value::Bool(false)) if &**key == "little_endian"),
    );
    if big {
        return Err("was saved on a big-endian machine".into());
    }
    let root = machine.load(&mut input)?;
    let keys = machine.load(&mut input)?;
    let keys: Vec<Rc<str>> = machine
        .items(&keys)
        .ok_or("lacks the list of its storages")?
        .iter()
        .map(|key| match key {
            Value::Text(key) => Ok(key.clone()),
            _ => Err("has a storage whose key is no text".to_owned()),
        })
        .collect::<Result<_, _>>()?;
    let mut position = input.position;
    let storages_used = storages(&machine, &root)?;
    let mut places = HashMap::new();
    for key in keys {
        // The file does not say how wide a storage's elements are; only the tensors that use it do.
        let dtype =
            storages_used.get(&key).map(|s| s.dtype).ok_or_else(|| format!("has a storage {key} of unknown type"))?;
        file.seek(SeekFrom::Start(position)).map_err(|e| e.to_string())?;
        let mut count = [0; 8];
        file.read_exact(&mut count).map_err(|_| format!("is cut short at storage {key}"))?;
        let count =
            u64::try_from(i64::from_le_bytes(count)).map_err(|_| format!("storage {key} has a negative size"))?;
        let start = position + 8;
        position = count
            .checked_mul(dtype.size() as u64)
            .and_then(|bytes| bytes.checked_add(start))
            .filter(|end| *end <= source.len)
            .ok_or_else(|| format!("is cut short in storage {key}, which claims {count} elements"))?;
        places.insert(key, (start, count));
    }
    tensors(source, &machine, &root, |storage| {
        let (start, count) = *places.get(&storage.key).ok_or("its data is not in the file")?;
        match storage.view {
            None => Ok((start, count)),
            Some((first, of)) if first.checked_add(of).is_some_and(|end| end <= count) => {
                Ok((start + first * storage.dtype.size() as u64, of))
            }
            Some(_) => Err("its view reaches beyond its storage".to_owned()),
        }
    })
}

/// The state_dict inside what was saved: the dict itself, or the first known wrapper's, three deep at most.
fn state_dict<'a>(machine: &'a Machine, root: &'a Value) -> Result<&'a [(Value, Value)], String> {
    let mut entries = machine.entries(root).ok_or("holds no dict of tensors; save model.state_dict()")?;
    for _ in 0..3 {
        let wrapped = WRAPPERS.iter().find_map(|wrapper| {
            let inner = |(key, value): &'a (Value, Value)| match key {
                Value::Text(key) if &**key == *wrapper => machine.entries(value),
                _ => None,
            };
            entries.iter().find_map(inner)
        });
        match wrapped {
            Some(inner) => entries = inner,
            None => break,
        }
    }
    Ok(entries)
}

/// Places of all tensors of the state_dict; `place` gives a storage's position in the file and its elements.
fn tensors(
    source: &Arc<Source>,
    machine: &Machine,
    root: &Value,
    place: impl Fn(&StorageReference) -> Result<(u64, u64), String>,
) -> Tensors {
    let mut tensors = BTreeMap::new();
    for (key, value) in state_dict(machine, root)? {
        let (Value::Text(name), Value::Tensor(tensor)) = (key, value) else { continue };
        let TensorReference { storage, offset, shape, strides } = &**tensor;
        let tensor = place(storage)
            .and_then(|found| {
                let claimed = storage.view.map_or(storage.elements, |(_, count)| count);
                if found.1 < claimed {
                    return Err(format!("claims a storage of {claimed} elements, the file holds {}", found.1));
                }
                Tensor::new(source, storage.dtype, found, *offset, shape, strides)
            })
            .map_err(|e| format!("tensor {name}: {e}"))?;
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}

/// Every storage that a tensor anywhere in the object uses: also those of optimizers beside the state_dict, whose
/// data stands in the file among the others'.
fn storages(machine: &Machine, root: &Value) -> Result<HashMap<Rc<str>, Rc<StorageReference>>, String> {
    let mut found: HashMap<Rc<str>, Rc<StorageReference>> = HashMap::new();
    let mut open = vec![root.clone()];
    let mut seen = std::collections::HashSet::new();
    while let Some(value) = open.pop() {
        let storage = match &value {
            Value::Tensor(tensor) => &tensor.storage,
            Value::Storage(storage) => storage,
            Value::Sequence(index) | Value::Dict(index) => {
                if seen.insert(*index) {
                    open.extend(machine.items(&value).unwrap_or_default().iter().cloned());
                    open.extend(machine.entries(&value).unwrap_or_default().iter().map(|(_, value)| value.clone()));
                }
                continue;
            }
            _ => continue,
        };
        let known = found.entry(storage.key.clone()).or_insert_with(|| storage.clone());
        if known.dtype != storage.dtype {
            return Err(format!("storage {} is of two types", storage.key));
        }
    }
    Ok(found)
}

/// A reader that knows how far it has read.
struct Counted<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.position += n as u64;
        Ok(n)
    }
}
