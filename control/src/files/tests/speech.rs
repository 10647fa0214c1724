//! Texts that are spoken, by programs that are scripts here.

use super::*;

/// A program that does what `script` says. It is called with the output, the voice and the text (in `$1`, `$2`, `$3`)
/// or, if `by_input`, with the text on its standard input.
struct Speech {
    fixture: Fixture,
    scripts: tempfile::TempDir,
}

/// Notes that it ran, and copies a WAV file to the output.
const COPY: &str = "echo run >> $DIR/log; cp $DIR/speech.wav $1";

impl Speech {
    fn new(script: &str, time_limit: Duration, cache_bytes_max: u64) -> Self {
        let scripts = tempfile::tempdir().unwrap();
        let wav = Wav::new(Kind::Pcm(16), 1, 22_050, &tone(440.0, 22_050, 0.5, 2205)).bytes();
        std::fs::write(scripts.path().join("speech.wav"), wav).unwrap();
        let text = format!("DIR={}\n{script}\n", scripts.path().display());
        std::fs::write(scripts.path().join("script"), text).unwrap();
        let fixture = Fixture::with_tts(1 << 20, Self::config(&scripts, time_limit, cache_bytes_max));
        Self { fixture, scripts }
    }

    fn config(scripts: &tempfile::TempDir, time_limit: Duration, cache_bytes_max: u64) -> TtsConfig {
        let script = scripts.path().join("script");
        let command = ["sh", script.to_str().unwrap(), "{output}", "{voice}"].map(str::to_owned);
        TtsConfig { command: Some(command.to_vec()), time_limit, cache_bytes_max }
    }

    fn spec(text: &str, locale: Option<&str>) -> PlaylistSpec {
        let locale = locale.map(str::to_owned);
        let prompts = vec![PromptSource::Named { text: text.to_owned(), application: None, locale }];
        PlaylistSpec { prompts, ..PlaylistSpec::default() }
    }

    fn say(&self, text: &str) -> Result<usize, TtsError> {
        self.say_with(text, None, || Ok(()))
    }

    /// How many samples the text became.
    fn say_with<G>(
        &self,
        text: &str,
        locale: Option<&str>,
        port: impl FnMut() -> Result<G, TtsError>,
    ) -> Result<usize, TtsError> {
        match wait(self.fixture.files.open_playlist_with(&Self::spec(text, locale), port)) {
            Ok(playlist) => match &playlist.prompts[..] {
                [Prompt::Whole(samples)] => Ok(samples.len()),
                other => panic!("{other:?}"),
            },
            Err(FileError::Speech { source, .. }) => Err(source),
            Err(other) => panic!("{other}"),
        }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.scripts.path().join(name)).unwrap_or_default()
    }

    fn runs(&self) -> usize {
        self.read("log").lines().count()
    }

    fn kept(&self) -> usize {
        let entries = std::fs::read_dir(self.fixture.directory.path().join("speech")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".wav")).count()
    }

    /// Directories of running programs.
    fn working(&self) -> usize {
        let work = self.fixture.directory.path().join("speech/work");
        std::fs::read_dir(work).map_or(0, Iterator::count)
    }
}

#[test]
fn a_text_is_rendered_once_and_kept() {
    let mut speech = Speech::new(COPY, PATIENCE, 1 << 20);
    assert_eq!(speech.say("Hello, world.").unwrap(), 800);
    assert_eq!(speech.say("Hello, world.").unwrap(), 800);
    assert_eq!((speech.runs(), speech.kept(), speech.working()), (1, 1, 0));
    speech.say("Good bye.").unwrap();
    speech.say_with("Hello, world.", Some("de-DE"), || Ok(())).unwrap();
    assert_eq!((speech.runs(), speech.kept()), (3, 3));
    // The next server knows them too.
    let roots = |name: &str| speech.fixture.directory.path().join(name);
    let tts = Speech::config(&speech.scripts, PATIENCE, 1 << 20);
    let config = Fixture::config_in(speech.fixture.directory.path(), 1 << 20, tts);
    speech.fixture.files = MediaFiles::start(config).unwrap();
    assert_eq!(speech.say("Hello, world.").unwrap(), 800);
    assert_eq!(speech.runs(), 3);
    // A file of that name is no text.
    speech.fixture.put("Hello, world.", &Wav::new(Kind::Pcm(16), 1, 8000, &[0.5; 160]).bytes());
    assert_eq!(speech.say("Hello, world.").unwrap(), 160);
    // One that somebody has removed is rendered again.
    std::fs::remove_dir_all(roots("speech")).unwrap();
    assert_eq!(speech.say("Good bye.").unwrap(), 800);
    assert_eq!(speech.runs(), 4);
}

