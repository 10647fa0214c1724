//! `connection.*`

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use ringbridge_media::command::{
    CodecKind, Command, ConnectionChange, ConnectionSpec, DigitSource, Direction, EncoderSettings, is_taken_for_rtcp,
};
use ringbridge_media::digits::Digits;
use ringbridge_media::event::Answer;
use ringbridge_media::id::ConnectionId;
use ringbridge_media::limits::{DELAY_MS_MAX, DIGITS_MAX, PAYLOAD_TYPES_MAX, RELAY_PTIME_MS_MAX};
use ringbridge_media::playout::DelaySpec;
use ringbridge_shard::sockets::SocketOptions;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::conference::{dissolve, take_out};
use super::operation::{self, shard_of, target_or_utility};
use super::render::{self, effect_of};
use super::{Call, LABEL_BYTES_MAX, PAGE, conference_id, connection_id, in_length, in_range, shard_id, unexpected};
use crate::config::{codec_by_name, codec_name};
use crate::ports::PortError;
use crate::proto::{ErrorKind, NoParams, RpcError, params};
use crate::quota::Class;
use crate::router::{Concern, Dispatch};
use crate::tickets::Key;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    remote: Option<SocketAddr>,
    remote_rtcp: Option<SocketAddr>,
    codec: Option<String>,
    rx_codec: Option<String>,
    tx_codec: Option<String>,
    payload_types: Option<BTreeMap<String, String>>,
    telephone_event_pt: Option<u8>,
    ptime_ms: Option<u32>,
    direction: Option<DirectionName>,
    conference_id: Option<String>,
    shard: Option<u8>,
    interface: Option<String>,
    dscp: Option<u8>,
    rtp_timeout_ms: Option<u32>,
    label: Option<String>,
    reserve_ms: Option<u32>,
    digits: Option<DigitSourceName>,
    rtcp_mux: Option<bool>,
    rtcp_reports: Option<bool>,
    jitter_buffer: Option<JitterBuffer>,
    encoder: Option<EncoderChange>,
    audio_level_extension: Option<u8>,
    mixer_level_extension: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Modify {
    connection_id: String,
    remote: Option<SocketAddr>,
    remote_rtcp: Option<SocketAddr>,
    codec: Option<String>,
    rx_codec: Option<String>,
    tx_codec: Option<String>,
    payload_types: Option<BTreeMap<String, String>>,
    telephone_event_pt: Option<u8>,
    ptime_ms: Option<u32>,
    direction: Option<DirectionName>,
    dscp: Option<u8>,
    #[serde(default, deserialize_with = "present")]
    rtp_timeout_ms: Option<Option<u32>>,
    label: Option<String>,
    reserve_ms: Option<u32>,
    digits: Option<DigitSourceName>,
    jitter_buffer: Option<JitterBuffer>,
    encoder: Option<EncoderChange>,
    #[serde(default, deserialize_with = "present")]
    audio_level_extension: Option<Option<u8>>,
    #[serde(default, deserialize_with = "present")]
    mixer_level_extension: Option<Option<u8>>,
}

/// Checks the identifier of a header extension (RFC 8285 section 4.2).
fn extension(param: &str, id: Option<u8>) -> Result<Option<u8>, RpcError> {
    id.map(|id| in_range(param, id, 1..=14)).transpose()
}

/// Bounds of the delay of what arrives.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JitterBuffer {
    min_ms: u16,
    max_ms: u16,
}

impl JitterBuffer {
    fn checked(self) -> Result<DelaySpec, RpcError> {
        let max_ms = in_range("jitter_buffer.max_ms", self.max_ms, 10..=DELAY_MS_MAX)?;
        let min_ms = in_range("jitter_buffer.min_ms", self.min_ms, 0..=max_ms)?;
        Ok(DelaySpec { min_ms, max_ms })
    }
}

/// How the encoder is to encode; what is left out has its default.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncoderChange {
    bitrate: Option<u32>,
    fec: Option<bool>,
    dtx: Option<bool>,
}

