//! Mapping many inputs abreast, by the one kind of rule that nearly all pools have: take a bucket, choose once, emit.
//!
//! # How
//! As long as all draws below the bucket taken are straw2 and do not depend on the position, where attempt `r` of an input
//! leads is a function of `x` and `r` alone. So attempts need not be made one after the other, as positions collide and
//! fail; they are looked up:
//! 1. For each input of a chunk the attempts that are needed if nothing goes wrong descend all together, level by level, as
//!    one list of draws for the [`Kernel`](crate::simd::Kernel). What they find is kept.
//! 2. Then each input is *settled*: the rule's retry logic is gone through over what is known. Where it asks for an attempt
//!    or a leaf that is not known yet, that is put on the list of the next round.
//! 3. Rounds go on until all are settled. The few that are hard (many retries) are left to the general code.
//!
//! Attempts that several positions come across (position 1 failing once asks what position 2 asks first) are thus drawn
//! once. The result is that of [`rule`](super::rule) for every input; a test holds both against each other.

use super::choose::UNDECIDED;
use super::compile::{DEVICE, padded};
use super::rule::{Tries, is_out};
use super::{Mapper, Plan};
use crate::model::{ITEM_NONE, ItemId, Mode, Step, TypeId, Weight};
use crate::simd::{JOBS, Job, Jobs};

/// The most items such a rule may choose.
const MAX_NUM: usize = 15;

/// The one choice of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    root: u32,
    mode: Mode,
    /// How many items the rule asks for, and how many of them there is room for.
    num: usize,
    room: usize,
    kind: TypeId,
    /// Whether a device below each is wanted.
    to_leaf: bool,
    tries: Tries,
    /// Attempts below this are remembered.
    attempts: usize,
}

impl Choice {
    /// The plan's rule as a single choice, if it is one that can be made abreast.
    pub(super) fn of(plan: &Plan<'_>) -> Option<Choice> {
        let mapper = plan.mapper;
        let mut tries = Tries::new(mapper);
        let (mut root, mut choice) = (None, None);
        let mut emitted = false;
        for &step in plan.steps {
            match step {
                Step::Noop => {}
                Step::Take(item) if root.is_none() => root = Some(mapper.find(item)?),
                Step::Choose { mode, num, kind } if choice.is_none() => choice = Some((mode, num, kind, false, tries)),
                Step::ChooseLeaf { mode, num, kind } if choice.is_none() => {
                    choice = Some((mode, num, kind, true, tries));
                }
                Step::Emit if !emitted => emitted = true,
                Step::Take(_) | Step::Choose { .. } | Step::ChooseLeaf { .. } | Step::Emit => return None,
                set => tries.set(set),
            }
            // One after the other: nothing chosen from nothing, nothing after the end.
            if (choice.is_some() && root.is_none()) || (emitted && choice.is_none()) {
                return None;
            }
        }
        let (root, (mode, num, kind, to_leaf, tries)) = (root?, choice?);
        let num = if num > 0 { num as usize } else { plan.positions.checked_sub(num.unsigned_abs() as usize)? };
        let choice = Choice {
            root,
            mode,
            num,
            room: num.min(plan.positions),
            kind,
            to_leaf,
            tries,
            attempts: num.min(MAX_NUM) * if mode == Mode::Indep { 6 } else { 2 } + 2,
        };
        let firstn_is_plain =
            tries.local == 0 && tries.fallback == 0 && (!to_leaf || (tries.stable && tries.leaf_firstn() == 1));
        // The general code would not run out of its budget within as many attempts.
        let cost = mapper.items.len().saturating_mul(2 * choice.attempts * (num + 1));
        let plain = emitted
            && (1..=MAX_NUM).contains(&num)
            && plan.positions > 0
            && plan.views.plain[root as usize]
            && (mode == Mode::Indep || firstn_is_plain)
            && !(to_leaf && kind == 0)
            && cost < mapper.budget as usize;
        plain.then_some(choice)
    }

    /// The attempt's number below the bucket that attempt `r` chose for a position.
    fn leaf_attempt(&self, r: u32) -> u32 {
        match self.mode {
            Mode::Firstn => self.tries.parent_r(r),
            Mode::Indep => r + r % self.num as u32,
        }
    }
}

/// What an attempt found. The link says what it is.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    /// A link of the mapper, or one of the three below.
    link: u32,
    item: ItemId,
    /// The device below; [`UNDECIDED`] while unknown, [`ITEM_NONE`] if there is none.
    leaf: ItemId,
}

/// Not made yet.
const UNKNOWN: u32 = DEVICE - 1;
/// Ended in a bucket without items: fails like one whose item is taken.
const EMPTY: u32 = DEVICE - 2;
/// Ended at a device above the wanted type: its position is given up.
const PAST: u32 = DEVICE - 3;

/// An attempt on its way down.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// Where its [`Attempt`] is.
    tag: u32,
    x: u32,
    r: u32,
    bucket: u32,
}

