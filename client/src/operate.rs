//! What an operator asks of placement groups: how they are, at each OSD that holds them, and orders to them.

use nacre_net::conn::{CallError, Reply, Request};
use nacre_pg::io::Order;
use nacre_pg::wire::{self, Look, PgLine, Tell, method};
use nacre_proto::ids::{OsdId, PgId};
use nacre_proto::status::{Code, Status};

use crate::call::request;
use crate::cluster::Cluster;
use crate::error::Error;

/// Where a pg is, by the newest map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Where placement wants it.
    pub up: Vec<OsdId>,
    /// Who serves it.
    pub acting: Vec<OsdId>,
    /// Who orders its operations.
    pub primary: Option<OsdId>,
}

impl Cluster {
    /// Every pg of the newest map with its place, in order.
    pub fn places(&self) -> Vec<(PgId, Place)> {
        self.0.chart().map(|chart| chart.places()).unwrap_or_default()
    }

    /// The OSDs that are up in the newest map.
    pub fn up(&self) -> Vec<OsdId> {
        self.0.chart().map(|chart| chart.map.up_osds().collect()).unwrap_or_default()
    }

    /// How pgs are at one OSD: all that it holds, or one.
    pub async fn look(&self, osd: OsdId, only: Option<PgId>) -> Result<Vec<PgLine>, Error> {
        let asked = request(method::LOOK, &Look { only });
        let reply = self.call(osd, asked.with_room(32 << 20)).await?;
        wire::decode(&reply.meta, &reply.data).map_err(|_| Error::Shape { object: osd.to_string() })
    }

    /// Orders something of a pg's primary.
    pub async fn order(&self, pg: PgId, order: Order) -> Result<(), Error> {
        let primary = self.0.chart().and_then(|chart| chart.primary(pg));
        let Some(primary) = primary else {
            let text = format!("pg {pg} has no primary now: none of the OSDs that hold it is up");
            return Err(Error::Refused(Status::new(Code::Unavailable, text)));
        };
        self.call(primary, request(method::TELL, &Tell { pg, order })).await.map(drop)
    }

    async fn call(&self, osd: OsdId, request: Request) -> Result<Reply, Error> {
        let chart = self.0.chart().ok_or_else(|| Error::Map("there is none".into()))?;
        let Some(link) = self.0.link(&chart, osd) else {
            return Err(Error::Refused(Status::new(Code::Unavailable, format!("{osd} is not up"))));
        };
        let patience = self.0.patience.unwrap_or(std::time::Duration::from_secs(60));
        let called = tokio::time::timeout(patience, link.call(request)).await;
        let late = || Error::TimedOut { what: osd.to_string(), patience, last: "it did not answer".into() };
        called.map_err(|_| late())?.map_err(|error| match error {
            CallError::Failed(status) => Error::Refused(status),
            other => Error::Refused(other.into()),
        })
    }
}
