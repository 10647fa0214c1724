//! Values with a form of their own: how many shards, which cores, which ports.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Number of shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShardCount {
    /// One for each core.
    Auto,
    /// This many, `1 ..= 255`.
    Fixed(u8),
}

impl FromStr for ShardCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            number => match number.parse() {
                Ok(shards @ 1..) => Ok(Self::Fixed(shards)),
                Ok(0) | Err(_) => Err(format!("`{text}` is no number of shards: 1 to 255, or auto")),
            },
        }
    }
}

impl<'de> Deserialize<'de> for ShardCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(u64),
            Text(String),
        }
        let text = match Given::deserialize(deserializer)? {
            Given::Number(number) => number.to_string(),
            Given::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A list of cores.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuList(pub Vec<usize>);

impl FromStr for CpuList {
    type Err = String;

    /// Reads `0-3,6`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no list of cores like 0-3,6");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| wrong())?;
            let last: usize = last.trim().parse().map_err(|_| wrong())?;
            if first > last || last >= CPU_NUMBER_MAX {
                return Err(wrong());
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("core {cpu} stands twice in `{text}`"));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Numbers(Vec<usize>),
            Text(String),
        }
        let text = match Given::deserialize(deserializer)? {
            Given::Numbers(numbers) if numbers.is_empty() => return Ok(Self::default()),
            Given::Numbers(numbers) => numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
            Given::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Local media ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    pub(super) lo: u16,
    pub(super) hi: u16,
}

impl PortRange {
    /// The range from `lo` to `hi`, both included.
    ///
    /// # Errors
    /// A sentence, if `lo` is odd or below 1024 or there is no pair in the range.
    pub fn new(lo: u16, hi: u16) -> Result<Self, String> {
        if lo % 2 == 1 || lo < 1024 || hi <= lo {
            return Err(format!("{lo}-{hi} is no range of ports: the first is even, at least 1024 and below the last"));
        }
        Ok(Self { lo, hi })
    }

    /// The even port of every pair, ascending.
    pub fn pairs(self) -> impl Iterator<Item = u16> {
        (self.lo..self.hi).step_by(2)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no range of ports like 30000-49999");
        let (lo, hi) = text.split_once('-').ok_or_else(wrong)?;
        Self::new(lo.trim().parse().map_err(|_| wrong())?, hi.trim().parse().map_err(|_| wrong())?)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lo, self.hi)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Cores are numbered below this.
const CPU_NUMBER_MAX: usize = 4096;
