//! An allocator that counts, for the tests that include this file.

#![allow(dead_code, reason = "everyone who includes it uses their own part of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicU64 = AtomicU64::new(0);
thread_local! {
    static HERE: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(added: usize, removed: usize) {
    LIVE_BYTES.fetch_add(added as u64, Relaxed);
    LIVE_BYTES.fetch_sub(removed as u64, Relaxed);
    if added > 0 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // A thread that ends may allocate after this is gone.
        let _ = HERE.try_with(|here| here.set(here.get() + 1));
    }
}

// SAFETY: everything is handed to the system's allocator as it is; counting touches no memory of others.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

/// Allocations of all threads so far; one that grows or shrinks counts.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.load(Relaxed)
}

/// Allocations of this thread so far.
pub(crate) fn allocations_here() -> u64 {
    HERE.get()
}

/// Bytes that are allocated now, as they were asked for: what an allocator adds is not counted.
pub(crate) fn live_bytes() -> u64 {
    LIVE_BYTES.load(Relaxed)
}
