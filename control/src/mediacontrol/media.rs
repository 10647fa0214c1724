//! Addresses, codecs and frame sizes as connect actions give them.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Map, Value, json};

use super::codes::{Code, Fault};
use super::connect::Given;
use super::params::{Params, missing};
use super::{Cx, Results};

/// A codec, and the frames it may be cut into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Codec {
    /// Its name in this API.
    name: &'static str,
    /// Its number in this API.
    number: &'static str,
    /// Its native name.
    pub(super) native: &'static str,
    /// Allowed frame sizes in ms, the default first.
    frames_ms: &'static [u32],
    low_bitrate: bool,
}

const CODECS: &[Codec] = &[
    Codec { name: "G711u", number: "1", native: "PCMU", frames_ms: &[20, 10, 30], low_bitrate: false },
    Codec { name: "G711a", number: "2", native: "PCMA", frames_ms: &[20, 10, 30], low_bitrate: false },
    Codec { name: "G723", number: "4", native: "G723", frames_ms: &[30, 60], low_bitrate: true },
    Codec { name: "G729", number: "8", native: "G729", frames_ms: &[20, 30, 40], low_bitrate: true },
];

/// What a connect action says about media.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Media {
    pub(super) remote: Option<(Ipv4Addr, u16)>,
    pub(super) port: Given,
    control_ip: Option<Ipv4Addr>,
    control_port: Option<u16>,
    rx_codec: Option<Codec>,
    tx_codec: Option<Codec>,
    rx_frame_ms: Option<u32>,
    tx_frame_ms: Option<u32>,
    call_id: Option<Value>,
}

/// What the native method says of a connection.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Status(Value);

impl Media {
    /// Reads what is given.
    ///
    /// # Errors
    /// 26 or 27.
    pub(super) fn read(params: &Params) -> Result<Self, Fault> {
        let port = params.uint("MediaTxPort")?;
        let ip = address(params, "MediaTxIP")?;
        let given = Given::of(port);
        let remote = match (ip, given) {
            (Some(ip), Given::Set) => Some((ip, port_number("MediaTxPort", port)?)),
            (None, Given::Set) => return Err(missing("MediaTxIP")),
            (Some(_), Given::Absent) => return Err(missing("MediaTxPort")),
            // A port that is zero is for the table of connect requests to judge.
            (Some(_) | None, Given::Zero) | (None, Given::Absent) => None,
        };
        let control_port = params.positive("MediaTxControlPort")?;
        Ok(Self {
            remote,
            port: given,
            control_ip: address(params, "MediaTxControlIP")?,
            control_port: control_port.map(|port| port_number("MediaTxControlPort", Some(port))).transpose()?,
            rx_codec: codec(params, "MediaRxCodec")?,
            tx_codec: codec(params, "MediaTxCodec")?,
            rx_frame_ms: params.positive("MediaRxFramesize")?,
            tx_frame_ms: params.positive("MediaTxFramesize")?,
            call_id: params.get("CallId").map(|given| params.integer("CallId").map(|_| given.clone())).transpose()?,
        })
    }

    /// The same with an address that has to be there.
    ///
    /// # Errors
    /// 26 or 27.
    pub(super) fn read_required(params: &Params) -> Result<Self, Fault> {
        params.required("MediaTxIP")?;
        params.required("MediaTxPort")?;
        let media = Self::read(params)?;
        if media.remote.is_none() {
            return Err(Fault::value("MediaTxPort: 0 is not 1 to 65535"));
        }
        Ok(media)
    }

    /// The same for a half connection.
    pub(super) fn without_remote(self) -> Self {
        Self { remote: None, port: Given::Zero, ..self }
    }

    /// Checks frame sizes against the codecs they go with.
    ///
    /// # Errors
    /// 27: a codec has no such frames.
    fn check_frames(&self, rx: Codec, tx: Codec) -> Result<(), Fault> {
        for (name, frame_ms, codec) in
            [("MediaRxFramesize", self.rx_frame_ms, rx), ("MediaTxFramesize", self.tx_frame_ms, tx)]
        {
            if let Some(frame_ms) = frame_ms.filter(|frame_ms| !codec.frames_ms.contains(frame_ms)) {
                let message = format!("{name}: {} has frames of {:?} ms, not {frame_ms}", codec.name, codec.frames_ms);
                return Err(Fault::value(message));
            }
        }
        Ok(())
    }

