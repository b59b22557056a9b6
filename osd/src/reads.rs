//! What a placement group wants to read, as calls on the store.

use bytes::Bytes;
use nacre_pg::io::{ReadFault, ReadItem, ReadValue};
use nacre_pg::object::INFO_XATTR;
use nacre_proto::ids::{ObjectId, PgId};
use nacre_store::{ObjectStore, StoreError};

/// Reads all items of one object, or of the collection.
pub fn read(
    store: &dyn ObjectStore,
    pg: PgId,
    oid: Option<&ObjectId>,
    items: &[ReadItem],
) -> Result<Vec<ReadValue>, ReadFault> {
    let item = |item| match oid {
        Some(oid) => of_object(store, pg, oid, item),
        None => of_collection(store, pg, item),
    };
    items.iter().map(item).collect::<Result<_, StoreError>>().map_err(|error| {
        tracing::error!(%pg, oid = ?oid, %error, "a read failed");
        ReadFault
    })
}

fn of_collection(store: &dyn ObjectStore, pg: PgId, item: &ReadItem) -> Result<ReadValue, StoreError> {
    let ReadItem::List { after, max } = item else { return Ok(ReadValue::List(Vec::new(), false)) };
    let list = store.list(pg, after.as_ref(), *max as usize)?;
    let more = list.len() == *max as usize;
    let with_info = |oid: ObjectId| {
        let info = store.xattr(pg, &oid, INFO_XATTR)?.unwrap_or_default();
        Ok((oid, info))
    };
    Ok(ReadValue::List(list.into_iter().map(with_info).collect::<Result<_, StoreError>>()?, more))
}

fn of_object(store: &dyn ObjectStore, pg: PgId, oid: &ObjectId, item: &ReadItem) -> Result<ReadValue, StoreError> {
    if let ReadItem::Extent { offset, len } = item {
        // Without a look first whether the object is there: this is what nearly all reads are.
        return match store.read_flat(pg, oid, *offset, *len) {
            Err(StoreError::NoObject { .. }) => Ok(ReadValue::Data(Bytes::new())),
            read => read.map(ReadValue::Data),
        };
    }
    let here = store.stat(pg, oid)?;
    if here.is_none() {
        return Ok(match item {
            ReadItem::Meta => ReadValue::Meta(None),
            ReadItem::OmapHeader => ReadValue::Data(Bytes::new()),
            _ => ReadValue::Pairs(Vec::new(), false),
        });
    }
    Ok(match item {
        ReadItem::Meta => ReadValue::Meta(here.map(|stat| stat.size)),
        ReadItem::Xattrs => ReadValue::Pairs(store.xattrs(pg, oid)?, false),
        ReadItem::OmapHeader => ReadValue::Data(store.omap_header(pg, oid)?),
        ReadItem::OmapKeys(keys) => ReadValue::Pairs(store.omap_get(pg, oid, keys)?, false),
        ReadItem::OmapRange { after, max } => {
            let mut from = after.clone().map(Vec::from).unwrap_or_default();
            if after.is_some() {
                from.push(0);
            }
            let list = store.omap_list(pg, oid, &from, *max as usize)?;
            let more = list.len() == *max as usize;
            ReadValue::Pairs(list, more)
        }
        ReadItem::Extent { .. } | ReadItem::List { .. } => ReadValue::List(Vec::new(), false),
    })
}