/// Memory of a chunk.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// By room of the bucket.
    quads: Jobs,
    octs: Jobs,
    wide: Jobs,
    bounds: Vec<u32>,
    /// `attempts` for each input.
    memo: Vec<Attempt>,
    /// What goes down next: attempts from the root, and from chosen buckets to a leaf.
    tops: Vec<Lane>,
    leaves: Vec<Lane>,
    /// Inputs not settled yet.
    open: Vec<u32>,
}

/// How far settling an input came.
enum Settled {
    /// So many items are in the output.
    Done(usize),
    /// What it needs is on the lists.
    Waits,
    /// Beyond what is remembered: for the general code.
    Hard,
}

/// How many inputs go abreast.
pub(super) fn chunk(choice: &Choice) -> usize {
    JOBS / choice.num
}

impl Batch {
    /// Maps up to [`chunk`] inputs. Gives each result to `emit` with the input's place in `xs`, `None` for a hard one, in
    /// any order.
    pub(super) fn map(
        &mut self,
        plan: &Plan<'_>,
        choice: &Choice,
        xs: &[u32],
        reweights: &[Weight],
        mut emit: impl FnMut(usize, Option<&[ItemId]>),
    ) {
        let fresh = Attempt { link: UNKNOWN, item: 0, leaf: UNDECIDED };
        self.memo.clear();
        self.memo.resize(xs.len() * choice.attempts, fresh);
        self.tops.clear();
        self.leaves.clear();
        self.open.clear();
        self.open.extend(0..xs.len() as u32);
        for (i, &x) in xs.iter().enumerate() {
            let tag = (i * choice.attempts) as u32;
            let lane = |r| Lane { tag: tag + r, x, r, bucket: choice.root };
            self.tops.extend((0..choice.room as u32).map(lane));
        }
        while !self.open.is_empty() {
            self.descend(plan, choice.kind, false);
            self.descend(plan, 0, true);
            let mut waiting = 0;
            for at in 0..self.open.len() {
                let i = self.open[at] as usize;
                let mut out = [UNDECIDED; MAX_NUM];
                let settled = match choice.mode {
                    Mode::Firstn => self.settle_firstn(choice, i, xs[i], reweights, &mut out),
                    Mode::Indep => self.settle_indep(choice, i, xs[i], reweights, &mut out),
                };
                match settled {
                    Settled::Done(count) => emit(i, Some(&out[..count])),
                    Settled::Hard => emit(i, None),
                    Settled::Waits => {
                        self.open[waiting] = i as u32;
                        waiting += 1;
                    }
                }
            }
            self.open.truncate(waiting);
        }
    }

    /// Takes all lanes of a list down to items of a type, and notes what they find.
    fn descend(&mut self, plan: &Plan<'_>, kind: TypeId, to_leaf: bool) {
        let Batch { quads, octs, wide, bounds, memo, tops, leaves, .. } = self;
        let lanes = if to_leaf { leaves } else { tops };
        let mapper = plan.mapper;
        let mut note = |tag: u32, item: ItemId, link: u32| {
            let attempt = &mut memo[tag as usize];
            if to_leaf {
                attempt.leaf = if link == DEVICE { item } else { ITEM_NONE };
            } else {
                (attempt.item, attempt.link) = (item, link);
            }
        };
        while !lanes.is_empty() {
            for jobs in [&mut *quads, &mut *octs, &mut *wide] {
                jobs.clear();
            }
            for &lane in lanes.iter() {
                let (bucket, view) = (&mapper.buckets[lane.bucket as usize], &plan.views.views[lane.bucket as usize]);
                if bucket.size == 0 {
                    note(lane.tag, 0, EMPTY);
                    continue;
                }
                let jobs = match padded(bucket.size as usize) {
                    4 => &mut *quads,
                    8 => &mut *octs,
                    _ => &mut *wide,
                };
                jobs.push(Job {
                    x: lane.x,
                    r: lane.r,
                    ids: view.ids,
                    weights: view.weights,
                    size: bucket.size,
                    start: bucket.start,
                    tag: lane.tag,
                });
            }
            lanes.clear();
            for (jobs, room) in [(&mut *quads, 4), (&mut *octs, 8), (&mut *wide, 16)] {
                mapper.kernel.draw(&mapper.pool, jobs, room, bounds);
                for drawn in jobs.drawn() {
                    let (item, link) = (mapper.items[drawn.at], mapper.links[drawn.at]);
                    if mapper.kind(link) == kind {
                        note(drawn.tag, item, link);
                    } else if link == DEVICE {
                        note(drawn.tag, item, PAST);
                    } else {
                        lanes.push(Lane { tag: drawn.tag, x: drawn.x, r: drawn.r, bucket: link });
                    }
                }
            }
        }
    }

