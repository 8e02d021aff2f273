//! A reader of Python pickles that executes no code: a stack machine with the few globals that a PyTorch state_dict needs.
//! All other globals are rejected by name. Source: the opcode comments of CPython's `pickletools`.

use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;

use super::tensor::Dtype;

/// A reference to a storage: the persistent id `("storage", type, key, location, elements[, view])`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StorageReference {
    pub dtype: Dtype,
    pub key: Rc<str>,
    /// Number of elements.
    pub elements: u64,
    /// First element and number of elements of a view into the storage (legacy format only).
    pub view: Option<(u64, u64)>,
}

/// A reference to a tensor. Offset and strides are in elements.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorReference {
    pub storage: Rc<StorageReference>,
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// A value on the stack. Containers are indices into the arena of [`Machine`], so that dropping deeply nested values does
/// not recurse.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits: little-endian two's complement.
    Long(Rc<[u8]>),
    Float,
    Text(Rc<str>),
    Bytes,
    Global(Rc<str>),
    Sequence(usize),
    Dict(usize),
    Storage(Rc<StorageReference>),
    Tensor(Rc<TensorReference>),
    /// A known value that is not needed, such as a `torch.device`.
    Opaque,
}

enum Container {
    Sequence(Vec<Value>),
    Dict(Vec<(Value, Value)>),
}

/// The containers of all pickles that were read with this machine.
#[derive(Default)]
pub(super) struct Machine {
    arena: Vec<Container>,
    /// Number of opcodes and copied entries so far; see [`MAX_STEPS`].
    steps: usize,
}

/// Maximum number of axes of a tensor.
const MAX_AXES: usize = 16;
/// Maximum number of opcodes, and of entries copied between containers. It bounds the memory of the machine to some hundred
/// megabytes; a state_dict needs about thirty opcodes per tensor.
const MAX_STEPS: usize = 1 << 23;

type Result<T> = std::result::Result<T, String>;

impl Machine {
    /// Returns the items of a tuple or list, and `None` for other values.
    pub fn items(&self, value: &Value) -> Option<&[Value]> {
        match value {
            Value::Sequence(index) => match &self.arena[*index] {
                Container::Sequence(items) => Some(items),
                Container::Dict(_) => None,
            },
            _ => None,
        }
    }

    /// Returns the entries of a dict in insertion order, and `None` for other values.
    pub fn entries(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(index) => match &self.arena[*index] {
                Container::Dict(entries) => Some(entries),
                Container::Sequence(_) => None,
            },
            _ => None,
        }
    }

    /// Reads one pickle up to and including its STOP opcode.
    pub fn load(&mut self, input: &mut impl Read) -> Result<Value> {
        Execution { machine: self, input, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }.run()
    }

    /// Counts opcodes and copied entries.
    fn count_steps(&mut self, steps: usize) -> Result<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps <= MAX_STEPS { Ok(()) } else { Err("the pickle is too long for a state_dict".into()) }
    }

    fn sequence(&mut self, items: Vec<Value>) -> Value {
        self.arena.push(Container::Sequence(items));
        Value::Sequence(self.arena.len() - 1)
    }

    fn dict(&mut self, entries: Vec<(Value, Value)>) -> Value {
        self.arena.push(Container::Dict(entries));
        Value::Dict(self.arena.len() - 1)
    }
}

