//! Tests that compare `docs/format.md` with the code: every table with the constants of this room,
//! its test vectors with computed checksums, and its worked example with the encoder's output, byte
//! by byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use super::*;
use crate::types::{CodecId, EventKind, Timestamp};

const PAGE: &str = include_str!("../../docs/format.md");

/// 2026-01-01, 00:00:00 UTC.
const MIDNIGHT_MICROS: u64 = 1_767_225_600_000_000;
const SALT: u32 = 0x5EED_CAFE;
const STREAM: [u8; 16] = *b"\x01\x9b\x76\xda\xa8\x00\x70\x01\x80\0\0\0\0\0\0\x01";

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        log_id: *b"\x01\x9b\x76\xda\xa8\x00\x7a\x6d\x80\0\0\0\0\0\0\x0a",
        number: 1,
        reserved_bytes: 256 << 10,
        covers: None,
        created_micros: MIDNIGHT_MICROS,
        salt: SALT,
    }
}

fn frame((kind, schema_version): (u16, u8), codec: CodecId, at: u64, payload: &[u8]) -> Vec<u8> {
    let mut head = [0; frame_header::BYTES];
    let frame_head = FrameHead {
        payload_bytes: payload.len() as u32,
        kind: EventKind(kind),
        schema_version,
        codec,
        time: Timestamp::from_micros(MIDNIGHT_MICROS + at),
    };
    put_frame_head(&mut head, &frame_head);
    [&head, payload].concat()
}

fn commit() -> Vec<u8> {
    let mut name = Vec::new();
    put_attribute(&Attribute::Name("greeting"), &mut name);
    let frames = [
        frame((7, 0), CodecId::RAW, 1_000, b"hello!"),
        frame((7, 1), CodecId::JSON, 2_000, br#"{"n":2}"#),
    ]
    .concat();
    let batch = |kind, count, bytes: &[u8]| PlannedBatch {
        stream: STREAM,
        first_seq: 0,
        count,
        kind,
        generation: 0,
        order: 0,
        bytes: bytes.len() as u64,
        crc: batch_crc(&[bytes]),
    };
    let plan = CommitPlan {
        position: 1,
        date: CommitDate {
            time: Timestamp::from_micros(MIDNIGHT_MICROS + 3_000),
            is_vouched: true,
        },
        acked: 0,
        durable: 0,
        salt: SALT,
        batches: &[batch(BatchKind::Catalog, 1, &name), batch(BatchKind::Events, 2, &frames)],
    };
    let mut bytes = Vec::new();
    let (tail, used) = encode_commit(&plan, &mut bytes);
    bytes.extend_from_slice(&name);
    bytes.extend_from_slice(&frames);
    bytes.extend_from_slice(&tail[tail.len() - used..]);
    bytes
}

/// Returns the start of the example's only segment, up to the end of its tail record.
fn file() -> Vec<u8> {
    let tail_record = TailRecord {
        position: 2,
        durable: 1,
        vouched: Timestamp::from_micros(MIDNIGHT_MICROS + 4_000),
        ending: Ending::Open,
    };
    let mut file = segment_header().encode().to_vec();
    file.extend(commit());
    file.resize(record_at(file.len() as u64) as usize, 0);
    file.extend(tail_record.encode(SALT));
    file
}

/// Formats sixteen bytes per line with their offset and text; lines of zeros become one star.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut skipping = false;
    for (index, line) in bytes.chunks(16).enumerate() {
        if line.iter().all(|byte| *byte == 0) {
            text.push_str(if skipping { "" } else { "*\n" });
            skipping = true;
            continue;
        }
        skipping = false;
        let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |byte: &u8| {
            let printable = byte.is_ascii_graphic() || *byte == b' ';
            char::from(if printable { *byte } else { b'.' })
        };
        let ascii: String = line.iter().map(shown).collect();
        let _ = writeln!(text, "{:06x}  {:<47}  {ascii}", index * 16, hex.join(" "));
    }
    text
}

/// Table of the page: the mark in the comment above it, its headings, and its rows.
struct Table {
    mark: String,
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_matches('|');
    let cells = inner.split('|');
    cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
}

fn tables() -> Vec<Table> {
    let mut tables = Vec::new();
    let mut mark = String::new();
    let mut inside = false;
    let mut fenced = false;
    for line in PAGE.lines() {
        fenced ^= line.starts_with("```");
        if let Some(comment) = line.strip_prefix("<!-- ") {
            mark = comment.trim_end_matches(" -->").to_owned();
        }
        if fenced || !line.starts_with('|') {
            inside = false;
        } else if !inside {
            inside = true;
            let mark = std::mem::take(&mut mark);
            let headings = cells(line);
            let rows = Vec::new();
            tables.push(Table { mark, headings, rows });
        } else if !line.starts_with("|-") {
            let table = tables.last_mut().expect("a row belongs to a table");
            table.rows.push(cells(line));
        }
    }
    tables
}

