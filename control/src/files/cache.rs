//! Prompts held in memory: each file is decoded once, however many ask for it, and the least recently used ones make
//! room for others.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ringbridge_media::command::Rate;
use ringbridge_media::samples::Prompt;
use tokio::sync::oneshot;

use super::error::FileError;
use super::format::HeaderlessFormat;

/// A prompt that can be played.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) prompt: Prompt,
    /// Rate of its samples.
    pub(super) rate: Rate,
}

/// Where the answer to one request for a prompt goes.
pub(super) type PromptReply = oneshot::Sender<Result<Opened, FileError>>;

/// Below which root a file is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Origin {
    Audio,
    Recordings,
    Speech,
}

/// One state of one file at one rate: when the file changes or another takes its place, so does its key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PromptKey {
    origin: Origin,
    path: PathBuf,
    /// How it is read if it has no header.
    format: Option<HeaderlessFormat>,
    /// What it is decoded to.
    rate: Rate,
    inode: u64,
    modified: Option<SystemTime>,
    bytes: u64,
}

impl PromptKey {
    pub(super) fn new(
        origin: Origin,
        path: &Path,
        format: Option<HeaderlessFormat>,
        rate: Rate,
        metadata: &Metadata,
    ) -> Self {
        let (inode, modified, bytes) = (metadata.ino(), metadata.modified().ok(), metadata.len());
        Self { origin, path: path.to_owned(), format, rate, inode, modified, bytes }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn place(&self) -> Place {
        (self.origin, self.path.clone(), self.rate)
    }
}

/// Where a file is, and at which rate: of each only one state is held.
type Place = (Origin, PathBuf, Rate);

/// What the prompt cache has done since the start, and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheStats {
    /// Requests answered from memory, or by a decoding that was under way.
    pub hits: u64,
    /// Files decoded into memory.
    pub misses: u64,
    /// Prompts that made room for others.
    pub evictions: u64,
    /// Prompts held.
    pub prompts: usize,
    /// Bytes of samples held.
    pub bytes: usize,
}

/// What came of looking for a prompt.
#[derive(Debug)]
pub(super) enum Lookup {
    /// The request is answered, or will be when somebody else's decoding is done.
    Served,
    /// Nobody has decoded it yet: the caller has to, and to end with [`PromptCache::finish`].
    Decode,
}

/// Decoded prompts by file, limited by the bytes of their samples.
#[derive(Debug)]
pub(super) struct PromptCache {
    bytes_max: usize,
    held: HashMap<Place, Held>,
    pending: HashMap<PromptKey, Vec<PromptReply>>,
    uses: u64,
    stats: CacheStats,
}

#[derive(Debug)]
struct Held {
    key: PromptKey,
    samples: Arc<[i16]>,
    last_use: u64,
}

