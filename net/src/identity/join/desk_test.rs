//! The desk: who gets in, with what, how often.

use super::*;
use crate::identity::join::hex;
use crate::identity::{Authority, ClusterId, Kind, Revocations};

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

struct Office {
    authority: Authority,
    desk: Desk,
}

impl Office {
    fn new() -> Office {
        let authority = Authority::create(ClusterId([9; 16]), NOW, DAY * 3650).unwrap();
        Office { authority, desk: Desk::default() }
    }

    fn request(&self, name: &str) -> (SigningRequest, Vec<u8>) {
        let (der, _) = SigningRequest::make(self.authority.cluster(), &name.parse().unwrap(), &Caps::all()).unwrap();
        (SigningRequest::read(&der).unwrap(), der)
    }

    fn token(&mut self, whom: Whom, caps: &str) -> Token {
        let (token, change) = self.desk.make_token(whom, caps.parse().unwrap(), self.authority.certificate(), NOW, DAY);
        assert_eq!(self.desk.apply(&change), []);
        token.reveal().parse().unwrap()
    }

    fn sign(&mut self, to_sign: ToSign) -> Vec<u8> {
        let certificate = self.authority.sign(&to_sign.request, &to_sign.grant, NOW, DAY).unwrap();
        let _void = self.desk.apply(&to_sign.signed(certificate.clone(), NOW).unwrap());
        certificate
    }
}

fn osd() -> Whom {
    Whom::AnyOf(Kind::Osd.into())
}

#[test]
fn a_token_lets_one_key_in_and_answers_it_again() {
    let mut office = Office::new();
    let token = office.token(osd(), "osd *");
    let (request, _) = office.request("osd.4");
    let Answer::Sign(to_sign) = office.desk.redeem(&token, request.clone(), NOW).unwrap() else { panic!("granted") };
    let certificate = office.sign(*to_sign);
    let identity = Identity::from_der(&certificate).unwrap();
    assert_eq!((identity.name.to_string(), identity.caps.to_string()), ("osd.4".into(), "osd *".into()));

    let Answer::Certificate(again) = office.desk.redeem(&token, request, NOW).unwrap() else { panic!("the same") };
    assert_eq!(again, certificate);
    let (thief, _) = office.request("osd.4");
    let denied = office.desk.redeem(&token, thief, NOW).unwrap_err();
    assert_eq!(denied, JoinError::TokenInvalid { name: "osd.4".parse().unwrap() });
}

#[test]
fn a_token_is_bound_to_time_name_and_secret() {
    let mut office = Office::new();
    let token = office.token(osd(), "osd *");
    let (request, _) = office.request("osd.4");
    assert!(office.desk.redeem(&token, request.clone(), NOW.after(DAY)).is_err(), "expired");
    let (other, _) = office.request("client.eve");
    assert!(matches!(office.desk.redeem(&token, other, NOW), Err(JoinError::TokenForAnother { .. })));
    let mut forged = token.clone();
    forged.secret[3] ^= 1;
    assert!(office.desk.redeem(&forged, request.clone(), NOW).is_err(), "wrong secret");
    let _void = office.desk.apply(&Change::TokenDropped(token.id));
    assert!(office.desk.redeem(&token, request, NOW).is_err(), "dropped");
    for text in ["", "nacre-join-1", "nacre-join-1.1.2.3", "nacre-join-2.0.0.0"] {
        assert_eq!(text.parse::<Token>().unwrap_err(), JoinError::NotAToken);
    }
    let signed = token.reveal().replacen(&hex(&token.authority)[..2], "+a", 1);
    assert_eq!(signed.parse::<Token>().unwrap_err(), JoinError::NotAToken, "a sign is no digit");
    assert!(!format!("{token:?}").contains(&hex(&*token.secret)));
}

