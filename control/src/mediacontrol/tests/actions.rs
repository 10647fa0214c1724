//! Every family of actions.

use super::*;

#[test]
fn reserve_and_complete() {
    run(async |rig| {
        let reserved = rig.ok("ReserveConnection", json!({"MediaTxCodec": "G729"})).await;
        assert_eq!((&reserved["MmsId"], &reserved["ResultCode"]), (&json!(1), &json!("0")));
        assert_eq!((&reserved["MediaRxIP"], &reserved["MediaRxPort"]), (&json!("198.51.100.1"), &json!(30000)));
        assert_eq!(reserved["LocalMediaCaps"], json!({"G711u": [10, 20, 30], "G711a": [10, 20, 30]}));
        let create = rig.fake.last("connection.create");
        assert_eq!(
            (&create["reserve_ms"], &create["rx_codec"], &create["digits"]),
            (&json!(300_000), &json!("G729"), &json!("auto"))
        );
        let id = text(&reserved, "ConnectionId");
        assert_eq!(
            rig.code("ModifyConnection", json!({"ConnectionId": id, "MediaTxIP": "192.0.2.1", "MediaTxPort": 1})).await,
            16
        );
        assert_eq!(rig.code("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await, 16);
        assert_eq!(rig.code("SendDigits", json!({"ConnectionId": id, "Digits": "1"})).await, 16);
        let tx = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.1", "MediaTxPort": 4000, "CallId": 77});
        let complete = rig.ok("CreateConnection", tx.clone()).await;
        assert_eq!((&complete["ConnectionId"], &complete["CallId"]), (&json!(id), &json!(77)));
        let modify = rig.fake.last("connection.modify");
        assert_eq!((&modify["remote"], &modify["tx_codec"]), (&json!("192.0.2.1:4000"), &Value::Null));
        assert_eq!(rig.code("CreateConnection", tx).await, 15);
    });
}

#[test]
fn an_expired_reservation_is_12_and_then_23() {
    run(async |rig| {
        let id = rig.reserved().await;
        rig.fake.tell(EventKind::ConnectionEnded, &json!({"connection_id": "c-1", "reason": "expired"}));
        let tx = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.1", "MediaTxPort": 4000});
        assert_eq!(rig.code("CreateConnection", tx.clone()).await, 12);
        advance(Duration::from_secs(61)).await;
        assert_eq!(rig.code("CreateConnection", tx).await, 23);
    });
}

#[test]
fn parameters_are_checked_before_ids() {
    run(async |rig| {
        for (action, params, code) in [
            ("CreateConnection", json!({"MediaTxPort": 4000}), 26),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1"}), 26),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 0}), 27),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.999", "MediaTxPort": 1, "ConnectionId": "x"}), 27),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "MmsId": 256}), 27),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "MmsId": 9}), 8),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "ConnectionId": "x"}), 22),
            ("CreateConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "ConnectionId": "16777999"}), 23),
            (
                "CreateConnection",
                json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "MediaTxCodec": "G729", "MediaTxFramesize": 10}),
                27,
            ),
            ("ReserveConnection", json!({"MmsId": "one"}), 27),
            ("ModifyConnection", json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 1}), 26),
            ("ModifyConnection", json!({"ConnectionId": "33554433", "MediaTxIP": "192.0.2.1", "MediaTxPort": 1}), 8),
            ("DeleteConnection", json!({}), 26),
            ("DeleteConnection", json!({"ConnectionId": "0"}), 26),
            ("DeleteConnection", json!({"ConnectionId": "-"}), 22),
            ("DeleteConnection", json!({"ConferenceId": "16777999"}), 24),
            ("LeaveConference", json!({"ConnectionId": "16777217"}), 26),
            ("CreateConference", json!({}), 26),
            ("JoinConference", json!({"ConnectionId": "16777217"}), 26),
            ("JoinConference", json!({"ConnectionId": "16777217", "ConferenceId": "33554433"}), 26),
            ("JoinConference", json!({"ConferenceId": "16777217"}), 26),
            ("CreateConference", json!({"ConnectionId": "16777217", "MediaTxPort": 0}), 26),
            ("JoinConference", json!({"ConnectionId": "16777217", "ConferenceId": "16777218", "MediaTxPort": 0}), 15),
            ("SetConfereeAttribute", json!({"ConnectionId": "1", "ConferenceId": "1"}), 26),
            ("SetConfereeAttribute", json!({"ConnectionId": "1", "Mute": true}), 26),
            ("Mute", json!({"ConnectionId": "1"}), 26),
            ("Play", json!({"Prompt1": "a"}), 26),
            ("Play", json!({"ConnectionId": "1"}), 26),
            ("Play", json!({"ConnectionId": "1", "ConferenceId": "1", "Prompt1": "a"}), 26),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a", "Volume": 1, "Speed": 1}), 26),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a", "Volume": 11}), 27),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a", "AudioFileSampleRate": 7}), 27),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a", "TermCondMaxDigits": 32}), 36),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a", "TermCondDigit": "x"}), 36),
            ("Play", json!({"ConnectionId": "1", "Prompt1": "a"}), 23),
            ("SeekAndPlay", json!({"ConnectionId": "1", "Prompt1": "a"}), 26),
            ("PlayTone", json!({"ConnectionId": "1", "Frequency1": 199}), 27),
            ("PlayTone", json!({"ConnectionId": "1", "Amplitude1": 1}), 27),
            ("PlayTone", json!({"ConnectionId": "1", "Duration": 0}), 26),
            ("Record", json!({"ConnectionId": "1", "Expires": 10_000}), 27),
            ("Record", json!({"ConnectionId": "1", "AudioFileFormat": "mp3"}), 27),
            ("GatherDigits", json!({}), 26),
            ("GatherDigits", json!({"ConnectionId": "1", "ConferenceId": "1"}), 26),
            ("GatherDigits", json!({"ConnectionId": "1", "TermCondDigitPattern": "1234567890123456"}), 36),
            ("SendDigits", json!({"ConnectionId": "1"}), 26),
            ("SendDigits", json!({"ConnectionId": "1", "Digits": "1x"}), 27),
            ("DetectSilence", json!({"ConnectionId": "1", "SilenceTime": 0}), 26),
            ("DetectNonSilence", json!({"ConnectionId": "1", "SilenceTime": 5}), 26),
            ("AdjustPlay", json!({"ConnectionId": "1"}), 26),
            ("AdjustPlay", json!({"ConnectionId": "1", "Volume": 1, "Speed": 1}), 26),
            ("AdjustPlay", json!({"ConnectionId": "1", "Volume": 11}), 27),
            ("AdjustPlay", json!({"ConnectionId": "1", "AdjustmentType": "toggle", "ToggleType": 5}), 27),
            ("StopMediaOperation", json!({"OperationId": "1"}), 26),
            ("StopMediaOperation", json!({"ConnectionId": "1", "Block": "maybe"}), 27),
            ("VoiceRecognition", json!({"ConnectionId": "1"}), 26),
            ("ManageGrammar", json!({"ConnectionId": "1", "Grammar": "a"}), 26),
            ("SaveDynamicGrammar", json!({"DynGrammar": "x"}), 26),
            ("SaveDynamicGrammar", json!({"DynGrammar": "x", "IsScriptBound": true}), 8),
            ("NoSuchAction", json!({}), 21),
            ("Play", json!({"ConnectionId": "1", "connectionid": "1", "Prompt1": "a"}), 26),
        ] {
            assert_eq!(rig.code(action, params.clone()).await, code, "{action} {params}");
        }
        assert!(rig.fake.calls.borrow().is_empty(), "nothing of this goes to the engine");
        let id = rig.connection().await;
        assert_eq!(rig.code("VoiceRecognition", json!({"ConnectionId": id, "Grammar1": "a"})).await, 8);
        let params = json!({"ConnectionId": id, "Action": "load", "Grammars": ["a"]});
        assert_eq!(rig.code("ManageGrammar", params).await, 8);
    });
}