impl EncoderChange {
    fn checked(self) -> Result<EncoderSettings, RpcError> {
        let defaults = EncoderSettings::default();
        let bitrate = in_range("encoder.bitrate", self.bitrate.unwrap_or(defaults.bitrate), BITRATES)?;
        Ok(EncoderSettings { bitrate, fec: self.fec.unwrap_or(defaults.fec), dtx: self.dtx.unwrap_or(defaults.dtx) })
    }
}

/// Bits per second of Opus (RFC 7587 section 3.1.1).
const BITRATES: RangeInclusive<u32> = 6_000..=510_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SendDigits {
    connection_id: String,
    digits: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    connection_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    connection_id: Option<String>,
    conference_id: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DirectionName {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DigitSourceName {
    Events,
    Auto,
}

/// Codecs and payload types as negotiated. Kept because the names are text, which no shard sees, and because a change
/// of one part has to be checked against the others.
#[derive(Clone, PartialEq, Debug)]
pub struct Negotiated {
    /// Decoded.
    pub rx_codec: CodecKind,
    /// Encoded.
    pub tx_codec: CodecKind,
    /// Payload type of telephone-events.
    pub telephone_event_payload_type: u8,
    /// What the client named: payload type to `name/clock[/channels]`.
    pub names: BTreeMap<u8, String>,
    /// RTP and RTCP share a port, which leaves fewer payload types.
    pub rtcp_mux: bool,
}

impl Negotiated {
    /// One codec both ways under its static payload type.
    pub fn new(codec: CodecKind, telephone_event_payload_type: u8) -> Self {
        Self { rx_codec: codec, tx_codec: codec, telephone_event_payload_type, names: BTreeMap::new(), rtcp_mux: false }
    }

    /// Whether one of the codecs is of low bit rate, which counts as a resource of its own.
    pub fn is_enhanced(&self) -> bool {
        let low_bitrate = |kind| matches!(kind, CodecKind::G723 | CodecKind::G729 | CodecKind::Gsm | CodecKind::Opus);
        low_bitrate(self.rx_codec) || low_bitrate(self.tx_codec)
    }

    /// Takes in what a client gives and checks the whole.
    fn change(
        &mut self,
        codecs: [Option<&str>; 3],
        names: Option<&BTreeMap<String, String>>,
        telephone_event_pt: Option<u8>,
    ) -> Result<(), RpcError> {
        let [codec, rx_codec, tx_codec] = codecs;
        let named = |param: &str, given: Option<&str>| given.map(|name| codec_named(param, name)).transpose();
        let both = named("codec", codec)?;
        self.rx_codec = named("rx_codec", rx_codec)?.or(both).unwrap_or(self.rx_codec);
        self.tx_codec = named("tx_codec", tx_codec)?.or(both).unwrap_or(self.tx_codec);
        if let Some(names) = names {
            self.names = names.iter().map(|(number, name)| payload_type(number, name)).collect::<Result<_, _>>()?;
            // One for each clock rate (RFC 4733 section 7.1.1): that of the codec, if it is among them.
            let clock = self.rx_codec.clock_rate_hz();
            let events = || self.names.iter().filter(|(_, name)| encoding(name).eq_ignore_ascii_case(TELEPHONE_EVENT));
            let named = events().find(|(_, name)| clock_of(name) == Some(clock)).or_else(|| events().next());
            if let Some((number, _)) = named {
                self.telephone_event_payload_type = *number;
            }
        }
        if let Some(number) = telephone_event_pt {
            self.telephone_event_payload_type = in_range("telephone_event_pt", number, 0..=127)?;
        }
        self.check()
    }

    fn check(&self) -> Result<(), RpcError> {
        let telephone_event = self.telephone_event_payload_type;
        let numbers = || self.names.keys().copied().map(|number| ("payload_types", number));
        for (param, number) in numbers().chain([("telephone_event_pt", telephone_event)]) {
            if is_taken_for_rtcp(number, self.rtcp_mux) {
                let others = if self.rtcp_mux { "64 to 95 (with rtcp_mux)" } else { "72 to 76" };
                let message =
                    format!("{param}: {number} would be taken for RTCP; take a payload type outside {others}");
                return Err(RpcError::invalid_param(param, message));
            }
        }
        let codecs = [(self.rx_codec, self.rx_payload_type()), (self.tx_codec, self.tx_payload_type())];
        for (kind, number) in codecs {
            if number == telephone_event {
                let message = format!("telephone_event_pt: {number} is {}", codec_name(kind));
                return Err(RpcError::invalid_param("telephone_event_pt", message));
            }
            if self.names.get(&number).is_some_and(|name| codec_by_name(name) != Some(kind)) {
                let message = format!("payload_types: {number} is {} here", codec_name(kind));
                return Err(RpcError::invalid_param("payload_types", message));
            }
        }
        let named = self.names.get(&telephone_event);
        if named.is_some_and(|name| !encoding(name).eq_ignore_ascii_case(TELEPHONE_EVENT)) {
            let message = format!("payload_types: {telephone_event} is telephone-event here");
            return Err(RpcError::invalid_param("payload_types", message));
        }
        if self.further().count() > PAYLOAD_TYPES_MAX {
            let message = format!("payload_types: more than {PAYLOAD_TYPES_MAX} besides codec and telephone-event");
            return Err(RpcError::invalid_param("payload_types", message));
        }
        Ok(())
    }

    /// Payload type of what is decoded.
    pub fn rx_payload_type(&self) -> u8 {
        self.number_of(self.rx_codec)
    }

    /// Payload type of what is sent.
    pub fn tx_payload_type(&self) -> u8 {
        self.number_of(self.tx_codec)
    }

    /// Payload type of comfort noise at the clock rate of what is decoded, if the client named one.
    pub fn comfort_noise_payload_type(&self) -> Option<u8> {
        let clock = self.rx_codec.clock_rate_hz();
        let is_noise = |name: &str| encoding(name).eq_ignore_ascii_case(COMFORT_NOISE) && clock_of(name) == Some(clock);
        self.names.iter().find(|(_, name)| is_noise(name)).map(|(number, _)| *number)
    }

    /// Further payload types, as a shard wants them.
    pub fn payload_types(&self) -> [Option<u8>; PAYLOAD_TYPES_MAX] {
        let mut further = [None; PAYLOAD_TYPES_MAX];
        for (place, number) in further.iter_mut().zip(self.further()) {
            *place = Some(number);
        }
        further
    }

    /// The static payload type (RFC 3551 section 6), unless the client gave the codec another number.
    fn number_of(&self, kind: CodecKind) -> u8 {
        let named = self.names.iter().find(|(_, name)| codec_by_name(name) == Some(kind));
        named.map_or_else(|| kind.payload_type(), |(number, _)| *number)
    }

    fn further(&self) -> impl Iterator<Item = u8> {
        let known = [self.rx_payload_type(), self.tx_payload_type(), self.telephone_event_payload_type];
        self.names.keys().copied().filter(move |number| !known.contains(number))
    }
}

/// Opens a connection: a port pair, and a place on a shard.
pub(super) async fn create(call: &Call, given: Value) -> Result<Value, RpcError> {
    let given: Create = params(given)?;
    let server = &call.server;
    let defaults = &server.config.rtp;
    if server.is_draining() {
        return Err(RpcError::new(ErrorKind::Draining, "the server takes no new connections"));
    }
    let label = in_length("label", given.label, LABEL_BYTES_MAX)?;
    let ptime_ms = in_range("ptime_ms", given.ptime_ms.unwrap_or(defaults.ptime_ms), 1..=RELAY_PTIME_MS_MAX)?;
    let dscp = in_range("dscp", given.dscp.unwrap_or(defaults.dscp), 0..=63)?;
    let rtp_timeout_ms = timeout(given.rtp_timeout_ms.or(Some(defaults.rtp_timeout_ms)))?;
    let mut negotiated = Negotiated::new(defaults.codec, defaults.telephone_event_pt);
    negotiated.rtcp_mux = given.rtcp_mux.unwrap_or(false);
    negotiated.change(
        [given.codec.as_deref(), given.rx_codec.as_deref(), given.tx_codec.as_deref()],
        given.payload_types.as_ref(),
        given.telephone_event_pt,
    )?;
    let ip = match &given.interface {
        None => server.config.bind,
        Some(name) => *server.config.interfaces.get(name).ok_or_else(|| {
            RpcError::invalid_param("interface", format!("interface: none is configured under the name `{name}`"))
        })?,
    };
    let sends_only = given.direction.is_some_and(|direction| Direction::from(direction) == Direction::SendOnly);
    let remote = endpoint("remote", given.remote, ip, sends_only)?;
    let remote_rtcp = endpoint("remote_rtcp", given.remote_rtcp, ip, sends_only)?;
    let reserve_ms = reservation(given.reserve_ms, remote)?;
    let digit_source = given.digits.map_or_else(DigitSource::default, DigitSource::from);
    let delay = given.jitter_buffer.map(JitterBuffer::checked).transpose()?.unwrap_or_default();
    let encoder = given.encoder.map(EncoderChange::checked).transpose()?.unwrap_or_default();
    let hinted = given.conference_id.as_deref().map(conference_id).transpose()?;
    let hinted = hinted.map(|id| call.part_for(id, None)).transpose()?;
    let shard = match (given.shard, hinted) {
        (Some(shard), _) => shard_id(server, shard)?,
        (None, Some(shard)) => shard,
        (None, None) => server.place(),
    };

    let rtp_unit = server.quota.try_take(Class::Rtp)?;
    let enhanced = negotiated.is_enhanced().then(|| server.quota.try_take(Class::EnhancedRtp)).transpose()?;
    let (lease, rtp, rtcp) =
        server.ports.take(ip, SocketOptions { dscp, ..SocketOptions::default() }).map_err(port_error)?;
    let (local, local_rtcp) = (lease.rtp(), lease.rtcp());
    let spec = Box::new(ConnectionSpec {
        remote,
        remote_rtcp,
        rx_codec: negotiated.rx_codec,
        rx_payload_type: negotiated.rx_payload_type(),
        tx_codec: negotiated.tx_codec,
        tx_payload_type: negotiated.tx_payload_type(),
        encoder,
        telephone_event_payload_type: negotiated.telephone_event_payload_type,
        comfort_noise_payload_type: negotiated.comfort_noise_payload_type(),
        audio_level_extension: extension("audio_level_extension", given.audio_level_extension)?,
        mixer_level_extension: extension("mixer_level_extension", given.mixer_level_extension)?,
        delay,
        payload_types: negotiated.payload_types(),
        ptime_ms,
        direction: given.direction.map_or_else(Direction::default, Direction::from),
        rtp_timeout_ms,
        barred: lease.barred(),
        handover: defaults.handover,
        digit_source,
        reserve_ms,
        rtcp_mux: negotiated.rtcp_mux,
        rtcp_reports: given.rtcp_reports.unwrap_or(true),
    });
    let id = {
        let mut registry = server.registry.borrow_mut();
        let entry = registry
            .add_connection(shard, lease, negotiated, dscp, rtp_unit, enhanced)
            .map_err(|full| RpcError::new(ErrorKind::LimitReached, full.to_string()).with("shard", shard.0))?;
        entry.label = label;
        entry.interface = given.interface;
        entry.remote = remote.map(|remote| remote.ip());
        entry.digit_source = digit_source;
        entry.reserved = reserve_ms.is_some();
        entry.id
    };
    let command = Command::CreateConnection { id, spec };
    let dispatch = Dispatch { shard, command, received: call.received, concern: Concern::Connection(id) };
    let sent = server.router.borrow_mut().open(dispatch, rtp, rtcp);
    let receiver = sent.inspect_err(|_| server.abandon_connection(id))?;
    // An error takes the connection out of the registry before it arrives here.
    crate::server::InFlight::new(receiver, shard).answer().await?;
    Ok(created(id, local, local_rtcp, shard.0, reserve_ms.is_some()))
}

/// Changes a connection.
pub(super) async fn modify(call: &Call, given: Value) -> Result<Value, RpcError> {
    let given: Modify = params(given)?;
    let id = connection_id(&given.connection_id)?;
    let label = in_length("label", given.label, LABEL_BYTES_MAX)?;
    let ptime_ms = given.ptime_ms.map(|ptime| in_range("ptime_ms", ptime, 1..=RELAY_PTIME_MS_MAX)).transpose()?;
    let rtp_timeout_ms = given.rtp_timeout_ms.map(timeout).transpose()?;
    let ticket = call.ticket(&[Key::Connection(id)]);
    ticket.turn().await;
    let (shard, local, local_rtcp, dscp, mut negotiated) = call.connection(id, |entry| {
        (entry.shard, entry.lease.rtp(), entry.lease.rtcp(), entry.dscp, entry.negotiated.clone())
    })?;
    let sends_only = given.direction.is_some_and(|direction| Direction::from(direction) == Direction::SendOnly);
    let remote = endpoint("remote", given.remote, local.ip(), sends_only)?;
    let remote_rtcp = endpoint("remote_rtcp", given.remote_rtcp, local.ip(), sends_only)?;
    let reserve_ms = reservation(given.reserve_ms, remote)?;
    if given.dscp.is_some_and(|given| given != dscp) {
        return Err(RpcError::unsupported("a change of dscp").with("param", "dscp"));
    }
    let before = negotiated.clone();
    negotiated.change(
        [given.codec.as_deref(), given.rx_codec.as_deref(), given.tx_codec.as_deref()],
        given.payload_types.as_ref(),
        given.telephone_event_pt,
    )?;
    let renegotiated = negotiated != before;
    // Taken before the codec is changed, given back after.
    let enhanced = negotiated.is_enhanced();
    let new_unit = if enhanced && !call.connection(id, |entry| entry.enhanced_rtp.is_some())? {
        Some(call.server.quota.try_take(Class::EnhancedRtp)?)
    } else {
        None
    };
    let change = ConnectionChange {
        remote,
        remote_rtcp,
        rx_codec: renegotiated.then(|| (negotiated.rx_codec, negotiated.rx_payload_type())),
        tx_codec: renegotiated.then(|| (negotiated.tx_codec, negotiated.tx_payload_type())),
        encoder: given.encoder.map(EncoderChange::checked).transpose()?,
        telephone_event_payload_type: renegotiated.then_some(negotiated.telephone_event_payload_type),
        comfort_noise_payload_type: renegotiated.then(|| negotiated.comfort_noise_payload_type()),
        audio_level_extension: given
            .audio_level_extension
            .map(|id| extension("audio_level_extension", id))
            .transpose()?,
        mixer_level_extension: given
            .mixer_level_extension
            .map(|id| extension("mixer_level_extension", id))
            .transpose()?,
        delay: given.jitter_buffer.map(JitterBuffer::checked).transpose()?,
        payload_types: renegotiated.then(|| negotiated.payload_types()),
        ptime_ms,
        direction: given.direction.map(Direction::from),
        rtp_timeout_ms,
        digit_source: given.digits.map(DigitSource::from),
        reserve_ms,
    };
    let sent = call.server.send(shard, Command::ModifyConnection { id, change: Box::new(change) }, call.received);
    // The next change is worked out from this one, so it has to be known whether this one was taken.
    let held = (renegotiated || reserve_ms.is_some()).then_some(ticket);
    sent?.answer().await.map_err(|error| error.about("connection_id", id))?;
    let mut reserved = false;
    if let Some(entry) = call.server.registry.borrow_mut().connection_mut(id) {
        if renegotiated {
            entry.negotiated = negotiated;
            entry.enhanced_rtp = entry.enhanced_rtp.take().or(new_unit).filter(|_| enhanced);
        }
        if label.is_some() {
            entry.label = label;
        }
        entry.digit_source = given.digits.map_or(entry.digit_source, DigitSource::from);
        entry.remote = remote.map(|remote| remote.ip()).or(entry.remote);
        entry.reserved = reserve_ms.is_some() || (entry.reserved && remote.is_none());
        reserved = entry.reserved;
    }
    drop(held);
    Ok(created(id, local, local_rtcp, shard.0, reserved))
}

/// Puts digits into the buffer of a connection, or of the operations of a conference, as if they had been pressed.
pub(super) async fn send_digits(call: &Call, given: Value) -> Result<Value, RpcError> {
    let SendDigits { connection_id, digits } = params(given)?;
    if digits.len() > DIGITS_MAX {
        let message = format!("digits: {} are more than the buffer holds, {DIGITS_MAX}", digits.len());
        return Err(RpcError::new(ErrorKind::LimitReached, message).with("param", "digits"));
    }
    let digits = Digits::parse(&digits)
        .filter(|digits| !digits.is_empty())
        .ok_or_else(|| RpcError::invalid_param("digits", format!("digits: `{digits}` is not made of 0-9 * # A-D")))?;
    let (target, _) = target_or_utility(call, Some(&connection_id), None)?;
    let ticket = call.ticket(&[operation::key(target)]);
    ticket.turn().await;
    let sent = call.send(ticket, shard_of(call, target)?, Command::SendDigits { target, digits })?;
    sent.answer().await.map_err(|error| error.about("connection_id", connection_id))?;
    Ok(json!({}))
}

/// Reports one connection.
pub(super) async fn get(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Get { connection_id: id } = params(given)?;
    let id = connection_id(&id)?;
    let ticket = call.ticket(&[Key::Connection(id)]);
    ticket.turn().await;
    let shard = call.connection(id, |entry| entry.shard)?;
    let answer = call.send(ticket, shard, Command::InspectConnection { id })?.answer().await?;
    let Answer::Connection(status) = answer else { return Err(unexpected(&answer)) };
    Ok(render::connection(&status, &call.server.registry.borrow()))
}

/// Reports every connection of every shard that is up, page by page.
pub(super) async fn list(call: &Call, given: Value) -> Result<Value, RpcError> {
    let NoParams {} = params(given)?;
    let mut connections = Vec::new();
    for shard in call.server.shard_ids() {
        let mut from = Some(0);
        while let Some(first) = from {
            if !call.server.router.borrow().is_up(shard) {
                break;
            }
            let command = Command::ListConnections { from: first, limit: PAGE };
            let answer = call.server.send(shard, command, call.received)?.answer().await?;
            let Answer::Connections { page, next } = answer else { return Err(unexpected(&answer)) };
            let registry = call.server.registry.borrow();
            connections.extend(page.iter().map(|status| render::connection(status, &registry)));
            from = next.filter(|next| *next > first);
        }
    }
    Ok(json!({"connections": connections}))
}

/// Releases a connection, or a conference with all its connections, or takes a connection out of a conference.
pub(super) async fn delete(call: &Call, given: Value) -> Result<Value, RpcError> {
    let Delete { connection_id: connection, conference_id: conference } = params(given)?;
    let connection = connection.as_deref().map(connection_id).transpose()?;
    let conference = conference.as_deref().map(conference_id).transpose()?;
    match (connection, conference) {
        (Some(id), None) => release(call, id).await,
        (None, Some(id)) => dissolve(call, id, false).await,
        (Some(connection), Some(conference)) => {
            let answer = take_out(call, conference, connection).await?;
            Ok(json!({"deleted": [], "effect": effect_of(&answer)?}))
        }
        (None, None) => {
            Err(RpcError::invalid_param("connection_id", "connection_id or conference_id or both have to be given"))
        }
    }
}

async fn release(call: &Call, id: ConnectionId) -> Result<Value, RpcError> {
    let ticket = call.ticket(&[Key::Connection(id)]);
    call.server.preparing.turn_of_stop(&ticket, Key::Connection(id)).await;
    let shard = call.connection(id, |entry| entry.shard)?;
    let answer = call.send(ticket, shard, Command::DeleteConnection { id })?.answer().await?;
    let deleted = call.settle_deleted(&answer, None).await;
    Ok(json!({"deleted": deleted, "effect": effect_of(&answer)?}))
}

fn created(id: ConnectionId, local: SocketAddr, local_rtcp: SocketAddr, shard: u8, reserved: bool) -> Value {
    let mut created = json!({
        "connection_id": id.to_string(),
        "local": local.to_string(),
        "local_rtcp": local_rtcp.to_string(),
        "shard": shard,
    });
    if reserved {
        created["reserved"] = true.into();
    }
    created
}

fn codec_named(param: &str, name: &str) -> Result<CodecKind, RpcError> {
    codec_by_name(name).ok_or_else(|| {
        RpcError::new(ErrorKind::UnsupportedCodec, format!("{param}: there is no codec `{name}` here"))
            .with("param", param)
            .with("codec", name)
    })
}

/// Reads one member of `payload_types`.
fn payload_type(number: &str, name: &str) -> Result<(u8, String), RpcError> {
    let wrong = |message: String| RpcError::invalid_param("payload_types", format!("payload_types: {message}"));
    let parsed = number.parse::<u8>().ok().filter(|parsed| *parsed <= 127 && parsed.to_string() == number);
    let parsed = parsed.ok_or_else(|| wrong(format!("`{number}` is no payload type, 0 to 127")))?;
    let mut parts = name.split('/');
    let token = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte);
        !text.is_empty() && text.len() <= ENCODING_BYTES_MAX && text.bytes().all(allowed)
    };
    let well_formed = parts.next().is_some_and(token)
        && parts.next().is_some_and(|clock| clock.parse::<u32>().is_ok_and(|clock| clock > 0))
        && parts.next().is_none_or(|channels| channels.parse::<u8>().is_ok_and(|channels| channels > 0))
        && parts.next().is_none();
    if !well_formed {
        return Err(wrong(format!("`{name}` is not of the form name/clock or name/clock/channels")));
    }
    Ok((parsed, name.to_owned()))
}

