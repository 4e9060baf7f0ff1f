//! Takes a commit apart: the commit, its batches, and the events and attributes in them.

use super::record::{Record, RecordBody};
use crate::format::{Attribute, Attributes, BatchHead, BatchKind, Frames, decode_fork};
use crate::segment::scan::{Found, Scanner};
use crate::types::{CommitId, Position, Seq, StreamId};

/// Returns the records of a commit that `scanner` has just read.
pub(super) fn records(segment: u32, scanner: &Scanner, found: &Found) -> Vec<Record> {
    let body = RecordBody::Commit {
        bytes: found.head.length,
        position: Position(found.head.position),
        time: found.head.date.time,
        vouched: found.head.date.is_vouched,
        acknowledged: Position(found.head.acked),
        durable: Position(found.head.durable),
        batches: found.head.batches,
        whole: found.is_sound(),
    };
    let mut records = vec![Record { segment, offset: found.offset, stream: None, body }];
    for (index, batch) in found.batches.iter().enumerate() {
        let range = batch.range_in(found.offset);
        let offset = range.start;
        let pinned = scanner.pinned(range);
        let bytes = pinned.as_ref().and_then(|(pin, range)| pin.get(range.clone()));
        let parts = match bytes.filter(|_| !found.is_bad(index)) {
            Some(bytes) => batch_parts(batch, bytes),
            None => vec![(0, in_directory(batch))],
        };
        let stream = Some(StreamId::from_bytes(batch.stream));
        records.extend(parts.into_iter().map(|(at, body)| {
            let offset = offset.saturating_add(at);
            Record { segment, offset, stream, body }
        }));
    }
    records
}

/// Returns the content of a whole batch, by its offset in the batch.
fn batch_parts(batch: &BatchHead, bytes: &[u8]) -> Vec<(u64, RecordBody)> {
    let seq = Seq(batch.first_seq);
    let body = match batch.kind {
        None | Some(BatchKind::Gap | BatchKind::LongGap) => in_directory(batch),
        Some(BatchKind::Events) => return events(batch, bytes),
        Some(BatchKind::Fork) => {
            let (base, base_generation) = decode_fork(bytes).unwrap_or_default();
            RecordBody::Fork { seq, base: StreamId::from_bytes(base), base_generation }
        }
        Some(BatchKind::Rewind) => RecordBody::Rewind { seq, generation: batch.generation },
        Some(BatchKind::CommitId) => {
            RecordBody::CommitId { id: CommitId(bytes.try_into().unwrap_or_default()) }
        }
        Some(BatchKind::Catalog) => return attributes(bytes),
    };
    vec![(0, body)]
}

/// Returns the content of a batch, as far as the commit's directory states it: all of a gap, less
/// of a damaged batch.
fn in_directory(batch: &BatchHead) -> RecordBody {
    let (bytes, seq) = (batch.bytes(), Seq(batch.first_seq));
    match batch.kind {
        Some(kind) if kind.is_gap() => RecordBody::Gap { seq, dropped: kind.seqs(batch.count) },
        Some(BatchKind::Events) => {
            RecordBody::Events { bytes, seq, count: batch.count, whole: false }
        }
        _ => RecordBody::Unreadable { bytes },
    }
}

fn events(batch: &BatchHead, bytes: &[u8]) -> Vec<(u64, RecordBody)> {
    let (first, count) = (Seq(batch.first_seq), batch.count);
    let all = RecordBody::Events { bytes: batch.bytes(), seq: first, count, whole: true };
    let events = Frames::new(bytes).enumerate().map(|(n, (at, head))| {
        let event = match head.is_known() {
            true => RecordBody::Event {
                seq: Seq(batch.first_seq.saturating_add(n as u64)),
                kind: head.kind,
                schema_version: head.schema_version,
                codec: head.codec,
                time: head.time,
                payload_bytes: head.payload_bytes,
            },
            false => RecordBody::Unreadable { bytes: head.frame_bytes() as u64 },
        };
        (at as u64, event)
    });
    [(0, all)].into_iter().chain(events).collect()
}

fn attributes(bytes: &[u8]) -> Vec<(u64, RecordBody)> {
    let content = Attributes(bytes).map(|attribute| match attribute {
        Ok(Attribute::Name(name)) => RecordBody::Name { name: name.to_owned() },
        Ok(Attribute::Label { key, value }) => {
            RecordBody::Label { key: key.to_owned(), value: value.map(ToOwned::to_owned) }
        }
        Ok(Attribute::Data(data)) => RecordBody::Data { bytes: data.len() as u64 },
        Ok(Attribute::State(state)) => RecordBody::State { state },
        Ok(Attribute::Start(seq)) => RecordBody::Start { seq: Seq(seq) },
        Ok(Attribute::Parent { stream, seq }) => {
            RecordBody::Parent { parent: StreamId::from_bytes(stream), seq: Seq(seq) }
        }
        Ok(Attribute::Summary) => RecordBody::Summary,
        Ok(Attribute::Optional) => RecordBody::Optional,
        // The attributes after it cannot be told apart either.
        Err(_) => RecordBody::Unreadable { bytes: bytes.len() as u64 },
    });
    content.map(|body| (0, body)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::put_attribute;

    #[test]
    fn attributes_of_a_newer_version_and_unreadable_ones_are_shown() {
        let mut bytes = Vec::new();
        put_attribute(&Attribute::Optional, &mut bytes);
        put_attribute(&Attribute::Name("n"), &mut bytes);
        bytes.push(7);
        let unreadable = RecordBody::Unreadable { bytes: bytes.len() as u64 };
        let name = RecordBody::Name { name: "n".to_owned() };
        let expected = [RecordBody::Optional, name, unreadable].map(|body| (0, body));
        assert_eq!(attributes(&bytes), expected);
    }
}