#[test]
fn modify_says_when_nothing_is_different() {
    run(async |rig| {
        let id = rig.connection().await;
        let same = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.1", "MediaTxPort": "4000"});
        let response = rig.ok("ModifyConnection", same).await;
        assert_eq!((&response["ReasonCode"], &response["ResultCode"]), (&json!("17"), &json!("0")));
        assert_eq!(rig.fake.count("connection.modify"), 0);
        let other = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.2", "MediaTxPort": "4000"});
        let response = rig.ok("ModifyConnection", other.clone()).await;
        assert!(!response.contains_key("ReasonCode"));
        let full = RpcError::new(ErrorKind::LimitReached, "full").with("resource", "enhanced_rtp").with("reason", 7);
        rig.fake.refuse("connection.modify", full);
        let low = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.2", "MediaTxPort": 4000, "MediaTxCodec": "G729"});
        let response = rig.call("ModifyConnection", low).await;
        assert_eq!((response.code(), &response.results["ReasonCode"]), (Some(8), &json!("7")));
    });
}

#[test]
fn the_older_namespace_has_other_names_for_the_same() {
    run(async |rig| {
        let call = |name: &str| format!("Metreos.Providers.MediaServer.{name}");
        let code = async |name: &str, params: Value| {
            rig.call(&call(name), params).await.results["resultCode"].as_str().map(str::to_owned)
        };
        let half = rig.call(&call("CreateConnection"), json!({"remoteIp": "0", "remotePort": 0})).await;
        assert_eq!(half.results["resultCode"], "0", "{half:?}");
        let id = half.results["connectionId"].as_str().expect("an id").to_owned();
        assert!(half.results.contains_key("ipAddress") && half.results.contains_key("port"), "{half:?}");
        let full = json!({"connectionId": id, "remoteIp": "192.0.2.1", "remotePort": "4000"});
        assert_eq!(code("CreateConnection", full).await.as_deref(), Some("0"), "completed");
        let moved = json!({"connectionId": id, "remoteIp": "192.0.2.2", "remotePort": "4000"});
        assert_eq!(code("CreateConnection", moved).await.as_deref(), Some("0"), "changed");
        assert_eq!(rig.fake.count("connection.modify"), 2);
        let room = json!({"conferenceId": 0, "connectionId": id});
        let room = rig.call(&call("CreateConnectionConference"), room).await;
        let conference = room.results["conferenceId"].as_str().expect("an id").to_owned();
        let both = json!({"connectionId": id, "conferenceId": conference, "filename": "a.wav"});
        let played = rig.call(&call("PlayAnnouncement"), both.clone()).await;
        assert_eq!(
            (&played.results["resultCode"], &played.results["connectionId"]),
            (&json!("1"), &json!(id)),
            "{played:?}"
        );
        drop(played);
        assert_eq!(code("MuteConferenceConnection", both.clone()).await.as_deref(), Some("0"));
        assert_eq!(code("StopMediaOperation", json!({"connectionId": id})).await.as_deref(), Some("0"));
        assert_eq!(code("JoinConference", both).await.as_deref(), Some("21"), "not of that namespace");
        assert_eq!(code("DeleteConnection", json!({"connectionId": id})).await.as_deref(), Some("0"));
    });
}

