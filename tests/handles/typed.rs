//! Do typed events come back as what they were, and never as something else?
#![cfg(all(feature = "bincode", feature = "json", feature = "postcard"))]

use amberlog::typed::{
    Bincode, Codec, CodecError, CodecId, Json, Postcard, TypedAppendError, TypedEvents,
};
use amberlog::{AppendError, ErrorKind, EventKind, Log, StreamOptions};
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Said {
    Message { role: String, text: String },
    Tokens(u64),
    Nothing,
}

fn all() -> Vec<Said> {
    let message = Said::Message { role: "user".into(), text: "Wie groß? 🍞".into() };
    vec![message, Said::Tokens(u64::MAX), Said::Nothing]
}

fn there_and_back<C: Codec<Said>>() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let mut typed = stream.typed::<Said, C>().schema_version(3);
    for (n, value) in all().iter().enumerate() {
        typed.append_as(EventKind(n as u16), value).expect("room");
    }
    let volatile: Vec<_> =
        typed.events().expect("readable").map(|one| one.expect("fine").1).collect();
    assert_eq!(volatile, all());
    typed.stream().commit().wait().expect("committed");
    let events = log.read_view().events(stream.id()).expect("known");
    let mut durable: Vec<_> = events
        .typed::<Said, C>()
        .rev()
        .map(|one| {
            let (event, value) = one.expect("fine");
            assert_eq!((event.codec(), event.schema_version()), (C::ID, 3));
            assert_eq!(u64::from(event.kind().0), event.seq().get());
            value
        })
        .collect();
    durable.reverse();
    assert_eq!(durable, all());
    let read = || log.read_view().events(stream.id()).expect("known").typed::<Said, C>();
    let values = |events: TypedEvents<Said, C>| -> Vec<Said> {
        events.map(|one| one.expect("fine").1).collect()
    };
    assert_eq!(values(read().range(1..)), all()[1..]);
    assert_eq!(values(read().range_clamped(..=0)), all()[..1]);
    assert_eq!(read().last().expect("there").expect("fine").1, Said::Nothing);
    assert_eq!(read().size_hint(), (0, Some(3)));
}

#[test]
fn values_come_back_in_every_codec() {
    there_and_back::<Bincode>();
    there_and_back::<Json>();
    there_and_back::<Postcard>();
}

/// A variant inserted before another: a codec that stores positions cannot tell, and one that stores names can.
#[test]
fn only_names_keep_their_meaning_when_an_enum_grows_in_the_middle() {
    #[derive(Serialize, Deserialize)]
    enum Before {
        Opened,
        Deposited(u64),
    }
    #[derive(PartialEq, Debug, Serialize, Deserialize)]
    enum After {
        Opened,
        Fee(u64),
        Deposited(u64),
    }
    fn reread<C: Codec<Before> + Codec<After>>() -> [After; 2] {
        [Before::Opened, Before::Deposited(7)].map(|event| {
            let mut bytes = Vec::new();
            <C as Codec<Before>>::encode(&event, &mut bytes).expect("encoded");
            <C as Codec<After>>::decode(&bytes).expect("decoded")
        })
    }
    assert_eq!(reread::<Json>(), [After::Opened, After::Deposited(7)]);
    assert_eq!(reread::<Bincode>(), [After::Opened, After::Fee(7)]);
    assert_eq!(reread::<Postcard>(), [After::Opened, After::Fee(7)]);
}

#[test]
fn the_wrong_codec_is_an_error_and_never_another_value() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.typed::<Said, Bincode>().append(&Said::Nothing).expect("room");
    stream.append(b"raw").expect("room");
    let events = stream.events().expect("readable");
    let kinds: Vec<_> = events
        .typed::<Said, Json>()
        .map(|one| one.expect_err("written by another codec").kind().clone())
        .collect();
    let wrong = |found| ErrorKind::WrongCodec { expected: CodecId::JSON, found };
    assert_eq!(kinds, [wrong(CodecId::BINCODE), wrong(CodecId::RAW)]);
}

#[test]
fn bytes_that_are_no_value_are_an_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    // A variant that there is not; a string longer than the bytes; a value with something behind it.
    let bincode = [&b"\x09"[..], b"\x00\xfd\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x02\x00"];
    let postcard = [&b"\x09"[..], b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x02\x00"];
    let events = [(CodecId::BINCODE, bincode), (CodecId::POSTCARD, postcard)];
    for (codec, bytes) in events.into_iter().flat_map(|(id, all)| all.map(|bytes| (id, bytes))) {
        let event = amberlog::NewEvent::new(EventKind(0), bytes).codec(codec);
        stream.append(event).expect("room");
    }
    for event in stream.events().expect("readable") {
        let event = event.expect("readable");
        let decoded = match event.codec() {
            CodecId::BINCODE => event.decode::<Said, Bincode>(),
            _ => event.decode::<Said, Postcard>(),
        };
        assert_eq!(*decoded.expect_err("no value").kind(), ErrorKind::Codec);
    }
}

/// A codec of the program's own.
struct Shout;

impl Codec<String> for Shout {
    const ID: CodecId = CodecId::FIRST_OF_PROGRAM;

    fn encode(value: &String, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        if value.is_empty() {
            return Err("silence".into());
        }
        bytes.extend(value.to_uppercase().bytes());
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<String, CodecError> {
        Ok(std::str::from_utf8(bytes)?.to_lowercase())
    }
}

#[test]
fn a_program_brings_its_own_codec() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let options = StreamOptions::new().ring_bytes_max(64);
    let mut stream = log.create_stream_with(&options).expect("a stream");
    let mut typed = stream.typed::<String, Shout>();
    typed.append(&"quiet".to_owned()).expect("room");
    match typed.append(&String::new()) {
        Err(TypedAppendError::Codec(error)) => assert_eq!(*error.kind(), ErrorKind::Codec),
        other => panic!("{other:?}"),
    }
    let unfit = typed.append(&"x".repeat(100));
    assert!(unfit.as_ref().is_err_and(|error| !error.is_retryable() && !error.is_fatal()));
    match unfit {
        Err(TypedAppendError::Refused(refused)) => {
            assert!(matches!(refused, AppendError::EventTooLarge { .. }));
        }
        other => panic!("{other:?}"),
    }
    let (event, value) =
        typed.events().expect("readable").next().expect("one event").expect("fine");
    assert_eq!((event.payload(), value.as_str()), (&b"QUIET"[..], "quiet"));
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn everything_that_reads_the_disk_can_be_awaited() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let log = Log::options().open_async(&path).await.expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..1_000_u32 {
        stream.append(n.to_string()).expect("room");
    }
    stream.commit().await.expect("committed");
    let mut events = log.read_view().events(stream.id()).expect("known").into_async();
    let mut n = 0_u32;
    while let Some(event) = events.next().await {
        assert_eq!(event.expect("fine").payload(), n.to_string().as_bytes());
        n += 1;
    }
    assert_eq!(n, 1_000);
    drop(stream);
    log.close_async().await.expect("closes");
    let again = Log::options().open_async(&path).await.expect("opens again");
    assert!(again.recovery_report().closed_cleanly);
}