    /// The retry logic of `Run::firstn` and `Run::place` over what is known of input `i`.
    fn settle_firstn(
        &mut self,
        choice: &Choice,
        i: usize,
        x: u32,
        reweights: &[Weight],
        out: &mut [ItemId; MAX_NUM],
    ) -> Settled {
        let first = i * choice.attempts;
        let known = &self.memo[first..first + choice.attempts];
        let mut leaves = [UNDECIDED; MAX_NUM];
        let mut placed = 0;
        let mut waits = false;
        'positions: for rep in 0..choice.num {
            if placed == choice.room {
                break;
            }
            let mut failed = 0;
            loop {
                let r = rep + failed;
                let Some(attempt) = known.get(r) else { return Settled::Hard };
                let lane = |r: u32, bucket| Lane { tag: (first + rep + failed) as u32, x, r, bucket };
                let stays = match attempt.link {
                    UNKNOWN => {
                        self.tops.push(lane(r as u32, choice.root));
                        return Settled::Waits;
                    }
                    PAST => continue 'positions,
                    EMPTY => false,
                    _ if out[..placed].contains(&attempt.item) => false,
                    DEVICE => !is_out(x, attempt.item, reweights),
                    _ if !choice.to_leaf => true,
                    link => match attempt.leaf {
                        UNDECIDED => {
                            // Supposes that the leaf will do, so that all leaves go down together.
                            self.leaves.push(lane(choice.leaf_attempt(r as u32), link));
                            waits = true;
                            true
                        }
                        ITEM_NONE => false,
                        leaf => !leaves[..placed].contains(&leaf) && !is_out(x, leaf, reweights),
                    },
                };
                if stays {
                    out[placed] = attempt.item;
                    leaves[placed] = attempt.leaf;
                    placed += 1;
                    continue 'positions;
                }
                failed += 1;
                if failed >= choice.tries.total as usize {
                    continue 'positions;
                }
            }
        }
        if waits {
            return Settled::Waits;
        }
        if choice.to_leaf {
            *out = leaves;
        }
        Settled::Done(placed)
    }

    /// The retry logic of `Run::indep` and `Run::seek` over what is known of input `i`.
    fn settle_indep(
        &mut self,
        choice: &Choice,
        i: usize,
        x: u32,
        reweights: &[Weight],
        out: &mut [ItemId; MAX_NUM],
    ) -> Settled {
        let first = i * choice.attempts;
        let known = &self.memo[first..first + choice.attempts];
        let mut leaves = [UNDECIDED; MAX_NUM];
        let out = &mut out[..choice.room];
        let mut left = choice.room;
        let mut waits = false;
        for round in 0..choice.tries.total as usize {
            if left == 0 {
                break;
            }
            for rep in 0..choice.room {
                if out[rep] != UNDECIDED {
                    continue;
                }
                let r = rep + choice.num * round;
                let Some(attempt) = known.get(r) else { return Settled::Hard };
                let lane = |r: u32, bucket| Lane { tag: (first + rep + choice.num * round) as u32, x, r, bucket };
                let found = match attempt.link {
                    UNKNOWN => {
                        self.tops.push(lane(r as u32, choice.root));
                        waits = true;
                        continue;
                    }
                    PAST => ITEM_NONE,
                    EMPTY => continue,
                    _ if out.contains(&attempt.item) => continue,
                    DEVICE if is_out(x, attempt.item, reweights) => continue,
                    link if choice.to_leaf && link != DEVICE => match attempt.leaf {
                        UNDECIDED => {
                            self.leaves.push(lane(choice.leaf_attempt(r as u32), link));
                            waits = true;
                            attempt.item
                        }
                        leaf if leaf == ITEM_NONE || is_out(x, leaf, reweights) => {
                            if choice.tries.leaf_indep() > 1 {
                                return Settled::Hard;
                            }
                            continue;
                        }
                        leaf => {
                            leaves[rep] = leaf;
                            attempt.item
                        }
                    },
                    _ => attempt.item,
                };
                out[rep] = found;
                left -= 1;
            }
            // What is not known could collide with what comes in later rounds.
            if waits {
                return Settled::Waits;
            }
        }
        if choice.to_leaf {
            out.copy_from_slice(&leaves[..choice.room]);
        }
        out.iter_mut().filter(|item| **item == UNDECIDED).for_each(|item| *item = ITEM_NONE);
        Settled::Done(choice.room)
    }
}

/// Which buckets have nothing but straw2 buckets below and with them, each with one set of weights.
pub(super) fn plain(mapper: &Mapper, views: &[super::View], children_first: &[u32]) -> Vec<bool> {
    let mut plain = vec![false; mapper.buckets.len()];
    for &n in children_first {
        let bucket = &mapper.buckets[n as usize];
        let links = &mapper.links[bucket.start as usize..][..bucket.size as usize];
        plain[n as usize] = bucket.alg == crate::model::BucketAlg::Straw2
            && views[n as usize].positions == 1
            && links.iter().all(|&link| link == DEVICE || plain[link as usize]);
    }
    plain
}
