//! Which of the crew the next name goes to. Plain values in, a decision out.

/// Connections at most.
pub(super) const MOST: usize = 4;
/// And where all carry so many channels that sshd runs out of descriptors (1,024 by default).
const MOST_CROWDED: usize = 16;
const CROWD: usize = 900;
/// Lookups at a time on one connection, of names that were found before. One of another name is alone.
const TOGETHER: usize = 4;

/// What a connection looks like to the choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    /// Lookups under way.
    pub(super) looking: usize,
    /// One of them is of a name that was not found before: nobody knows how long it takes.
    pub(super) is_risky: bool,
    channels: usize,
}

impl Member {
    /// While it carries so many channels.
    pub(super) fn with(self, channels: usize) -> Self {
        Self { channels, ..self }
    }

    /// Whether nobody but who waits for an answer would be held up.
    fn is_bare(&self) -> bool {
        self.channels <= self.looking
    }

    fn is_crowded(&self) -> bool {
        self.channels >= CROWD
    }
}

/// Where the next name goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// To this one of the crew.
    At(usize),
    /// To one more.
    Grow,
    /// To one that is taken now.
    Wait,
    /// To the connection of everything else: there is no crew.
    Share,
}

/// For a name that `is_new`, or was found before, while one more connection can be made or cannot.
pub(super) fn choose(crew: &[Member], is_new: bool, can_grow: bool) -> Choice {
    let may_grow = can_grow && (crew.len() < MOST || crowded(crew));
    match (crew.is_empty(), is_new) {
        (true, _) if may_grow => Choice::Grow,
        (true, _) => Choice::Share,
        (false, true) => for_new(crew, may_grow),
        (false, false) => for_found(crew, may_grow),
    }
}

fn crowded(crew: &[Member]) -> bool {
    crew.len() < MOST_CROWDED && crew.iter().all(Member::is_crowded)
}

/// Where no flow is. One connection is left to names that were found before, or can be made for them.
fn for_new(crew: &[Member], may_grow: bool) -> Choice {
    let risky = crew.iter().filter(|m| m.is_risky).count();
    if risky >= crew.len().max(2) - 1 && !(may_grow && risky + 1 < MOST) {
        return Choice::Wait;
    }
    let idle = || crew.iter().enumerate().filter(|(_, m)| m.looking == 0);
    if let Some((index, _)) = idle().find(|(_, m)| m.is_bare()) {
        return Choice::At(index);
    }
    if may_grow {
        return Choice::Grow;
    }
    if crew.iter().any(Member::is_bare) {
        return Choice::Wait;
    }
    let fewest = idle().min_by_key(|(_, m)| m.channels);
    fewest.map_or(Choice::Wait, |(index, _)| Choice::At(index))
}

/// Where most flows are, as long as there is room: the others stay free for new names.
fn for_found(crew: &[Member], may_grow: bool) -> Choice {
    let safe = || crew.iter().enumerate().filter(|(_, m)| !m.is_risky);
    let open = || safe().filter(|(_, m)| m.looking < TOGETHER);
    let roomy = open().filter(|(_, m)| !m.is_crowded());
    if let Some((index, _)) = roomy.max_by_key(|(_, m)| m.channels) {
        return Choice::At(index);
    }
    if may_grow && safe().all(|(_, m)| m.is_crowded()) {
        return Choice::Grow;
    }
    let fewest = open().min_by_key(|(_, m)| m.channels);
    fewest.map_or(Choice::Wait, |(index, _)| Choice::At(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: Member = Member {
        looking: 0,
        is_risky: false,
        channels: 0,
    };
    /// Looks a new name up.
    const RISKY: Member = Member {
        looking: 1,
        is_risky: true,
        channels: 1,
    };

    fn with(channels: usize) -> Member {
        BARE.with(channels)
    }

    fn new(crew: &[Member], can_grow: bool) -> Choice {
        choose(crew, true, can_grow)
    }

    fn found(crew: &[Member], can_grow: bool) -> Choice {
        choose(crew, false, can_grow)
    }

    #[test]
    fn the_first_name_has_a_connection_made_and_shares_one_only_where_none_is_to_be_had() {
        assert_eq!(
            (new(&[], true), found(&[], true)),
            (Choice::Grow, Choice::Grow)
        );
        assert_eq!(
            (new(&[], false), found(&[], false)),
            (Choice::Share, Choice::Share)
        );
    }

    #[test]
    fn a_new_name_keeps_away_from_flows_as_long_as_it_can() {
        assert_eq!(new(&[with(1), BARE], true), Choice::At(1));
        assert_eq!(new(&[with(1)], true), Choice::Grow);
        assert_eq!(new(&[with(2), with(1)], false), Choice::At(1));
        // Behind another new one rather than before a flow.
        assert_eq!(new(&[with(1), RISKY, with(1)], false), Choice::Wait);
    }

    #[test]
    fn new_names_leave_one_connection_to_those_that_were_found() {
        assert_eq!(new(&[RISKY], true), Choice::Grow);
        assert_eq!(new(&[RISKY], false), Choice::Wait);
        assert_eq!(new(&[RISKY, BARE], false), Choice::Wait);
        assert_eq!(new(&[RISKY, RISKY, RISKY, BARE], true), Choice::Wait);
        assert_eq!(found(&[RISKY, RISKY, RISKY], true), Choice::Grow);
        assert_eq!(found(&[RISKY, RISKY, RISKY, BARE], true), Choice::At(3));
        assert_eq!(found(&[RISKY], false), Choice::Wait);
        // One of a single connection may be used by either.
        assert_eq!(new(&[BARE], false), Choice::At(0));
    }

    #[test]
    fn names_that_were_found_gather_a_few_at_a_time() {
        assert_eq!(found(&[with(1), with(5), BARE], true), Choice::At(1));
        let taken = Member {
            looking: TOGETHER,
            ..with(5)
        };
        assert_eq!(found(&[taken], true), Choice::Wait);
        assert_eq!(found(&[taken, RISKY], true), Choice::Wait);
    }

    #[test]
    fn a_crowd_is_spread() {
        assert_eq!(found(&[with(CROWD); MOST], true), Choice::Grow);
        assert_eq!(found(&[with(CROWD); MOST_CROWDED], true), Choice::At(0));
        assert_eq!(found(&[with(CROWD + 1), with(CROWD)], false), Choice::At(1));
        assert_eq!(new(&[with(CROWD); MOST], false), Choice::At(0));
    }
}
