//! What becomes of rows of recordings.

use super::super::tests::{at, database};
use super::*;

const BOTH: Muted = Muted { caller: true, called: true };
const CALLER: Muted = Muted { caller: true, called: false };
const NOBODY: Muted = Muted { caller: false, called: false };

fn id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn call(number: u32, caller: &str, called: &str, second: i64) -> NewRecording {
    NewRecording {
        id: id(number),
        caller: Party { address: caller.to_owned(), name: Some("Anna".to_owned()), ip: None },
        called: Party { address: called.to_owned(), ..Party::default() },
        started_at: at(second),
        on_demand: false,
        conference: false,
        secondary: false,
        do_not_delete: false,
        details: Details { signaling_id: Some(2), ..Details::default() },
    }
}

#[test]
fn numbers_are_compared_without_their_dress() {
    for (given, expected) in [
        ("+49 (30) 111-222", "+4930111222"),
        ("sip:8856@pbx.example", "8856"),
        ("SIPS:8856@pbx.example;user=phone", "8856"),
        (" 8856 ", "8856"),
        ("anna", "anna"),
        ("ß", "ß"),
        ("", ""),
    ] {
        assert_eq!(comparable(given), expected);
    }
}

#[test]
fn a_recording_begins_is_muted_and_ends() {
    let (_dir, mut connection) = database();
    let new = NewRecording {
        called: Party { address: "sip:8856@pbx".into(), name: Some("Berta".into()), ip: Some("192.0.2.1".into()) },
        conference: true,
        details: Details {
            native_id: Some("n".into()),
            platform_call_id: Some("p".into()),
            meeting_id: Some("m".into()),
            location: Some("Berlin".into()),
            recorded_party: Some("8856".into()),
            audio_codec_id: Some(4),
            direction_id: Some(1),
            cause_id: Some(0),
            signaling_id: Some(2),
        },
        ..call(1, "+49 30 1", "", 10)
    };
    begin(&connection, &new).unwrap();
    assert!(matches!(begin(&connection, &new), Err(StoreError::Exists { what: "recording", .. })));
    let found = find(&connection, &id(1).to_uppercase()).unwrap().unwrap();
    assert_eq!((&found.call, found.state, found.end), (&new, State::Ongoing, None));
    for foreign in [ForeignId::Native("n"), ForeignId::PlatformCall("p"), ForeignId::Meeting("m")] {
        assert_eq!(find_foreign(&connection, foreign).unwrap().len(), 1, "{foreign:?}");
    }
    add_file(&connection, &id(1), "a.wav").unwrap();
    add_file(&connection, &id(1), "b.wav").unwrap();
    assert_eq!(files(&connection, &id(1)).unwrap(), ["a.wav", "b.wav"]);
    let gap = Gap { began_at: at(11), ended_at: at(12), reason: "queue full".to_owned() };
    add_gap(&connection, &id(1), &gap).unwrap();
    assert_eq!(gaps(&connection, &id(1)).unwrap(), std::slice::from_ref(&gap));
    // The value is the whole new state; setting it again changes nothing.
    assert_eq!(set_muted(&mut connection, &id(1), BOTH, "crm", at(20)).unwrap(), BOTH);
    set_muted(&mut connection, &id(1), BOTH, "other", at(21)).unwrap();
    set_muted(&mut connection, &id(1), CALLER, "other", at(22)).unwrap();
    assert_eq!(find(&connection, &id(1)).unwrap().unwrap().muted, CALLER);
    assert_eq!(finish(&mut connection, &id(1), EndReason::Completed, at(30)).unwrap(), State::Finished);
    assert_eq!(finish(&mut connection, &id(1), EndReason::Failed, at(40)).unwrap(), State::Finished);
    let ended = find(&connection, &id(1)).unwrap().unwrap();
    assert_eq!(ended.end, Some((at(30), EndReason::Completed)));
    assert_eq!(ended.muted, CALLER, "as it was at its end");
    let span = |side, ended| MutedSpan { side, began_at: at(20), ended_at: Some(at(ended)), by: "crm".to_owned() };
    let spans = muted_spans(&connection, &id(1)).unwrap();
    assert_eq!(spans, [span(Side::Caller, 30), span(Side::Called, 22)]);
    let late = set_muted(&mut connection, &id(1), NOBODY, "crm", at(31)).unwrap_err();
    assert_eq!(late.to_string(), "the recording has ended");
    for result in [
        add_file(&connection, &id(9), "x").unwrap_err(),
        add_gap(&connection, &id(9), &gap).unwrap_err(),
        set_muted(&mut connection, &id(9), BOTH, "x", at(1)).unwrap_err(),
        finish(&mut connection, &id(9), EndReason::Completed, at(1)).unwrap_err(),
        set_manual(&mut connection, &id(9), true).unwrap_err(),
    ] {
        assert!(matches!(result, StoreError::NotFound { what: "recording", .. }), "{result}");
    }
}