#[test]
fn a_spoken_text_can_begin_in_the_middle() {
    let speech = Speech::new(COPY, PATIENCE, 1 << 20);
    let spec = PlaylistSpec { start_ms: 1000, ..Speech::spec("Hello.", None) };
    assert!(wait(speech.fixture.files.open_playlist(&spec)).unwrap().prompts.is_empty());
}

#[test]
fn those_who_want_the_same_wait_for_it() {
    let speech = Speech::new(&format!("sleep 0.2; {COPY}"), PATIENCE, 1 << 20);
    let spec = Speech::spec("Hello.", None);
    let files = &speech.fixture.files;
    let (one, two) = wait(async { tokio::join!(files.open_playlist(&spec), files.open_playlist(&spec)) });
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(speech.runs(), 1);
}

#[test]
fn the_text_comes_in_as_it_is_and_the_environment_is_empty() {
    let script = format!("cat > $DIR/text; echo \"$2\" > $DIR/voice; env > $DIR/env; pwd > $DIR/pwd; {COPY}");
    let speech = Speech::new(&script, PATIENCE, 1 << 20);
    let text = "-x `touch /tmp/no` $(id); \"quoted\" {output} {text} ünï\n--stdin";
    speech.say_with(text, Some("en_GB"), || Ok(())).unwrap();
    assert_eq!(speech.read("text"), text);
    assert_eq!(speech.read("voice"), "en-gb\n");
    let names: Vec<String> =
        speech.read("env").lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned()).collect();
    let known = ["PATH", "LC_ALL", "HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"];
    assert!(names.contains(&"PATH".to_owned()) && names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");
    assert!(speech.read("pwd").contains("/speech/work/render-"));
}

#[test]
fn what_the_program_refuses_is_not_kept() {
    for (script, reason) in [
        ("echo 'no such voice' >&2; exit 3", "no such voice"),
        ("exit 0", "no audio"),
        ("echo text > $1", "not a WAV"),
        ("ln -s $DIR/speech.wav $1", "no audio"),
        ("mkdir $1", "no audio"),
        ("kill -9 $$", "signal: 9"),
    ] {
        let speech = Speech::new(script, PATIENCE, 1 << 20);
        let error = speech.say("Hello.").expect_err(script);
        assert!(matches!(&error, TtsError::Rejected(text) if text.contains(reason)), "{script}: {error}");
        assert_eq!((speech.kept(), speech.working()), (0, 0), "{script}");
    }
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_its_children() {
    let script = "sleep 1000 & echo $! > $DIR/pid; wait";
    let speech = Speech::new(script, Duration::from_secs(1), 1 << 20);
    let error = speech.say("Hello.").expect_err("too slow");
    assert!(matches!(error, TtsError::TimedOut(_)), "{error}");
    let pid = speech.read("pid").trim().to_owned();
    // Gone, or dead and not yet waited for by whoever inherited it.
    until(|| match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')).then_some(()),
        Err(_) => Some(()),
    });
    assert_eq!(speech.working(), 0);
}

#[test]
fn a_program_nobody_waits_for_is_killed() {
    let speech = Speech::new("echo $$ > $DIR/pid; exec sleep 1000", PATIENCE, 1 << 20);
    wait(async {
        let spec = Speech::spec("Hello.", None);
        let mut play = std::pin::pin!(speech.fixture.files.open_playlist(&spec));
        let started = async {
            while !speech.read("pid").ends_with('\n') {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = &mut play => panic!("it sleeps"),
            () = started => {}
        }
    });
    let pid = speech.read("pid").trim().to_owned();
    until(|| match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')).then_some(()),
        Err(_) => Some(()),
    });
    assert_eq!(speech.working(), 0);
}

#[test]
fn what_is_made_of_a_text_is_limited() {
    let speech = Speech::new("exec cat /dev/zero > $1", PATIENCE, 1 << 20);
    let error = speech.say("Hello.").expect_err("too large");
    assert!(matches!(error, TtsError::OutputTooLarge), "{error}");
    assert_eq!(speech.working(), 0);
}

