//! A script's view of the adapter on virtual time: actions, events with the moment they came, phones.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use ringbridge_control::config::Config;
use ringbridge_control::mediacontrol::{MediaControl, Request};
use ringbridge_tests::virtual_time::{Pending, Phone, PhoneId, VirtualServer, Voice};
use serde_json::{Map, Value, json};

/// A server, its adapter, one script.
pub(crate) struct Rig {
    pub(crate) server: VirtualServer,
    media: Rc<MediaControl>,
    events: Vec<Event>,
    last: u64,
    names: BTreeMap<String, Value>,
    /// Application and locale of the script.
    pub(crate) application: Option<String>,
    pub(crate) locale: Option<String>,
    routing_guid: String,
}

/// An event of the script.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Event {
    /// Without the namespace.
    pub(crate) name: String,
    pub(crate) sequence: u64,
    pub(crate) params: Value,
    /// When it came, in milliseconds since the start.
    pub(crate) ms: u64,
}

impl Event {
    /// A parameter as text.
    pub(crate) fn text(&self, name: &str) -> String {
        text(&self.params[name])
    }

    /// Its TerminationCondition.
    pub(crate) fn condition(&self) -> String {
        self.text("TerminationCondition")
    }

    /// Its ElapsedTime.
    pub(crate) fn elapsed(&self) -> u64 {
        self.text("ElapsedTime").parse().expect("a number")
    }
}

/// An action's response.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Response {
    pub(crate) branch: String,
    pub(crate) code: u32,
    pub(crate) results: Map<String, Value>,
    /// Events of the script that had come before it.
    pub(crate) events_before: u64,
    pub(crate) diagnostic: Option<String>,
}

/// A connection and its phone.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Leg {
    pub(crate) id: String,
    pub(crate) phone: PhoneId,
    /// Where the server takes RTP.
    pub(crate) rx: SocketAddr,
}

/// What is in use, by class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Used {
    pub(crate) rtp: u64,
    pub(crate) enhanced: u64,
    pub(crate) voice: u64,
    pub(crate) conference: u64,
}

impl Used {
    pub(crate) const fn new(rtp: u64, enhanced: u64, voice: u64, conference: u64) -> Self {
        Self { rtp, enhanced, voice, conference }
    }
}

/// An action on its way.
pub(crate) struct Flight(Pending<Response>);