#[test]
fn delete_has_three_forms() {
    run(async |rig| {
        let (one, other) = (rig.connection().await, rig.connection().await);
        let conference = rig.conference(&one).await;
        rig.ok("JoinConference", json!({"ConnectionId": other, "ConferenceId": conference})).await;
        let leave = json!({"ConnectionId": one, "ConferenceId": conference});
        assert_eq!(
            rig.ok("DeleteConnection", leave.clone()).await,
            json!({"ResultCode": "0"}).as_object().expect("one").clone()
        );
        assert_eq!(rig.code("LeaveConference", leave).await, 24);
        rig.ok("LeaveConference", json!({"ConnectionId": other, "ConferenceId": conference})).await;
        // The last one out has ended it.
        assert_eq!(rig.code("DeleteConnection", json!({"ConferenceId": conference})).await, 24);
        rig.ok("DeleteConnection", json!({"ConnectionId": one})).await;
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": one})).await, 23);
        let conference = rig.conference(&other).await;
        rig.ok("DeleteConnection", json!({"ConferenceId": conference})).await;
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": other})).await, 23);
        assert!(rig.fake.connections.borrow().is_empty());
    });
}

#[test]
fn a_delete_waits_for_what_is_unanswered_and_ends_operations() {
    run(async |rig| {
        let id = rig.connection().await;
        let gate = rig.fake.hold("operation.start");
        let mc = Rc::clone(&rig.mc);
        let play = request("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"}));
        let play = spawn_local(async move { mc.call(play).await });
        settle().await;
        let (mc, delete) = (Rc::clone(&rig.mc), request("DeleteConnection", json!({"ConnectionId": id})));
        let delete = spawn_local(async move { mc.call(delete).await });
        settle().await;
        assert_eq!(rig.fake.count("connection.delete"), 0);
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": id})).await, 14);
        assert_eq!(rig.code("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await, 14);
        gate.open();
        assert_eq!(play.await.expect("no panic").code(), Some(1));
        assert_eq!(delete.await.expect("no panic").code(), Some(0));
        let events = rig.events();
        assert_eq!((events[0].0.as_str(), &events[0].1["TerminationCondition"]), ("Play_Complete", &json!("autostop")));
        assert_eq!(rig.code("DeleteConnection", json!({"ConnectionId": id})).await, 23);
    });
}