/// The execution of one pickle.
struct Execution<'a, R> {
    machine: &'a mut Machine,
    input: &'a mut R,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl<R: Read> Execution<'_, R> {
    fn run(&mut self) -> Result<Value> {
        loop {
            self.machine.count_steps(1)?;
            let [opcode] = self.take::<1>()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => drop(self.take::<1>()?),           // PROTO
                0x95 => drop(self.take::<8>()?),           // FRAME
                b'(' => self.marks.push(self.stack.len()), // MARK
                b'0' => drop(self.pop()?),                 // POP
                b'1' => drop(self.pop_mark()?),            // POP_MARK
                b'2' => self.push(self.top()?.clone()),    // DUP
                b'N' => self.push(Value::None),            // NONE
                0x88 => self.push(Value::Bool(true)),      // NEWTRUE
                0x89 => self.push(Value::Bool(false)),     // NEWFALSE
                b'K' => {
                    let [n] = self.take::<1>()?; // BININT1
                    self.push(Value::Int(n.into()));
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.take()?); // BININT2
                    self.push(Value::Int(n.into()));
                }
                b'J' => {
                    let n = i32::from_le_bytes(self.take()?); // BININT
                    self.push(Value::Int(n.into()));
                }
                0x8a => {
                    let [n] = self.take::<1>()?; // LONG1
                    self.long(n.into())?;
                }
                b'G' => {
                    self.take::<8>()?; // BINFLOAT
                    self.push(Value::Float);
                }
                0x8c => {
                    let [n] = self.take::<1>()?; // SHORT_BINUNICODE
                    self.text(n.into())?;
                }
                b'U' => {
                    let [n] = self.take::<1>()?; // SHORT_BINSTRING
                    self.text(n.into())?;
                }
                b'X' | b'T' => {
                    let n = u32::from_le_bytes(self.take()?); // BINUNICODE, BINSTRING
                    self.text(n.into())?;
                }
                b'C' => {
                    let [n] = self.take::<1>()?; // SHORT_BINBYTES
                    self.bytes(n.into())?;
                    self.push(Value::Bytes);
                }
                b'B' => {
                    let n = u32::from_le_bytes(self.take()?); // BINBYTES
                    self.bytes(n.into())?;
                    self.push(Value::Bytes);
                }
                b']' | b')' => {
                    let empty = self.machine.sequence(Vec::new()); // EMPTY_LIST, EMPTY_TUPLE
                    self.push(empty);
                }
                b'}' => {
                    let empty = self.machine.dict(Vec::new()); // EMPTY_DICT
                    self.push(empty);
                }
                b't' | b'l' => {
                    let items = self.pop_mark()?; // TUPLE, LIST
                    let value = self.machine.sequence(items);
                    self.push(value);
                }
                b'd' => {
                    let items = self.pop_mark()?; // DICT
                    let value = self.machine.dict(pairs(items)?);
                    self.push(value);
                }
                0x85..=0x87 => {
                    let first = self
                        .stack
                        .len()
                        .checked_sub(usize::from(opcode - 0x84))
                        .ok_or("malformed pickle: empty stack")?;
                    let items = self.stack.split_off(first); // TUPLE1, TUPLE2, TUPLE3
                    let value = self.machine.sequence(items);
                    self.push(value);
                }
                b'a' => {
                    let item = self.pop()?; // APPEND
                    self.extend(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?; // APPENDS
                    self.extend(items)?;
                }
                b's' => {
                    let value = self.pop()?; // SETITEM
                    let key = self.pop()?;
                    self.set(vec![(key, value)])?;
                }
                b'u' => {
                    let items = self.pop_mark()?; // SETITEMS
                    self.set(pairs(items)?)?;
                }
                b'q' => {
                    let [n] = self.take::<1>()?; // BINPUT
                    self.memo.insert(n.into(), self.top()?.clone());
                }
                b'r' => {
                    let n = u32::from_le_bytes(self.take()?); // LONG_BINPUT
                    self.memo.insert(n, self.top()?.clone());
                }
                0x94 => {
                    let n = self.memo.len() as u32; // MEMOIZE
                    self.memo.insert(n, self.top()?.clone());
                }
                b'h' => {
                    let [n] = self.take::<1>()?; // BINGET
                    self.get(n.into())?;
                }
                b'j' => {
                    let n = u32::from_le_bytes(self.take()?); // LONG_BINGET
                    self.get(n)?;
                }
                b'c' => {
                    let module = self.line()?; // GLOBAL
                    let name = self.line()?;
                    self.global(&module, &name)?;
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Value::Text(name), Value::Text(module)) => self.global(&module, &name)?, // STACK_GLOBAL
                    _ => return Err("malformed pickle: the name of a global is not a string".into()),
                },
                b'R' | 0x81 => {
                    let arguments = self.pop()?; // REDUCE, NEWOBJ
                    let callable = self.pop()?;
                    let value = self.call(&callable, &arguments)?;
                    self.push(value);
                }
                b'b' => {
                    self.pop()?; // BUILD: attributes such as _metadata are not needed
                    self.top()?;
                }
                b'Q' => {
                    let id = self.pop()?; // BINPERSID
                    let storage = self.storage(&id)?;
                    self.push(Value::Storage(Rc::new(storage)));
                }
                _ => return Err(format!("unsupported pickle opcode 0x{opcode:02x}")),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|_| "truncated pickle".to_owned())?;
        Ok(bytes)
    }

    /// Reads `n` bytes. The buffer grows while reading, because `n` is untrusted.
    fn bytes(&mut self, n: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut *self.input).take(n).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        (read as u64 == n).then_some(bytes).ok_or_else(|| "truncated pickle".into())
    }

    fn text(&mut self, n: u64) -> Result<()> {
        let text = String::from_utf8(self.bytes(n)?).map_err(|_| "malformed pickle: a string is not UTF-8")?;
        self.push(Value::Text(text.into()));
        Ok(())
    }

    fn long(&mut self, n: u64) -> Result<()> {
        let bytes = self.bytes(n)?;
        let value = if bytes.len() <= 8 {
            let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
            let mut wide = [sign; 8];
            wide[..bytes.len()].copy_from_slice(&bytes);
            Value::Int(i64::from_le_bytes(wide))
        } else {
            Value::Long(bytes.into())
        };
        self.push(value);
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            match self.take::<1>()? {
                [b'\n'] => break,
                _ if line.len() > 1000 => {
                    return Err("malformed pickle: the name of a global has more than 1000 bytes".into());
                }
                [byte] => line.push(byte),
            }
        }
        String::from_utf8(line).map_err(|_| "malformed pickle: the name of a global is not UTF-8".into())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn top(&self) -> Result<&Value> {
        self.stack.last().ok_or_else(|| "malformed pickle: empty stack".into())
    }

    fn pop(&mut self) -> Result<Value> {
        self.stack.pop().ok_or_else(|| "malformed pickle: empty stack".into())
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark =
            self.marks.pop().filter(|m| *m <= self.stack.len()).ok_or("malformed pickle: no mark on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn get(&mut self, n: u32) -> Result<()> {
        let value = self.memo.get(&n).cloned().ok_or_else(|| format!("malformed pickle: no memo {n}"))?;
        self.push(value);
        Ok(())
    }

    fn extend(&mut self, items: Vec<Value>) -> Result<()> {
        match *self.top()? {
            Value::Sequence(index) => match &mut self.machine.arena[index] {
                Container::Sequence(list) => list.extend(items),
                Container::Dict(_) => return Err("malformed pickle: append to a dict".into()),
            },
            _ => return Err("malformed pickle: append to a value that is not a list".into()),
        }
        Ok(())
    }

    fn set(&mut self, entries: Vec<(Value, Value)>) -> Result<()> {
        match *self.top()? {
            Value::Dict(index) => match &mut self.machine.arena[index] {
                Container::Dict(dict) => dict.extend(entries),
                Container::Sequence(_) => return Err("malformed pickle: item assignment to a list".into()),
            },
            _ => return Err("malformed pickle: item assignment to a value that is not a dict".into()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let full = format!("{module}.{name}");
        let known = dtype(&full).is_some()
            || matches!(
                full.as_str(),
                "collections.OrderedDict"
                    | "torch._utils._rebuild_tensor"
                    | "torch._utils._rebuild_tensor_v2"
                    | "torch._utils._rebuild_parameter"
                    | "torch.Size"
                    | "torch.device"
            );
        if !known {
            return Err(format!(
                "the pickle refers to {full}, which is not executed; save only tensors, such as the state_dict: \
                 torch.save(model.state_dict(), FILE)"
            ));
        }
        self.push(Value::Global(full.into()));
        Ok(())
    }

    fn call(&mut self, callable: &Value, arguments: &Value) -> Result<Value> {
        let Value::Global(name) = callable else {
            return Err("malformed pickle: call of a value that is not a global".into());
        };
        let arguments =
            self.machine.items(arguments).ok_or("malformed pickle: the arguments of a call are not a tuple")?;
        match (&**name, arguments) {
            ("collections.OrderedDict", []) => Ok(self.machine.dict(Vec::new())),
            ("collections.OrderedDict", [list]) => {
                let mut entries = Vec::new();
                let pairs = self.machine.items(list).ok_or("the argument of OrderedDict is not a list")?;
                let count = pairs.len();
                for pair in pairs {
                    match self.machine.items(pair) {
                        Some([key, value]) => entries.push((key.clone(), value.clone())),
                        _ => return Err("an item of an OrderedDict is not a pair".into()),
                    }
                }
                self.machine.count_steps(count)?;
                Ok(self.machine.dict(entries))
            }
            (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
                [storage, offset, shape, strides, ..],
            ) => {
                let Value::Storage(storage) = storage else { return Err("a tensor without storage".into()) };
                let (shape, strides) = (self.axes(shape)?, self.axes(strides)?);
                if shape.len() != strides.len() {
                    return Err("shape and strides of a tensor differ in length".into());
                }
                let reference = TensorReference { storage: storage.clone(), offset: size(offset)?, shape, strides };
                Ok(Value::Tensor(Rc::new(reference)))
            }
            ("torch._utils._rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
            ("torch.Size", [sizes]) => Ok(sizes.clone()),
            ("torch.device", _) => Ok(Value::Opaque),
            _ => Err(format!("unexpected arguments of {name}")),
        }
    }

    fn axes(&self, value: &Value) -> Result<Vec<u64>> {
        let items = self.machine.items(value).ok_or("the shape of a tensor is not a tuple")?;
        if items.len() > MAX_AXES {
            return Err(format!("a tensor of {} axes", items.len()));
        }
        items.iter().map(size).collect()
    }

    fn storage(&self, id: &Value) -> Result<StorageReference> {
        let invalid = || "malformed reference to a storage".to_owned();
        let (kind, class, key, elements, view) = match self.machine.items(id) {
            Some([Value::Text(kind), Value::Global(class), Value::Text(key), _, elements]) => {
                (kind, class, key, elements, &Value::None)
            }
            Some([Value::Text(kind), Value::Global(class), Value::Text(key), _, elements, view]) => {
                (kind, class, key, elements, view)
            }
            _ => return Err(invalid()),
        };
        let view = match (view, self.machine.items(view)) {
            (Value::None, _) => None,
            (_, Some([_, first, count])) => Some((size(first)?, size(count)?)),
            _ => return Err(invalid()),
        };
        let dtype = dtype(class).filter(|_| &**kind == "storage").ok_or_else(invalid)?;
        Ok(StorageReference { dtype, key: key.clone(), elements: size(elements)?, view })
    }
}

fn dtype(class: &str) -> Option<Dtype> {
    // Pickles name the storage class of the element type, never torch.storage.TypedStorage.
    Some(match class.strip_prefix("torch.")? {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::Bf16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        _ => return None,
    })
}

/// Converts a value to a non-negative integer.
fn size(value: &Value) -> Result<u64> {
    match value {
        Value::Int(n) => u64::try_from(*n).map_err(|_| format!("{n} is not a valid size")),
        _ => Err("a size is not an integer".into()),
    }
}

fn pairs(items: Vec<Value>) -> Result<Vec<(Value, Value)>> {
    if items.len() % 2 == 1 {
        return Err("malformed pickle: a dict has a key without a value".into());
    }
    let mut items = items.into_iter();
    Ok(std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect())
}
