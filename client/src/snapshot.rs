//! What a client asks of the monitors for its own sake: numbers for snapshots, and that a session is shut out.

use std::time::Duration;

use nacre_mon_api::v1::command::Verb;
use nacre_proto::ids::{OsdId, SessionId, SnapId};
use nacre_proto::status::{Code, Status};
use nacre_proto::v1 as proto;
use nacre_proto::v1::map_command::Verb as Map;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::object::Pool;

/// Others that take numbers of the same pool at the same moment.
const RACES: u64 = 1000;

fn verb(map: Map) -> Verb {
    Verb::Map(proto::MapCommand { verb: Some(map) })
}

impl Pool {
    /// Takes the number of a new snapshot. It means what its taker makes of it: objects keep what they were for those
    /// numbers that writes name (see [`crate::Object::keeping`]).
    pub async fn make_snapshot(&self) -> Result<SnapId, Error> {
        let inner = &self.cluster().0;
        let newest = inner.chart().and_then(|chart| chart.map.pools.get(&self.id()).map(|pool| pool.snap_seq.0));
        let mut number = newest.unwrap_or_default();
        for _ in 0..RACES {
            number += 1;
            let make = proto::SnapMake { pool: self.name().to_owned(), snap: number };
            match inner.monitors.execute(verb(Map::SnapMake(make)), false).await {
                Ok(_) => return Ok(SnapId(number)),
                Err(status) if status.code == Code::Exists => {}
                Err(status) => return Err(status.into()),
            }
        }
        let text = format!("pool {}: too many clients take snapshot numbers; try again", self.name());
        Err(Status::new(Code::Unavailable, text).into())
    }

    /// Says that nobody will read these snapshots any more; what objects keep for them is freed by and by.
    pub async fn drop_snapshots(&self, snapshots: &[SnapId]) -> Result<(), Error> {
        let drop = proto::SnapDrop { pool: self.name().to_owned(), snaps: snapshots.iter().map(|s| s.0).collect() };
        self.cluster().0.monitors.execute(verb(Map::SnapDrop(drop)), false).await?;
        Ok(())
    }
}

impl Cluster {
    /// Shuts sessions out. When this is done, no write of theirs can land any more on any OSD that is up; those OSDs that
    /// had not said so after `within` make it an error.
    pub async fn fence(&self, sessions: &[SessionId], why: &str, within: Duration) -> Result<(), Error> {
        let sessions: Vec<u64> = sessions.iter().map(|session| session.0).collect();
        let fence = proto::Fence { sessions, until_ms: None, why: why.to_owned() };
        let done = self.0.monitors.execute(verb(Map::Fence(fence)), false).await?;
        let behind = self.0.monitors.barrier(done.epoch, within).await?;
        if behind.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = behind.into_iter().map(|osd| OsdId(osd).to_string()).collect();
        let text =
            format!("the fence stands (epoch {}), but {} did not say that it knows", done.epoch, names.join(", "));
        Err(Status::new(Code::Unavailable, text).into())
    }
}
