//! The memory that the allocator gives out for each element.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use super::SIZES;
use super::operation::{LAYOUTS, POLICIES};
use super::space::Space;

struct Counting;

static ALLOCATED: AtomicIsize = AtomicIsize::new(0);

// SAFETY: the methods call the system's allocator with the same arguments.
#[allow(unsafe_code, reason = "there is no other way to count what is allocated")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller guarantees what the system's allocator requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller guarantees what the system's allocator requires.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Prints the bytes for each element, including its share of tables that are larger than necessary.
pub fn print() {
    println!("\nBytes for each element, with one IPv4 address, an ASAP transport and a timer");
    for layout in LAYOUTS {
        print!("\n{layout:<44}");
        SIZES.iter().for_each(|size| print!("{size:>11}"));
        println!();
        for policy in POLICIES {
            print!("  {policy:<42}");
            for size in SIZES {
                let mut space = Space::new(policy, size, layout.pools(size));
                space.members = Vec::new();
                let with = ALLOCATED.load(Ordering::Relaxed);
                drop(space);
                let without = ALLOCATED.load(Ordering::Relaxed);
                print!("{:>11}", (with - without) / size as isize);
            }
            println!();
        }
    }
}