#[test]
fn calls_are_found_by_number_and_state() {
    let (_dir, mut connection) = database();
    begin(&connection, &call(1, "8856", "100", 1)).unwrap();
    begin(&connection, &call(2, "200", "sip:8856@x", 2)).unwrap();
    begin(&connection, &NewRecording { secondary: true, ..call(3, "8856", "100", 3) }).unwrap();
    let ids = |found: Vec<Recording>| found.into_iter().map(|found| found.call.id).collect::<Vec<_>>();
    assert_eq!(ids(ongoing(&connection, "88-56").unwrap()), [id(1), id(2)]);
    assert_eq!(ids(ongoing(&connection, "100").unwrap()), [id(1)]);
    assert_eq!(last(&connection, "8856").unwrap(), None);
    finish(&mut connection, &id(2), EndReason::Completed, at(5)).unwrap();
    finish(&mut connection, &id(1), EndReason::Completed, at(6)).unwrap();
    assert_eq!(last(&connection, "8856").unwrap().unwrap().call.id, id(1), "the one that ended last");
    assert_eq!(last(&connection, "200").unwrap().unwrap().call.id, id(2));
    assert_eq!(ids(ongoing(&connection, "8856").unwrap()), [""; 0]);
}

#[test]
fn searches_narrow_down() {
    let (_dir, mut connection) = database();
    for number in 1..=5 {
        let called = Party { address: format!("70{number}"), name: Some("Berta %".into()), ip: None };
        let new = NewRecording { called, ..call(number, "+49 30 1", "", i64::from(number)) };
        begin(&connection, &NewRecording { secondary: number == 5, ..new }).unwrap();
    }
    finish(&mut connection, &id(1), EndReason::Completed, at(9)).unwrap();
    let all = Search {
        state: State::Ongoing,
        from: at(0),
        until: at(100),
        numbers: vec![],
        names: vec![],
        secondary: false,
        limit: 100,
    };
    let mut found = |change: fn(&mut Search)| {
        let mut wanted = all.clone();
        change(&mut wanted);
        let found = search(&mut connection, &wanted).unwrap();
        found.into_iter().map(|found| found.call.id).collect::<Vec<_>>()
    };
    assert_eq!(found(|_| {}), [id(2), id(3), id(4)]);
    assert_eq!(found(|search| search.secondary = true), [id(2), id(3), id(4), id(5)]);
    assert_eq!(found(|search| search.state = State::Finished), [id(1)]);
    assert_eq!(found(|search| search.from = at(3)), [id(3), id(4)]);
    assert_eq!(found(|search| search.until = at(3)), [id(2), id(3)]);
    assert_eq!(found(|search| search.limit = 1), [id(4)]);
    assert_eq!(found(|search| search.numbers = vec!["7-03".into(), "704".into()]), [id(3), id(4)]);
    assert_eq!(found(|search| search.names = vec!["ANNA".into()]).len(), 3);
    assert_eq!(found(|search| search.names = vec!["b_rta".into()]), [""; 0], "no wildcards");
    assert_eq!(found(|search| search.names = vec!["%".into()]).len(), 3, "a letter like any other");
    assert_eq!(found(|search| search.numbers = vec!["'; DROP TABLE users".into()]), [""; 0]);
}

