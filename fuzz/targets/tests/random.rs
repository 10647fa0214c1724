//! Every target with bytes of no meaning, so that a target that can't run at all is seen without libFuzzer.

use ringbridge_fuzz_targets::TARGETS;

const ROUNDS: u32 = 60;

#[test]
fn random_bytes_break_nothing() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for (name, target) in TARGETS {
        for _ in 0..ROUNDS {
            let len = next() % 1_500;
            let bytes: Vec<u8> = (0..len).map(|_| next().to_le_bytes()[3]).collect();
            let ended = std::panic::catch_unwind(|| target(&bytes));
            assert!(ended.is_ok(), "{name} with {bytes:?}");
        }
    }
}
