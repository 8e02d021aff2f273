//! A reader of Python pickles that runs nothing: a stack machine that knows the handful of globals a torch state_dict
//! needs and refuses every other by name. Source: the opcode comments of CPython's `pickletools`.

use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;

/// Element types of a torch storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

/// A storage as a pickle names it: the persistent id `("storage", type, key, location, elements[, view])`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StorageReference {
    pub dtype: Dtype,
    pub key: Rc<str>,
    /// Elements the pickle claims.
    pub elements: u64,
    /// First element and number of elements of a view into the storage (older format only).
    pub view: Option<(u64, u64)>,
}

/// A tensor as a pickle describes it, offsets and strides in elements.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorReference {
    pub storage: Rc<StorageReference>,
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// What stands on the machine's stack. Containers are indices into [`Machine`]'s arena, so that nothing nests and
/// nothing can be dropped recursively.
#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little endian, two's complement.
    Long(Rc<[u8]>),
    Float,
    Text(Rc<str>),
    Bytes,
    Global(Rc<str>),
    Sequence(usize),
    Dict(usize),
    Storage(Rc<StorageReference>),
    Tensor(Rc<TensorReference>),
    /// Something known and of no interest, such as a `torch.device`.
    Opaque,
}

enum Container {
    Sequence(Vec<Value>),
    Dict(Vec<(Value, Value)>),
}

/// The objects of one pickle, or of several read with the same machine.
#[derive(Default)]
pub(super) struct Machine {
    arena: Vec<Container>,
}

/// The tensors of `torch.save`d files have at most this many axes here.
const MAX_AXES: usize = 16;

type Outcome<T> = Result<T, String>;

impl Machine {
    /// The items of a tuple or list; none for anything else.
    pub fn items(&self, value: &Value) -> Option<&[Value]> {
        match value {
            Value::Sequence(index) => match &self.arena[*index] {
                Container::Sequence(items) => Some(items),
                Container::Dict(_) => None,
            },
            _ => None,
        }
    }