#[test]
fn conferences_are_made_and_joined() {
    run(async |rig| {
        let id = rig.connection().await;
        let made = rig.ok("CreateConference", json!({"ConnectionId": id, "Hairpin": "false", "CallId": "5"})).await;
        assert_eq!(
            (&made["ConnectionId"], &made["CallId"], &made["MediaRxPort"]),
            (&json!(id), &json!("5"), &json!(30000))
        );
        let create = rig.fake.last("conference.create");
        assert_eq!(create, json!({"hairpin": false, "tones": true, "shard": 0}));
        assert_eq!(rig.code("CreateConference", json!({"ConnectionId": id})).await, 15);
        let conference = text(&made, "ConferenceId");
        // One is completed on the way, one is made on the way, one is only reserved.
        let reserved = rig.reserved().await;
        assert_eq!(rig.code("JoinConference", json!({"ConnectionId": reserved, "ConferenceId": conference})).await, 16);
        let tx = json!({"ConnectionId": reserved, "ConferenceId": conference, "MediaTxIP": "192.0.2.1", "MediaTxPort": 1, "ReceiveOnly": true});
        rig.ok("JoinConference", tx).await;
        assert_eq!(rig.fake.last("conference.join")["muted"], true);
        let fresh = rig
            .ok("JoinConference", json!({"ConferenceId": conference, "MediaTxIP": "192.0.2.1", "MediaTxPort": 7}))
            .await;
        assert_ne!(text(&fresh, "ConnectionId"), reserved);
        // Busy with an operation.
        let busy = rig.connection().await;
        rig.ok("Play", json!({"ConnectionId": busy, "Prompt1": "a.wav"})).await;
        assert_eq!(rig.code("JoinConference", json!({"ConnectionId": busy, "ConferenceId": conference})).await, 14);
        // Zero is a new one.
        let alone = rig.connection().await;
        let made = rig.ok("JoinConference", json!({"ConnectionId": alone, "ConferenceId": "0"})).await;
        assert_ne!(text(&made, "ConferenceId"), conference);
    });
}

#[test]
fn nothing_is_left_of_a_join_that_fails() {
    run(async |rig| {
        let full = RpcError::new(ErrorKind::LimitReached, "full").with("resource", "conference");
        rig.fake.refuse("conference.join", full);
        let params = json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 7});
        assert_eq!(rig.code("CreateConference", params).await, 8);
        assert!(rig.fake.connections.borrow().is_empty() && rig.fake.conferences.borrow().is_empty());
        // A reserved connection is as it was.
        let reserved = rig.ok("ReserveConnection", json!({"MediaRxCodec": "G711a", "MediaRxFramesize": 30})).await;
        let id = text(&reserved, "ConnectionId");
        let params = json!({
            "ConnectionId": id, "MediaTxIP": "192.0.2.1", "MediaTxPort": 7, "MediaTxCodec": "G729", "MediaTxFramesize": 40,
        });
        let before = rig.fake.connections.borrow().clone();
        assert_eq!(rig.code("CreateConference", params).await, 8);
        for (native, then) in before {
            let now = rig.fake.connections.borrow()[&native].clone();
            for member in ["reserved", "rx_codec", "tx_codec", "ptime_ms", "direction"] {
                assert_eq!(now[member], then[member], "{member}");
            }
            assert_eq!(now["reserve_ms"], 300_000);
        }
        assert_eq!(rig.code("PlayTone", json!({"ConnectionId": id})).await, 16);
    });
}

#[test]
fn roles_go_by_precedence() {
    run(async |rig| {
        for (given, role, muted, tariff_tone) in [
            (json!({}), Value::Null, false, false),
            (
                json!({"Coach": true, "ReceiveOnly": true, "TariffTone": true, "Monitor": true}),
                json!("coach"),
                false,
                false,
            ),
            (json!({"Pupil": true, "ReceiveOnly": true, "TariffTone": true}), json!("pupil"), false, true),
            (json!({"Pupil": true, "Coach": true, "ReceiveOnly": true}), Value::Null, true, false),
            (json!({"Monitor": true}), json!("monitor"), false, false),
        ] {
            let mut params = given.clone();
            params["ConnectionId"] = rig.connection().await.into();
            rig.ok("CreateConference", params).await;
            let join = rig.fake.last("conference.join");
            assert_eq!(
                (&join["role"], &join["muted"], &join["tariff_tone"]),
                (&role, &json!(muted), &json!(tariff_tone)),
                "{given}"
            );
        }
    });
}