#[test]
fn texts_are_limited() {
    let speech = Speech::new(COPY, PATIENCE, 1 << 20);
    for text in ["word ".repeat(1000), "a\0b".to_owned()] {
        let error = speech.say(&text).expect_err("no text");
        assert!(matches!(error, TtsError::Text(_)), "{error}");
    }
    for locale in ["-w", "en us", "en.us", "ü", "--"] {
        let error = speech.say_with("Hello.", Some(locale), || Ok(())).expect_err(locale);
        assert!(matches!(error, TtsError::Text(_)), "{error}");
    }
    assert_eq!(speech.runs(), 0);
    speech.say(&"word ".repeat(800)).unwrap();
}

#[test]
fn a_port_is_held_while_rendering_only() {
    struct Port<'a>(&'a Speech, &'a std::cell::Cell<usize>);
    impl Drop for Port<'_> {
        fn drop(&mut self) {
            assert_eq!((self.0.runs(), self.0.kept()), (1, 0), "rendered, but not yet kept");
            self.1.set(self.1.get() + 1);
        }
    }
    let speech = Speech::new(COPY, PATIENCE, 1 << 20);
    let error = speech.say_with("Hello.", None, || Err::<(), _>(TtsError::NoPort)).expect_err("no port");
    assert!(matches!(error, TtsError::NoPort));
    assert_eq!(speech.runs(), 0);
    let given_back = std::cell::Cell::new(0);
    let port = || {
        assert_eq!((speech.runs(), given_back.get()), (0, 0), "asked once, and first");
        Ok(Port(&speech, &given_back))
    };
    speech.say_with("Hello.", None, port).unwrap();
    assert_eq!(given_back.get(), 1);
    // What is kept takes none.
    speech.say_with("Hello.", None, || Err::<(), _>(TtsError::NoPort)).unwrap();
}

#[test]
fn the_least_recently_used_texts_make_room() {
    // Two files of 4454 bytes and some.
    let speech = Speech::new(COPY, PATIENCE, 10_000);
    for text in ["one", "two", "one", "three"] {
        speech.say(text).unwrap();
    }
    assert_eq!((speech.runs(), speech.kept()), (3, 2));
    speech.say("one").unwrap();
    assert_eq!(speech.runs(), 3);
    speech.say("two").unwrap();
    assert_eq!((speech.runs(), speech.kept()), (4, 2));
}

#[test]
fn without_a_program_nothing_is_spoken() {
    for command in [vec![], vec!["/no/such/program".to_owned(), "{output}".to_owned()]] {
        let tts = TtsConfig { command: Some(command), time_limit: PATIENCE, cache_bytes_max: 0 };
        let fixture = Fixture::with_tts(1 << 20, tts);
        let error = wait(fixture.files.open_playlist(&Speech::spec("Hello.", None))).expect_err("not installed");
        assert!(matches!(error, FileError::Speech { source: TtsError::NotInstalled, .. }), "{error}");
    }
}

#[test]
fn commands_in_which_a_text_could_be_an_option_are_refused() {
    let check = |command: &[&str]| check_command(&command.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
    for good in [
        &[][..],
        &["espeak-ng", "-w", "{output}", "--stdin"],
        &["/usr/bin/flite", "-o", "{output}", "--", "{text}"],
        &["flite", "--text={text}", "-o{output}"],
    ] {
        assert_eq!(check(good), Ok(()), "{good:?}");
    }
    for bad in [
        &["flite"][..],
        &["flite", "{output}", "{text}"],
        &["flite", "{output}", "{text}", "--"],
        &["flite", "{output}", "{text}.txt"],
        &["", "{output}"],
        &["bin/flite", "{output}"],
        &["{output}"],
    ] {
        assert!(check(bad).is_err(), "{bad:?}");
    }
}

#[test]
#[ignore = "needs espeak-ng"]
fn espeak_ng_speaks() {
    let tts = TtsConfig { command: None, time_limit: PATIENCE, cache_bytes_max: 1 << 20 };
    let fixture = Fixture::with_tts(1 << 20, tts);
    let say = |text: &str, locale| {
        let playlist = wait(fixture.files.open_playlist(&Speech::spec(text, Some(locale))));
        playlist.map(|playlist| match &playlist.prompts[0] {
            Prompt::Whole(samples) => samples.to_vec(),
            Prompt::Stream(_) => panic!("streamed"),
        })
    };
    let samples = say("You have three new messages.", "en-US").unwrap();
    assert!((8000..40_000).contains(&samples.len()), "{} samples", samples.len());
    assert!(samples.iter().any(|sample| sample.unsigned_abs() > 3000), "silence");
    assert!(say("Sie haben drei neue Nachrichten.", "de-DE").is_ok());
    assert!(matches!(say("Hello.", "xx-XX"), Err(FileError::Speech { source: TtsError::Rejected(_), .. })));
}