/// A value as text, whether it is one or a number.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Rig {
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut server = VirtualServer::start_with(|config| {
            // Whatever is installed here, texts are spoken only where a row says so.
            config.tts.command = Some(Vec::new());
            change(config);
        });
        let media = Rc::clone(server.server.mediacontrol());
        let routing_guid = "b6cbd2b3-4ec6-4a73-b26c-54d1c8a3b9a1".to_owned();
        let (logs, guid) = (Rc::clone(media.logs()), routing_guid.clone());
        server.run(async move { logs.open(&guid) }).expect("room for a log");
        Self {
            server,
            media,
            events: Vec::new(),
            last: 0,
            names: BTreeMap::new(),
            application: None,
            locale: None,
            routing_guid,
        }
    }

    // Names

    /// Gives an id a name, for parameters `$name`.
    pub(crate) fn name(&mut self, name: &str, id: &str) {
        self.names.insert(format!("${name}"), id.into());
        let number: Option<u64> = id.parse().ok();
        if let Some(number) = number {
            self.names.insert(format!("${name}.number"), number.into());
            // The first one named is an id of this engine.
            self.names.entry("$MMS".to_owned()).or_insert_with(|| (number >> 24).into());
        }
    }

    pub(crate) fn name_result(&mut self, name: &str, results: &Value, key: &str) {
        let id = text(&results[key]);
        self.name(name, &id);
    }

    /// Names the address of a leg's phone: `$name.ip`, `$name.port`.
    pub(crate) fn name_address(&mut self, name: &str, leg: &Leg) {
        let address = self.server.address(leg.phone);
        self.names.insert(format!("${name}.ip"), address.ip().to_string().into());
        self.names.insert(format!("${name}.port"), address.port().into());
    }

    /// Puts a prompt below the audio root.
    pub(crate) fn tone(&self, name: &str, hz: u32, ms: usize) {
        self.server.write_tone(name, hz, ms);
    }

    /// The id behind a name.
    pub(crate) fn id(&self, name: &str) -> String {
        text(&self.names[name])
    }

    /// An id of the same engine that was never given out.
    pub(crate) fn id_beside(&self, name: &str) -> String {
        let number: u32 = self.id(name).parse().expect("a decimal id");
        // The counter goes upwards, so what lies far behind it is not in use.
        (number & 0xff00_0000 | (number.wrapping_sub(1 << 20)) & 0x00ff_ffff).to_string()
    }

    /// The same id on another engine.
    pub(crate) fn id_of_another_engine(&self, name: &str) -> String {
        let number: u32 = self.id(name).parse().expect("a decimal id");
        (number ^ 0x5500_0000).to_string()
    }

    fn named(&self, params: Value) -> Map<String, Value> {
        let Value::Object(params) = params else { panic!("parameters are an object") };
        let named = |value: Value| match value.as_str() {
            Some(name) if name.starts_with('$') => {
                self.names.get(name).unwrap_or_else(|| panic!("{name} has no meaning")).clone()
            }
            _ => value,
        };
        params.into_iter().map(|(key, value)| (key, named(value))).collect()
    }

    // Actions

    /// Begins an action.
    pub(crate) fn begin(&mut self, action: &str, params: Value) -> Flight {
        let request = Request {
            action: format!("Metreos.MediaControl.{action}"),
            routing_guid: Some(self.routing_guid.clone()),
            application: self.application.clone(),
            locale: self.locale.clone(),
            params: self.named(params),
            ..Request::default()
        };
        let (media, guid) = (Rc::clone(&self.media), self.routing_guid.clone());
        Flight(self.server.begin(async move {
            let response = media.call(request).await;
            // Read before the response lets events out that have to come after it.
            let events_before = media.logs().get(&guid).map_or(0, |log| log.read(0, usize::MAX).events.len() as u64);
            let value = response.to_value();
            Response {
                branch: text(&value["branch"]),
                code: text(&value["results"]["ResultCode"]).parse().unwrap_or(u32::MAX),
                results: value["results"].as_object().cloned().unwrap_or_default(),
                events_before,
                diagnostic: value["diagnostic"].as_str().map(str::to_owned),
            }
        }))
    }

    /// Waits for its response; the clock stands still.
    #[track_caller]
    pub(crate) fn finish(&mut self, flight: Flight) -> Response {
        let response = self.server.finish(flight.0);
        self.collect();
        response
    }

    /// Whether its response is there.
    pub(crate) fn is_done(&mut self, flight: &Flight) -> bool {
        self.server.is_done(&flight.0)
    }

    /// Carries out an action.
    #[track_caller]
    pub(crate) fn call(&mut self, action: &str, params: Value) -> Response {
        let flight = self.begin(action, params);
        self.finish(flight)
    }

    /// An action that has to succeed; its results.
    #[track_caller]
    pub(crate) fn ok(&mut self, action: &str, params: Value) -> Value {
        let response = self.call(action, params.clone());
        assert!(response.code <= 1 && response.branch == "Success", "{action} {params}: {response:?}");
        Value::Object(response.results)
    }

    /// An action's result code.
    #[track_caller]
    pub(crate) fn code(&mut self, action: &str, params: Value) -> u32 {
        self.call(action, params).code
    }

    /// An action that starts an operation; its OperationId.
    #[track_caller]
    pub(crate) fn operation(&mut self, action: &str, params: Value) -> String {
        let results = self.ok(action, params);
        assert_eq!(text(&results["ResultCode"]), "1", "{results}");
        text(&results["OperationId"])
    }

    /// A new connection with a phone that is silent and sends nothing yet.
    #[track_caller]
    pub(crate) fn connect(&mut self) -> Leg {
        self.connect_with(json!({}))
    }

    /// The same with further parameters.
    #[track_caller]
    pub(crate) fn connect_with(&mut self, mut params: Value) -> Leg {
        let phone = self.server.phone();
        let address = self.server.address(phone);
        params["MediaTxIP"] = address.ip().to_string().into();
        params["MediaTxPort"] = address.port().into();
        let results = self.ok("CreateConnection", params);
        Leg { id: text(&results["ConnectionId"]), phone, rx: rx(&results) }
    }

    /// A new connection whose phone sends this from now on.
    #[track_caller]
    pub(crate) fn connect_saying(&mut self, voice: Voice) -> Leg {
        let leg = self.connect();
        self.say(&leg, voice);
        leg
    }

    /// A conference, mixed from the beginning, with these members.
    #[track_caller]
    pub(crate) fn mixed(&mut self, legs: &[&Leg]) -> String {
        self.conference(legs, json!({"Hairpin": false, "SoundToneOnJoin": false}))
    }

    /// A conference of these members.
    #[track_caller]
    pub(crate) fn conference(&mut self, legs: &[&Leg], mut params: Value) -> String {
        params["ConnectionId"] = legs[0].id.as_str().into();
        let created = self.ok("CreateConference", params);
        let id = text(&created["ConferenceId"]);
        for leg in &legs[1..] {
            self.ok("JoinConference", json!({"ConnectionId": leg.id, "ConferenceId": id}));
        }
        id
    }

    // Phones

    pub(crate) fn at(&mut self, leg: &Leg) -> &mut Phone {
        self.server.at(leg.phone)
    }

    pub(crate) fn say(&mut self, leg: &Leg, voice: Voice) {
        self.server.talk(leg.phone, leg.rx, voice);
    }

    /// Presses digits; when the last of them is over.
    pub(crate) fn press(&mut self, leg: &Leg, digits: &str) -> u64 {
        *self.server.press(leg.phone, digits).last().expect("a digit")
    }

    // Time and events

    pub(crate) fn ms(&self) -> u64 {
        self.server.ms()
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.ms() + ms;
        while self.ms() < end {
            self.server.step(end - self.ms());
            self.collect();
        }
    }

    /// Takes what the script's log has got.
    fn collect(&mut self) {
        let Some(log) = self.media.logs().get(&self.routing_guid) else { return };
        let batch = self.server.within(|| log.read(self.last, usize::MAX));
        assert_eq!(batch.missed, 0, "no event is lost");
        let ms = self.server.ms();
        for event in batch.events {
            let name = event["event"].as_str().expect("a name");
            let name = name.strip_prefix("Metreos.MediaControl.").expect("of this namespace").to_owned();
            let sequence = event["sequence"].as_u64().expect("a number");
            assert_eq!(event["routingGuid"], self.routing_guid.as_str());
            self.events.push(Event { name, sequence, params: event["params"].clone(), ms });
        }
        self.last = batch.last;
    }

    /// How many events the script's log still holds.
    pub(crate) fn kept(&self) -> usize {
        let log = self.media.logs().get(&self.routing_guid);
        self.server.within(|| log.map_or(0, |log| log.read(0, usize::MAX).events.len()))
    }

    /// Every event so far.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    /// The event that ended an operation, if it has ended.
    pub(crate) fn ended(&self, operation: &str) -> Option<Event> {
        let of = |event: &&Event| event.params["OperationId"].as_str() == Some(operation);
        self.events.iter().find(of).cloned()
    }

    /// Lets time pass until an operation has ended, ten minutes at most.
    #[track_caller]
    pub(crate) fn end(&mut self, operation: &str) -> Event {
        self.end_within(operation, 610_000)
    }

    /// The same within so many milliseconds.
    #[track_caller]
    pub(crate) fn end_within(&mut self, operation: &str, ms: u64) -> Event {
        let end = self.ms() + ms;
        loop {
            if let Some(event) = self.ended(operation) {
                return event;
            }
            assert!(self.ms() < end, "operation {operation} did not end within {ms} ms: {:?}", self.events);
            self.server.step(end - self.ms());
            self.collect();
        }
    }

    // Figures

    /// What is in use of every class.
    #[track_caller]
    pub(crate) fn used(&mut self) -> Used {
        let stats = self.server.method("server.stats", Value::Null).expect("figures");
        let in_use = |class: &str| {
            let figure = stats["resources"][class]["in_use"].as_u64();
            figure.unwrap_or_else(|| panic!("server.stats has no figure of {class}: {}", stats["resources"]))
        };
        Used {
            rtp: in_use("rtp"),
            enhanced: in_use("enhanced_rtp"),
            voice: in_use("voice"),
            conference: in_use("conference"),
        }
    }

    /// What holds after every row: each operation ended once at most, numbers without holes.
    pub(crate) fn check(&mut self) {
        self.pass(100);
        let mut seen = BTreeMap::new();
        for event in &self.events {
            let Some(operation) = event.params["OperationId"].as_str() else { continue };
            if let Some(other) = seen.insert(operation.to_owned(), event.clone()) {
                panic!("operation {operation} ended twice: {other:?} and {event:?}");
            }
        }
        let sequences: Vec<u64> = self.events.iter().map(|event| event.sequence).collect();
        assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "numbers without holes: {sequences:?}");
    }
}

/// Where the server takes RTP.
pub(crate) fn rx(results: &Value) -> SocketAddr {
    let (ip, port) = (text(&results["MediaRxIP"]), text(&results["MediaRxPort"]));
    format!("{ip}:{port}").parse().expect("an address")
}

/// Limits a resource class.
pub(crate) fn set_limit(config: &mut Config, class: &str, limit: u32) {
    let quota = &mut config.quota;
    *match class {
        "rtp" => &mut quota.rtp,
        "enhanced_rtp" => &mut quota.enhanced_rtp,
        "voice" => &mut quota.voice,
        "conference" => &mut quota.conference,
        other => panic!("{other} is no class"),
    } = Some(limit);
}