    /// Checks what can be told without the connection.
    ///
    /// # Errors
    /// 27: a codec has no such frames.
    pub(super) fn check_new(&self) -> Result<(), Fault> {
        let (rx, tx) = self.codecs(CODECS[0], CODECS[0]);
        self.check_frames(rx, tx)
    }

    /// The codecs, given what holds without them. If only the Tx codec is given, Rx follows it.
    fn codecs(&self, rx: Codec, tx: Codec) -> (Codec, Codec) {
        (self.rx_codec.or(self.tx_codec).unwrap_or(rx), self.tx_codec.unwrap_or(tx))
    }

    /// Which way media flows, if anything is said about it: with the codec and frame size of one side only, that side.
    fn direction(&self) -> Option<&'static str> {
        if self.remote.is_some_and(|(ip, _)| ip.is_multicast()) {
            return Some("sendonly");
        }
        let tx = self.tx_codec.is_some() && self.tx_frame_ms.is_some();
        let rx = self.rx_codec.is_some() && self.rx_frame_ms.is_some();
        let any_tx = self.tx_codec.is_some() || self.tx_frame_ms.is_some();
        let any_rx = self.rx_codec.is_some() || self.rx_frame_ms.is_some();
        match (any_tx, any_rx) {
            (false, false) => None,
            (true, false) if tx => Some("sendonly"),
            (false, true) if rx => Some("recvonly"),
            (true | false, true | false) => Some("sendrecv"),
        }
    }

    fn remote_rtcp(&self) -> Option<String> {
        let (ip, port) = self.remote?;
        let port = self.control_port.or_else(|| port.checked_add(1))?;
        Some(format!("{}:{port}", self.control_ip.unwrap_or(ip)))
    }

    /// Parameters of a new connection.
    pub(super) fn create(&self, routing_guid: &str) -> Value {
        let (rx, tx) = self.codecs(CODECS[0], CODECS[0]);
        let mut create = json!({
            "rx_codec": rx.native,
            "tx_codec": tx.native,
            "ptime_ms": self.tx_frame_ms.unwrap_or(tx.frames_ms[0]),
            "digits": "auto",
            "dscp": DSCP,
            "label": format!("MediaControl {routing_guid}"),
        });
        if let Some((ip, port)) = self.remote {
            create["remote"] = format!("{ip}:{port}").into();
        }
        if let Some(remote_rtcp) = self.remote_rtcp() {
            create["remote_rtcp"] = remote_rtcp.into();
        }
        if let Some(direction) = self.direction() {
            create["direction"] = direction.into();
        }
        create
    }

    /// What is different from how a connection is now, as parameters of `connection.modify` without the id.
    /// `rtcp_told`: the client has said before where RTCP goes.
    ///
    /// # Errors
    /// 27: a codec has no such frames.
    pub(super) fn change(&self, now: &Status, rtcp_told: bool) -> Result<Map<String, Value>, Fault> {
        let (rx_now, tx_now) = (now.codec("rx_codec"), now.codec("tx_codec"));
        let (rx, tx) = self.codecs(rx_now, tx_now);
        self.check_frames(rx, tx)?;
        let mut change = Map::new();
        let mut set = |name: &str, value: Value| {
            if now.0[name] != value {
                change.insert(name.to_owned(), value);
            }
        };
        if let Some((ip, port)) = self.remote {
            let moves = now.0["remote"] != format!("{ip}:{port}");
            set("remote", format!("{ip}:{port}").into());
            // Where RTCP is sent now may have been learned, so it says nothing of what the client wants.
            let touched = self.tells_rtcp() || (moves && !rtcp_told);
            if let Some(remote_rtcp) = self.remote_rtcp().filter(|_| touched) {
                set("remote_rtcp", remote_rtcp.into());
            }
        }
        set("rx_codec", rx.native.into());
        set("tx_codec", tx.native.into());
        let ptime_now = now.0["ptime_ms"].as_u64().and_then(|ptime| u32::try_from(ptime).ok());
        let kept = ptime_now.filter(|ptime| tx.frames_ms.contains(ptime) || tx == tx_now);
        set("ptime_ms", self.tx_frame_ms.or(kept).unwrap_or(tx.frames_ms[0]).into());
        let many_now = now.0["remote"].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        let was_many = many_now.is_some_and(|remote| remote.ip().is_multicast());
        let both_ways = (was_many && self.remote.is_some()).then_some("sendrecv");
        if let Some(direction) = self.direction().or(both_ways) {
            set("direction", direction.into());
        }
        if self.remote.is_some_and(|(ip, _)| ip.is_multicast()) && change.contains_key("remote") {
            // Named together: an address of many is only ever sent to.
            change.insert("direction".to_owned(), "sendonly".into());
        }
        Ok(change)
    }

    /// Whether it says where RTCP goes.
    pub(super) fn tells_rtcp(&self) -> bool {
        self.control_ip.is_some() || self.control_port.is_some()
    }

    /// Whether the address is the one the connection has.
    pub(super) fn is_at(&self, now: &Status) -> bool {
        self.remote.is_some_and(|(ip, port)| now.0["remote"] == format!("{ip}:{port}"))
    }

    /// The results that tell a client about its connection.
    pub(super) fn results(&self, cx: &Cx, id: u32, told: &Value) -> Results {
        let mut results = Map::new();
        results.insert("ConnectionId".to_owned(), id.to_string().into());
        results.insert("MmsId".to_owned(), cx.mc.ids.mms().into());
        for (member, ip_name, port_name) in
            [("local", "MediaRxIP", "MediaRxPort"), ("local_rtcp", "MediaRxControlIP", "MediaRxControlPort")]
        {
            let address = told[member].as_str().and_then(|text| text.parse::<std::net::SocketAddr>().ok());
            if let Some(address) = address {
                results.insert(ip_name.to_owned(), address.ip().to_string().into());
                results.insert(port_name.to_owned(), address.port().into());
            }
        }
        if let Some(call_id) = &self.call_id {
            results.insert("CallId".to_owned(), call_id.clone());
        }
        results
    }
}

