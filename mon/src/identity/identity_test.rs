//! Identities in the log and in snapshots: nothing is lost on the way, applying twice is applying once.

use std::time::Duration;

use nacre_net::identity::authority::SigningRequest;
use nacre_net::identity::join::{self, Answer, Whom};
use nacre_net::identity::{Authority, Caps, ClusterId, Kind};

use super::super::member_of;
use super::*;

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn every_change_reads_as_it_was_written_and_leads_to_the_same_state() {
    let authority = Authority::create(ClusterId([9; 16]), NOW, DAY * 3650).unwrap();
    let admin: Name = "client.admin".parse().unwrap();
    let grant = nacre_net::identity::Grant { name: admin.clone(), caps: Caps::all(), generation: 1 };
    let first = authority.issue(&grant, NOW, DAY).unwrap();
    let request = |name: &str| {
        let made = SigningRequest::make(authority.cluster(), &name.parse().unwrap(), &Caps::of_daemon(Kind::Osd));
        let der = made.unwrap().0;
        (SigningRequest::read(&der).unwrap(), der)
    };
    let (mut sent, mut kept) = (Identities::default(), Identities::default());
    let mut kinds = std::collections::BTreeSet::new();
    let mut change = |sent: &mut Identities, change: Change| {
        let message = change_to(&change);
        kinds.insert(format!("{:?}", message.change).split('(').nth(1).unwrap_or_default().to_owned());
        assert_eq!(change_from(message).unwrap(), change);
        let through = change_from(change_to(&change)).unwrap();
        assert_eq!(sent.apply(&change), kept.apply(&through));
        assert_eq!(*sent, kept);
        assert_eq!(Identities::decode(Some(sent.encode())).unwrap(), *sent);
    };
    let born = AuthorityRecord { certificate: authority.certificate().to_vec(), sealed: vec![1, 2] };
    change(&mut sent, Change::Born(born, vec![member_of(&first.certificate).unwrap()]));
    let once = sent.authority.clone();
    change(&mut sent, Change::Born(AuthorityRecord { certificate: vec![], sealed: vec![] }, vec![]));
    assert_eq!(sent.authority, once, "a cluster is born once");

    let whom = Whom::AnyOf(Kind::Osd.into());
    let caps = Caps::of_daemon(Kind::Osd);
    let (token, made) = sent.desk.make_token(whom.clone(), caps.clone(), authority.certificate(), NOW, DAY);
    change(&mut sent, Change::Desk(made));
    let (spare, made) = sent.desk.make_token(whom, caps, authority.certificate(), NOW, DAY);
    change(&mut sent, Change::Desk(made));
    change(&mut sent, Change::Desk(DeskChange::TokenDropped(spare.id)));
    let (osd, _) = request("osd.4");
    let Answer::Sign(to_sign) = sent.desk.redeem(&token, osd.clone(), NOW).unwrap() else { panic!("granted") };
    let certificate = authority.sign(&to_sign.request, &to_sign.grant, NOW, DAY).unwrap();
    change(&mut sent, Change::Desk(to_sign.signed(certificate, NOW).unwrap()));

    for name in ["osd.5", "osd.6"] {
        let (asks, der) = request(name);
        let Answer::Wait(id, Some(asked)) = sent.desk.ask(&asks, &der, NOW).unwrap() else { panic!("waits") };
        change(&mut sent, Change::Desk(*asked));
        if name == "osd.5" {
            let to_sign = sent.desk.approve(id, None).unwrap();
            let certificate = authority.sign(&to_sign.request, &to_sign.grant, NOW, DAY).unwrap();
            change(&mut sent, Change::Desk(to_sign.signed(certificate, NOW).unwrap()));
        } else {
            let denied = sent.desk.deny(id, admin.clone(), "who are you?", NOW).unwrap();
            change(&mut sent, Change::Desk(denied));
        }
    }
    let name: Name = "osd.4".parse().unwrap();
    let set = sent.desk.set_caps(&name, "osd r".parse().unwrap(), false).unwrap();
    change(&mut sent, Change::Desk(set));
    let generation = sent.desk.members[&name].generation;
    let again = nacre_net::identity::Grant { name: name.clone(), caps: Caps::default(), generation };
    let next = authority.sign(&osd, &again, NOW, DAY).unwrap();
    let issued = Issued::of(next, osd.fingerprint(), NOW).unwrap();
    let trusts = vec![join::authority_fingerprint(authority.certificate())];
    change(&mut sent, Change::Desk(DeskChange::Renewed { name: name.clone(), generation, issued, trusts }));
    assert_eq!(sent.desk.members[&name].held.len(), 2);

    // From one authority to another; what does not fit does nothing.
    let record = |byte| AuthorityRecord { certificate: vec![byte; 9], sealed: vec![byte] };
    let (second, third) = (record(7), record(8));
    change(&mut sent, Change::Switched(second.fingerprint()));
    assert_eq!(sent.trusted(), [authority.certificate()]);
    change(&mut sent, Change::NextMade(third.clone()));
    change(&mut sent, Change::Abandoned(third.fingerprint()));
    change(&mut sent, Change::NextMade(second.clone()));
    change(&mut sent, Change::NextMade(third.clone()));
    assert_eq!(sent.trusted(), [authority.certificate(), &second.certificate]);
    assert_eq!(sent.desk.without(&second.fingerprint()).len(), 3, "nobody has said that they believe it");
    change(&mut sent, Change::Switched(third.fingerprint()));
    assert!(sent.desk.of_former().is_empty());
    change(&mut sent, Change::Switched(second.fingerprint()));
    assert_eq!(sent.trusted(), [second.certificate.as_slice(), authority.certificate()], "the one that signs first");
    assert_eq!(sent.desk.of_former().len(), 3);
    change(&mut sent, Change::NextMade(third));
    change(&mut sent, Change::Retired(second.fingerprint()));
    assert_eq!(sent.trusted().len(), 2, "one change at a time");
    change(&mut sent, Change::Retired(join::authority_fingerprint(authority.certificate())));
    assert_eq!(sent.trusted(), [second.certificate]);
    let revoked = sent.desk.revoke(&name, admin, "stolen", NOW).unwrap();
    change(&mut sent, Change::Desk(revoked));
    change(&mut sent, Change::Desk(DeskChange::Swept(NOW.after(DAY * 2))));
    assert!(!sent.desk.members.contains_key(&name), "what was revoked is forgotten when its certificates have ended");
    assert_eq!(kinds.len(), 15, "{kinds:?}");
}

#[test]
fn messages_that_make_no_sense_are_refused() {
    assert!(change_from(v1::IdentityChange::default()).is_err());
    let bad = [
        Sent::Born(v1::Born::default()),
        Sent::TokenMade(v1::TokenRecord::default()),
        Sent::TokenUsed(v1::TokenUsed::default()),
        Sent::Asked(v1::SigningRecord::default()),
        Sent::Approved(v1::Approved::default()),
        Sent::Denied(v1::Denied::default()),
        Sent::MemberSet(v1::Enrolled::default()),
        Sent::Renewed(v1::Renewed::default()),
        Sent::Revoked(v1::NameRevoked::default()),
        Sent::Switched(Bytes::new()),
        Sent::Retired(vec![1; 31].into()),
        Sent::Abandoned(vec![1; 33].into()),
    ];
    for change in bad {
        assert!(change_from(v1::IdentityChange { change: Some(change.clone()) }).is_err(), "{change:?}");
    }
}
