//! Runs that lead a pg to where a copy that is no member holds the newest alone, and strike while it is asked; and that
//! change the members of pgs while they are scrubbed.
//!
//! Nothing of what befalls such a copy begins a new interval: what is lost with it has to be asked for again. By chance alone
//! that moment is met once in ten thousand seeds, and mostly something follows that sets all right. So the way there is led
//! ([`Plot`]), and what strikes and when is drawn. Only a scenario file asks for it (`hunts`): the runs of
//! seeds without one do not change.

use nacre_proto::ids::{OsdId, PgId};

use crate::world::{End, Event, MS, World};

/// How the one that is asked is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// Its connection to who asks is lost.
    Connection,
    /// Its process ends.
    Process,
    /// The map service does not hear it for longer than it waits; who asks does.
    Map,
}

/// How far the pg was led.
#[derive(Clone, Copy, Debug, Default)]
pub enum Plot {
    /// Two osds are its members, and all is clean.
    #[default]
    Clean,
    /// The second has died.
    Lone(Cast),
    /// A third is being filled in its place.
    Filled(Cast),
    /// The first has died too; the third takes writes alone, until then.
    Alone(Cast, u64),
    /// The first two serve again. What the third alone has they ask of it, and this strikes so many times.
    Asking(Cast, Blow, u64),
}

/// Who plays.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    pg: PgId,
    first: OsdId,
    second: OsdId,
    third: OsdId,
}

impl World {
    /// Leads on, and looks again soon.
    pub(crate) fn plot_on(&mut self) {
        if !self.faulty {
            return;
        }
        let map = std::sync::Arc::clone(self.maps.last());
        let is_up = |osd: OsdId| map.osds.get(&osd).is_some_and(|s| s.up);
        match self.plot {
            Plot::Clean => {
                if let Some(cast) = self.cast() {
                    self.note(|| format!("the plot begins: {cast:?}"));
                    self.crash(cast.second);
                    self.plot = Plot::Lone(cast);
                }
            }
            Plot::Lone(cast) if !is_up(cast.second) => {
                self.place_by_hand(cast.pg, vec![cast.first, cast.third]);
                self.plot = Plot::Filled(cast);
            }
            Plot::Filled(cast) => {
                let core = self.nodes[cast.first.0 as usize].pgs.get(&cast.pg);
                let filled = core.is_some_and(|(_, g)| g.is_clean()) && map.view(cast.pg).acting.contains(&cast.third);
                if filled {
                    self.crash(cast.first);
                    let until = self.now + self.scenario.grace + self.rng.range(300, 1500) * MS;
                    self.plot = Plot::Alone(cast, until);
                }
            }
            Plot::Alone(cast, until) if self.now >= until && !is_up(cast.first) => {
                self.place_by_hand(cast.pg, vec![cast.first, cast.second]);
                for osd in [cast.first, cast.second] {
                    self.after(MS, Event::Restart { osd });
                }
                let (blow, times) =
                    [(Blow::Connection, 6), (Blow::Process, 1), (Blow::Map, 1)][self.rng.below(3) as usize];
                self.plot = Plot::Asking(cast, blow, times);
            }
            _ => {}
        }
        self.after(20 * MS, Event::Plot);
    }

    /// Gives each pg another second member: a new interval, in which its primary leads on and has to remember what it was told
    /// to do.
    pub(crate) fn exchange_members(&mut self) {
        let map = std::sync::Arc::clone(self.maps.last());
        for pg in map.pgs() {
            let &[first, second] = map.view(pg).acting.as_slice() else { continue };
            let others = map.inside.iter().copied().filter(|o| *o != first && *o != second);
            let others: Vec<OsdId> = others.collect();
            if let Some(&third) = self.rng.pick(&others) {
                self.seen("pg got another member while it was scrubbed");
                self.place_by_hand(pg, vec![first, third]);
            }
        }
    }

    fn place_by_hand(&mut self, pg: PgId, list: Vec<OsdId>) {
        self.note(|| format!("pg {pg} by hand to {list:?}"));
        self.change(|m| drop(m.upmap.insert(pg, list)));
    }

    /// Two members of some pg, and another.
    fn cast(&mut self) -> Option<Cast> {
        if !self.all_clean() {
            return None;
        }
        let map = std::sync::Arc::clone(self.maps.last());
        let pg = *self.rng.pick(&map.pgs())?;
        let &[first, second] = map.view(pg).acting.as_slice() else { return None };
        let others: Vec<OsdId> = map.inside.iter().copied().filter(|o| *o != first && *o != second).collect();
        let third = *self.rng.pick(&others)?;
        self.nodes[third.0 as usize].running.then_some(Cast { pg, first, second, third })
    }

    /// A primary asks another for a piece of an object.
    pub(crate) fn asks_for_piece(&mut self, by: OsdId, of: OsdId, pg: PgId) {
        let Plot::Asking(cast, blow, times) = self.plot else { return };
        if !self.faulty || cast.pg != pg || cast.third != of || self.maps.last().view(pg).has(of) {
            return;
        }
        self.seen("spare copy asked for an object");
        if times == 0 || !self.rng.chance(1, 3) {
            return;
        }
        self.plot = Plot::Asking(cast, blow, times - 1);
        let delay = match blow {
            Blow::Connection => {
                // What is read for it may come after the loss, and then once more while the first is being written.
                for osd in [by, of] {
                    self.slow.insert(osd, self.now + 300 * MS);
                }
                self.rng.range(self.scenario.delay / 2, self.scenario.delay + 100 * MS)
            }
            Blow::Process => self.rng.range(1, 2 * self.scenario.delay),
            Blow::Map => 1,
        };
        self.after(delay, Event::Strike { by, of, blow });
    }

    /// The blow falls.
    pub(crate) fn struck(&mut self, by: OsdId, of: OsdId, blow: Blow) {
        if !self.faulty || !self.nodes[of.0 as usize].running {
            return;
        }
        match blow {
            Blow::Connection => {
                self.seen("spare copy lost its connection while asked");
                self.reset(End::Osd(by.0), End::Osd(of.0));
            }
            Blow::Process => {
                self.seen("spare copy died while asked");
                self.crash(of);
                let away = self.rng.range(5, 1500) * MS;
                self.after(away, Event::Restart { osd: of });
            }
            Blow::Map => {
                self.seen("spare copy taken for dead while asked");
                self.note(|| format!("{of} and the map service do not hear each other; {of} and {by} are slow"));
                let away = self.scenario.grace + self.rng.range(100, 500) * MS;
                let (me, mon) = (End::Osd(of.0), End::Mon);
                self.cuts.extend([(me, mon), (mon, me)]);
                self.after(away, Event::Heal { a: me, b: mon });
                for osd in [by, of] {
                    self.slow.insert(osd, self.now + away + 500 * MS);
                }
            }
        }
    }
}
