//! `nacre osd` verbs that change the map: in and out, weights, places, the end of an OSD. Each can be tried first.

use clap::{Args, Subcommand};
use nacre_maps::rules::osd_safe::safe_to_destroy;
use nacre_proto::ids::OsdId;
use nacre_proto::v1;
use nacre_proto::v1::map_command::Verb as Map;

use super::Asking;
use crate::output::Out;
use crate::run::{Run, Verdict};

/// `7` or `osd.7`.
pub(super) fn osd(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("osd.").unwrap_or(text);
    number.parse().map_err(|_| format!("{text} is no OSD: write 7 or osd.7"))
}

/// A decimal with up to six places, in millionths.
fn millionths(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text} is no number such as 1 or 0.85");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 6 || !digits(whole) || !digits(part) {
        return Err(wrong());
    }
    let part: u64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
    whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(1_000_000)?.checked_add(part)).ok_or_else(wrong)
}

fn share(text: &str) -> Result<u32, String> {
    let share = millionths(text)?;
    u32::try_from(share).ok().filter(|share| *share <= 1_000_000).ok_or_else(|| format!("{text} is not from 0 to 1"))
}

fn place(text: &str) -> Result<v1::Place, String> {
    let parts = text.split_once('=').filter(|(kind, name)| !kind.is_empty() && !name.is_empty());
    let (kind, name) = parts.ok_or_else(|| format!("{text} is no place such as host=a"))?;
    Ok(v1::Place { kind: kind.to_owned(), name: name.to_owned() })
}

#[derive(Args)]
struct Trying {
    /// Say what would happen, and how much data would move, and do nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Trying {
    fn change(self, verb: Map, out: &mut Out) -> anyhow::Result<Verdict> {
        self.asking.change(verb, self.dry_run, out)
    }
}

#[derive(Subcommand)]
pub(super) enum Edit {
    /// Let data go elsewhere: its pgs are rebuilt on other OSDs.
    Out(Several),
    /// Let data come back.
    In(Several),
    /// Mark OSDs down. One that lives boots again at once.
    Down(Down),
    /// Say which share of what is mapped to an OSD stays there.
    Reweight(Reweight),
    /// Say how willing an OSD is to be primary.
    Affinity(Reweight),
    /// Say how much an OSD holds against the others; a TiB weighs 1 by custom.
    Weight(Weight),
    /// Move an OSD in the crush tree.
    Move(Move),
    /// Give an OSD a device class, or take it away.
    Class(Class),
    /// Declare that the data of an OSD that is down is gone for good.
    Lost(Lost),
    /// Forget an OSD that holds nothing any more.
    Rm(Remove),
}

#[derive(Args)]
pub(super) struct Several {
    /// The OSDs.
    #[arg(required = true, value_parser = osd)]
    osds: Vec<u32>,
    #[command(flatten)]
    trying: Trying,
}

#[derive(Args)]
pub(super) struct Down {
    /// The OSDs.
    #[arg(required = true, value_parser = osd)]
    osds: Vec<u32>,
    /// Their processes are known to be gone.
    #[arg(long)]
    dead: bool,
    #[command(flatten)]
    trying: Trying,
}

#[derive(Args)]
pub(super) struct Reweight {
    /// The OSD.
    #[arg(value_parser = osd)]
    osd: u32,
    /// From 0 to 1.
    #[arg(value_parser = share)]
    share: u32,
    #[command(flatten)]
    trying: Trying,
}

#[derive(Args)]
pub(super) struct Weight {
    /// The OSD.
    #[arg(value_parser = osd)]
    osd: u32,
    /// Its weight.
    #[arg(value_parser = millionths)]
    weight: u64,
    #[command(flatten)]
    trying: Trying,
}

#[derive(Args)]
pub(super) struct Move {
    /// The OSD.
    #[arg(value_parser = osd)]
    osd: u32,
    /// The buckets above it, as in `rack=r1 host=a`.
    #[arg(required = true, value_parser = place)]
    to: Vec<v1::Place>,
    #[command(flatten)]
    trying: Trying,
}

#[derive(Args)]
pub(super) struct Class {
    /// The OSD.
    #[arg(value_parser = osd)]
    osd: u32,
    /// The class, as in `ssd`; left out: none.
    #[arg(default_value = "")]
    class: String,
    #[command(flatten)]
    trying: Trying,
}

#[derive(Args)]
pub(super) struct Lost {
    /// The OSD.
    #[arg(value_parser = osd)]
    osd: u32,
    /// Really: what only it holds is given up.
    #[arg(long)]
    yes_i_lose_data: bool,
    #[command(flatten)]
    trying: Trying,
}

#[derive(Args)]
pub(super) struct Remove {
    /// The OSD.
    #[arg(value_parser = osd)]
    osd: u32,
    /// Also if data may depend on it.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    trying: Trying,
}

impl Run for Edit {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self {
            Edit::Out(Several { osds, trying }) => trying.change(Map::OsdOut(v1::OsdOut { osds }), out),
            Edit::In(Several { osds, trying }) => trying.change(Map::OsdIn(v1::OsdIn { osds }), out),
            Edit::Down(Down { osds, dead, trying }) => trying.change(Map::OsdDown(v1::OsdDown { osds, dead }), out),
            Edit::Reweight(Reweight { osd, share, trying }) => {
                trying.change(Map::OsdReweight(v1::OsdReweight { osd, millionths: share }), out)
            }
            Edit::Affinity(Reweight { osd, share, trying }) => {
                trying.change(Map::OsdAffinity(v1::OsdAffinity { osd, millionths: share }), out)
            }
            Edit::Weight(Weight { osd, weight, trying }) => {
                trying.change(Map::OsdCrushWeight(v1::OsdCrushWeight { osd, millionths: weight }), out)
            }
            Edit::Move(Move { osd, to, trying }) => trying.change(Map::OsdMove(v1::OsdMove { osd, location: to }), out),
            Edit::Class(Class { osd, class, trying }) => trying.change(Map::OsdClass(v1::OsdClass { osd, class }), out),
            Edit::Lost(Lost { osd, yes_i_lose_data, trying }) => {
                trying.change(Map::OsdLost(v1::OsdLost { osd, confirm: yes_i_lose_data }), out)
            }
            Edit::Rm(Remove { osd, force, trying }) => {
                if !force {
                    // The leader judges by reports made under the newest map: they may be a second away.
                    trying.asking.judge(|seen| safe_to_destroy(&seen.placement, &seen.reports, OsdId(osd)))?;
                }
                trying.change(Map::OsdRemove(v1::OsdRemove { osd, safe: false, force }), out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly_and_nonsense_is_named() {
        assert_eq!(osd("osd.7"), Ok(7));
        assert_eq!(osd("7"), Ok(7));
        assert!(osd("mon.7").unwrap_err().contains("osd.7"));
        assert_eq!(millionths("1.5"), Ok(1_500_000));
        assert_eq!(millionths("0.000001"), Ok(1));
        assert!(millionths("1.0000001").is_err() && millionths("-1").is_err() && millionths(".5").is_err());
        assert!(share("1.1").is_err());
        assert!(place("host").is_err());
    }
}