impl PromptCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (held, pending) = (HashMap::new(), HashMap::new());
        Self { bytes_max, held, pending, uses: 0, stats: CacheStats::default() }
    }

    /// Answers `reply` from memory, lets it wait for a decoding under way, or asks the caller to decode.
    pub(super) fn request(&mut self, key: &PromptKey, reply: PromptReply) -> Lookup {
        self.uses += 1;
        if let Some(held) = self.held.get_mut(&key.place()).filter(|held| held.key == *key) {
            held.last_use = self.uses;
            self.stats.hits += 1;
            // Nobody listens any more: then nobody minds.
            let _ = reply.send(Ok(Opened { prompt: Prompt::Whole(held.samples.clone()), rate: key.rate }));
            return Lookup::Served;
        }
        if let Some(waiting) = self.pending.get_mut(key) {
            self.stats.hits += 1;
            waiting.push(reply);
            return Lookup::Served;
        }
        self.stats.misses += 1;
        self.pending.insert(key.clone(), vec![reply]);
        Lookup::Decode
    }

    /// Keeps what was decoded, and answers all who waited for it.
    pub(super) fn finish(&mut self, key: &PromptKey, result: Result<Arc<[i16]>, FileError>) {
        for reply in self.pending.remove(key).unwrap_or_default() {
            let opened = |samples| Opened { prompt: Prompt::Whole(samples), rate: key.rate };
            let _ = reply.send(result.clone().map(opened));
        }
        let Ok(samples) = result else { return };
        if let Some(outdated) = self.held.remove(&key.place()) {
            self.stats.bytes -= size_of_val(&*outdated.samples);
        }
        let bytes = size_of_val(&*samples);
        if bytes <= self.bytes_max {
            while self.stats.bytes + bytes > self.bytes_max {
                self.evict();
            }
            self.stats.bytes += bytes;
            self.uses += 1;
            self.held.insert(key.place(), Held { key: key.clone(), samples, last_use: self.uses });
        }
        self.stats.prompts = self.held.len();
    }

    pub(super) fn stats(&self) -> CacheStats {
        self.stats
    }

    /// Drops the least recently used prompt. Looks at all of them: there are hundreds, and decoding one took far longer.
    fn evict(&mut self) {
        let oldest = self.held.iter().min_by_key(|(_, held)| held.last_use).map(|(place, _)| place.clone());
        if let Some(held) = oldest.and_then(|place| self.held.remove(&place)) {
            self.stats.bytes -= size_of_val(&*held.samples);
            self.stats.evictions += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, bytes: u64) -> PromptKey {
        let rate = Rate::Narrow;
        PromptKey { origin: Origin::Audio, path: path.into(), format: None, rate, inode: 0, modified: None, bytes }
    }

    fn decoded(cache: &mut PromptCache, key: &PromptKey, samples: usize) {
        let (reply, mut answer) = oneshot::channel();
        assert!(matches!(cache.request(key, reply), Lookup::Decode));
        cache.finish(key, Ok(vec![0; samples].into()));
        assert!(matches!(answer.try_recv(), Ok(Ok(Opened { prompt: Prompt::Whole(_), .. }))));
    }

    fn is_held(cache: &mut PromptCache, key: &PromptKey) -> bool {
        let (reply, _answer) = oneshot::channel();
        let served = matches!(cache.request(key, reply), Lookup::Served);
        if !served {
            let error = FileError::unsupported(key.path(), "not decoded in this test");
            cache.finish(key, Err(error));
        }
        served
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut cache = PromptCache::new(400);
        for name in ["a", "b"] {
            decoded(&mut cache, &key(name, 1), 100);
        }
        assert!(is_held(&mut cache, &key("a", 1)));
        decoded(&mut cache, &key("c", 1), 50);
        assert!(is_held(&mut cache, &key("a", 1)) && is_held(&mut cache, &key("c", 1)));
        assert!(!is_held(&mut cache, &key("b", 1)));
        let stats = cache.stats();
        assert_eq!((stats.bytes, stats.prompts, stats.evictions), (300, 2, 1));
    }

    #[test]
    fn a_prompt_larger_than_the_cache_is_played_but_not_held() {
        let mut cache = PromptCache::new(100);
        decoded(&mut cache, &key("small", 1), 50);
        decoded(&mut cache, &key("large", 1), 51);
        assert!(is_held(&mut cache, &key("small", 1)) && !is_held(&mut cache, &key("large", 1)));
    }

    #[test]
    fn a_changed_file_replaces_its_old_content() {
        let mut cache = PromptCache::new(1000);
        decoded(&mut cache, &key("a", 1), 100);
        decoded(&mut cache, &key("a", 2), 30);
        assert_eq!((cache.stats().bytes, cache.stats().prompts), (60, 1));
        assert!(!is_held(&mut cache, &key("a", 1)));
    }

    #[test]
    fn what_is_wanted_at_two_rates_is_held_at_both() {
        let mut cache = PromptCache::new(1000);
        let (narrow, wide) = (key("a", 1), PromptKey { rate: Rate::Wide, ..key("a", 1) });
        decoded(&mut cache, &narrow, 100);
        decoded(&mut cache, &wide, 200);
        assert!(is_held(&mut cache, &narrow) && is_held(&mut cache, &wide));
        assert_eq!((cache.stats().bytes, cache.stats().prompts), (600, 2));
    }

    #[test]
    fn all_who_wait_get_the_one_result() {
        let mut cache = PromptCache::new(1000);
        let key = key("a", 1);
        let (reply, mut first) = oneshot::channel();
        assert!(matches!(cache.request(&key, reply), Lookup::Decode));
        let (reply, mut second) = oneshot::channel();
        assert!(matches!(cache.request(&key, reply), Lookup::Served));
        cache.finish(&key, Ok(vec![7; 3].into()));
        let samples = [&mut first, &mut second].map(|answer| match answer.try_recv() {
            Ok(Ok(Opened { prompt: Prompt::Whole(samples), .. })) => samples,
            other => panic!("{other:?}"),
        });
        assert!(Arc::ptr_eq(&samples[0], &samples[1]));
        assert_eq!((cache.stats().misses, cache.stats().hits), (1, 1));
    }
}
