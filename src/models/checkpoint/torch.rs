//! Reader of the two formats of `torch.save`: the zip archive (torch ≥ 1.6), and the legacy sequence of pickles followed
//! by raw storages.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;
use std::sync::Arc;

use super::pickle::{Machine, StorageReference, TensorReference, Value};
use super::state::StateDicts;
use super::tensor::{Source, Tensor};

/// Keys under which training scripts save a state_dict, in order of preference.
const WRAPPERS: [&str; 9] =
    ["state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module", "checkpoint"];
/// Keys of the state of optimizers and schedulers start with one of these; it may contain tensors.
const IGNORED: [&str; 4] = ["optim", "lr_sched", "scheduler", "scaler"];
/// Maximum number of nested dictionaries.
const MAX_DEPTH: usize = 4;
/// Maximum number of dictionaries with tensors.
const MAX_DICTS: usize = 64;
/// Maximum length of a pickle, far above that of any state_dict without its data.
const MAX_PICKLE: u64 = 64 << 20;
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const LEGACY_PROTOCOL: i64 = 1001;

/// Returns the position of a storage in the file, in bytes, and its number of elements.
pub(super) type Locate<'a> = &'a dyn Fn(&StorageReference) -> Result<(u64, u64), String>;

/// Reads a file of `torch.save` in either format, and calls `interpret` with the saved object. Returns `None` for other files.
pub(super) fn read<T>(
    source: &Arc<Source>,
    interpret: impl FnOnce(&Machine, &Value, Locate<'_>) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match source.read(0, source.len.min(2))?.as_slice() {
        b"PK" => read_zip(source, interpret).map(Some),
        [0x80, 1..=5] => read_legacy(source, interpret).map(Some),
        _ => Ok(None),
    }
}

/// Reads a zip archive with the members `NAME/data.pkl`, `NAME/data/KEY`, …, stored uncompressed.
fn read_zip<T>(
    source: &Arc<Source>,
    interpret: impl FnOnce(&Machine, &Value, Locate<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let file = std::fs::File::open(&source.path).map_err(|e| e.to_string())?;
    let mut archive =
        zip::ZipArchive::new(BufReader::new(file)).map_err(|e| format!("truncated or invalid zip archive ({e})"))?;
    // (directory, name below it) → position and length; None if the member is compressed.
    let mut members = HashMap::new();
    let mut directory = None;
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(|e| format!("malformed zip archive ({e})"))?;
        let stored = member.compression() == zip::CompressionMethod::Stored && !member.encrypted();
        let range = stored.then(|| (member.data_start(), member.size()));
        let Some((top, name)) = member.name().split_once('/') else { continue };
        if name == "data.pkl" {
            directory = Some(top.to_owned());
        }
        members.insert((top.to_owned(), name.to_owned()), range);
    }
    let directory = directory.ok_or("not a PyTorch checkpoint: the zip archive has no data.pkl")?;
    let find = |name: &str| match members.get(&(directory.clone(), name.to_owned())) {
        Some(Some(range)) => Ok(Some(*range)),
        Some(None) => Err(format!("{name} is compressed in the archive; save the checkpoint with torch.save")),
        None => Ok(None),
    };
    if let Some((position, len)) = find("byteorder")?
        && source.read(position, len.min(16))? != b"little"
    {
        return Err("big-endian checkpoints are not supported".into());
    }
    let (position, len) = find("data.pkl")?.ok_or("no data.pkl")?;
    if len > MAX_PICKLE {
        return Err(format!("data.pkl has {len} bytes, more than any state_dict"));
    }
    let pickle = source.read(position, len)?;
    let mut machine = Machine::default();
    let root = machine.load(&mut pickle.as_slice())?;
    interpret(&machine, &root, &|storage| {
        let (position, len) = find(&format!("data/{}", storage.key))?.ok_or("no data in the archive")?;
        Ok((position, len / storage.dtype.size() as u64))
    })
}