#[test]
fn an_operator_approves_or_denies() {
    let mut office = Office::new();
    let (request, der) = office.request("client.bob");
    let Answer::Wait(id, Some(asked)) = office.desk.ask(&request, &der, NOW).unwrap() else { panic!("waits") };
    let _void = office.desk.apply(&asked);
    assert!(matches!(office.desk.ask(&request, &der, NOW).unwrap(), Answer::Wait(_, None)));

    let to_sign = office.desk.approve(id, Some("osd r".parse().unwrap())).unwrap();
    let certificate = office.sign(to_sign);
    assert_eq!(Identity::from_der(&certificate).unwrap().caps.to_string(), "osd r");
    let Answer::Certificate(told) = office.desk.ask(&request, &der, NOW).unwrap() else { panic!("approved") };
    assert_eq!(told, certificate);
    assert_eq!(office.desk.approve(id, None).unwrap_err(), JoinError::Decided { id, state: "approved" });

    let (request, der) = office.request("client.eve");
    let Answer::Wait(id, Some(asked)) = office.desk.ask(&request, &der, NOW).unwrap() else { panic!("waits") };
    let _void = office.desk.apply(&asked);
    let denied = office.desk.deny(id, "client.admin".parse().unwrap(), "who are you?", NOW).unwrap();
    let _void = office.desk.apply(&denied);
    assert!(matches!(office.desk.ask(&request, &der, NOW).unwrap(), Answer::Denied(why) if why == "who are you?"));
    assert!(office.desk.approve(id, None).is_err());
}

#[test]
fn what_strangers_leave_behind_is_bounded_and_swept() {
    let mut office = Office::new();
    let (request, der) = office.request("client.flood");
    let record = |n: u64| RequestRecord {
        request: der.clone(),
        name: request.name().clone(),
        caps: Caps::default(),
        fingerprint: [0; 32],
        at: UnixTime(NOW.0 + n),
        state: RequestState::Waiting,
    };
    for n in 0..MAX_WAITING as u64 + 5 {
        let _void = office.desk.apply(&Change::Asked { id: RequestId(n), record: record(n) });
    }
    assert_eq!(office.desk.requests.len(), MAX_WAITING);
    assert_eq!(office.desk.ask(&request, &der, NOW).unwrap_err(), JoinError::Full);
    assert_eq!(office.desk.sweep(NOW), None);
    let later = NOW.after(WAITING_FOR).after(Duration::from_secs(9));
    let swept = office.desk.sweep(later).unwrap();
    let _void = office.desk.apply(&swept);
    assert_eq!(office.desk.requests.len(), MAX_WAITING - 10);
}

#[test]
fn joining_again_voids_what_was_before_and_renewing_does_not() {
    let mut office = Office::new();
    let join = |office: &mut Office| {
        let token = office.token(Whom::Name("osd.4".parse().unwrap()), "osd *");
        let (request, _) = office.request("osd.4");
        let Answer::Sign(to_sign) = office.desk.redeem(&token, request, NOW).unwrap() else { panic!("granted") };
        Identity::from_der(&office.sign(*to_sign)).unwrap()
    };
    let first = join(&mut office);
    let (request, _) = office.request("osd.4");
    assert_eq!(office.desk.renew(&first, &request).unwrap().generation, first.generation);
    let second = join(&mut office);

    let mut list = Revocations::default();
    list.revoke_name(second.name.clone(), office.desk.least_generation(&second.name).unwrap());
    assert!(list.judge(&first).is_err());
    assert!(list.judge(&second).is_ok());
    assert_eq!(office.desk.renew(&first, &request).unwrap_err(), JoinError::Unknown(first.name.clone()));
    let (other, _) = office.request("osd.5");
    assert!(matches!(office.desk.renew(&second, &other), Err(JoinError::NotYours { .. })));

    let change = office.desk.set_caps(&second.name, "osd r".parse().unwrap(), false).unwrap();
    let _void = office.desk.apply(&change);
    assert_eq!(office.desk.renew(&second, &request).unwrap().caps.to_string(), "osd r");
    let change = office.desk.revoke(&second.name, "client.admin".parse().unwrap(), "stolen", NOW).unwrap();
    let void = office.desk.apply(&change);
    assert_eq!(void.iter().map(|held| held.serial.clone()).collect::<Vec<_>>(), [second.serial.0.to_vec()]);
    assert!(office.desk.renew(&second, &request).is_err());
    assert!(office.desk.revoke(&second.name, second.name.clone(), "", NOW).is_err(), "once is enough");

    let third = join(&mut office);
    assert_eq!(office.desk.members[&third.name].gone, None);
    assert_eq!(third.generation, second.generation + 2);
}