impl Status {
    /// Asks for the state of a connection.
    ///
    /// # Errors
    /// 23: it has gone.
    pub(super) async fn of(cx: &Cx, native: &str) -> Result<Self, Fault> {
        let params = json!({"connection_id": native});
        Ok(Self(cx.native("connection.get", params, super::codes::Context::Connect).await?))
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.0["reserved"] == true
    }

    pub(super) fn is_in_conference(&self) -> bool {
        self.0["conference_id"].is_string()
    }

    pub(super) fn runs_operations(&self) -> bool {
        self.0["operations"].as_array().is_some_and(|running| !running.is_empty())
    }

    pub(super) fn value(&self) -> &Value {
        &self.0
    }

    fn codec(&self, member: &str) -> Codec {
        let name = self.0[member].as_str().unwrap_or_default();
        CODECS.iter().copied().find(|codec| codec.native == name).unwrap_or(CODECS[0])
    }
}

/// The codecs that could be chosen now, with their frame sizes.
pub(super) fn capabilities(low_bitrate: bool) -> Value {
    let free = CODECS.iter().filter(|codec| low_bitrate || !codec.low_bitrate);
    free.map(|codec| {
        let mut frames = codec.frames_ms.to_vec();
        frames.sort_unstable();
        (codec.name.to_owned(), Value::from(frames))
    })
    .collect::<Map<_, _>>()
    .into()
}

/// A codec by name or number. A name that is not known counts as unspecified.
fn codec(params: &Params, name: &str) -> Result<Option<Codec>, Fault> {
    let Some(text) = params.text(name)? else { return Ok(None) };
    let text = text.trim();
    let found = CODECS.iter().copied().find(|codec| codec.name.eq_ignore_ascii_case(text) || codec.number == text);
    if found.is_none() {
        tracing::info!(name, text, "a codec that is not known counts as unspecified");
    }
    Ok(found)
}

fn address(params: &Params, name: &str) -> Result<Option<Ipv4Addr>, Fault> {
    let Some(text) = params.text(name)? else { return Ok(None) };
    let parsed = text.trim().parse();
    parsed.map(Some).map_err(|_| Fault::value(format!("{name}: `{text}` is not of four numbers from 0 to 255")))
}

fn port_number(name: &str, port: Option<u32>) -> Result<u16, Fault> {
    let port = port.unwrap_or_default();
    u16::try_from(port).map_err(|_| Fault::new(Code::InvalidParameter, format!("{name}: {port} is not 1 to 65535")))
}

/// Expedited forwarding.
const DSCP: u8 = 46;

#[cfg(test)]
mod tests {
    use super::*;