#[test]
fn attributes_are_set_together() {
    run(async |rig| {
        let id = rig.connection().await;
        let conference = rig.conference(&id).await;
        let with = |more: Value| {
            let mut params = json!({"ConnectionId": id, "ConferenceId": conference});
            params.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
            params
        };
        rig.ok("SetConfereeAttribute", with(json!({"TariffTone": true, "Pupil": true}))).await;
        let set = rig.fake.last("conference.set");
        assert_eq!((&set["role"], &set["tariff_tone"], &set["muted"]), (&json!("pupil"), &json!(true), &Value::Null));
        rig.ok("SetConfereeAttribute", with(json!({"Coach": false}))).await;
        assert!(rig.fake.last("conference.set")["role"].is_null(), "it is no coach");
        rig.ok("SetConfereeAttribute", with(json!({"Pupil": false}))).await;
        assert_eq!(rig.fake.last("conference.set")["role"], "party");
        rig.ok("Mute", with(json!({}))).await;
        assert_eq!(rig.fake.last("conference.set")["muted"], true);
        rig.ok("Unmute", with(json!({}))).await;
        assert_eq!(rig.fake.last("conference.set")["muted"], false);
        rig.fake.refuse("conference.set", RpcError::invalid_param("muted", "a coach can't be muted"));
        assert_eq!(rig.code("SetConfereeAttribute", with(json!({"Mute": true}))).await, 26);
        let other = rig.connection().await;
        let stranger = json!({"ConnectionId": other, "ConferenceId": conference, "Coach": true});
        assert_eq!(rig.code("SetConfereeAttribute", stranger).await, 24);
    });
}

#[test]
fn operations_are_started_with_what_was_asked() {
    run(async |rig| {
        let id = rig.connection().await;
        let check = async |action: &str, params: Value, expected: Value| {
            let mut params = params;
            params["ConnectionId"] = id.clone().into();
            let started = rig.ok(action, params).await;
            assert_eq!((&started["ResultCode"], &started["ConnectionId"]), (&json!("1"), &json!(id)));
            let mut expected = expected;
            expected["connection_id"] = "c-1".into();
            assert_eq!(rig.fake.last("operation.start"), expected, "{action}");
        };
        check(
            "Play",
            json!({"Prompt1": "a.wav", "Prompt3": "c", "Volume": "-4", "TermCondMaxTime": 900, "TermCondDigit": "5#",
                "TermCondDigitList": "12", "TermCondMaxDigits": 4, "TermCondSilence": 10, "TermCondNonSilence": 20,
                "AudioFileEncoding": "PCM", "AudioFileSampleRate": 11, "AudioFileSampleSize": 16, "CommandTimeout": 5}),
            json!({"kind": "play", "prompts": ["a.wav", "c"], "volume": -4, "max_time_ms": 900, "digit": "5",
                "digit_list": "12", "digits": 4, "silence_ms": 10, "nonsilence_ms": 20, "encoding": "pcm",
                "sample_rate_hz": 11025, "bits": 16, "timeout_ms": 5, "locale": "en-US", "isolate": true}),
        )
        .await;
        check(
            "SeekAndPlay",
            json!({"Prompt": "a.wav", "SeekPosition": 250}),
            json!({"kind": "play", "prompts": ["a.wav"], "spoken": false, "start_ms": 250, "timeout_ms": 600_000,
                "locale": "en-US", "isolate": true}),
        )
        .await;
        check(
            "PlayTone",
            json!({"Frequency2": 440, "TermCondMaxTime": 3}),
            json!({"kind": "tone", "frequency_hz": 600, "level_db": -10, "frequency2_hz": 440, "level2_db": -10,
                "duration_ms": 1000, "timeout_ms": 10_000, "max_time_ms": 3, "isolate": true}),
        )
        .await;
        check(
            "Record",
            json!({"Filename": "x.WAV", "AudioFileEncoding": "adpcm", "Expires": 0}),
            json!({"kind": "record", "path": "x.WAV", "container": "wav", "encoding": "adpcm", "bits": 4,
                "sample_rate_hz": 8000, "expires_days": 0, "timeout_ms": 600_000}),
        )
        .await;
        check(
            "Record",
            json!({}),
            json!({"kind": "record", "container": "vox", "encoding": "ulaw", "bits": 8, "sample_rate_hz": 8000,
                "expires_days": 1, "timeout_ms": 600_000}),
        )
        .await;
        check(
            "GatherDigits",
            json!({"TermCondDigitPattern": "12", "TermCondInterDigitDelay": 700, "TermCondMaxDigits": "3"}),
            json!({"kind": "gather_digits", "digit_pattern": "12", "inter_digit_ms": 700, "digits": 3,
                "timeout_ms": 90_000}),
        )
        .await;
        let silence = json!({"kind": "detect_silence", "silence_ms": 400, "timeout_ms": 30_000});
        check("DetectSilence", json!({"SilenceTime": 400}), silence).await;
        let sound = json!({"kind": "detect_nonsilence", "nonsilence_ms": 400, "timeout_ms": 7});
        check("DetectNonSilence", json!({"NonSilenceTime": 400, "CommandTimeout": 7}), sound).await;
    });
}

