//! The shared memory of one session: slots that are made on demand, used by one owner at a time,
//! and used again.
//!
//! Owns sizes, limits and the way home of a slot. Knows nothing of processes: who may touch a slot
//! is decided by who holds its [`Lease`].
//! Invariant: a slot has one lease; it is idle only when no lease of it lives; the bytes of all
//! slots together stay within the limit.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vesta_ffi::SharedMemory;
use vesta_model::{Memory, Status};

use crate::wake::{Wake, lock};

/// The smallest slot, in bytes.
const SLOT_BYTES_MIN: usize = 64 * 1024;
const PAGE_BYTES: usize = 4096;
/// Slots keep a descriptor each, in both processes at times.
const SLOTS_MAX: usize = 256;

/// How much shared memory one session may take.
#[derive(Clone, Debug)]
pub(crate) struct ArenaLimits {
    pub(crate) bytes_max: usize,
    /// Slots kept for the next run; further ones are given back to the system.
    pub(crate) idle_slots_max: usize,
    /// Idle slots are given back when none was taken for so long.
    pub(crate) idle_time: Duration,
    /// Whose arena it is, for errors: `model m version 1`.
    pub(crate) owner: String,
}

/// One piece of shared memory.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: u64,
    /// Counts uses.
    pub(crate) generation: u64,
    /// The connection whose child has mapped the slot; 0 for none.
    pub(crate) known_to: u64,
    /// Somebody may still write to it, so nobody gets it again.
    pub(crate) spoiled: bool,
    pub(crate) memory: SharedMemory,
}

pub(crate) struct Arena {
    limits: ArenaLimits,
    wake: Arc<Wake>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Longest idle first.
    idle: Vec<Slot>,
    slots: usize,
    /// Bytes of all slots, and of outputs that lie outside them.
    bytes: usize,
    /// Slots that are gone here and still mapped in the child.
    retired: Vec<u64>,
    id_last: u64,
    closed: bool,
    taken_last: Option<Instant>,
    /// Whether the supervisor will call [`Arena::trim`] by itself.
    trim_planned: bool,
}

/// Sole owner of a slot; gives it back when dropped.
pub(crate) struct Lease {
    /// Absent only while being dropped.
    slot: Option<Slot>,
    arena: Arc<Arena>,
}

/// Outputs in memory of their own, which count against the arena while they live.
pub(crate) struct OwnMemory {
    memory: SharedMemory,
    arena: Arc<Arena>,
}

impl Arena {
    pub(crate) fn new(limits: ArenaLimits, wake: Arc<Wake>) -> Arc<Arena> {
        Arc::new(Arena { limits, wake, state: Mutex::default() })
    }

    /// A slot of at least `bytes` bytes.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when the limit or the system does not allow it.
    pub(crate) fn take(self: &Arc<Arena>, bytes: usize) -> Result<Lease, Status> {
        let size = self.size_class(bytes)?;
        let id = {
            let mut state = lock(&self.state);
            state.taken_last = Some(Instant::now());
            if let Some(slot) = state.take_idle(|len| len == size) {
                return Ok(self.lease(slot));
            }
            if !state.has_room(size, &self.limits)
                && let Some(slot) = state.take_idle(|len| len > size)
            {
                return Ok(self.lease(slot));
            }
            while !state.has_room(size, &self.limits) {
                if state.idle.is_empty() {
                    return Err(self.exhausted(bytes, &state));
                }
                let oldest = state.idle.remove(0);
                state.retire(oldest);
                self.wake.wake();
            }
            state.slots += 1;
            state.bytes += size;
            state.id_last += 1;
            state.id_last
        };
        match SharedMemory::create(size) {
            Ok(memory) => {
                Ok(self.lease(Slot { id, generation: 0, known_to: 0, spoiled: false, memory }))
            }
            Err(error) => {
                let mut state = lock(&self.state);
                state.slots -= 1;
                state.bytes -= size;
                Err(Status::resource_exhausted(format!(
                    "no {size} bytes of shared memory for {} are to be had from the system; free \
                     memory or raise the limit of open files",
                    self.limits.owner
                ))
                .with_cause(error))
            }
        }
    }

    /// Keeps outputs that did not fit their slot.
    pub(crate) fn adopt(self: &Arc<Arena>, memory: SharedMemory) -> OwnMemory {
        lock(&self.state).bytes += memory.len();
        OwnMemory { memory, arena: Arc::clone(self) }
    }