#[test]
fn every_certificate_that_lives_is_known_and_void_ones_are_named() {
    let mut office = Office::new();
    let join = |office: &mut Office| {
        let token = office.token(Whom::Name("osd.4".parse().unwrap()), "osd *");
        let (request, _) = office.request("osd.4");
        let Answer::Sign(to_sign) = office.desk.redeem(&token, request, NOW).unwrap() else { panic!("granted") };
        Identity::from_der(&office.sign(*to_sign)).unwrap()
    };
    let renew = |office: &mut Office, who: &Identity, now: UnixTime| {
        let (request, _) = office.request("osd.4");
        let grant = office.desk.renew(who, &request).unwrap();
        let certificate = office.authority.sign(&request, &grant, now, DAY).unwrap();
        let issued = Issued::of(certificate.clone(), request.fingerprint(), now).unwrap();
        let change =
            Change::Renewed { name: who.name.clone(), generation: grant.generation, issued, trusts: Vec::new() };
        assert_eq!(office.desk.apply(&change), []);
        Identity::from_der(&certificate).unwrap()
    };
    let serials = |held: &[Held]| held.iter().map(|held| held.serial.clone()).collect::<Vec<_>>();
    let first = join(&mut office);
    let second = renew(&mut office, &first, NOW);
    let held = |office: &Office| serials(&office.desk.members[&first.name].held);
    assert_eq!(held(&office), [first.serial.0.to_vec(), second.serial.0.to_vec()]);
    let later = NOW.after(DAY * 2);
    let third = renew(&mut office, &second, later);
    assert_eq!(held(&office), [third.serial.0.to_vec()], "what has ended is forgotten");

    // A renewal that was signed before the name was granted anew comes too late.
    let (request, _) = office.request("osd.4");
    let grant = office.desk.renew(&third, &request).unwrap();
    let certificate = office.authority.sign(&request, &grant, later, DAY).unwrap();
    let token = office.token(Whom::Name("osd.4".parse().unwrap()), "osd *");
    let (anew, _) = office.request("osd.4");
    let Answer::Sign(to_sign) = office.desk.redeem(&token, anew, NOW).unwrap() else { panic!("granted") };
    let fresh = office.authority.sign(&to_sign.request, &to_sign.grant, NOW, DAY).unwrap();
    let void = office.desk.apply(&to_sign.signed(fresh.clone(), NOW).unwrap());
    assert_eq!(serials(&void), [third.serial.0.to_vec()]);
    let issued = Issued::of(certificate, request.fingerprint(), later).unwrap();
    let late = Change::Renewed { name: third.name.clone(), generation: grant.generation, issued, trusts: Vec::new() };
    assert_eq!(office.desk.apply(&late), []);
    assert_eq!(held(&office), [Identity::from_der(&fresh).unwrap().serial.0.to_vec()]);
}

#[test]
fn changes_survive_storage_and_a_second_application() {
    let mut office = Office::new();
    let token = office.token(osd(), "osd *");
    let (request, _) = office.request("osd.4");
    let Answer::Sign(to_sign) = office.desk.redeem(&token, request, NOW).unwrap() else { panic!("granted") };
    let certificate = office.authority.sign(&to_sign.request, &to_sign.grant, NOW, DAY).unwrap();
    let change = to_sign.signed(certificate, NOW).unwrap();
    let stored: Change = serde_json::from_str(&serde_json::to_string(&change).unwrap()).unwrap();
    assert_eq!(stored, change);
    let _void = office.desk.apply(&change);
    let once = office.desk.clone();
    let _void = office.desk.apply(&change);
    assert_eq!(office.desk, once);
}
