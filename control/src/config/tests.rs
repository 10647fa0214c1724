use super::*;

fn machine(cpus: &[usize]) -> Machine {
    Machine { cpus: cpus.to_vec(), files: 65_536 }
}

fn parse(text: &str) -> Result<Config, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse("").expect("empty"), Config::default());
}

#[test]
fn every_field_can_be_given() {
    let config = parse(
        r#"
        shards = 3
        cpus = "0-2,5"
        bind = "127.0.0.2"
        ports = "20000-20009"
        control_socket = "/tmp/x.sock"
        control_group = "media"
        metrics = "127.0.0.1:9100"
        metrics_allow_remote = true
        state_dir = "/tmp/state"
        audio_root = "/tmp/audio"
        recording_root = "/tmp/recordings"
        recording_sweep_minutes = 1440
        batch_wait_us = 0
        prompt_cache_mib = 1
        media_threads = 1
        drain_deadline_ms = 0
        fault_injection = true
        [interfaces]
        outside = "127.0.0.3"
        [rtp]
        codec = "pcma"
        ptime_ms = 30
        telephone_event_pt = 96
        dscp = 0
        rtp_timeout_ms = 5000
        handover = true
        [mediacontrol]
        listen = "192.0.2.1:8080"
        token = "secret"
        mms_id = 7
        fine_branches = true
        started_as_zero = true
        legacy_oed = true
        sandbox = false
        sandbox_grace_ms = 0
        webhooks = ["http://127.0.0.1:9000/events/"]
        [icws]
        listen = "127.0.0.1:8018"
        origins = ["https://phone.example.com"]
        [[icws.stations]]
        id = "desk"
        number = "7001"
        remote = "192.0.2.7:4000"
        codec = "PCMA"
        [quota]
        profile = "sdk"
        rtp = 10
        enhanced_rtp = 1
        voice = 2
        conference = 3
        speech = 0
        tts = 4
        [tts]
        command = ["flite", "-o", "{output}", "--", "{text}"]
        time_limit_ms = 100
        cache_mib = 1
        [tls]
        cert = "/etc/ringbridge/cert.pem"
        key = "/etc/ringbridge/key.pem"
        [[users]]
        name = "anna"
        password_file = "/etc/ringbridge/anna"
        [[agents]]
        work_number = 101
        no_password = true
        [[api_keys]]
        name = "crm"
        key_file = "/etc/ringbridge/crm"
        scopes = ["verba"]
        "#,
    )
    .expect("valid");
    assert_eq!((config.users.len(), config.agents.len(), config.api_keys.len()), (1, 1, 1));
    assert_eq!(config.cpus.0, [0, 1, 2, 5]);
    assert_eq!(config.rtp.codec, CodecKind::Pcma);
    let derived = config.derive(&machine(&[0, 1, 2, 5])).expect("in range");
    assert_eq!(derived.shard_cpus, [Some(0), Some(1), Some(2)]);
    assert_eq!((derived.port_pairs, derived.shard_connections_max), (10, 64));
    assert_eq!(derived.recording_root, Path::new("/tmp/recordings"));
    assert!(!format!("{config:?}").contains("secret"));
}

#[test]
fn the_documentation_is_complete() {
    // serde lists every key when it meets one it does not know.
    let documented = include_str!("../../../docs/configuration.md");
    for (text, section, keys_min) in [
        ("no_such_key = 1", "", 20),
        ("[rtp]\nno_such_key = 1", "rtp.", 6),
        ("[quota]\nno_such_key = 1", "quota.", 7),
        ("[rebalance]\nno_such_key = 1", "rebalance.", 5),
        ("[tts]\nno_such_key = 1", "tts.", 3),
        ("[mediacontrol]\nno_such_key = 1", "mediacontrol.", 9),
        ("[verba]\nno_such_key = 1", "verba.", 3),
        ("[agentgateway]\nno_such_key = 1", "agentgateway.", 7),
        ("[icws]\nno_such_key = 1", "icws.", 3),
        ("[[icws.stations]]\nno_such_key = 1", "icws.stations.", 4),
        ("[tls]\nno_such_key = 1", "tls.", 2),
        ("[[users]]\nno_such_key = 1", "users.", 8),
        ("[[agents]]\nno_such_key = 1", "agents.", 9),
        ("[[api_keys]]\nno_such_key = 1", "api_keys.", 7),
    ] {
        let error = parse(text).expect_err("unknown");
        let known = error.split(", expected ").nth(1).expect("a list").split('`');
        let keys: Vec<&str> = known.skip(1).step_by(2).collect();
        assert!(keys.len() >= keys_min, "{error}");
        let tables = [
            "rtp",
            "quota",
            "rebalance",
            "tts",
            "mediacontrol",
            "agentgateway",
            "icws",
            "verba",
            "tls",
            "users",
            "agents",
            "api_keys",
        ];
        for key in keys.iter().filter(|key| !tables.contains(key)) {
            assert!(documented.contains(&format!("`{section}{key}`")), "{section}{key}");
        }
    }
}