    /// Slots that the child may unmap, each told once.
    pub(crate) fn take_retired(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.state).retired)
    }

    /// Bytes of all shared memory, and how many of them are in use.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let state = lock(&self.state);
        let idle: usize = state.idle.iter().map(|slot| slot.memory.len()).sum();
        (state.bytes, state.bytes - idle)
    }

    fn lease(self: &Arc<Arena>, slot: Slot) -> Lease {
        Lease { slot: Some(slot), arena: Arc::clone(self) }
    }

    fn size_class(&self, bytes: usize) -> Result<usize, Status> {
        let max = self.limits.bytes_max;
        let power = bytes.max(SLOT_BYTES_MIN).checked_next_power_of_two();
        if let Some(size) = power.filter(|&size| size <= max) {
            return Ok(size);
        }
        // Near the limit a class would overshoot it; the exact size may still fit.
        bytes.checked_next_multiple_of(PAGE_BYTES).filter(|&size| size <= max).ok_or_else(|| {
            Status::resource_exhausted(format!(
                "a run of {} takes {bytes} bytes of shared memory, more than the {max} that its \
                 worker may have; send a smaller batch or raise arena_bytes_max",
                self.limits.owner
            ))
        })
    }

    fn exhausted(&self, bytes: usize, state: &State) -> Status {
        Status::resource_exhausted(format!(
            "the shared memory of the worker of {} is used up: {bytes} more bytes were wanted, {} \
             of {} are in use in {} slots; try again later, send smaller batches or raise \
             arena_bytes_max",
            self.limits.owner, state.bytes, self.limits.bytes_max, state.slots
        ))
    }

    /// Gives idle slots back to the system when none was taken for a while; when to call again, if
    /// there is a need.
    pub(crate) fn trim(&self, now: Instant) -> Option<Instant> {
        let mut state = lock(&self.state);
        if !state.trim_planned {
            return None;
        }
        let due = state.taken_last.and_then(|last| last.checked_add(self.limits.idle_time))?;
        if now < due {
            return Some(due);
        }
        state.trim_planned = false;
        for slot in std::mem::take(&mut state.idle) {
            state.retire(slot);
        }
        None
    }

    /// Gives all idle slots back to the system, now and from now on.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        for slot in std::mem::take(&mut state.idle) {
            state.retire(slot);
        }
    }

    fn put_back(&self, slot: Slot) {
        let mut state = lock(&self.state);
        if state.closed || slot.spoiled {
            state.retire(slot);
            return self.wake.wake();
        }
        state.idle.push(slot);
        if !state.trim_planned {
            // Once per busy period, not once per run.
            state.trim_planned = true;
            self.wake.wake();
        }
        // Outputs in own memory may have pushed the sum over the limit meanwhile.
        while state.idle.len() > self.limits.idle_slots_max
            || (state.bytes > self.limits.bytes_max && !state.idle.is_empty())
        {
            let oldest = state.idle.remove(0);
            state.retire(oldest);
            self.wake.wake();
        }
    }
}

impl State {
    fn take_idle(&mut self, fits: impl Fn(usize) -> bool) -> Option<Slot> {
        // The last one back is the likeliest to be in a cache.
        let index = self.idle.iter().rposition(|slot| fits(slot.memory.len()))?;
        Some(self.idle.remove(index))
    }

    fn has_room(&self, size: usize, limits: &ArenaLimits) -> bool {
        self.slots < SLOTS_MAX
            && self.bytes.checked_add(size).is_some_and(|sum| sum <= limits.bytes_max)
    }

    fn retire(&mut self, slot: Slot) {
        self.slots -= 1;
        self.bytes -= slot.memory.len();
        if slot.known_to != 0 {
            self.retired.push(slot.id);
        }
    }
}

impl Lease {
    pub(crate) fn slot(&self) -> Option<&Slot> {
        self.slot.as_ref()
    }

    pub(crate) fn slot_mut(&mut self) -> Option<&mut Slot> {
        self.slot.as_mut()
    }

    /// The slot's bytes, for writing.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.slot.as_mut().map(|slot| slot.memory.bytes_mut()).unwrap_or_default()
    }

    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Nobody gets the slot after this owner: somebody may still write to it.
    pub(crate) fn spoil(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.spoiled = true;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.arena.put_back(slot);
        }
    }
}

impl Memory for Lease {
    fn bytes(&self) -> &[u8] {
        self.slot.as_ref().map(|slot| slot.memory.bytes()).unwrap_or_default()
    }
}

impl Memory for OwnMemory {
    fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }
}

