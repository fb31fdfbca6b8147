//! With a quota of the whole card the limiter cannot be told from the bare driver.
//!
//! Two processes, one over the bare simulated driver, one over the limiter over it, each on a node of its own with
//! the same description, play the same random streams of valid and invalid calls. Every status, every output (with
//! handles and addresses by order of appearance) and what memory looks like afterwards must be equal.
//! `VGPU_SEEDS` and `VGPU_STEPS` say how many streams of how many steps; `VGPU_FIRST_SEED` where to start, and
//! `VGPU_WITHOUT` which steps to leave out (names of functions of `differential/client.py`, with commas). What may
//! differ, and why, is `differential/intended.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::tests_outside_test_module,
    reason = "a suite"
)]

#[path = "differential/intended.rs"]
mod intended;
mod limiter_world;
#[path = "differential/side.rs"]
mod side;

use std::collections::BTreeMap;

use intended::LEFT_OUT;
use side::{FOOTPRINT, Side, TOTAL};

const SEEDS: u64 = 100;
const STEPS: usize = 300;
/// Differences are shrunk and printed, but not more than these.
const MOST_REPORTS: usize = 8;

/// The two sides, and how a stream is compared over them.
struct Pair {
    bare: Side,
    limited: Side,
}

impl Pair {
    fn new(vram_limit: u64, footprint: u64) -> Self {
        Self {
            bare: Side::bare(),
            limited: Side::limited(vram_limit, footprint),
        }
    }

    /// The first difference in a stream: both sides' words; nothing when there is none.
    fn difference(&mut self, seed: u64, keep: &[usize]) -> Option<(String, String)> {
        self.bare.ask(seed, keep);
        self.limited.ask(seed, keep);
        let (bare, limited) = (self.bare.answer(), self.limited.answer());
        let lines = bare.len().max(limited.len());
        (0..lines).find_map(|line| {
            let of = |side: &[String]| side.get(line).cloned().unwrap_or_default();
            let (bare, limited) = (of(&bare), of(&limited));
            (bare != limited).then_some((bare, limited))
        })
    }

    /// Whether a shortened stream still shows a difference.
    fn differs(&mut self, seed: u64, keep: &[usize]) -> bool {
        self.difference(seed, keep).is_some()
    }

    /// The stream without what the difference does not need: first everything after it, then ever smaller pieces.
    fn shrink(&mut self, seed: u64, steps: usize) -> Vec<usize> {
        let mut keep: Vec<usize> = (0..steps).collect();
        let mut piece = steps.div_ceil(2);
        while piece > 0 {
            let mut end = keep.len();
            while end > 0 {
                let start = end.saturating_sub(piece);
                let shorter = [&keep[..start], &keep[end..]].concat();
                if self.differs(seed, &shorter) {
                    keep = shorter;
                }
                end = start;
            }
            piece /= 2;
        }
        keep
    }

    /// What to print about a difference that was seen in a whole stream.
    fn report(&mut self, seed: u64, steps: usize, seen: (String, String)) -> String {
        let all: Vec<usize> = (0..steps).collect();
        if !self.differs(seed, &all) {
            let (bare, limited) = seen;
            return format!("seed {seed}, once only\n  bare:    {bare}\n  limiter: {limited}");
        }
        let keep = self.shrink(seed, steps);
        let (bare, limited) = self.difference(seed, &keep).unwrap_or(seen);
        let stream = self.bare.play(seed, &keep);
        format!(
            "seed {seed}, steps {keep:?}\n  bare:    {bare}\n  limiter: {limited}\n  stream over the bare driver:\n    {}",
            stream.join("\n    ")
        )
    }
}

/// The function of the client that made a step.
fn kind(line: &str) -> &str {
    let name = line.split('"').nth(1).unwrap_or(line);
    name.split(' ').next_back().unwrap_or(name)
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: a number, such as {usual}"))
    })
}

#[test]
fn with_the_whole_card_the_limiter_cannot_be_told_from_the_driver() {
    let first = number("VGPU_FIRST_SEED", 1);
    let steps = usize::try_from(number("VGPU_STEPS", STEPS as u64)).unwrap();
    let all: Vec<usize> = (0..steps).collect();
    let mut pair = Pair::new(TOTAL, FOOTPRINT);
    let mut reports = BTreeMap::new();
    for seed in first..first + number("VGPU_SEEDS", SEEDS) {
        // One report for each kind of step that differs, and not all there are.
        if let Some(seen) = pair.difference(seed, &all)
            && !reports.contains_key(kind(&seen.0))
            && reports.len() < MOST_REPORTS
        {
            let kind = kind(&seen.0).to_owned();
            let report = pair.report(seed, steps, seen);
            reports.insert(kind, report);
        }
    }
    let reports: Vec<String> = reports.into_values().collect();
    let intended: Vec<String> = LEFT_OUT
        .iter()
        .map(|known| format!("(left out: {}, since {})", known.step, known.reason))
        .collect();
    assert!(
        reports.is_empty(),
        "\n{}\n{}",
        reports.join("\n"),
        intended.join("\n")
    );
}

/// The comparison can fail: half a card is told from a whole one, and so is another footprint.
#[test]
fn a_real_quota_is_told_from_the_driver() {
    let all: Vec<usize> = (0..STEPS).collect();
    for (limit, footprint) in [(TOTAL / 2, FOOTPRINT), (TOTAL, 2 * FOOTPRINT)] {
        let mut pair = Pair::new(limit, footprint);
        assert!(
            pair.differs(1, &all),
            "limit {limit} and footprint {footprint} look like the bare driver"
        );
    }
}

/// Two bare drivers are equal: what is compared does not depend on chance.
#[test]
fn the_driver_cannot_be_told_from_itself() {
    let all: Vec<usize> = (0..STEPS).collect();
    let mut pair = Pair {
        bare: Side::bare(),
        limited: Side::bare(),
    };
    for seed in 1..=10 {
        assert_eq!(pair.difference(seed, &all), None, "seed {seed}");
    }
}

/// A difference is cut down to the steps that it needs.
#[test]
fn a_difference_is_shrunk() {
    let mut pair = Pair::new(TOTAL / 2, FOOTPRINT);
    let keep = pair.shrink(1, 40);
    assert!(keep.len() <= 4, "still {keep:?}");
    assert!(pair.differs(1, &keep));
}