fn table(mark: &str) -> Table {
    let mut found = tables().into_iter().filter(|table| table.mark == mark);
    let first = found.next();
    assert!(found.next().is_none(), "two tables are marked {mark:?}");
    first.unwrap_or_else(|| panic!("no table is marked {mark:?}"))
}

/// Returns the name of a field's constant as the page writes it.
fn page_name(constant: &str) -> String {
    match constant {
        "MAGIC_AT" => "magic".to_owned(),
        other => other.to_ascii_lowercase(),
    }
}

type Fields = &'static [(&'static str, Range<usize>)];

/// Returns every record of the format: the name in its table's mark, its length in bytes, its
/// fields.
fn layouts() -> [(&'static str, usize, Fields); 14] {
    [
        ("header", header::BYTES, header::FIELDS),
        ("commit_header", commit_header::BYTES, commit_header::FIELDS),
        ("batch_header", batch_header::BYTES, batch_header::FIELDS),
        ("frame_header", frame_header::BYTES, frame_header::FIELDS),
        ("attribute", attribute::BYTES, attribute::FIELDS),
        ("label", label::BYTES, label::FIELDS),
        ("parent", parent::BYTES, parent::FIELDS),
        ("fork", fork::BYTES, fork::FIELDS),
        ("marker", marker::BYTES, marker::FIELDS),
        ("tail record", tail_record::BYTES, tail_record::FIELDS),
        ("footer_head", footer_head::BYTES, footer_head::FIELDS),
        ("footer_stream_layout", footer_stream_layout::BYTES, footer_stream_layout::FIELDS),
        ("commit_place_layout", commit_place_layout::BYTES, commit_place_layout::FIELDS),
        ("trailer", trailer::BYTES, trailer::FIELDS),
    ]
}

#[test]
fn p15_every_field_stands_in_the_page_where_it_stands_on_disk() {
    for (name, bytes, fields) in layouts() {
        let found = table(&format!("layout: {name}, {bytes} bytes"));
        assert_eq!(found.headings[..3], ["Field", "Offset", "Bytes"], "{name}");
        let says: Vec<_> = found.rows.iter().map(|row| row[..3].to_vec()).collect();
        let is: Vec<_> = fields
            .iter()
            .map(|(field, at)| {
                let (start, len) = (at.start.to_string(), at.len().to_string());
                vec![page_name(field), start, len]
            })
            .collect();
        assert_eq!(says, is, "{name}");
        assert_eq!(fields.last().map(|last| last.1.end), Some(bytes), "{name}");
    }
    let described = tables().iter().filter(|table| table.headings[0] == "Field").count();
    assert_eq!(described, layouts().len(), "a table of fields has no mark");
}

#[test]
fn p15_every_constant_of_the_page_has_the_value_that_the_code_has() {
    let text = |magic: &[u8]| String::from_utf8_lossy(magic).into_owned();
    let number = |value: u64| value.to_string();
    let is: BTreeMap<String, String> = [
        ("VERSION", number(VERSION.into())),
        ("CHECKSUM_CRC32", number(CHECKSUM_CRC32.into())),
        ("ALIGN", number(ALIGN)),
        ("SECTOR_BYTES", number(SECTOR_BYTES)),
        ("RECORD_SHIFT_MAX", number(RECORD_SHIFT_MAX)),
        ("header::MAGIC", text(&header::MAGIC)),
        ("header::BLOCK_BYTES", number(header::BLOCK_BYTES as u64)),
        ("header::TWIN", number(header::TWIN as u64)),
        ("header::ORDER_DENSE", number(header::ORDER_DENSE.into())),
        ("header::ORDER_SPARSE", number(header::ORDER_SPARSE.into())),
        ("COMMITS_AT", number(COMMITS_AT)),
        ("commit_header::MAGIC", text(&commit_header::MAGIC)),
        ("commit_header::FLAG_UNVOUCHED", number(commit_header::FLAG_UNVOUCHED.into())),
        ("COMMIT_BYTES_MIN", number(COMMIT_BYTES_MIN)),
        ("COMMIT_BYTES_MAX", number(COMMIT_BYTES_MAX)),
        ("BATCH_SEED", format!("0x{BATCH_SEED:08X}")),
        ("frame_header::TIME_BITS", number(frame_header::TIME_BITS.into())),
        ("attribute::TAG_NAME", number(attribute::TAG_NAME.into())),
        ("attribute::TAG_LABEL", number(attribute::TAG_LABEL.into())),
        ("attribute::TAG_DATA", number(attribute::TAG_DATA.into())),
        ("attribute::TAG_STATE", number(attribute::TAG_STATE.into())),
        ("attribute::TAG_START", number(attribute::TAG_START.into())),
        ("attribute::TAG_PARENT", number(attribute::TAG_PARENT.into())),
        ("attribute::TAG_SUMMARY", number(attribute::TAG_SUMMARY.into())),
        ("attribute::TAG_OPTIONAL", format!("0x{:04X}", attribute::TAG_OPTIONAL)),
        ("tail_record::MAGIC", text(&tail_record::MAGIC)),
        ("tail_record::FLAG_CLEAN", number(tail_record::FLAG_CLEAN.into())),
        ("tail_record::FLAG_SETTLED", number(tail_record::FLAG_SETTLED.into())),
        ("footer_head::MAGIC", text(&footer_head::MAGIC)),
        ("commit_place_layout::BLOCK_BYTES", number(commit_place_layout::BLOCK_BYTES)),
        ("trailer::MAGIC", text(&trailer::MAGIC)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let rows = table("constants").rows;
    let says = rows.iter().map(|row| (row[0].clone(), row[1].clone()));
    assert_eq!(says.collect::<BTreeMap<_, _>>(), is);
}

#[test]
fn p15_the_kinds_of_batches_and_the_codecs_have_the_numbers_that_the_page_gives_them() {
    let mut known = Vec::new();
    for row in table("batch kinds").rows {
        let byte: u8 = row[0].parse().expect("a number");
        let kind = BatchKind::from_byte(byte).map_or("—".to_owned(), |kind| format!("{kind:?}"));
        assert_eq!(row[1], kind, "kind {byte}");
        known.push(byte);
    }
    let all: Vec<u8> = (0..=u8::MAX).filter(|byte| BatchKind::from_byte(*byte).is_some()).collect();
    assert!(all.iter().all(|byte| known.contains(byte)));
    let codecs: Vec<_> = table("codecs").rows.into_iter().map(|row| row[0].clone()).collect();
    let is = [
        CodecId::RAW.0.to_string(),
        CodecId::BINCODE.0.to_string(),
        CodecId::JSON.0.to_string(),
        CodecId::POSTCARD.0.to_string(),
        format!("{} to {}", CodecId::POSTCARD.0 + 1, CodecId::FIRST_OF_PROGRAM.0 - 1),
        format!("{} to 255", CodecId::FIRST_OF_PROGRAM.0),
    ];
    assert_eq!(codecs, is);
}

#[test]
fn p15_the_test_vectors_of_the_checksum_hold() {
    let rows = table("vectors").rows;
    assert!(rows.len() >= 5);
    for row in rows {
        let number = |cell: &str| u32::from_str_radix(cell, 16).expect("eight hex digits");
        let bytes = match row[1].as_str() {
            "none" => Vec::new(),
            "8 zero bytes" => vec![0; 8],
            text => text.as_bytes().to_vec(),
        };
        let crc = checksum(number(&row[0]), &[&bytes]);
        assert_eq!(format!("{crc:08X}"), row[2], "{row:?}");
    }
}

#[test]
fn p15_the_worked_example_is_what_the_encoder_writes() {
    let file = file();
    let is = dump(&file);
    let example = PAGE.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next());
    assert!(example == Some(is.as_str()), "the example in docs/format.md should be:\n{is}");
    for row in table("example").rows {
        let at = usize::from_str_radix(&row[0], 16).expect("an offset in hex");
        let says: Vec<u8> = row[1]
            .split(' ')
            .map(|byte| u8::from_str_radix(byte, 16).expect("bytes in hex"))
            .collect();
        let is = &file[at..at + says.len()];
        assert_eq!(says, is, "{row:?}, is {is:02x?}");
    }
}

#[test]
fn the_worked_example_reads_back() {
    let file = file();
    assert_eq!(decode_header(&file), Ok((segment_header(), true)));
    let bytes = &file[COMMITS_AT as usize..];
    let head = CommitHead::decode(bytes, SALT).expect("a commit");
    assert_eq!((head.position, head.acked, head.durable), (1, 0, 0));
    let end = head.length as usize;
    assert!(head.is_closed_by(&bytes[end - marker::BYTES..end]));
    let directory = head.directory(bytes).expect("a directory");
    assert!(directory.is_whole());
    let batch = |kind| {
        let found = directory.find(&STREAM, kind).expect("in the directory");
        let body = &bytes[found.start as usize..found.end as usize];
        assert_eq!(batch_crc(&[body]), found.crc);
        body
    };
    let names: Vec<_> = Attributes(batch(BatchKind::Catalog)).collect();
    assert_eq!(names, [Ok(Attribute::Name("greeting"))]);
    let events = batch(BatchKind::Events);
    let payloads: Vec<_> = Frames::new(events)
        .map(|(at, head)| &events[at + frame_header::BYTES..at + head.frame_bytes()])
        .collect();
    assert_eq!(payloads, [&b"hello!"[..], br#"{"n":2}"#]);
    let tail_record = decode_tail_record(&bytes[end..], SALT).expect("a tail record");
    assert_eq!(
        (tail_record.position, tail_record.durable, tail_record.ending),
        (2, 1, Ending::Open)
    );
}
