//! Waking the threads of a group: one call per thread, or one call for all.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SECONDS: Duration = Duration::from_secs(2);
const EVENT_BYTES: usize = 350;

/// Measures rounds in which all threads arrive, one writes and syncs for them, and all are woken.
pub(crate) fn report(path: &Path) -> io::Result<()> {
    for threads in [8, 64, 256] {
        for together in [false, true, false, true] {
            let (rounds, waking) = rounds(path, threads, together)?;
            let how = if together { "all at once" } else { "each by itself" };
            println!(
                "{threads:3} threads, {how:14}: {:7.0} a second, {:6.1} µs a round for the calls that wake",
                rounds * threads as f64,
                waking.as_nanos() as f64 / 1e3
            );
        }
    }
    Ok(())
}

fn rounds(path: &Path, threads: usize, together: bool) -> io::Result<(f64, Duration)> {
    let file = File::options().write(true).open(path)?;
    let counts: Vec<AtomicU32> = (0..threads).map(|_| AtomicU32::new(0)).collect();
    let count = |nth: usize| &counts[if together { 0 } else { nth }];
    let (arrived, leader, over) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let bytes = vec![1; threads * EVENT_BYTES];
    thread::scope(|scope| {
        for nth in 0..threads {
            let (arrived, leader, over) = (&arrived, &leader, &over);
            scope.spawn(move || {
                for round in 0.. {
                    if arrived.fetch_add(1, Ordering::AcqRel) + 1 == threads as u32 {
                        leader.store(round + 1, Ordering::Release);
                        wake(leader, 1);
                    }
                    wait_beyond(count(nth), round);
                    if over.load(Ordering::Acquire) {
                        return;
                    }
                }
            });
        }
        let (began, mut waking) = (Instant::now(), Duration::ZERO);
        for round in 0.. {
            wait_beyond(&leader, round);
            let at = u64::from(round) % 500 * bytes.len() as u64;
            let synced = file.write_all_at(&bytes, at).and_then(|()| file.sync_data());
            let ends = synced.is_err() || began.elapsed() > SECONDS;
            over.store(ends, Ordering::Release);
            arrived.store(0, Ordering::Release);
            let called = Instant::now();
            for one in counts.iter().take(if together { 1 } else { threads }) {
                one.store(round + 1, Ordering::Release);
                wake(one, i32::MAX);
            }
            waking += called.elapsed();
            if ends {
                let rounds = f64::from(round + 1);
                let rate = rounds / began.elapsed().as_secs_f64();
                return synced.map(|()| (rate, waking / (round + 1)));
            }
        }
        unreachable!("rounds end")
    })
}

fn wait_beyond(count: &AtomicU32, round: u32) {
    while count.load(Ordering::Acquire) <= round {
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the address is that of an atomic that outlives the call.
        unsafe {
            let timeout = std::ptr::null::<libc::timespec>();
            libc::syscall(libc::SYS_futex, count.as_ptr(), operation, round, timeout);
        }
    }
}

fn wake(count: &AtomicU32, threads: i32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the address is that of an atomic that outlives the call.
    unsafe {
        libc::syscall(libc::SYS_futex, count.as_ptr(), operation, threads);
    }
}
