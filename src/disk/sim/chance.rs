//! Choices between several ways: at random from a seed, or enumerated.

/// Decides between several ways.
pub(super) enum Choice<'a> {
    /// Random choice in a mood: even odds would never let everything survive, or nothing.
    Chance(&'a mut u64, Mood),
    /// Enumerated combination, as a number in mixed radix.
    Nth(u128),
    /// Product of the numbers of ways, to count the combinations.
    Count(u128),
}

/// Character of the random choices in one power cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Everything,
    Nothing,
    Any,
}

/// Returns the next number of a generator: xorshift64*, Vigna 2016.
pub(super) fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33
}

impl<'a> Choice<'a> {
    pub(super) fn by_chance(state: &'a mut u64) -> Self {
        let mood = match random(state) % 8 {
            0 => Mood::Everything,
            1 => Mood::Nothing,
            _ => Mood::Any,
        };
        Self::Chance(state, mood)
    }

    /// Chooses one of `ways`. The first means that nothing new survives, the last that the newest
    /// version does.
    pub(super) fn of(&mut self, ways: usize) -> usize {
        match self {
            Self::Chance(_, Mood::Everything) => ways - 1,
            Self::Chance(_, Mood::Nothing) => 0,
            Self::Chance(state, Mood::Any) => match random(state) % 4 {
                0 => random(state) as usize % ways,
                even if even % 2 == 0 => 0,
                _ => ways - 1,
            },
            Self::Nth(rest) => {
                let digit = *rest % ways as u128;
                *rest /= ways as u128;
                digit as usize
            }
            Self::Count(product) => {
                *product = product.saturating_mul(ways as u128);
                0
            }
        }
    }
}
