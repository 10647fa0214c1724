//! From where on a change can be heard: the `effect` of the native methods, put together where one operation of this API
//! takes several of them.

use serde_json::Value;

/// The effect of what was done so far. Nothing by default.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Effect(Option<Value>);

impl Effect {
    /// What a native method says under `effect`.
    pub(super) fn of(result: &Value) -> Self {
        Self(Some(result["effect"].clone()).filter(|effect| !effect.is_null()))
    }

    /// Both together: received when the first of them was, in force when the last of them is, for the streams of both.
    pub(super) fn and(self, other: Self) -> Self {
        let (mut whole, other) = match (self.0, other.0) {
            (Some(whole), Some(other)) => (whole, other),
            (one, another) => return Self(one.or(another)),
        };
        let received = earlier(&whole, &other, "received_media_time_ms");
        let last = !earlier(&whole, &other, "media_time_ms");
        if !received {
            whole["received_media_time_ms"] = other["received_media_time_ms"].clone();
        }
        if !last {
            whole["media_time_ms"] = other["media_time_ms"].clone();
            whole["rtp_timestamp"] = other["rtp_timestamp"].clone();
        }
        let streams = other["streams"].as_array().cloned().unwrap_or_default();
        if let Some(own) = whole["streams"].as_array_mut() {
            for stream in streams {
                let same = own.iter_mut().find(|known| {
                    known["connection_id"] == stream["connection_id"] && known["direction"] == stream["direction"]
                });
                match same {
                    Some(known) if !last => *known = stream,
                    Some(_) => {}
                    None => own.push(stream),
                }
            }
        }
        Self(Some(whole))
    }

    /// As it stands in the answer's header. Clients take heads of a few kilobytes: of very many streams the first stand
    /// there, and `streams_left_out` says how many do not.
    pub(super) fn to_header(&self) -> Option<String> {
        let mut effect = self.0.clone()?;
        let streams = effect["streams"].as_array_mut()?;
        let left_out = streams.len().saturating_sub(HEADER_STREAMS_MAX);
        streams.truncate(HEADER_STREAMS_MAX);
        if left_out > 0 {
            effect["streams_left_out"] = left_out.into();
        }
        Some(effect.to_string())
    }
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().unwrap_or(&Value::Null).fmt(f)
    }
}

/// Whether a time of `one` is not after that of `other`.
fn earlier(one: &Value, other: &Value, name: &str) -> bool {
    let time = |effect: &Value| effect[name].as_f64().unwrap_or_default();
    time(one) <= time(other)
}

/// Streams an answer's header names: some 4 kB of text.
const HEADER_STREAMS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_effects_are_one_that_holds_for_both() {
        let effect = |received: f64, at: f64, streams: &[(&str, u32)]| {
            let streams: Vec<Value> = streams
                .iter()
                .map(|(id, timestamp)| json!({"connection_id": id, "direction": "out", "rtp_timestamp": timestamp}))
                .collect();
            json!({"clock": "conference", "received_media_time_ms": received, "media_time_ms": at,
                   "rtp_timestamp": streams[0]["rtp_timestamp"], "streams": streams})
        };
        let first = effect(10.5, 30.0, &[("a", 240), ("b", 1240)]);
        let second = effect(12.0, 20.0, &[("b", 1160), ("c", 160)]);
        let whole = effect(10.5, 30.0, &[("a", 240), ("b", 1240), ("c", 160)]);
        let of = |effect: &Value| Effect::of(&json!({"effect": effect}));
        assert_eq!(of(&first).and(of(&second)), of(&whole));
        let mut turned = of(&second).and(of(&first)).0.expect("an effect");
        assert_eq!((&turned["received_media_time_ms"], &turned["media_time_ms"]), (&json!(10.5), &json!(30.0)));
        let streams = turned["streams"].take();
        assert_eq!(streams[0]["rtp_timestamp"], 1240);
        assert_eq!(streams.as_array().map(Vec::len), Some(3));
        let nothing = Effect::of(&json!({"effect": null}));
        assert_eq!((nothing.to_header(), nothing.clone().and(of(&first))), (None, of(&first)));
        assert_eq!(of(&first).and(nothing), of(&first));
        let names: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let streams: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 0)).collect();
        let many = of(&effect(0.0, 1.0, &streams)).to_header().expect("an effect");
        let many: Value = serde_json::from_str(&many).expect("JSON");
        assert_eq!((many["streams"].as_array().map(Vec::len), &many["streams_left_out"]), (Some(32), &json!(8)));
    }
}