/// The encoding name in `name/clock[/channels]`.
fn encoding(name: &str) -> &str {
    name.split_once('/').map_or(name, |(encoding, _)| encoding)
}

/// The clock rate in it.
fn clock_of(name: &str) -> Option<u32> {
    name.split('/').nth(1)?.parse().ok()
}

/// Checks an address media is to be sent to.
fn endpoint(
    param: &str,
    remote: Option<SocketAddr>,
    local: IpAddr,
    sends_only: bool,
) -> Result<Option<SocketAddr>, RpcError> {
    let Some(remote) = remote else { return Ok(None) };
    let wrong = |message| Err(RpcError::invalid_param(param, format!("{param}: {remote} {message}")));
    let broadcast = remote.ip() == IpAddr::V4(Ipv4Addr::BROADCAST);
    if remote.port() == 0 || remote.ip().is_unspecified() || broadcast {
        return wrong("is no address of one endpoint");
    }
    if remote.ip().is_multicast() && !sends_only {
        return wrong("is a multicast address: give direction \"sendonly\" with it");
    }
    if remote.is_ipv4() != local.is_ipv4() {
        return wrong(if local.is_ipv4() {
            "can't be reached from an IPv4 address"
        } else {
            "can't be reached from an IPv6 address"
        });
    }
    Ok(Some(remote))
}

