//! Devices and pools without room: what grows is refused, all else goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{OsdId, SessionId};

use crate::io::Input;
use crate::log::ReqId;
use crate::op::{ClientOp, Op, OpError, OpId, Reply, SnapContext};
use crate::trio::{Trio, oid};

#[test]
fn on_a_full_device_only_what_needs_no_room_is_done() {
    let write = |data: &str| Op::WriteFull { data: Bytes::copy_from_slice(data.as_bytes()) };
    let mut t = Trio::new();
    t.map(&[0, 1], &[]);
    assert!(t.ask(0, write("kept")).is_some());
    let full = |t: &mut Trio, full: bool| {
        let mut osds = BTreeMap::clone(&t.view.osds);
        osds.get_mut(&OsdId(1)).unwrap().full = full;
        t.view.osds = Arc::new(osds);
        t.map(&[0, 1], &[]);
    };
    full(&mut t, true);
    let refused = |reply| matches!(reply, Some(Reply::Done { outcome: Err(OpError::Full { at: 0 }), .. }));
    assert!(refused(t.ask(0, write("more"))));
    assert_eq!(t.read(0), Some(Ok("kept".into())));
    // What was done before is still answered as done.
    let again = ClientOp {
        id: OpId(900),
        reqid: ReqId { session: SessionId(1), tid: 2 },
        acked_below: 0,
        epoch: t.view.epoch,
        oid: oid(),
        snapc: SnapContext::default(),
        ops: vec![write("kept")],
    };
    t.queue.push_back((0, Input::Op(again)));
    t.settle();
    assert!(matches!(t.replies.remove(&900), Some(Reply::Done { outcome: Ok(_), .. })));
    assert!(matches!(t.ask(0, Op::Remove), Some(Reply::Done { outcome: Ok(_), .. })));
    full(&mut t, false);
    assert!(matches!(t.ask(0, write("more")), Some(Reply::Done { outcome: Ok(_), .. })));
}