#[test]
fn an_end_is_told_once_with_the_state_given() {
    run(async |rig| {
        let id = rig.connection().await;
        let play = json!({"ConnectionId": id, "Prompt1": "a.wav", "State": "mine"});
        let started = rig.ok("Play", play.clone()).await;
        rig.fake.end("o-2", "eod", Value::Null);
        rig.fake.end("o-2", "eod", Value::Null);
        rig.ok("Record", json!({"ConnectionId": id, "Filename": "x.wav", "State": "rec"})).await;
        rig.fake.end("o-3", "maxtime", json!({"path": "x.wav"}));
        rig.ok("GatherDigits", json!({"ConnectionId": id})).await;
        rig.fake.end("o-4", "maxdigits", json!({"digits": "12"}));
        rig.ok("Play", play).await;
        rig.fake.end("o-5", "error", json!({"cause": "shard_failed"}));
        let events = rig.events();
        let operation = &started["OperationId"];
        assert_eq!(
            events[0],
            (
                "Play_Complete".to_owned(),
                json!({"ConnectionId": id, "OperationId": operation, "State": "mine",
                "ResultCode": "0", "TerminationCondition": "eod", "ElapsedTime": 120})
            )
        );
        assert_eq!((events[1].0.as_str(), &events[1].1["Filename"]), ("Record_Complete", &json!("x.wav")));
        assert_eq!((events[2].0.as_str(), &events[2].1["Digits"]), ("GatherDigits_Complete", &json!("12")));
        assert_eq!(
            (events[3].0.as_str(), &events[3].1["ResultCode"], &events[3].1["State"]),
            ("Play_Failed", &json!("7"), &json!("mine"))
        );
        assert_eq!(events.len(), 4);
        assert_eq!(rig.fake.published.borrow().len(), 4);
    });
}

#[test]
fn an_operation_on_a_conference_has_a_connection_of_its_own() {
    run(async |rig| {
        let id = rig.connection().await;
        let conference = rig.conference(&id).await;
        let started = rig.ok("Play", json!({"ConferenceId": conference, "Prompt1": "a.wav"})).await;
        let utility = text(&started, "ConnectionId");
        assert_ne!(utility, id);
        assert!(rig.fake.last("operation.start")["isolate"].is_null());
        assert_eq!(rig.code("Play", json!({"ConnectionId": utility, "Prompt1": "a.wav"})).await, 23);
        rig.ok("AdjustPlay", json!({"ConnectionId": utility, "Volume": 2})).await;
        rig.ok("StopMediaOperation", json!({"ConnectionId": utility})).await;
        assert_eq!(rig.events()[0].1["ConnectionId"], json!(utility));
        assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": utility})).await, 23);
    });
}