/// For how long a connection is reserved only, if it is.
fn reservation(reserve_ms: Option<u32>, remote: Option<SocketAddr>) -> Result<Option<u32>, RpcError> {
    let reserve_ms = reserve_ms.map(|reserve| in_range("reserve_ms", reserve, 1..=RESERVE_MS_MAX)).transpose()?;
    if reserve_ms.is_some() && remote.is_some() {
        let message = "reserve_ms: a connection with a remote address is not only reserved";
        return Err(RpcError::invalid_param("reserve_ms", message));
    }
    Ok(reserve_ms)
}

/// Zero and null switch the timeout off.
fn timeout(given: Option<u32>) -> Result<Option<u32>, RpcError> {
    given
        .filter(|timeout| *timeout > 0)
        .map(|timeout| in_range("rtp_timeout_ms", timeout, 0..=RTP_TIMEOUT_MS_MAX))
        .transpose()
}

fn port_error(error: PortError) -> RpcError {
    let kind = match error {
        PortError::OutOfPorts(_) => ErrorKind::OutOfPorts,
        PortError::UnknownAddress(_) | PortError::Io { .. } => ErrorKind::IoError,
    };
    RpcError::new(kind, error.to_string())
}

/// Tells a member that is null from one that is not there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl From<DirectionName> for Direction {
    fn from(name: DirectionName) -> Self {
        match name {
            DirectionName::SendRecv => Self::SendRecv,
            DirectionName::SendOnly => Self::SendOnly,
            DirectionName::RecvOnly => Self::RecvOnly,
            DirectionName::Inactive => Self::Inactive,
        }
    }
}