/// Reads the legacy format: pickles of a magic number, the protocol version, system information, the object and the keys
/// of the storages; then each storage as its number of elements (i64) and its data.
fn read_legacy<T>(
    source: &Arc<Source>,
    interpret: impl FnOnce(&Machine, &Value, Locate<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let mut file = std::fs::File::open(&source.path).map_err(|e| e.to_string())?;
    let mut input = CountingReader { inner: BufReader::new(&file).take(source.len.min(MAX_PICKLE)), position: 0 };
    let mut machine = Machine::default();
    let magic = machine.load(&mut input).map_err(|_| "not a PyTorch checkpoint")?;
    if !matches!(&magic, Value::Long(bytes) if **bytes == LEGACY_MAGIC) {
        return Err("a pickle, but not a PyTorch checkpoint; save it with torch.save".into());
    }
    if !matches!(machine.load(&mut input)?, Value::Int(LEGACY_PROTOCOL)) {
        return Err("unsupported version of the legacy format (expected 1001)".into());
    }
    let system = machine.load(&mut input)?;
    let big_endian = machine.entries(&system).unwrap_or_default().iter().any(
        |(key, value)| matches!((key, value), (Value::Text(key), Value::Bool(false)) if &**key == "little_endian"),
    );
    if big_endian {
        return Err("big-endian checkpoints are not supported".into());
    }
    let root = machine.load(&mut input)?;
    let keys = machine.load(&mut input)?;
    let keys: Vec<Rc<str>> = machine
        .items(&keys)
        .ok_or("no list of storages")?
        .iter()
        .map(|key| match key {
            Value::Text(key) => Ok(key.clone()),
            _ => Err("a storage key is not a string".to_owned()),
        })
        .collect::<Result<_, _>>()?;
    let mut position = input.position;
    let used = storages(&machine, &root)?;
    let mut ranges = HashMap::new();
    for key in keys {
        // Only the tensors that use a storage state the type of its elements.
        let dtype = used.get(&key).map(|s| s.dtype).ok_or_else(|| format!("no tensor uses storage {key}"))?;
        file.seek(SeekFrom::Start(position)).map_err(|e| e.to_string())?;
        let mut count = [0; 8];
        file.read_exact(&mut count).map_err(|_| format!("truncated file: no storage {key}"))?;
        let count =
            u64::try_from(i64::from_le_bytes(count)).map_err(|_| format!("storage {key} has a negative length"))?;
        let start = position + 8;
        position = count
            .checked_mul(dtype.size() as u64)
            .and_then(|bytes| bytes.checked_add(start))
            .filter(|end| *end <= source.len)
            .ok_or_else(|| format!("truncated file: storage {key} has {count} elements"))?;
        ranges.insert(key, (start, count));
    }
    interpret(&machine, &root, &|storage| {
        let (start, count) = *ranges.get(&storage.key).ok_or("no data in the file")?;
        match storage.view {
            None => Ok((start, count)),
            Some((first, len)) if first.checked_add(len).is_some_and(|end| end <= count) => {
                Ok((start + first * storage.dtype.size() as u64, len))
            }
            Some(_) => Err("a view exceeds its storage".to_owned()),
        }
    })
}

/// Dictionaries with string keys that contain tensors, in order of preference: those below a known wrapper key, the
/// dictionary itself, those below other keys, and those below the key of an exponential moving average.
#[derive(Default)]
struct DictSearch<'a> {
    found: Vec<&'a [(Value, Value)]>,
    visited: usize,
}