#[test]
fn stop_ends_one_or_all_and_tells_before_it_answers() {
    run(async |rig| {
        let (id, other) = (rig.connection().await, rig.connection().await);
        let play = rig.ok("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await;
        rig.ok("GatherDigits", json!({"ConnectionId": id})).await;
        let operation = &play["OperationId"];
        assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": other, "OperationId": operation})).await, 25);
        let (fake, mc) = (Rc::clone(&rig.fake), Rc::clone(&rig.mc));
        rig.ok("StopMediaOperation", json!({"ConnectionId": id, "OperationId": operation})).await;
        assert_eq!(fake.last("operation.stop"), json!({"connection_id": "c-1", "operation_id": "o-3", "block": true}));
        let events = rig.events();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].0.as_str(), &events[0].1["TerminationCondition"]), ("Play_Complete", &json!("userstop")));
        assert_eq!(rig.code("StopMediaOperation", json!({"ConnectionId": id, "OperationId": operation})).await, 25);
        rig.ok("StopMediaOperation", json!({"ConnectionId": id, "Block": "False"})).await;
        assert_eq!(fake.last("operation.stop")["block"], false);
        assert_eq!(mc.logs().get("script").expect("a log").read(0, 9).events.len(), 2);
        rig.ok("StopMediaOperation", json!({"ConnectionId": id})).await;
    });
}

