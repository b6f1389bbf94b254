//! Those who wait, in a line for each worker. Lives under one mutex.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Lane;

/// The order in which calls start: the highest bid first, then the nearest deadline, then who came
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    bid: Reverse<u64>,
    deadline: Instant,
    number: u64,
}

/// What becomes of one who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may run, and holds its slots since then.
    Start(Instant),
    /// It may not.
    Refuse(Reason),
}

/// Why a call may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The line is full of better ones.
    Full,
    /// Its answer would come too late.
    Late,
    /// No room for calls that workers make of each other.
    Nested,
}

/// All lines in which somebody waits.
#[derive(Default)]
pub struct Queue {
    lines: Vec<Line>,
    joined: u64,
}

struct Line {
    lane: Arc<Lane>,
    /// Best first.
    waiting: VecDeque<(Rank, oneshot::Sender<Verdict>)>,
}

/// The one who is next.
pub struct Next<'a> {
    queue: &'a mut Queue,
    line: usize,
    lane: Arc<Lane>,
    rank: Rank,
}

impl Queue {
    /// Takes a place by rank.
    pub fn join(
        &mut self,
        lane: &Arc<Lane>,
        bid: f64,
        deadline: Instant,
        decided: oneshot::Sender<Verdict>,
    ) -> Rank {
        self.joined += 1;
        let rank = Rank {
            // The bits of numbers that are not negative are in the order of the numbers; the sum
            // makes a zero of the negative zero, whose bits are the highest.
            bid: Reverse((bid.max(0.0) + 0.0).to_bits()),
            deadline,
            number: self.joined,
        };
        if self.line(lane).is_none() {
            self.lines.push(Line {
                lane: lane.clone(),
                waiting: VecDeque::new(),
            });
        }
        if let Some(line) = self.line(lane) {
            let at = line.position(rank);
            line.waiting.insert(at, (rank, decided));
            lane.set_queued(line.waiting.len());
        }
        rank
    }

    /// Gives up a place. `false` if it was lost before: the verdict is known.
    pub fn leave(&mut self, lane: &Arc<Lane>, rank: Rank) -> bool {
        let Some(index) = self.index(lane) else {
            return false;
        };
        self.remove(index, rank).is_some()
    }

    /// The best-ranked of those whose worker may start one.
    pub fn best(&mut self, may_start: impl Fn(&Lane) -> bool) -> Option<Next<'_>> {
        let open = self.lines.iter().enumerate();
        let open = open.filter(|(_, line)| may_start(&line.lane));
        let first = open.filter_map(|(index, line)| Some((line.waiting.front()?.0, index)));
        let (rank, line) = first.min()?;
        let lane = self.lines.get(line)?.lane.clone();
        Some(Next {
            queue: self,
            line,
            lane,
            rank,
        })
    }

    /// Sends away a newcomer whose turn would come too late, or the last of a line that is too long.
    pub fn shed(&mut self, lane: &Arc<Lane>, newcomer: Rank) {
        let Some(index) = self.index(lane) else {
            return;
        };
        let Some(line) = self.lines.get(index) else {
            return;
        };
        let at = line.position(newcomer);
        let now = Instant::now();
        let last = line.waiting.back().map(|(rank, _)| *rank);
        let shed = match last {
            _ if line.holds(at, newcomer) && lane.is_late(newcomer.deadline, now, at + 1) => {
                Some((newcomer, Reason::Late))
            }
            Some(last) if line.waiting.len() > lane.places => Some((last, Reason::Full)),
            _ => None,
        };
        if let Some((rank, reason)) = shed
            && let Some(decided) = self.remove(index, rank)
        {
            // Who is gone needs no answer.
            let _ = decided.send(Verdict::Refuse(reason));
        }
    }

    /// Whether somebody waits whose worker has a slot, but for the host.
    pub fn waits_for_more_than_its_lane(&self) -> bool {
        self.lines
            .iter()
            .any(|line| line.lane.has_room(line.lane.limit()))
    }

    fn index(&self, lane: &Arc<Lane>) -> Option<usize> {
        self.lines
            .iter()
            .position(|line| Arc::ptr_eq(&line.lane, lane))
    }

    fn line(&mut self, lane: &Arc<Lane>) -> Option<&mut Line> {
        let index = self.index(lane)?;
        self.lines.get_mut(index)
    }

    fn remove(&mut self, index: usize, rank: Rank) -> Option<oneshot::Sender<Verdict>> {
        let line = self.lines.get_mut(index)?;
        let at = line.position(rank);
        if !line.holds(at, rank) {
            return None;
        }
        let (_, decided) = line.waiting.remove(at)?;
        line.lane.set_queued(line.waiting.len());
        if line.waiting.is_empty() {
            self.lines.swap_remove(index);
        }
        Some(decided)
    }
}

impl Line {
    /// Where a rank stands, or would.
    fn position(&self, rank: Rank) -> usize {
        self.waiting.partition_point(|(other, _)| *other < rank)
    }

    fn holds(&self, at: usize, rank: Rank) -> bool {
        self.waiting
            .get(at)
            .is_some_and(|(other, _)| *other == rank)
    }
}

impl Next<'_> {
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    pub fn deadline(&self) -> Instant {
        self.rank.deadline
    }

    /// Takes it out of the line and tells it.
    pub fn decide(self, verdict: Verdict) {
        if let Some(decided) = self.queue.remove(self.line, self.rank) {
            // Who hangs up at this moment finds the verdict as it leaves.
            let _ = decided.send(verdict);
        }
    }
}
