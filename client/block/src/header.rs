//! The header of an image: methods of the class `image` as functions. Knows the names of an image's objects.

use bytes::Bytes;
use nacre_client::class::{self, Codec, Page, image as methods};
use nacre_client::{Object, Op, OpResult, Pool, SnapId};

use crate::error::Error;
use methods::{Child, Flags, Held, MapSet, NewSnap, Note, Resize, Spend, Spent, Trimmed};

/// Names of data objects begin so.
pub(crate) const DATA: &str = "block.data.";
/// Names of headers do, their number behind it.
pub(crate) const HEAD: &str = "block.head.";

/// The name of a data object of one image begins so.
pub(crate) fn data_prefix(id: u64) -> String {
    format!("{DATA}{id:016x}.")
}

/// The header of one image.
#[derive(Clone, Debug)]
pub(crate) struct Header(pub(crate) Object);

type Answer<T> = Result<T, nacre_client::Error>;

impl Header {
    pub(crate) fn of(pool: &Pool, id: u64) -> Header {
        Header(pool.object(format!("{HEAD}{id:016x}")))
    }

    async fn call_class<O: Codec>(&self, class: &str, method: &str, input: Bytes) -> Result<O, Error> {
        let raw = self.raw(class, method, input).await?;
        class::decode(&raw).ok_or_else(|| Error::Damaged {
            what: format!("the answer of {class}.{method}"),
            why: "it has another shape than this release knows".into(),
        })
    }

    async fn raw(&self, class: &str, method: &str, input: Bytes) -> Answer<Bytes> {
        let op = Op::Call { class: class.to_owned(), method: method.to_owned(), input };
        let done = self.0.execute(vec![op]).await?;
        match done.results.into_iter().next() {
            Some(OpResult::Data(data)) => Ok(data),
            _ => Ok(Bytes::new()),
        }
    }

    async fn tell(&self, method: &str, input: &impl Codec) -> Answer<()> {
        self.raw("image", method, class::encode(input)).await.map(drop)
    }

    pub(crate) async fn create(&self, image: &methods::Image) -> Answer<()> {
        self.tell("create", image).await
    }

    pub(crate) async fn get(&self) -> Result<Held, Error> {
        self.call_class("image", "get", Bytes::new()).await
    }

    pub(crate) async fn resize(&self, size: u64, from: u64) -> Answer<()> {
        self.tell("resize", &Resize { size, from }).await
    }

    pub(crate) async fn trimmed(&self, size: u64) -> Answer<()> {
        self.tell("trimmed", &Trimmed { size }).await
    }

    pub(crate) async fn snap_add(&self, id: SnapId, name: &str, group: Bytes) -> Answer<()> {
        self.tell("snap_add", &NewSnap { id, name: name.to_owned(), group }).await
    }

    pub(crate) async fn snap_rename(&self, id: SnapId, name: &str) -> Answer<()> {
        self.tell("snap_rename", &NewSnap { id, name: name.to_owned(), group: Bytes::new() }).await
    }

    pub(crate) async fn snap_remove(&self, id: SnapId) -> Answer<()> {
        self.tell("snap_remove", &id.0).await
    }

    pub(crate) async fn revert(&self, id: SnapId) -> Answer<()> {
        self.tell("revert", &id.0).await
    }

    pub(crate) async fn orphan(&self) -> Answer<()> {
        self.raw("image", "orphan", Bytes::new()).await.map(drop)
    }

    pub(crate) async fn flags(&self, set: u64, clear: u64) -> Answer<()> {
        self.tell("flags", &Flags { set, clear }).await
    }

    pub(crate) async fn map_set(&self, map: &MapSet) -> Answer<()> {
        self.tell("map_set", map).await
    }

    pub(crate) async fn child_add(&self, child: &Child) -> Answer<()> {
        self.tell("child_add", child).await
    }

    pub(crate) async fn child_remove(&self, child: &Child) -> Answer<()> {
        self.tell("child_remove", child).await
    }

    async fn all<T: Codec>(&self, method: &str) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        let mut after = Bytes::new();
        loop {
            let page = class::encode(&Page { after: after.clone(), max: 500 });
            let (list, more): (Vec<(Bytes, T)>, bool) = self.call_class("image", method, page).await?;
            if let Some((mark, _)) = list.last() {
                after = mark.clone();
            }
            found.extend(list.into_iter().map(|(_, item)| item));
            if !more {
                return Ok(found);
            }
        }
    }

    pub(crate) async fn children(&self) -> Result<Vec<Child>, Error> {
        self.all("children").await
    }

    pub(crate) async fn notes(&self) -> Result<Vec<Note>, Error> {
        self.all("notes").await
    }

    pub(crate) async fn note_set(&self, key: &str, value: &str) -> Answer<()> {
        self.tell("note_set", &Note { key: key.to_owned(), value: value.to_owned() }).await
    }

    pub(crate) async fn spend(&self, amounts: &[u64]) -> Result<Spent, Error> {
        self.call_class("image", "spend", class::encode(&Spend { amounts: amounts.to_vec() })).await
    }

    pub(crate) async fn remove(&self) -> Answer<()> {
        self.raw("image", "remove", Bytes::new()).await.map(drop)
    }

    pub(crate) async fn lock(&self, want: &class::lock::Lock) -> Result<u64, Error> {
        self.call_class("lock", "lock", class::encode(want)).await
    }

    pub(crate) async fn unlock(&self, which: &class::lock::Unlock) -> Answer<()> {
        self.raw("lock", "unlock", class::encode(which)).await.map(drop)
    }

    pub(crate) async fn break_lock(&self, which: &class::lock::Break) -> Answer<()> {
        self.raw("lock", "break", class::encode(which)).await.map(drop)
    }

    pub(crate) async fn lock_info(&self, name: &Bytes) -> Result<class::lock::LockState, Error> {
        let which = class::lock::Named { name: name.clone(), ..class::lock::Named::default() };
        self.call_class("lock", "info", class::encode(&which)).await
    }
}
