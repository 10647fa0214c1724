//! Every file of the corpus, against every target it was found for.

use std::fs;
use std::path::Path;

use ringbridge_fuzz_targets::TARGETS;

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder that can be read").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let ended = std::panic::catch_unwind(|| target(&bytes));
        assert!(ended.is_ok(), "{} breaks `{name}`; see docs/fuzzing.md", file.display());
    }
}

macro_rules! replays {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), ringbridge_fuzz_targets::$name);
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|(name, _)| name), replayed);
        }
    };
}

replays!(rtp, rtcp, codec, audio, engine);