impl<'a> DictSearch<'a> {
    fn search(&mut self, machine: &'a Machine, entries: &'a [(Value, Value)], depth: usize) {
        self.visited += 1;
        if self.visited > MAX_DICTS * MAX_DEPTH || self.found.len() >= MAX_DICTS {
            return;
        }
        let mut children: Vec<(usize, &'a [(Value, Value)])> = Vec::new();
        let mut has_tensors = false;
        for (key, value) in entries {
            let Value::Text(key) = key else { continue };
            has_tensors |= matches!(value, Value::Tensor(_));
            if let Some(inner) = machine.entries(value)
                && !IGNORED.iter().any(|ignored| key.starts_with(ignored))
            {
                children.push((rank(key), inner));
            }
        }
        children.sort_by_key(|(rank, _)| *rank);
        let wrapped = children.partition_point(|(rank, _)| *rank < WRAPPERS.len());
        let deeper = depth < MAX_DEPTH;
        children[..wrapped].iter().filter(|_| deeper).for_each(|(_, inner)| self.search(machine, inner, depth + 1));
        self.found.extend(has_tensors.then_some(entries));
        children[wrapped..].iter().filter(|_| deeper).for_each(|(_, inner)| self.search(machine, inner, depth + 1));
    }
}

/// Returns the position of a key in the order of preference.
fn rank(key: &str) -> usize {
    let is_average = key.to_lowercase().split(['_', '-', '.']).any(|word| word == "ema");
    let wrapper = WRAPPERS.iter().position(|wrapper| *wrapper == key);
    wrapper.unwrap_or(WRAPPERS.len() + usize::from(is_average))
}

/// Finds the dictionaries of tensors in the saved object and locates their tensors.
pub(super) fn state_dicts(
    source: &Arc<Source>,
    machine: &Machine,
    root: &Value,
    locate: Locate<'_>,
) -> Result<StateDicts, String> {
    let entries = machine.entries(root).ok_or("the saved object is not a dict; save model.state_dict()")?;
    let mut search = DictSearch::default();
    search.search(machine, entries, 1);
    let keys = entries.iter().filter_map(|(key, _)| match key {
        Value::Text(key) => Some(key.to_string()),
        _ => None,
    });
    let dicts = search.found.into_iter().map(|entries| tensors(source, entries, locate)).collect();
    Ok(StateDicts { dicts, keys: keys.collect() })
}

/// Locates the tensors of a dictionary.
fn tensors(
    source: &Arc<Source>,
    entries: &[(Value, Value)],
    locate: Locate<'_>,
) -> Result<BTreeMap<String, Tensor>, String> {
    let mut tensors = BTreeMap::new();
    for (key, value) in entries {
        let (Value::Text(name), Value::Tensor(reference)) = (key, value) else { continue };
        let tensor = tensor(source, reference, locate).map_err(|e| format!("tensor {name}: {e}"))?;
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}

/// Locates a tensor.
pub(super) fn tensor(source: &Arc<Source>, reference: &TensorReference, locate: Locate<'_>) -> Result<Tensor, String> {
    let TensorReference { storage, offset, shape, strides } = reference;
    let range = locate(storage)?;
    let claimed = storage.view.map_or(storage.elements, |(_, count)| count);
    if range.1 < claimed {
        return Err(format!("the storage should have {claimed} elements, but has {}", range.1));
    }
    Tensor::new(source, storage.dtype, range, *offset, shape, strides)
}

/// Collects the storages of all tensors in the object, by key. It includes tensors outside the state_dict, such as those
/// of optimizers, because the file contains the data of all storages.
fn storages(machine: &Machine, root: &Value) -> Result<HashMap<Rc<str>, Rc<StorageReference>>, String> {
    let mut found: HashMap<Rc<str>, Rc<StorageReference>> = HashMap::new();
    let mut pending = vec![root.clone()];
    let mut seen = std::collections::HashSet::new();
    while let Some(value) = pending.pop() {
        let storage = match &value {
            Value::Tensor(tensor) => &tensor.storage,
            Value::Storage(storage) => storage,
            Value::Sequence(index) | Value::Dict(index) => {
                if seen.insert(*index) {
                    pending.extend(machine.items(&value).unwrap_or_default().iter().cloned());
                    pending.extend(machine.entries(&value).unwrap_or_default().iter().map(|(_, value)| value.clone()));
                }
                continue;
            }
            _ => continue,
        };
        let known = found.entry(storage.key.clone()).or_insert_with(|| storage.clone());
        if known.dtype != storage.dtype {
            return Err(format!("storage {} has two element types", storage.key));
        }
    }
    Ok(found)
}

/// A reader that counts the bytes read.
struct CountingReader<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.position += n as u64;
        Ok(n)
    }
}