#[test]
fn adjust_follows_its_type() {
    run(async |rig| {
        let id = rig.connection().await;
        assert_eq!(rig.code("AdjustPlay", json!({"ConnectionId": id, "Volume": 1})).await, 25);
        rig.ok("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await;
        for (given, native) in [
            (json!({"Volume": 3}), json!({"adjustment": "absolute", "volume": 3})),
            (json!({"Speed": "-20", "AdjustmentType": "Relative"}), json!({"adjustment": "relative", "speed": -10})),
            (json!({"AdjustmentType": "toggle"}), json!({"adjustment": "toggle", "toggle": 1})),
            (json!({"AdjustmentType": "toggle", "ToggleType": 4}), json!({"adjustment": "toggle", "toggle": 4})),
            (json!({"Volume": 3, "AdjustmentType": "what"}), json!({"adjustment": "absolute", "volume": 3})),
        ] {
            let (mut given, mut native) = (given, native);
            given["ConnectionId"] = id.clone().into();
            native["connection_id"] = "c-1".into();
            rig.ok("AdjustPlay", given).await;
            assert_eq!(rig.fake.last("operation.adjust"), native);
        }
    });
}

#[test]
fn one_command_is_unanswered_and_the_always_allowed_pass_it() {
    run(async |rig| {
        let id = rig.connection().await;
        let gate = rig.fake.hold("operation.start");
        let mut waiting = Vec::new();
        for _ in 0..9 {
            let (mc, gather) = (Rc::clone(&rig.mc), request("GatherDigits", json!({"ConnectionId": id})));
            waiting.push(spawn_local(async move { mc.call(gather).await }));
        }
        settle().await;
        assert_eq!(rig.fake.count("operation.start"), 1, "the others wait");
        assert_eq!(rig.code("GatherDigits", json!({"ConnectionId": id})).await, 14);
        rig.ok("SendDigits", json!({"ConnectionId": id, "Digits": "1"})).await;
        rig.ok("StopMediaOperation", json!({"ConnectionId": id})).await;
        rig.ok("ModifyConnection", json!({"ConnectionId": id, "MediaTxIP": "192.0.2.9", "MediaTxPort": 9})).await;
        gate.open();
        for call in waiting {
            assert_eq!(call.await.expect("no panic").code(), Some(1));
        }
    });
}

#[test]
fn a_caller_that_waits_no_longer_cancels_nothing_and_hears_no_end() {
    run(async |rig| {
        let id = rig.connection().await;
        let gate = rig.fake.hold("operation.start");
        let response = rig.call("Play", json!({"ConnectionId": id, "Prompt1": "a.wav", "Timeout": 100})).await;
        assert_eq!((response.branch, response.code()), (Branch::Timeout, None));
        assert_eq!(rig.call("GatherDigits", json!({"ConnectionId": id})).await.branch, Branch::Timeout);
        gate.open();
        settle().await;
        assert_eq!(rig.fake.operations.borrow().len(), 2, "both run");
        rig.fake.end("o-2", "eod", Value::Null);
        assert!(rig.events().is_empty());
        let late = rig.fake.hold("connection.get");
        let params = json!({"ConnectionId": id, "MediaTxIP": "192.0.2.9", "MediaTxPort": 9, "Timeout": "60000"});
        assert_eq!(rig.code("ModifyConnection", params).await, 13);
        late.open();
    });
}

#[test]
fn the_end_may_be_told_when_the_response_is_handed_over() {
    run(async |rig| {
        let id = rig.connection().await;
        let before = rig.fake.announced.get();
        let response = rig.call("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await;
        assert_eq!(rig.fake.announced.get(), before);
        drop(response);
        assert_eq!(rig.fake.announced.get(), before + 1);
    });
}

#[test]
fn switches_change_the_wording() {
    let change = |config: &mut MediaControlConfig| {
        config.fine_branches = true;
        config.started_as_zero = true;
        config.legacy_oed = true;
        config.mms_id = 200;
    };
    run_with(change, async |rig| {
        let id = rig.connection().await;
        assert_eq!(id.parse::<u32>().expect("a number") >> 24, 200);
        assert_eq!(rig.ok("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await["ResultCode"], "0");
        rig.fake.end("o-2", "eod", Value::Null);
        assert_eq!(rig.events()[0].1["TerminationCondition"], "oed");
        for (kind, branch) in [
            (ErrorKind::Busy, Branch::ConnectionBusy),
            (ErrorKind::LimitReached, Branch::NoResourcesAvailable),
            (ErrorKind::OutOfPorts, Branch::ServerBusy),
            (ErrorKind::FileNotFound, Branch::Failure),
        ] {
            rig.fake.refuse("operation.start", RpcError::new(kind, "x"));
            let response = rig.call("Play", json!({"ConnectionId": id, "Prompt1": "a.wav"})).await;
            assert_eq!(response.branch, branch);
        }
    });
}

#[test]
fn digits_are_told_to_who_asked() {
    run(async |rig| {
        rig.connection().await;
        let log = rig.mc.logs().open("script").expect("room");
        let plain = log.subscribe(false);
        rig.fake.tell(EventKind::Digit, &json!({"connection_id": "c-1", "digit": "5"}));
        assert!(rig.events().is_empty());
        let curious = log.subscribe(true);
        rig.fake.tell(EventKind::Digit, &json!({"connection_id": "c-1", "digit": "5"}));
        assert_eq!(rig.events()[0].0, "GotMediaDigits");
        assert_eq!(rig.events()[0].1["Digits"], "5");
        drop((plain, curious));
    });
}

#[test]
fn a_script_that_is_gone_takes_its_connections_along() {
    run(async |rig| {
        rig.connection().await;
        let log = rig.mc.logs().open("script").expect("room");
        let one = log.subscribe(false);
        drop(one);
        rig.mc.watch_for_loss("script");
        sleep(Duration::from_secs(20)).await;
        let back = log.subscribe(false);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(rig.fake.connections.borrow().len(), 1, "it came back in time");
        drop(back);
        rig.mc.watch_for_loss("script");
        sleep(Duration::from_secs(31)).await;
        assert!(rig.fake.connections.borrow().is_empty());
        let id = rig.connection().await;
        assert_eq!(rig.mc.end_script("script").await, [id]);
    });
    run_with(
        |config| config.sandbox = false,
        async |rig| {
            rig.connection().await;
            drop(rig.mc.logs().open("script").expect("room").subscribe(false));
            rig.mc.watch_for_loss("script");
            sleep(Duration::from_secs(31)).await;
            assert!(rig.mc.end_script("script").await.is_empty());
            assert_eq!(rig.fake.connections.borrow().len(), 1);
        },
    );
}

#[test]
fn requests_are_read() {
    let read = |value, action| Request::from_value(value, action).map_err(|fault| fault.code.number());
    let request = read(
        json!({"action": "Metreos.MediaControl.Play", "routingGuid": "g", "timeout": "70", "params": {"A": 1}}),
        Some("play"),
    )
    .expect("valid");
    assert_eq!((request.action.as_str(), request.timeout_ms), ("Metreos.MediaControl.Play", Some(70)));
    assert_eq!(read(json!({}), Some("Play")).expect("the address says it").action, "Play");
    for (value, action) in [
        (json!([]), Some("Play")),
        (json!({}), None),
        (json!({"action": 5}), None),
        (json!({"action": "Play", "params": []}), None),
        (json!({"action": "Play", "timeout": -1}), None),
        (json!({"action": "Play", "routingGuid": "x".repeat(129)}), None),
        (json!({"action": "Play"}), Some("Record")),
    ] {
        assert_eq!(read(value.clone(), action), Err(35), "{value}");
    }
}

fn request(action: &str, params: Value) -> Request {
    let Value::Object(params) = params else { panic!("an object") };
    Request { action: action.to_owned(), routing_guid: Some("script".to_owned()), params, ..Request::default() }
}
