//! JSON form of the crate's types: numbers as numbers, ids and times as readable text.

use serde::{Serialize, Serializer};

use super::{CodecId, CommitId, EventKind, Position, Seq, StreamId, Timestamp};

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

macro_rules! as_number {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }
    )*};
}

as_text!(StreamId, CommitId, Timestamp);
as_number!(Seq, Position, EventKind, CodecId);
