//! The local connections of the agent, by the names the driver knows them by, and those of them it must look at.

use crate::proto::agent::local::{LocalConnection, LocalId};
use std::collections::VecDeque;

/// All local connections. A place is used again, a name never.
#[derive(Debug, Default)]
pub(crate) struct LocalTable {
    places: Vec<LocalSlot>,
    free: Vec<u32>,
    /// Connections with something to write or, after a stall, room to read.
    attention: VecDeque<LocalId>,
}

#[derive(Debug, Default)]
struct LocalSlot {
    generation: u32,
    local: Option<LocalConnection>,
}

impl LocalTable {
    pub(crate) fn open(&mut self, local: LocalConnection) -> LocalId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(LocalSlot::default());
            self.places.len() as u32 - 1
        });
        let entry = &mut self.places[place as usize];
        entry.local = Some(local);
        LocalId { place, generation: entry.generation }
    }

    pub(crate) fn close(&mut self, id: LocalId) -> Option<LocalConnection> {
        let entry = self.places.get_mut(id.slot()).filter(|place| place.generation == id.generation)?;
        let local = entry.local.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.place);
        Some(local)
    }

    #[inline]
    pub(crate) fn at(&self, id: LocalId) -> Option<&LocalConnection> {
        let place = self.places.get(id.slot()).filter(|place| place.generation == id.generation)?;
        place.local.as_ref()
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, id: LocalId) -> Option<&mut LocalConnection> {
        let place = self.places.get_mut(id.slot()).filter(|place| place.generation == id.generation)?;
        place.local.as_mut()
    }

    /// Lists a connection for the driver, once.
    #[inline]
    pub(crate) fn mark_ready(&mut self, id: LocalId) {
        if let Some(local) = self.at_mut(id)
            && !std::mem::replace(&mut local.listed, true)
        {
            self.attention.push_back(id);
        }
    }

    /// The next connection that was listed and is still there.
    pub(crate) fn poll_ready(&mut self) -> Option<LocalId> {
        while let Some(id) = self.attention.pop_front() {
            if let Some(local) = self.at_mut(id) {
                local.listed = false;
                return Some(id);
            }
        }
        None
    }
}
