use super::*;

const HOUR: i64 = 3_600;

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + hours * HOUR).unwrap()
}

fn settings() -> Settings {
    Settings {
        hosts: vec!["coral-webhook.coral-system.svc".to_owned()],
        authority_validity: SignedDuration::from_hours(900),
        certificate_validity: SignedDuration::from_hours(90),
        overlap: SignedDuration::from_hours(2),
    }
}

fn dated(from: i64, to: i64) -> Dated {
    Dated {
        pair: Pair {
            certificate: String::new(),
            key: String::new(),
        },
        validity: Validity {
            not_before: at(from),
            not_after: at(to),
        },
    }
}

fn stored(authority: (i64, i64), serving: (i64, i64)) -> Stored {
    Stored {
        authority: Some(dated(authority.0, authority.1)),
        serving: Some(Serving {
            dated: dated(serving.0, serving.1),
            is_right: true,
        }),
        ..Stored::default()
    }
}

fn with_next(stored: Stored, published: Option<i64>) -> Stored {
    let next = Next {
        dated: dated(600, 1_500),
        published: published.map(at),
    };
    Stored {
        next: Some(next),
        ..stored
    }
}

fn with_previous(stored: Stored, since: i64) -> Stored {
    let previous = Previous {
        certificate: String::new(),
        since: at(since),
    };
    Stored {
        previous: Some(previous),
        ..stored
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn steps_follow_one_another() {
    let wrong = Stored {
        serving: Some(Serving {
            dated: dated(0, 90),
            is_right: false,
        }),
        ..stored((0, 900), (0, 90))
    };
    let bare = Stored {
        serving: None,
        ..stored((0, 900), (0, 90))
    };
    let lost = Stored {
        authority: None,
        ..stored((0, 900), (0, 90))
    };
    let old = || stored((0, 900), (590, 680));
    for (name, stored, is_published, now, expected) in [
        ("nothing is there", Stored::default(), false, 0, Step::MakeAll),
        ("no certificate", bare, true, 1, Step::Issue),
        ("a certificate for other names", wrong, true, 1, Step::Issue),
        ("the authority was lost", lost.clone(), true, 1, Step::MakeAll),
        (
            "the authority was lost, the next is there",
            with_next(lost, None),
            true,
            601,
            Step::Promote,
        ),
        ("all is new", stored((0, 900), (0, 90)), true, 1, Step::Wait(at(60))),
        (
            "just before renewal",
            stored((0, 900), (0, 90)),
            true,
            59,
            Step::Wait(at(60)),
        ),
        ("renewal", stored((0, 900), (0, 90)), true, 60, Step::Issue),
        (
            "the caBundle does not matter for it",
            stored((0, 900), (0, 90)),
            false,
            60,
            Step::Issue,
        ),
        ("expired", stored((0, 900), (0, 90)), true, 91, Step::Issue),
        ("not valid yet", stored((5, 900), (0, 90)), true, 1, Step::MakeAll),
        ("the authority is old", old(), true, 600, Step::PrepareNext),
        (
            "the authority expired",
            stored((0, 900), (890, 900)),
            true,
            900,
            Step::MakeAll,
        ),
        (
            "nobody knows the next one yet",
            with_next(old(), None),
            false,
            601,
            Step::Wait(at(650)),
        ),
        (
            "everybody is told",
            with_next(old(), None),
            true,
            601,
            Step::NotePublished,
        ),
        (
            "some may not have read it",
            with_next(old(), Some(601)),
            true,
            602,
            Step::Wait(at(603)),
        ),
        ("all have", with_next(old(), Some(601)), true, 603, Step::Promote),
        (
            "somebody took it out again",
            with_next(old(), Some(601)),
            false,
            603,
            Step::Wait(at(650)),
        ),
        (
            "the old one may be in use",
            with_previous(stored((600, 1_500), (603, 693)), 603),
            true,
            604,
            Step::Wait(at(605)),
        ),
        (
            "it is not",
            with_previous(stored((600, 1_500), (603, 693)), 603),
            true,
            605,
            Step::DropPrevious,
        ),
        (
            "one roll-over at a time",
            with_previous(old(), 600),
            true,
            601,
            Step::Wait(at(602)),
        ),
        (
            "a certificate that ends with its authority waits for the next one",
            with_next(stored((0, 900), (850, 900)), None),
            false,
            890,
            Step::Wait(at(900)),
        ),
        (
            "an authority that should not last so long",
            stored((0, 9_000), (0, 90)),
            true,
            1,
            Step::PrepareNext,
        ),
        (
            "a certificate that should not last so long",
            stored((0, 900), (0, 400)),
            true,
            1,
            Step::Issue,
        ),
        (
            "an authority that ends within the overlap",
            with_next(stored((0, 603), (590, 603)), Some(601)),
            true,
            601,
            Step::Wait(at(602)),
        ),
        (
            "half of what was left is over",
            with_next(stored((0, 603), (590, 603)), Some(601)),
            true,
            602,
            Step::Promote,
        ),
    ] {
        assert_eq!(
            next_step(&stored, &settings(), is_published, at(now)),
            expected,
            "{name}"
        );
    }
}

#[test]
fn no_certificate_outlives_its_authority() {
    let authority = dated(0, 900).validity;
    assert_eq!(certificate_end(&authority, &settings(), at(100)), at(190));
    assert_eq!(certificate_end(&authority, &settings(), at(850)), at(900));
}
