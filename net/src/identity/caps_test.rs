//! What capabilities cover, as a table, and that their text reads as it prints.

use proptest::prelude::*;

use super::*;

fn caps(text: &str) -> Caps {
    text.parse().unwrap()
}

#[test]
fn the_table_of_what_is_covered() {
    use Service::{Mds, Mon, Osd};
    let (r, w) = (Ops::READ, Ops::WRITE);
    let table: &[(&str, Request<'_>, bool)] = &[
        ("osd rw", Request::new(Osd, r), true),
        ("osd r", Request::new(Osd, r | w), false),
        ("osd r; osd w", Request::new(Osd, r | w), false), // one capability must cover the whole call
        ("osd rw", Request::new(Mon, r), false),
        ("* *", Request::new(Mon, Ops::ADMIN), true),
        ("* r", Request::new(Mds, r), true),
        ("osd rw pool=vms", Request::new(Osd, w).in_pool("vms", ""), true),
        ("osd rw pool=vms", Request::new(Osd, w).in_pool("vms2", ""), false),
        ("osd rw pool=vm*", Request::new(Osd, w).in_pool("vms2", "x"), true),
        ("osd rw pool=vms", Request::new(Osd, w), false), // a restricted capability needs a stated pool
        ("osd rw pool=vms namespace=a", Request::new(Osd, w).in_pool("vms", "a"), true),
        ("osd rw pool=vms namespace=a", Request::new(Osd, w).in_pool("vms", "ab"), false),
        ("osd rw pool=vms namespace=a", Request::new(Osd, w).in_pool("vms", ""), false),
        ("osd rw namespace=", Request::new(Osd, w).in_pool("vms", ""), true),
        ("mds rw path=/home/alice", Request::new(Mds, w).at("/home/alice"), true),
        ("mds rw path=/home/alice", Request::new(Mds, w).at("/home/alice/x"), true),
        ("mds rw path=/home/alice/", Request::new(Mds, w).at("/home/alice/x"), true),
        ("mds rw path=/home/alice", Request::new(Mds, w).at("/home/alicex"), false),
        ("mds rw path=/home/alice", Request::new(Mds, w).at("/home/alice/../bob"), false),
        ("mds rw path=/home/alice", Request::new(Mds, w), false),
        ("mds rw path=/", Request::new(Mds, w).at("/x"), true),
        ("mds rw path=/", Request::new(Mds, w).at("x"), false),
        ("", Request::new(Mds, r), false),
    ];
    for (text, call, allowed) in table {
        assert_eq!(caps(text).allow(call), *allowed, "{text:?} on {call}");
    }
}

#[test]
fn what_cannot_be_read_is_refused() {
    for text in ["osd", "osd q", "foo r", "osd r pool", "osd r pool=", "osd r colour=red", "osd r pool=a pool=b"] {
        assert!(text.parse::<Caps>().is_err(), "{text}");
    }
    for text in ["mds r path=home", "mds r path=/a//b", "mds r path=/a/../b", "mds r path=/."] {
        assert!(text.parse::<Caps>().is_err(), "{text}");
    }
    assert!("osd r;".repeat(1000).parse::<Caps>().is_err(), "too long");
}

#[test]
fn daemons_have_no_more_than_their_work_needs() {
    let admin = Request::new(Service::Mon, Ops::ADMIN);
    assert!(!Caps::of_daemon(Kind::Osd).allow(&admin));
    assert!(!Caps::of_daemon(Kind::S3).allow(&Request::new(Service::Osd, Ops::ADMIN)));
    assert!(Caps::of_daemon(Kind::Osd).allow(&Request::new(Service::Osd, Ops::ADMIN)));
    assert_eq!(Caps::of_daemon(Kind::Client), Caps::default());
}

proptest! {
    #[test]
    fn text_reads_as_it_prints(
        service in prop::option::of(prop::sample::select(Service::ALL.to_vec())),
        ops in 1u8..16,
        pool in prop::option::of("[a-z0-9._-]{1,12}\\*?"),
        namespace in prop::option::of("[a-z0-9._-]{0,12}\\*?"),
        path in prop::option::of("(/[a-z0-9]{1,5}){1,4}"),
    ) {
        let cap = Capability {
            service,
            ops: Ops::from_bits_truncate(ops),
            pool: pool.as_deref().map(Match::parse),
            namespace: namespace.as_deref().map(Match::parse),
            path: path.map(Into::into),
        };
        let all = Caps(vec![cap, Capability::all()]);
        prop_assert_eq!(all.to_string().parse::<Caps>().unwrap(), all);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,80}") {
        let _ = text.parse::<Caps>();
    }
}
