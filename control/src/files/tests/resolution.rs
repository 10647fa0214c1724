//! Which file a name means.

use super::*;

/// A file whose samples are all `level`.
fn level(level: f64) -> Vec<u8> {
    Wav::new(Kind::Pcm(16), 1, 8000, &[level / 32767.0; 160]).bytes()
}

/// Nothing is spoken here, so a text is told by its error.
fn is_text(error: &FileError) -> bool {
    matches!(error, FileError::Speech { source: TtsError::NotInstalled, .. })
}

struct Names {
    fixture: Fixture,
}

impl Names {
    fn new() -> Self {
        let fixture = Fixture::new(1 << 20);
        for directory in ["audio/ivr/en-US", "audio/ivr/de-DE", "audio/sub", "recordings/mail"] {
            std::fs::create_dir_all(fixture.directory.path().join(directory)).unwrap();
        }
        Self { fixture }
    }

    fn put(&self, path: &str, value: f64) {
        std::fs::write(self.fixture.directory.path().join(path), level(value)).unwrap();
    }

    fn full(&self, path: &str) -> String {
        self.fixture.directory.path().join(path).to_str().unwrap().to_owned()
    }

    fn open(&self, text: &str, application: Option<&str>, locale: Option<&str>) -> Result<i16, FileError> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let source = PromptSource::Named { text: text.to_owned(), application: own(application), locale: own(locale) };
        let spec = PlaylistSpec { prompts: vec![source], ..PlaylistSpec::default() };
        wait(self.fixture.files.open_playlist(&spec)).map(|playlist| match &playlist.prompts[0] {
            Prompt::Whole(samples) => samples[0],
            Prompt::Stream(_) => panic!("streamed"),
        })
    }
}

#[test]
fn places_are_searched_in_order() {
    let names = Names::new();
    names.put("recordings/hello.wav", 4.0);
    assert_eq!(names.open("hello.wav", Some("ivr"), Some("de-DE")).unwrap(), 4);
    names.put("audio/hello.wav", 3.0);
    assert_eq!(names.open("hello.wav", Some("ivr"), Some("de-DE")).unwrap(), 3);
    names.put("audio/ivr/en-US/hello.wav", 2.0);
    assert_eq!(names.open("hello.wav", Some("ivr"), Some("de-DE")).unwrap(), 3);
    assert_eq!(names.open("hello.wav", Some("ivr"), None).unwrap(), 2, "the default language");
    names.put("audio/ivr/de-DE/hello.wav", 1.0);
    assert_eq!(names.open("hello.wav", Some("ivr"), Some("de-DE")).unwrap(), 1);
    assert_eq!(names.open("hello.wav", None, Some("de-DE")).unwrap(), 3, "no application");
    assert_eq!(names.open("hello.wav", Some("other"), Some("de-DE")).unwrap(), 3);
    names.put("recordings/mail/hello.wav", 5.0);
    assert_eq!(names.open("mail/hello.wav", Some("ivr"), None).unwrap(), 5);
}

#[test]
fn full_paths_are_taken_inside_the_roots_only() {
    let names = Names::new();
    names.put("audio/sub/a.wav", 1.0);
    names.put("recordings/mail/b.wav", 2.0);
    names.put("secret.wav", 3.0);
    symlink("../../secret.wav", names.fixture.audio("sub/link.wav")).unwrap();
    assert_eq!(names.open(&names.full("audio/sub/a.wav"), None, None).unwrap(), 1);
    assert_eq!(names.open(&names.full("recordings/mail/b.wav"), None, None).unwrap(), 2);
    let outside = [
        names.full("secret.wav"),
        names.full("audio/../secret.wav"),
        names.full("audio/sub/link.wav"),
        "/etc/passwd".to_owned(),
        "/".to_owned(),
        r"C:\Prompts\hello.wav".to_owned(),
        r"\\server\prompts\hello.wav".to_owned(),
        "../secret.wav".to_owned(),
        "sub/../../secret.wav".to_owned(),
        "sub/link.wav".to_owned(),
    ];
    for text in outside {
        let error = names.open(&text, Some("ivr"), None).expect_err(&text);
        assert!(matches!(error, FileError::OutsideRoot { .. }), "{text}: {error}");
    }
    for text in [names.full("audio/missing.wav"), names.full("recordings/sub")] {
        let error = names.open(&text, None, None).expect_err(&text);
        assert!(is_text(&error), "{text}: {error}");
    }
}

#[test]
fn what_can_be_no_path_is_no_file() {
    let names = Names::new();
    let long = "word ".repeat(1000);
    let name = "x".repeat(256);
    let deep = "and/or ".repeat(40);
    for text in ["missing.wav", "sub", "Press 1 and/or 2 /", "Wait...", ".", "a\0b", &long, &name, &deep] {
        let error = names.open(text, None, None).expect_err(text);
        assert!(is_text(&error), "{text}: {error}");
    }
    for text in ["", "  "] {
        assert!(matches!(names.open(text, None, None), Err(FileError::Unsupported { .. })));
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        names.fixture.audio("fifo.wav"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(matches!(names.open("fifo.wav", None, None), Err(FileError::Unsupported { .. })));
}

#[test]
fn application_and_locale_are_one_directory_each() {
    let names = Names::new();
    names.put("audio/hello.wav", 1.0);
    let long = "x".repeat(256);
    for bad in ["", ".", "..", "...", "a/b", "/", r"a\b", "a\0b", &long] {
        for (application, locale) in [(bad, "en-US"), ("ivr", bad)] {
            let error = names.open("hello.wav", Some(application), Some(locale)).expect_err(bad);
            assert!(matches!(error, FileError::OutsideRoot { .. }), "{bad}: {error}");
        }
    }
    assert_eq!(names.open("hello.wav", Some("my app.2"), Some("pt-BR")).unwrap(), 1);
}

#[test]
fn names_of_files_are_told_from_texts() {
    for name in ["a.wav", "a/b.vox", r"a\b.WAV", "a.b.mp3", "x.1", "note.gsm6"] {
        assert!(looks_like_file_name(name), "{name}");
    }
    for text in ["hello", "Please wait.", "Press 1.5 now", "a b.wav", ".wav", "a.w-v", "a.extension", "", "."] {
        assert!(!looks_like_file_name(text), "{text}");
    }
}
