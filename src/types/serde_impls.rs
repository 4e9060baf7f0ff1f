//! Serde form of ids and times: readable text, or bytes and microseconds in formats that are not
//! human-readable.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{CommitId, StreamId, Timestamp};

macro_rules! as_text {
    ($($name:ident as $binary:ty: $into:expr, $from:expr;)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return serializer.collect_str(self);
                }
                $into(self).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    return text.parse().map_err(D::Error::custom);
                }
                <$binary>::deserialize(deserializer).map($from)
            }
        }
    )*};
}

as_text! {
    StreamId as [u8; 16]: StreamId::as_bytes, StreamId::from_bytes;
    CommitId as [u8; 16]: |id: &CommitId| id.0, CommitId;
    Timestamp as u64: |time: &Timestamp| time.as_micros(), Timestamp::from_micros;
}