#[test]
fn a_search_that_takes_too_long_is_ended_and_nothing_else_is() {
    let (_dir, mut connection) = database();
    connection.execute_batch("BEGIN").unwrap();
    for number in 0..2000 {
        begin(&connection, &call(number, "8856", "100", i64::from(number))).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
    let wanted = Search {
        state: State::Ongoing,
        from: at(0),
        until: at(10_000),
        numbers: vec!["77".to_owned(); 32],
        names: vec![],
        secondary: false,
        limit: 1000,
    };
    let refused = search_within(&mut connection, &wanted, Duration::ZERO).unwrap_err();
    assert!(matches!(&refused, StoreError::Refused { rule } if rule.contains("narrow")), "{refused}");
    let all = "SELECT * FROM recordings WHERE instr(caller_number, '8')";
    assert_eq!(super::super::all(&connection, all, [], read).unwrap().len(), 2000);
    assert_eq!(search_within(&mut connection, &wanted, Duration::MAX).unwrap(), []);
}

#[test]
fn on_demand_recordings_stay_only_if_kept() {
    let (_dir, mut connection) = database();
    for number in 1..=3 {
        begin(&connection, &NewRecording { on_demand: true, ..call(number, "1", "2", 1) }).unwrap();
        add_file(&connection, &id(number), &format!("{number}.wav")).unwrap();
    }
    assert_eq!(set_kept(&mut connection, &id(1), true).unwrap(), State::Ongoing);
    set_kept(&mut connection, &id(2), true).unwrap();
    set_kept(&mut connection, &id(2), false).unwrap();
    let finish =
        |connection: &mut Connection, number| finish(connection, &id(number), EndReason::Completed, at(5)).unwrap();
    assert_eq!(finish(&mut connection, 1), State::Finished);
    assert_eq!(finish(&mut connection, 2), State::Discarded);
    assert_eq!(finish(&mut connection, 3), State::Discarded);
    assert_eq!(find(&connection, &id(2)).unwrap(), None);
    let waste = discarded(&connection, 10).unwrap();
    assert_eq!(waste, [(id(2), vec!["2.wav".to_owned()]), (id(3), vec!["3.wav".to_owned()])]);
    forget(&connection, &id(2)).unwrap();
    assert!(matches!(forget(&connection, &id(2)), Err(StoreError::NotFound { .. })));
    assert!(matches!(forget(&connection, &id(1)), Err(StoreError::NotFound { .. })), "it is not discarded");
    assert_eq!(files(&connection, &id(2)).unwrap(), [""; 0], "they go with it");
    // Not kept any more, after its end: deleted.
    assert_eq!(set_kept(&mut connection, &id(1), false).unwrap(), State::Discarded);
    assert!(matches!(set_kept(&mut connection, &id(1), true), Err(StoreError::NotFound { .. })));
}

#[test]
fn deleting_waits_for_the_end_and_respects_protection() {
    let (_dir, mut connection) = database();
    begin(&connection, &call(1, "1", "2", 1)).unwrap();
    begin(&connection, &NewRecording { do_not_delete: true, on_demand: true, ..call(2, "1", "2", 1) }).unwrap();
    assert_eq!(discard(&mut connection, &id(1)).unwrap(), State::Ongoing);
    assert_eq!(discard(&mut connection, &id(1)).unwrap(), State::Ongoing);
    assert!(find(&connection, &id(1)).unwrap().unwrap().delete_at_end);
    assert!(matches!(discard(&mut connection, &id(2)), Err(StoreError::Refused { .. })));
    assert_eq!(finish(&mut connection, &id(1), EndReason::Failed, at(2)).unwrap(), State::Discarded);
    assert_eq!(finish(&mut connection, &id(2), EndReason::Completed, at(2)).unwrap(), State::Finished);
    assert!(matches!(discard(&mut connection, &id(1)), Err(StoreError::NotFound { .. })));
    // An unmark that is refused leaves the mark.
    set_kept(&mut connection, &id(2), true).unwrap();
    assert!(matches!(set_kept(&mut connection, &id(2), false), Err(StoreError::Refused { .. })));
    assert!(find(&connection, &id(2)).unwrap().unwrap().kept);
    set_manual(&mut connection, &id(2), true).unwrap();
    assert!(find(&connection, &id(2)).unwrap().unwrap().manual);
}

#[test]
fn what_a_server_left_ongoing_is_interrupted() {
    let (_dir, mut connection) = database();
    begin(&connection, &call(1, "1", "2", 50)).unwrap();
    set_muted(&mut connection, &id(1), CALLER, "crm", at(51)).unwrap();
    begin(&connection, &NewRecording { on_demand: true, ..call(2, "1", "2", 1) }).unwrap();
    assert_eq!(finish_interrupted(&mut connection, at(40)).unwrap(), 2);
    assert_eq!(finish_interrupted(&mut connection, at(40)).unwrap(), 0);
    let left = find(&connection, &id(1)).unwrap().unwrap();
    assert_eq!(left.end, Some((at(50), EndReason::Interrupted)), "not before it began");
    assert_eq!(muted_spans(&connection, &id(1)).unwrap()[0].ended_at, Some(at(51)));
    assert_eq!(find(&connection, &id(2)).unwrap(), None);
}
