//! Damage to the bytes of a file, for property tests.

use proptest::prelude::*;
use proptest::sample::Index;

/// A change to bytes.
#[derive(Debug, Clone)]
pub(crate) enum ByteMutation {
    Truncate(Index),
    FlipBit(Index, u8),
    Insert(Index, Vec<u8>),
    Delete(Index, u8),
    /// Overwrites four or eight bytes, such as a length.
    SetLength(Index, u64, bool),
}

impl ByteMutation {
    /// Generates mutations; `lengths` are the values of [`ByteMutation::SetLength`].
    pub fn any(lengths: impl Strategy<Value = u64> + 'static) -> impl Strategy<Value = Self> {
        let index = any::<Index>;
        prop_oneof![
            index().prop_map(Self::Truncate),
            (index(), 0..8u8).prop_map(|(at, bit)| Self::FlipBit(at, bit)),
            (index(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            (index(), any::<u8>()).prop_map(|(at, count)| Self::Delete(at, count)),
            (index(), lengths, any::<bool>()).prop_map(|(at, length, wide)| Self::SetLength(at, length, wide)),
        ]
    }

    pub fn apply(&self, bytes: &mut Vec<u8>) {
        let (Self::Truncate(at)
        | Self::FlipBit(at, _)
        | Self::Insert(at, _)
        | Self::Delete(at, _)
        | Self::SetLength(at, ..)) = self;
        if bytes.is_empty() {
            return;
        }
        let at = at.index(bytes.len());
        match self {
            Self::Truncate(_) => bytes.truncate(at),
            Self::FlipBit(_, bit) => bytes[at] ^= 1 << bit,
            Self::Insert(_, inserted) => drop(bytes.splice(at..at, inserted.iter().copied())),
            Self::Delete(_, count) => drop(bytes.drain(at..(at + usize::from(*count)).min(bytes.len()))),
            Self::SetLength(_, length, wide) => {
                let length = &length.to_le_bytes()[..if *wide { 8 } else { 4 }];
                let end = (at + length.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&length[..end - at]);
            }
        }
    }
}