impl From<DigitSourceName> for DigitSource {
    fn from(name: DigitSourceName) -> Self {
        match name {
            DigitSourceName::Events => Self::Events,
            DigitSourceName::Auto => Self::Auto,
        }
    }
}

const TELEPHONE_EVENT: &str = "telephone-event";
/// The encoding name of RFC 3389.
const COMFORT_NOISE: &str = "CN";
/// Bytes of an encoding name.
const ENCODING_BYTES_MAX: usize = 32;
/// A day.
const RTP_TIMEOUT_MS_MAX: u32 = 86_400_000;
/// An hour.
const RESERVE_MS_MAX: u32 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(number, name)| ((*number).to_owned(), (*name).to_owned())).collect()
    }

    fn negotiate(codec: &str, pairs: &[(&str, &str)], event: Option<u8>) -> Result<Negotiated, RpcError> {
        let mut negotiated = Negotiated::new(CodecKind::Pcmu, 101);
        negotiated.change([Some(codec), None, None], Some(&names(pairs)), event).map(|()| negotiated)
    }

    #[test]
    fn numbers_come_from_the_names_or_are_static() {
        let plain = negotiate("pcma", &[], None).expect("valid");
        assert_eq!((plain.rx_payload_type(), plain.telephone_event_payload_type), (8, 101));
        let pairs = [("96", "PCMU/8000"), ("97", "telephone-event/8000"), ("98", "opus/48000/2"), ("18", "G729/8000")];
        let named = negotiate("PCMU", &pairs, None).expect("valid");
        assert_eq!((named.rx_payload_type(), named.telephone_event_payload_type), (96, 97));
        assert_eq!(named.payload_types()[..3], [Some(18), Some(98), None]);
    }

    #[test]
    fn contradictions_name_the_parameter() {
        let check = |codec, pairs: &[_], event, param: &str| {
            let error = negotiate(codec, pairs, event).expect_err(param).to_value();
            assert_eq!(error["data"]["param"], param, "{error}");
        };
        check("iLBC", &[], None, "codec");
        check("PCMU", &[], Some(0), "telephone_event_pt");
        check("PCMU", &[], Some(128), "telephone_event_pt");
        check("PCMU", &[("0", "G729/8000")], None, "payload_types");
        check("PCMU", &[("101", "opus/48000")], None, "payload_types");
        for (number, name) in [
            ("128", "x/8000"),
            ("72", "x/8000"),
            ("-1", "x/8000"),
            ("096", "x/8000"),
            ("96", "x"),
            ("96", "/8000"),
            ("96", "x/0"),
            ("96", "x/8000/0"),
            ("96", "x/8000/1/1"),
            ("96", "a b/8000"),
        ] {
            check("PCMU", &[(number, name)], None, "payload_types");
        }
        check("PCMU", &[], Some(72), "telephone_event_pt");
        let many: Vec<(String, String)> = (110..119).map(|number| (number.to_string(), "x/8000".to_owned())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(number, name)| (number.as_str(), name.as_str())).collect();
        check("PCMU", &many, None, "payload_types");
        negotiate("PCMU", &many[..8], None).expect("eight further types fit");
    }

    #[test]
    fn no_payload_type_can_be_taken_for_rtcp() {
        let change = |rtcp_mux, pairs: &[(&str, &str)], event| {
            let mut negotiated = Negotiated { rtcp_mux, ..Negotiated::new(CodecKind::Pcmu, 101) };
            negotiated.change([None; 3], Some(&names(pairs)), event).map_err(|error| error.to_value())
        };
        for number in 60..=100u8 {
            for (rtcp_mux, others) in [(false, 72..=76), (true, 64..=95)] {
                let text = number.to_string();
                let further = change(rtcp_mux, &[(&text, "x/8000")], None);
                let codec = change(rtcp_mux, &[(&text, "PCMU/8000")], None);
                let event = change(rtcp_mux, &[], Some(number));
                for (result, param) in
                    [(further, "payload_types"), (codec, "payload_types"), (event, "telephone_event_pt")]
                {
                    let refused = result.err();
                    assert_eq!(refused.is_some(), others.contains(&number), "{number} {refused:?}");
                    let Some(error) = refused else { continue };
                    assert_eq!(error["data"]["param"], param);
                    let message = error["message"].as_str().expect("a text");
                    assert!(message.contains(&format!("{number} would be taken for RTCP")), "{message}");
                    assert!(message.contains(&format!("{} to {}", others.start(), others.end())), "{message}");
                }
            }
        }
    }
}
