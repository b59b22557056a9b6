//! Any bytes as a certificate, a signing request, a request to the admin socket or to the metrics page; any text as a
//! name, capabilities, an address, a token, a setting: read or refused, and what was read prints as it reads.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nacre_net::daemon::admin::Verbs;
use nacre_net::daemon::config::{Size, Value};
use nacre_net::daemon::http;
use nacre_net::identity::authority::SigningRequest;
use nacre_net::identity::join::Token;
use nacre_net::identity::{Caps, ClusterId, Identity, Name};
use nacre_net::node::Address;

fn reads_as_it_prints<T: std::str::FromStr + std::fmt::Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value));
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((what, input)) = input.split_first() else { return };
    match what % 12 {
        0 => drop(Identity::from_der(input)),
        1 => drop(SigningRequest::read(input)),
        2 => drop(http::asked(input)),
        3 => {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let verbs = Verbs::default();
            verbs.add("echo", "what was said", |args| async { Ok(args) });
            let answer = runtime.block_on(verbs.answer(input));
            assert!(serde_json::to_vec(&answer).is_ok());
        }
        other => {
            let Ok(text) = std::str::from_utf8(input) else { return };
            match other {
                4 => reads_as_it_prints::<Name>(text),
                5 | 6 => reads_as_it_prints::<Caps>(text),
                7 => reads_as_it_prints::<ClusterId>(text),
                8 => reads_as_it_prints::<Address>(text),
                9 => {
                    if let Ok(token) = text.parse::<Token>() {
                        assert_eq!(*token.reveal(), text.trim().to_ascii_lowercase());
                    }
                }
                10 => {
                    if let Ok(time) = <Duration as Value>::parse(text) {
                        assert_eq!(<Duration as Value>::parse(&time.print()), Ok(time));
                    }
                }
                _ => {
                    if let Ok(size) = Size::parse(text) {
                        assert_eq!(Size::parse(&size.print()), Ok(size));
                    }
                }
            }
        }
    }
});
