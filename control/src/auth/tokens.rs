//! Tokens and keys: 256 random bits, known here by their SHA-256 only.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A token or key on its way to whom it belongs. It does not show in logs, and is not kept.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new one: 256 random bits in base64url, 43 characters.
    pub fn random() -> Self {
        Self(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
    }

    /// A new one in the form of a GUID (RFC 9562 version 4: 122 random bits), for clients that take nothing else.
    pub fn random_guid() -> Self {
        Self(random_guid())
    }

    /// What is handed out.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A random GUID in text, lower case.
pub fn random_guid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The SHA-256 of a token's or key's text: enough to know it again, useless to whoever reads it.
#[derive(Clone, Copy, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of a text as it came in.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As it was stored.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl PartialEq for KeyHash {
    /// Takes the same time wherever the difference is.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl FromStr for KeyHash {
    type Err = String;

    /// Reads 64 hexadecimal digits, as `sha256sum` prints them.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "no SHA-256: 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them".to_owned();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// Tokens that are valid, and what belongs to each. They end with the server.
#[derive(Debug)]
pub struct Tokens<T> {
    valid: HashMap<KeyHash, Issued<T>>,
    lifetime: Duration,
    tokens_max: usize,
}

#[derive(Debug)]
struct Issued<T> {
    until: Instant,
    value: T,
}

/// There are as many tokens as there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} tokens are valid already; try again when some have expired")]
pub struct TooManyTokens(usize);

impl<T> Tokens<T> {
    /// None yet. Each is valid for `lifetime`; there are never more than `tokens_max`.
    pub fn new(lifetime: Duration, tokens_max: usize) -> Self {
        Self { valid: HashMap::new(), lifetime, tokens_max }
    }

    /// Issues a token for `value`.
    ///
    /// # Errors
    /// There are too many.
    pub fn issue(&mut self, now: Instant, value: T) -> Result<Token, TooManyTokens> {
        let token = Token::random();
        self.insert(now, &token, value)?;
        Ok(token)
    }

    /// The same with a token made by the caller, whose form is another.
    ///
    /// # Errors
    /// There are too many.
    pub fn insert(&mut self, now: Instant, token: &Token, value: T) -> Result<(), TooManyTokens> {
        if self.valid.len() >= self.tokens_max {
            self.expire(now);
        }
        if self.valid.len() >= self.tokens_max {
            return Err(TooManyTokens(self.tokens_max));
        }
        self.valid.insert(token.hash(), Issued { until: now + self.lifetime, value });
        Ok(())
    }

    /// What belongs to a token, if it is valid.
    pub fn find(&self, now: Instant, token: &str) -> Option<&T> {
        // The table is keyed by hash: how long a look-up takes tells nothing about the tokens in it.
        self.valid.get(&KeyHash::of(token)).filter(|issued| now < issued.until).map(|issued| &issued.value)
    }

    /// Makes a valid token last its whole lifetime again; whether it was valid.
    pub fn renew(&mut self, now: Instant, token: &str) -> bool {
        let until = now + self.lifetime;
        let issued = self.valid.get_mut(&KeyHash::of(token)).filter(|issued| now < issued.until);
        issued.map(|issued| issued.until = until).is_some()
    }

    /// Ends a token; what belonged to it, if it was valid.
    pub fn revoke(&mut self, now: Instant, token: &str) -> Option<T> {
        self.valid.remove(&KeyHash::of(token)).filter(|issued| now < issued.until).map(|issued| issued.value)
    }

    /// Makes room for one more of those whose value `is_one`, of which there may be `max`: ends the oldest.
    pub fn make_room(&mut self, max: usize, is_one: impl Fn(&T) -> bool) {
        let ones = || self.valid.iter().filter(|(_, issued)| is_one(&issued.value));
        if ones().count() < max {
            return;
        }
        let oldest = ones().min_by_key(|(_, issued)| issued.until).map(|(hash, _)| *hash);
        if let Some(hash) = oldest {
            self.valid.remove(&hash);
        }
    }

    /// Ends every token whose value is not to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.valid.retain(|_, issued| keep(&issued.value));
    }

    /// Forgets those that have expired; what belonged to them.
    pub fn expire(&mut self, now: Instant) -> Vec<T> {
        self.valid.extract_if(|_, issued| issued.until <= now).map(|(_, issued)| issued.value).collect()
    }

    /// How many there are, expired ones that were not yet forgotten included.
    pub fn len(&self) -> usize {
        self.valid.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.valid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let tokens: HashSet<String> = (0..1000).map(|_| Token::random().as_str().to_owned()).collect();
        assert_eq!(tokens.len(), 1000);
        assert!(tokens.iter().all(|token| URL_SAFE_NO_PAD.decode(token).unwrap().len() == 32));
        let guid = random_guid();
        let parts: Vec<usize> = guid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&guid[14..15], "4");
        assert!("89ab".contains(&guid[19..20]));
    }

    #[test]
    fn hashes_are_sha_256() {
        // FIPS 180-4, example "abc".
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of("abc"), known.parse().unwrap());
        assert_ne!(KeyHash::of("abd"), known.parse().unwrap());
        for wrong in ["", "ba78", &known[1..], &format!("{}zz", &known[2..]), &"é".repeat(32)] {
            assert!(wrong.parse::<KeyHash>().unwrap_err().contains("64 hexadecimal"));
        }
    }

    #[test]
    fn a_token_is_valid_until_it_expires_or_is_revoked() {
        let now = Instant::now();
        let mut tokens = Tokens::new(HOUR, 10);
        let token = tokens.issue(now, "anna").unwrap();
        assert_eq!(tokens.find(now, token.as_str()), Some(&"anna"));
        assert_eq!(tokens.find(now, "another"), None);
        assert_eq!(tokens.find(now + HOUR - Duration::from_nanos(1), token.as_str()), Some(&"anna"));
        assert_eq!(tokens.find(now + HOUR, token.as_str()), None);
        assert!(tokens.renew(now + HOUR / 2, token.as_str()));
        assert_eq!(tokens.find(now + HOUR, token.as_str()), Some(&"anna"));
        assert!(!tokens.renew(now + 2 * HOUR, token.as_str()), "too late");
        assert_eq!(tokens.revoke(now, token.as_str()), Some("anna"));
        assert_eq!(tokens.revoke(now, token.as_str()), None);
        assert!(tokens.is_empty());
    }

    #[test]
    fn the_table_has_a_maximum_that_expired_tokens_do_not_fill() {
        let now = Instant::now();
        let mut tokens = Tokens::new(HOUR, 2);
        tokens.issue(now, 1).unwrap();
        tokens.issue(now + HOUR / 2, 2).unwrap();
        assert_eq!(tokens.issue(now + HOUR / 2, 3).unwrap_err(), TooManyTokens(2));
        tokens.issue(now + HOUR, 3).unwrap();
        tokens.retain(|value| *value != 2);
        assert_eq!(tokens.len(), 1);
        assert_eq!(tokens.expire(now + 3 * HOUR), [3]);
    }

    #[test]
    fn the_oldest_of_its_kind_makes_room() {
        let mut tokens = Tokens::new(HOUR, 10);
        let now = Instant::now();
        let issued: Vec<Token> = (0..4)
            .map(|number: u32| {
                tokens.make_room(2, |kind| *kind == number % 2);
                tokens.issue(now + Duration::from_secs(u64::from(number)), number % 2).unwrap()
            })
            .collect();
        let left = |tokens: &Tokens<u32>| {
            issued.iter().map(|token| tokens.find(now, token.as_str()).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(left(&tokens), [true; 4]);
        tokens.make_room(2, |kind| *kind == 1);
        assert_eq!(left(&tokens), [true, false, true, true]);
    }

    #[test]
    fn nothing_shows_in_logs() {
        let token = Token::random();
        let mut tokens = Tokens::new(HOUR, 1);
        tokens.insert(Instant::now(), &token, 1).unwrap();
        let text = format!("{token:?} {:?} {tokens:?}", token.hash());
        assert!(!text.contains(token.as_str()) && text.contains("Token(…)"), "{text}");
    }
}
