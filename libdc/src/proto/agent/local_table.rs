//! The local connections of the agent by id, and those of them that the driver must look at.

use crate::proto::agent::local::{LocalConnection, LocalId};
use std::collections::VecDeque;

/// All local connections. A slot is used again, an id never.
#[derive(Debug, Default)]
pub(crate) struct LocalTable {
    slots: Vec<LocalSlot>,
    free: Vec<u32>,
    /// Connections with output or, after a stall, capacity.
    ready: VecDeque<LocalId>,
}

#[derive(Debug, Default)]
struct LocalSlot {
    generation: u32,
    local: Option<LocalConnection>,
}

impl LocalTable {
    pub(crate) fn open(&mut self, local: LocalConnection) -> LocalId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(LocalSlot::default());
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[place as usize];
        entry.local = Some(local);
        LocalId { place, generation: entry.generation }
    }

    pub(crate) fn close(&mut self, id: LocalId) -> Option<LocalConnection> {
        let entry = self.slots.get_mut(id.slot()).filter(|slot| slot.generation == id.generation)?;
        let local = entry.local.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.place);
        Some(local)
    }

    #[inline]
    pub(crate) fn at(&self, id: LocalId) -> Option<&LocalConnection> {
        let slot = self.slots.get(id.slot()).filter(|slot| slot.generation == id.generation)?;
        slot.local.as_ref()
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, id: LocalId) -> Option<&mut LocalConnection> {
        let slot = self.slots.get_mut(id.slot()).filter(|slot| slot.generation == id.generation)?;
        slot.local.as_mut()
    }

    /// Lists a connection for the driver, unless it is listed.
    #[inline]
    pub(crate) fn mark_ready(&mut self, id: LocalId) {
        if let Some(local) = self.at_mut(id)
            && !std::mem::replace(&mut local.listed, true)
        {
            self.ready.push_back(id);
        }
    }

    /// Lists all connections for the driver.
    pub(crate) fn mark_all_ready(&mut self) {
        for (place, slot) in (0..).zip(&mut self.slots) {
            if let Some(local) = &mut slot.local
                && !std::mem::replace(&mut local.listed, true)
            {
                self.ready.push_back(LocalId { place, generation: slot.generation });
            }
        }
    }

    /// The next connection that was listed and is still open.
    pub(crate) fn poll_ready(&mut self) -> Option<LocalId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(local) = self.at_mut(id) {
                local.begin_delivery();
                return Some(id);
            }
        }
        None
    }
}