impl Drop for OwnMemory {
    fn drop(&mut self) {
        lock(&self.arena.state).bytes -= self.memory.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use vesta_model::Code;

    fn arena(bytes_max: usize, idle_slots_max: usize) -> Arc<Arena> {
        let limits = ArenaLimits {
            bytes_max,
            idle_slots_max,
            idle_time: Duration::from_secs(30),
            owner: "model m".to_owned(),
        };
        Arena::new(limits, Arc::new(Wake::new().unwrap()))
    }

    fn id(lease: &Lease) -> u64 {
        lease.slot().unwrap().id
    }

    #[test]
    fn slots_come_in_classes_and_are_used_again() {
        let arena = arena(1 << 20, 4);
        let lease = arena.take(1).unwrap();
        let first = id(&lease);
        assert_eq!(lease.bytes().len(), SLOT_BYTES_MIN);
        let other = arena.take(70_000).unwrap();
        assert_eq!(other.bytes().len(), 128 * 1024);
        assert_eq!(arena.usage(), (192 * 1024, 192 * 1024));
        drop(lease);
        assert_eq!(arena.usage(), (192 * 1024, 128 * 1024));
        assert_eq!(id(&arena.take(100).unwrap()), first);
    }

    #[test]
    fn the_limit_holds_and_says_what_to_do() {
        let arena = arena(128 * 1024, 4);
        let one = arena.take(1).unwrap();
        let _two = arena.take(1).unwrap();
        let status = arena.take(1).err().unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("arena_bytes_max"), "{status}");
        drop(one);
        arena.take(1).unwrap();
        let status = arena.take(200_000).err().unwrap();
        assert!(status.message().contains("a smaller batch"), "{status}");
    }

    #[test]
    fn idle_slots_make_room_for_another_class() {
        let arena = arena(256 * 1024, 4);
        let mut slot = arena.take(1).unwrap();
        slot.slot_mut().unwrap().known_to = 1;
        let gone = id(&slot);
        drop(slot);
        drop(arena.take(240_000).unwrap());
        assert_eq!(arena.take_retired(), [gone]);
        assert_eq!(arena.take_retired(), [0u64; 0]);
        // Now a small run may use the large idle slot.
        assert_eq!(arena.take(1).unwrap().bytes().len(), 256 * 1024);
    }

    #[test]
    fn idle_slots_go_after_a_quiet_time() {
        let arena = arena(1 << 20, 4);
        let now = Instant::now();
        assert_eq!(arena.trim(now), None);
        let held = arena.take(1).unwrap();
        drop(arena.take(1).unwrap());
        let due = arena.trim(now).unwrap();
        assert!(due >= now + Duration::from_secs(30));
        assert_eq!(arena.usage().0, 2 * SLOT_BYTES_MIN);
        assert_eq!(arena.trim(due), None);
        assert_eq!(arena.usage().0, SLOT_BYTES_MIN);
        drop(held);
        assert!(arena.trim(now).is_some());
    }

    #[test]
    fn a_spoiled_slot_does_not_come_back() {
        let arena = arena(1 << 20, 4);
        let mut lease = arena.take(1).unwrap();
        let gone = id(&lease);
        lease.spoil();
        drop(lease);
        assert_eq!(arena.usage(), (0, 0));
        assert_ne!(id(&arena.take(1).unwrap()), gone);
    }

    #[test]
    fn outputs_outside_slots_count_while_they_live() {
        let arena = arena(128 * 1024, 4);
        let own = arena.adopt(SharedMemory::create(100 * 1024).unwrap());
        assert!(arena.take(1).is_err());
        drop(own);
        assert!(arena.take(1).is_ok());
    }

    proptest! {
        #[test]
        fn owners_are_single_and_bytes_bounded(steps in prop::collection::vec((any::<bool>(), 1usize..400_000), 1..80)) {
            let arena = arena(1 << 20, 3);
            let mut held: Vec<Lease> = Vec::new();
            for (take, size) in steps {
                if take {
                    if let Ok(lease) = arena.take(size) {
                        prop_assert!(lease.bytes().len() >= size);
                        held.push(lease);
                    }
                } else if !held.is_empty() {
                    held.remove(size % held.len());
                }
                let ids: HashSet<u64> = held.iter().map(id).collect();
                prop_assert_eq!(ids.len(), held.len());
                let (bytes, in_use) = arena.usage();
                prop_assert!(bytes <= 1 << 20);
                prop_assert_eq!(in_use, held.iter().map(|lease| lease.bytes().len()).sum::<usize>());
            }
            drop(held);
            prop_assert_eq!(arena.usage().1, 0);
        }
    }
}