#[test]
fn unknown_keys_and_wrong_values_are_named() {
    for (text, part) in [
        ("shard = 3", "shard"),
        ("shards = 0", "1 to 255"),
        ("shards = \"many\"", "1 to 255"),
        ("ports = \"30001-30010\"", "even"),
        ("ports = \"30000\"", "range of ports"),
        ("cpus = \"3-1\"", "list of cores"),
        ("cpus = [1, 1]", "twice"),
        ("[rtp]\ncodec = \"G723\"", "PCMU, PCMA, G722"),
        ("[rtp]\nptime = 20", "ptime"),
        ("[quota]\nprofile = \"gold\"", "cuae-standard"),
        ("[quota]\nrtp = -1", "rtp"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn ranges_are_checked_as_a_whole() {
    let check = |change: fn(&mut Config), part: &str| {
        let mut config = Config { state_dir: Some("/tmp".into()), ..Config::default() };
        change(&mut config);
        let error = config.derive(&machine(&[0, 1])).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    check(|config| config.batch_wait_us = 1001, "batch_wait_us");
    check(|config| config.prompt_cache_mib = 0, "prompt_cache_mib");
    check(|config| config.media_threads = 65, "media_threads");
    check(|config| config.drain_deadline_ms = 3_600_001, "drain_deadline_ms");
    check(|config| config.rtp.ptime_ms = 0, "rtp.ptime_ms");
    check(|config| config.rtp.telephone_event_pt = 95, "rtp.telephone_event_pt");
    check(|config| config.rtp.dscp = 64, "rtp.dscp");
    check(|config| config.recording_sweep_minutes = 0, "recording_sweep_minutes");
    check(|config| config.tts.time_limit_ms = 99, "tts.time_limit_ms");
    check(|config| config.tts.cache_mib = 0, "tts.cache_mib");
    check(|config| config.tts.command = Some(vec!["flite".into(), "{text}".into()]), "tts.command");
    check(|config| config.bind = Ipv4Addr::UNSPECIFIED.into(), "bind");
    check(|config| config.metrics = Some(([192, 0, 2, 1], 9100).into()), "metrics_allow_remote");
    check(|config| config.cpus = CpuList(vec![7]), "cpus");
    check(|config| config.mediacontrol.mms_id = 0, "mediacontrol.mms_id");
    check(|config| config.mediacontrol.sandbox_grace_ms = 3_600_001, "mediacontrol.sandbox_grace_ms");
    check(|config| config.mediacontrol.listen = Some(([192, 0, 2, 1], 80).into()), "mediacontrol.token");
    check(|config| config.agentgateway.listen = Some(([127, 0, 0, 1], 8043).into()), "check --make-cert DIR");
    check(|config| config.mediacontrol.webhooks = vec!["http://127.0.0.1:9000".into()], "mediacontrol.webhooks");
    check(|config| config.mediacontrol.webhooks = vec!["https://127.0.0.1/".into()], "mediacontrol.webhooks");
    let callbacks = |prefix: &str| {
        let config = AgentGatewayConfig { callbacks: vec![prefix.to_owned()], ..AgentGatewayConfig::default() };
        config.check().expect_err(prefix).to_string()
    };
    assert!(callbacks("https://127.0.0.1/").contains("agentgateway.callback_ca"));
    assert!(callbacks("https://127.0.0.1").contains("ends with a slash"));
    assert!(callbacks("ftp://127.0.0.1/").contains("ends with a slash"));
    check(|config| config.icws.origins = vec!["https://phone.example.com/".into()], "icws.origins");
    let stations = |text: &str| toml::from_str::<Config>(text).unwrap().icws;
    let twice = stations("[icws]\nstations = [{id = \"a\"}, {id = \"b\", number = \"a\"}]");
    assert!(twice.check().unwrap_err().to_string().contains("one station only"));
    let codec = stations("[icws]\nstations = [{id = \"a\", codec = \"G729\"}]");
    assert!(codec.check().unwrap_err().to_string().contains("PCMU, PCMA, G722"));
    check(|config| config.users = toml::from_str::<Config>("[[users]]\nname = \"a\"").unwrap().users, "user a");
}

#[test]
fn more_shards_than_cores_are_not_pinned() {
    let config = Config { shards: ShardCount::Fixed(3), state_dir: Some("/tmp".into()), ..Config::default() };
    assert_eq!(config.derive(&machine(&[0, 1])).expect("valid").shard_cpus, [None, None, None]);
    let config = Config { state_dir: Some("/tmp".into()), ..Config::default() };
    assert_eq!(config.derive(&machine(&[4, 6])).expect("valid").shard_cpus, [Some(4), Some(6)]);
}

#[test]
fn plain_http_is_refused_elsewhere_than_on_loopback() {
    let icws: fn(&mut Config, Option<std::net::SocketAddr>) = |config, listen| config.icws.listen = listen;
    let verba: fn(&mut Config, Option<std::net::SocketAddr>) = |config, listen| config.verba.listen = listen;
    let at_home = || Config { state_dir: Some("/tmp".into()), ..Config::default() };
    for (field, listen) in [("icws.listen", icws), ("verba.listen", verba)] {
        let tls = TlsFiles { cert: "cert.pem".into(), key: "key.pem".into() };
        for address in ["0.0.0.0:8018", "192.0.2.1:8018", "[::]:8018"] {
            let mut config = at_home();
            listen(&mut config, Some(address.parse().unwrap()));
            let error = config.derive(&machine(&[0])).unwrap_err().to_string();
            for word in [field, address, "without TLS", "--make-cert"] {
                assert!(error.contains(word), "{word:?} is not in: {error}");
            }
            config.tls = Some(tls.clone());
            config.derive(&machine(&[0])).unwrap();
        }
        for address in ["127.0.0.1:8018", "[::1]:8018", "[::ffff:127.0.0.1]:8018"] {
            let mut config = at_home();
            listen(&mut config, Some(address.parse().unwrap()));
            config.derive(&machine(&[0])).unwrap();
        }
    }
}
