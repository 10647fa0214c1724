//! Settings of the ICWS API.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{ConfigError, codec_by_name};

/// How the ICWS API behaves; without `listen` it is off.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IcwsConfig {
    /// Where it is served: over TLS if there is a certificate, else over plain HTTP on loopback only.
    pub listen: Option<SocketAddr>,
    /// Origins of web pages that may use it, such as `https://phone.example.com`; none by default.
    pub origins: Vec<String>,
    /// Telephones messages can be played on, besides connections with the label `station:ID`.
    pub stations: Vec<StationConfig>,
}

/// A telephone messages can be played on.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StationConfig {
    /// What clients call it.
    pub id: String,
    /// Its number.
    pub number: Option<String>,
    /// Where it takes RTP while there is no connection with the label `station:ID`.
    pub remote: Option<SocketAddr>,
    /// Codec of that RTP; as `rtp.codec` if absent.
    pub codec: Option<String>,
}

impl IcwsConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field, value: &str, rule| Err(ConfigError::Range { field, value: value.to_owned(), rule });
        for station in &self.stations {
            let same = |other: &&StationConfig| other.id == station.id || other.number.as_ref() == Some(&station.id);
            if station.id.is_empty() || station.id.len() > STATION_BYTES_MAX {
                return wrong("icws.stations.id", &station.id, "1 to 128 bytes long");
            }
            if self.stations.iter().filter(same).count() > 1 {
                return wrong("icws.stations.id", &station.id, "the id or number of one station only");
            }
            if let Some(codec) = &station.codec
                && codec_by_name(codec).is_none_or(|kind| !kind.is_decodable())
            {
                return wrong("icws.stations.codec", codec, super::CODECS_DECODED);
            }
        }
        let is_origin = |origin: &&String| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            host.is_some_and(|host| {
                !host.is_empty() && !host.contains('/') && host.bytes().all(|b| b.is_ascii_graphic())
            })
        };
        match self.origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => wrong("icws.origins", origin, "of the form https://host or https://host:port"),
            None => Ok(()),
        }
    }
}

/// Bytes of a station's id.
const STATION_BYTES_MAX: usize = 128;
