//! Chance that can be had again: every test that draws prints its seed, and `MAINSTAY_SEED` sets it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A sequence of numbers that look random (splitmix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Dice {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let set = std::env::var("MAINSTAY_SEED").ok().map(|seed| seed.parse().expect("MAINSTAY_SEED is a number"));
        let seed = set.unwrap_or(u64::try_from(now % (1 << 32)).unwrap());
        eprintln!("MAINSTAY_SEED={seed}");
        Dice(seed)
    }

    /// A number from zero to below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A moment within `span`, in whole milliseconds.
    pub(crate) fn moment(&mut self, span: Duration) -> Duration {
        Duration::from_millis(1 + self.below(u64::try_from(span.as_millis()).unwrap().max(1)))
    }
}
