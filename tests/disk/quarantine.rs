//! Whatever is done to the bytes of forks, rewinds and catalog batches: is the answer exact, or loud?
//!
//! P6, P13, requirement 7. Every event that is returned is the one that was committed in that generation at that seq;
//! what is missing was told; and what the damaged commits held nothing of is as it was.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::verified::checked;
use crate::support::{env_or, read_dir, write_dir};
use amberlog::verify::{RecordBody, RecordDump, RecoveryReport};
use amberlog::{Log, ReadView, StreamId, StreamInfo, StreamState};

type Events = BTreeMap<(StreamId, u32, u64), Vec<u8>>;

/// Streams with every sort of batch, several in each segment.
fn lives(path: &std::path::Path) {
    let options = Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    let log = options.open(path).expect("opens");
    let mut streams = Vec::new();
    for n in 0..6 {
        let mut stream = log.create_stream().expect("a stream");
        stream.rename(&format!("name {n}")).expect("free");
        stream.set_label("k", "v").expect("fine");
        for event in 0..10 {
            stream.append(format!("{n}.{event}{}", "x".repeat(event * 40))).expect("room");
        }
        stream.commit().wait().expect("committed");
        streams.push(stream);
    }
    for turn in 0..4_u64 {
        let mut fork = streams[0].fork_at(3 + turn).expect("forked");
        fork.append(format!("fork {turn}")).expect("room");
        fork.commit().wait().expect("committed");
        streams[1].rewind(6 - turn).expect("rewound");
        streams[1].append(format!("again {turn}")).expect("room");
        streams[1].commit().wait().expect("committed");
        streams[2].set_label("turn", &turn.to_string()).expect("fine");
        streams[2].append("z".repeat(3_000)).expect("room");
        streams[2].commit().wait().expect("committed");
        streams[3].trim(turn).expect("staged");
        streams[3].commit().wait().expect("trimmed");
        fork.rewind(1).expect("rewound");
        fork.commit().wait().expect("committed");
    }
    streams[4].archive().wait().expect("archived");
    streams[5].delete().wait().expect("deleted");
    log.close().expect("closes");
}

/// Contents of a read view: streams that are not deleted, and those that cannot be read whole.
fn shown(view: &ReadView) -> (BTreeMap<StreamId, StreamInfo>, Events, BTreeSet<StreamId>) {
    let (mut infos, mut events, mut damaged) = (BTreeMap::new(), Events::new(), BTreeSet::new());
    for info in view.streams() {
        for event in view.events(info.id).expect("not deleted") {
            match event {
                Ok(event) => {
                    let at = (info.id, event.generation(), event.seq().get());
                    assert!(events.insert(at, event.payload().to_vec()).is_none());
                }
                Err(_) => drop(damaged.insert(info.id)),
            }
        }
        let back = view.events(info.id).expect("not deleted").rev();
        let back = back
            .filter_map(Result::ok)
            .filter(|event| events.contains_key(&(info.id, event.generation(), event.seq().get())));
        assert!(back.count() <= events.len());
        infos.insert(info.id, StreamInfo::clone(&info));
    }
    (infos, events, damaged)
}

/// The streams that damaged commits held something of, and the forks that share with them.
fn touched(of: &BTreeMap<u64, BTreeSet<StreamId>>, found: &RecoveryReport) -> BTreeSet<StreamId> {
    let lost = found.damages.iter().flat_map(|damage| {
        damage.positions.start.get()
            ..damage.positions.end.get().min(damage.positions.start.get() + 99)
    });
    lost.filter_map(|position| of.get(&position)).flatten().copied().collect()
}

#[test]
fn p6_damage_to_the_life_of_one_stream_leaves_the_others_alone() {
    let made = tempfile::tempdir().expect("a temporary directory");
    lives(made.path());
    let files = read_dir(made.path());
    let (view, _) = ReadView::open(made.path()).expect("readable");
    let (infos, events, damaged) = shown(&view);
    assert!(damaged.is_empty() && infos.values().any(|info| info.state == StreamState::Archived));
    // Which streams each commit holds something of; a fork depends on what it shares.
    let mut of: BTreeMap<u64, BTreeSet<StreamId>> = BTreeMap::new();
    let mut position = 0;
    for record in RecordDump::open(made.path()).expect("readable") {
        let record = record.expect("readable");
        if let RecordBody::Commit { position: here, .. } = record.body {
            position = here.get();
        }
        if let Some(stream) = record.stream {
            of.entry(position).or_default().insert(stream);
        }
    }
    let forks: Vec<_> = infos.values().filter_map(|info| Some((info.id, info.parent?.0))).collect();
    let step = env_or("AMBERLOG_EVERY_BYTE", 23) as usize;
    let (mut loud, mut changed) = (0, 0);
    let dir = tempfile::tempdir().expect("a temporary directory");
    write_dir(dir.path(), &files);
    for (name, bytes) in files.iter().filter(|(name, _)| name.extension().is_some()) {
        for at in (4096..bytes.len()).step_by(step).filter(|at| bytes[*at] != 0) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(dir.path().join(name), damaged).expect("written");
            let found = checked(dir.path()).expect("readable");
            let (view, _) = ReadView::open(dir.path()).expect("readable");
            let (infos_now, events_now, _) = shown(&view);
            let context = format!("byte {at} of {}", name.display());
            for (place, payload) in &events_now {
                // What was rewound, or deleted, may be back when that was lost; nothing else may be.
                if let Some(is) = events.get(place) {
                    assert_eq!(is, payload, "{context}");
                } else {
                    assert!(!found.is_sound(), "{context}: {place:?} is new");
                }
            }
            let same = infos_now == infos && events_now == events;
            assert!(same || !found.is_sound(), "{context}: silent");
            loud += u32::from(!found.is_sound());
            changed += u32::from(!same);
            let mut touched = touched(&of, &found);
            touched.extend(
                forks
                    .iter()
                    .filter(|(_, from)| touched.contains(from))
                    .map(|(id, _)| *id)
                    .collect::<Vec<_>>(),
            );
            for (id, info) in infos.iter().filter(|(id, _)| !touched.contains(id)) {
                assert_eq!(infos_now.get(id), Some(info), "{context}: another stream");
                let of = |events: &Events| {
                    let own = events.iter().filter(|(place, _)| place.0 == *id);
                    own.map(|(place, payload)| (*place, payload.clone())).collect::<Events>()
                };
                assert_eq!(of(&events_now), of(&events), "{context}: another stream");
            }
        }
        std::fs::write(dir.path().join(name), bytes).expect("written");
    }
    println!("{loud} loud, {changed} changed what is shown");
    assert!(loud > 50 && changed > 20);
}