    fn media(value: Value) -> Result<Media, Fault> {
        let Value::Object(object) = value else { panic!("an object") };
        Media::read(&Params::new(object)?)
    }

    fn code(value: Value) -> u8 {
        let checked = media(value).and_then(|media| media.check_new());
        checked.map_or_else(|fault| fault.code.number(), |()| 0)
    }

    #[test]
    fn addresses_and_ports_are_checked() {
        assert_eq!(code(json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": "4000"})), 0);
        for ip in ["192.0.2", "192.0.2.256", "::1", "host", "192.0.2.1.5"] {
            assert_eq!(code(json!({"MediaTxIP": ip, "MediaTxPort": 4000})), 27, "{ip}");
        }
        assert_eq!(code(json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 65536})), 27);
        assert_eq!(code(json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": "x"})), 27);
        assert_eq!(code(json!({"MediaTxIP": "192.0.2.1"})), 26);
        assert_eq!(code(json!({"MediaTxPort": 4000})), 26);
        assert_eq!(code(json!({"CallId": "call"})), 27);
    }

    #[test]
    fn frames_have_to_suit_their_codec() {
        for (codec, frame, expected) in [
            ("G711u", 10, 0),
            ("g711A", 30, 0),
            ("G711u", 40, 27),
            ("G723", 30, 0),
            ("4", 60, 0),
            ("G723", 20, 27),
            ("G729", 40, 0),
            ("G729", 10, 27),
            ("what", 20, 0),
        ] {
            assert_eq!(code(json!({"MediaTxCodec": codec, "MediaTxFramesize": frame})), expected, "{codec} {frame}");
            assert_eq!(code(json!({"MediaRxCodec": codec, "MediaRxFramesize": frame})), expected, "{codec} {frame}");
        }
    }

    #[test]
    fn defaults_and_direction_follow_what_is_given() {
        let create = |value| media(value).expect("valid").create("guid");
        let plain = create(json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 4000}));
        assert_eq!((&plain["remote"], &plain["remote_rtcp"]), (&json!("192.0.2.1:4000"), &json!("192.0.2.1:4001")));
        assert_eq!(
            (&plain["rx_codec"], &plain["ptime_ms"], &plain["direction"]),
            (&json!("PCMU"), &json!(20), &Value::Null)
        );
        let tx_only = create(json!({"MediaTxCodec": "G723"}));
        assert_eq!((&tx_only["rx_codec"], &tx_only["ptime_ms"]), (&json!("G723"), &json!(30)));
        assert_eq!(tx_only["direction"], "sendrecv");
        let sends = create(json!({"MediaTxCodec": "G711a", "MediaTxFramesize": 30}));
        assert_eq!((&sends["direction"], &sends["ptime_ms"]), (&json!("sendonly"), &json!(30)));
        let receives = create(json!({"MediaRxCodec": "G711a", "MediaRxFramesize": 30}));
        assert_eq!((&receives["direction"], &receives["tx_codec"]), (&json!("recvonly"), &json!("PCMU")));
        let both = json!({"MediaRxCodec": "1", "MediaRxFramesize": 30, "MediaTxCodec": "1", "MediaTxFramesize": 20});
        assert_eq!(create(both)["direction"], "sendrecv");
    }

    #[test]
    fn only_what_is_different_is_changed() {
        let now = Status(json!({
            "remote": "192.0.2.1:4000", "remote_rtcp": "192.0.2.1:4001", "rx_codec": "PCMU", "tx_codec": "PCMU",
            "ptime_ms": 20, "direction": "sendrecv",
        }));
        let change = |value| Value::from(media(value).expect("valid").change(&now, false).expect("suits"));
        assert_eq!(change(json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 4000})), json!({}));
        assert_eq!(
            change(json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 5000})),
            json!({"remote": "192.0.2.1:5000", "remote_rtcp": "192.0.2.1:5001"})
        );
        let told = media(json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 5000})).expect("valid").change(&now, true);
        assert_eq!(Value::from(told.expect("suits")), json!({"remote": "192.0.2.1:5000"}));
        let to_g723 = json!({"MediaTxIP": "192.0.2.1", "MediaTxPort": 4000, "MediaTxCodec": "G723"});
        assert_eq!(change(to_g723), json!({"rx_codec": "G723", "tx_codec": "G723", "ptime_ms": 30}));
    }
}
