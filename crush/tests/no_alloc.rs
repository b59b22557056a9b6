//! A mapping allocates nothing: memory is taken when a map is compiled and when a workspace is first used.

#![expect(unsafe_code, reason = "an allocator that counts is an unsafe trait; it only hands calls on")]

use nacre_crush::binary;
use nacre_crush::map::{Kernel, Mapper, Mappings, Workspace};
use nacre_crush::model::Weight;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Hands everything on to the system's allocator and counts what the thread asks for.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all calls are handed on unchanged, and the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn mappings_allocate_nothing() {
    // One map of each kind of bucket, one with local tries and permutations, one with a bucket of 300 items.
    for name in ["tree444", "tree444-mixed", "tree444-mixed2", "tree444-argonaut", "wide", "chooseargs"] {
        let path = format!("{}/../fixtures/crush/{name}.crush.bin", env!("CARGO_MANIFEST_DIR"));
        let map = binary::decode(&std::fs::read(path).unwrap()).unwrap();
        let reweights = vec![Weight(0xc000); map.max_devices as usize];
        for kernel in Kernel::all() {
            let mapper = Mapper::new(&map).unwrap().with_kernel(kernel);
            for &rule in map.rules.keys() {
                let (mut workspace, mut mappings) = (Workspace::default(), Mappings::default());
                let mut round = || {
                    let plan = mapper.plan(rule, 6, Some(0)).unwrap();
                    for x in 0..64 {
                        plan.map(x, &reweights, &mut workspace);
                        mapper.map_rule(rule, x, 4, &reweights, None, &mut workspace).unwrap();
                    }
                    plan.map_all(0..300, &reweights, &mut workspace, &mut mappings);
                };
                round();
                let before = CALLS.get();
                assert!(before > 0, "the counter does not count");
                round();
                assert_eq!(CALLS.get() - before, 0, "{name}, rule {rule}, {}", kernel.name());
            }
        }
    }
}
