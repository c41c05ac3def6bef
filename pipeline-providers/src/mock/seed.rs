//! Where everything that the mock invents comes from.
//!
//! Owns [`Dice`], a small generator that gives the same numbers for the same seed on every machine. Must not know
//! clocks, counters or the operating system's randomness.

use pipeline_core::value::Hash;

/// Words that invented text is made of.
const WORDS: [&str; 16] = [
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper", "lagoon",
    "meadow", "north", "ocean", "pebble", "river",
];

/// A stream of numbers that follows from its seed alone.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The dice of `seed` for one `purpose`. What is drawn for one purpose never changes what another one gets.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        Self(Hash::of(&(seed, purpose)).seed())
    }

    /// The next number (SplitMix64).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included; `low` when they are the wrong way round.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        match high.saturating_sub(low).checked_add(1) {
            Some(width) if high >= low => low + self.next() % width,
            Some(_) => low,
            None => self.next(),
        }
    }

    /// One of `items`; `None` when there are none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let last = u64::try_from(items.len()).ok()?.checked_sub(1)?;
        items.get(usize::try_from(self.between(0, last)).ok()?)
    }

    /// A word.
    pub(crate) fn word(&mut self) -> &'static str {
        self.pick(&WORDS).copied().unwrap_or("mock")
    }

    /// A UUID of version 4 in its shape, though not in its randomness.
    pub(crate) fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff,
        )
    }
}