    /// The entries of a dict in the order written; none for anything else.
    pub fn entries(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(index) => match &self.arena[*index] {
                Container::Dict(entries) => Some(entries),
                Container::Sequence(_) => None,
            },
            _ => None,
        }
    }

    /// Reads one pickle, up to and including its STOP.
    pub fn load(&mut self, input: &mut impl Read) -> Outcome<Value> {
        Run { machine: self, input, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }.run()
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

struct Run<'a, R> {
    machine: &'a mut Machine,
    input: &'a mut R,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl<R: Read> Run<'_, R> {
    fn run(&mut self) -> Outcome<Value> {
        loop {
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
                    let first = self.stack.len().checked_sub(usize::from(opcode - 0x84)).ok_or("its stack is empty")?;
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
                    _ => return Err("a global's name is no text".into()),
                },
                b'R' | 0x81 => {
                    let arguments = self.pop()?; // REDUCE, NEWOBJ
                    let callable = self.pop()?;
                    let value = self.call(&callable, &arguments)?;
                    self.push(value);
                }
                b'b' => {
                    self.pop()?; // BUILD: attributes such as _metadata say nothing here
                    self.top()?;
                }
                b'Q' => {
                    let id = self.pop()?; // BINPERSID
                    let storage = self.storage(&id)?;
                    self.push(Value::Storage(Rc::new(storage)));
                }
                _ => return Err(format!("pickle opcode 0x{opcode:02x} is not one a state_dict needs")),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|_| "its pickle ends too soon".to_owned())?;
        Ok(bytes)
    }

    /// Reads `n` bytes without believing that they are there: nothing is reserved ahead of reading.
    fn bytes(&mut self, n: u64) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut *self.input).take(n).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        (read as u64 == n).then_some(bytes).ok_or_else(|| "its pickle ends too soon".into())
    }

    fn text(&mut self, n: u64) -> Outcome<()> {
        let text = String::from_utf8(self.bytes(n)?).map_err(|_| "its pickle holds text that is not UTF-8")?;
        self.push(Value::Text(text.into()));
        Ok(())
    }

    fn long(&mut self, n: u64) -> Outcome<()> {
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

    fn line(&mut self) -> Outcome<String> {
        let mut line = Vec::new();
        loop {
            match self.take::<1>()? {
                [b'\n'] => break,
                _ if line.len() > 1000 => return Err("its pickle names a global of more than 1000 letters".into()),
                [letter] => line.push(letter),
            }
        }
        String::from_utf8(line).map_err(|_| "its pickle names a global that is not UTF-8".into())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn top(&self) -> Outcome<&Value> {
        self.stack.last().ok_or_else(|| "its stack is empty".into())
    }

    fn pop(&mut self) -> Outcome<Value> {
        self.stack.pop().ok_or_else(|| "its stack is empty".into())
    }

    fn pop_mark(&mut self) -> Outcome<Vec<Value>> {
        let mark = self.marks.pop().filter(|m| *m <= self.stack.len()).ok_or("its stack lacks a mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn get(&mut self, n: u32) -> Outcome<()> {
        let value = self.memo.get(&n).cloned().ok_or_else(|| format!("its memo has no {n}"))?;
        self.push(value);
        Ok(())
    }

    fn extend(&mut self, items: Vec<Value>) -> Outcome<()> {
        match *self.top()? {
            Value::Sequence(index) => match &mut self.machine.arena[index] {
                Container::Sequence(list) => list.extend(items),
                Container::Dict(_) => return Err("it appends to a dict".into()),
            },
            _ => return Err("it appends to what is no list".into()),
        }
        Ok(())
    }

    fn set(&mut self, entries: Vec<(Value, Value)>) -> Outcome<()> {
        match *self.top()? {
            Value::Dict(index) => match &mut self.machine.arena[index] {
                Container::Dict(dict) => dict.extend(entries),
                Container::Sequence(_) => return Err("it sets an item of a list".into()),
            },
            _ => return Err("it sets an item of what is no dict".into()),
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Outcome<()> {
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
                "it refers to {full}, which is not run here: save the state_dict alone, torch.save(model.state_dict(), FILE)"
            ));
        }
        self.push(Value::Global(full.into()));
        Ok(())
    }

    fn call(&mut self, callable: &Value, arguments: &Value) -> Outcome<Value> {
        let Value::Global(name) = callable else { return Err("it calls what is no global".into()) };
        let arguments = self.machine.items(arguments).ok_or("it calls without a tuple of arguments")?;
        match (&**name, arguments) {
            ("collections.OrderedDict", []) => Ok(self.machine.dict(Vec::new())),
            ("collections.OrderedDict", [list]) => {
                let mut entries = Vec::new();
                for pair in self.machine.items(list).ok_or("an OrderedDict is made of what is no list")? {
                    match self.machine.items(pair) {
                        Some([key, value]) => entries.push((key.clone(), value.clone())),
                        _ => return Err("an OrderedDict is made of what are no pairs".into()),
                    }
                }
                Ok(self.machine.dict(entries))
            }
            (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
                [storage, offset, shape, strides, ..],
            ) => {
                let Value::Storage(storage) = storage else { return Err("a tensor has no storage".into()) };
                let (shape, strides) = (self.axes(shape)?, self.axes(strides)?);
                if shape.len() != strides.len() {
                    return Err("a tensor's strides do not fit its shape".into());
                }
                let reference = TensorReference { storage: storage.clone(), offset: natural(offset)?, shape, strides };
                Ok(Value::Tensor(Rc::new(reference)))
            }
            ("torch._utils._rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
            ("torch.Size", [sizes]) => Ok(sizes.clone()),
            ("torch.device", _) => Ok(Value::Opaque),
            _ => Err(format!("it calls {name} in a way torch does not")),
        }
    }

    fn axes(&self, value: &Value) -> Outcome<Vec<u64>> {
        let items = self.machine.items(value).ok_or("a tensor's shape is no tuple")?;
        if items.len() > MAX_AXES {
            return Err(format!("a tensor has {} axes", items.len()));
        }
        items.iter().map(natural).collect()
    }

    fn storage(&self, id: &Value) -> Outcome<StorageReference> {
        let wrong = || "it names a storage in a way torch does not".to_owned();
        let (kind, class, key, elements, view) = match self.machine.items(id) {
            Some([Value::Text(kind), Value::Global(class), Value::Text(key), _, elements]) => {
                (kind, class, key, elements, &Value::None)
            }
            Some([Value::Text(kind), Value::Global(class), Value::Text(key), _, elements, view]) => {
                (kind, class, key, elements, view)
            }
            _ => return Err(wrong()),
        };
        let view = match (view, self.machine.items(view)) {
            (Value::None, _) => None,
            (_, Some([_, first, count])) => Some((natural(first)?, natural(count)?)),
            _ => return Err(wrong()),
        };
        let dtype = dtype(class).filter(|_| &**kind == "storage").ok_or_else(wrong)?;
        Ok(StorageReference { dtype, key: key.clone(), elements: natural(elements)?, view })
    }
}

fn dtype(class: &str) -> Option<Dtype> {
    // torch.storage.TypedStorage never stands in a file: each pickle names the class of its element type.
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

fn natural(value: &Value) -> Outcome<u64> {
    match value {
        Value::Int(n) => u64::try_from(*n).map_err(|_| format!("it has {n} where a size must stand")),
        _ => Err("it has something else where a size must stand".into()),
    }
}

fn pairs(items: Vec<Value>) -> Outcome<Vec<(Value, Value)>> {
    if items.len() % 2 == 1 {
        return Err("a dict has a key without a value".into());
    }
    let mut items = items.into_iter();
    Ok(std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect())
}
