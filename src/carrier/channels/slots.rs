//! Which channel a number means.
//!
//! A number is a slot and how many times the slot was used before, so the number of a closed channel means no
//! other channel for long: slots wait in a line before they are used again.

use std::collections::VecDeque;

use super::channel::Channel;

/// Free slots that rest before the first of them is used again, while there is room for new ones.
const RESTING: usize = 1024;

/// Our number of a channel on one connection. Its meaning ends with the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub(super) u32);

impl ChannelId {
    fn new(slot: u16, generation: u16) -> Self {
        Self(u32::from(generation) << 16 | u32::from(slot))
    }

    /// The lower half: which of the slots.
    fn slot(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u16,
    channel: Option<Channel>,
}

#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: VecDeque<u16>,
    limit: u16,
}

impl Slots {
    pub(super) fn new(limit: u16) -> Self {
        Self {
            slots: Vec::new(),
            free: VecDeque::new(),
            limit,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A place for a further channel; `None` when there is none.
    pub(super) fn insert(&mut self, channel: Channel) -> Option<ChannelId> {
        let slot = match u16::try_from(self.slots.len()) {
            Ok(next) if next < self.limit && self.free.len() < RESTING => {
                self.slots.push(Slot::default());
                next
            }
            _ => self.free.pop_front()?,
        };
        let place = self.slots.get_mut(usize::from(slot))?;
        place.channel = Some(channel);
        Some(ChannelId::new(slot, place.generation))
    }

    pub(super) fn get(&mut self, id: ChannelId) -> Option<&mut Channel> {
        let place = self.slots.get_mut(usize::from(id.slot()))?;
        let channel = place.channel.as_mut()?;
        (place.generation == id.generation()).then_some(channel)
    }

    pub(super) fn remove(&mut self, id: ChannelId) -> Option<Channel> {
        let place = self.slots.get_mut(usize::from(id.slot()))?;
        if place.generation != id.generation() {
            return None;
        }
        let channel = place.channel.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push_back(id.slot());
        Some(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::super::open::ChannelType;
    use super::*;

    #[test]
    fn slots_are_as_many_as_channels_need() {
        let mut budget = Budget::default();
        let mut slots = Slots::new(16_000);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100_000 {
            let channel = Channel::new(ChannelType::session(), budget.admit());
            let id = slots.insert(channel).unwrap();
            assert!(seen.insert(id), "no number comes twice");
            budget.release(&slots.remove(id).unwrap().receiving.flow);
        }
        assert_eq!((slots.len(), slots.slots.len()), (0, RESTING));
        assert!(slots.get(ChannelId(u32::MAX)).is_none());
        assert!(slots.remove(ChannelId(5)).is_none());
    }
}
