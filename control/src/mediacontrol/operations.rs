//! Operations on media: start, adjust, stop; and digits for the buffer.

use std::rc::Rc;

use serde_json::{Map, Value, json};

use crate::files::Container;

use super::actions::{ADJUSTMENTS, ENCODINGS, FORMATS, G726, SOUGHT_ENCODINGS};
use super::codes::{Code, Context, Fault};
use super::effect::effect;
use super::ids::{Conference, Connection, Notes};
use super::params::digits;
use super::{Cx, Results};

/// On what an operation is to run, as the client wrote it.
enum Asked {
    Connection(String),
    Conference(String),
}

pub(super) async fn play(cx: &Cx) -> Result<Results, Fault> {
    let target = target(cx)?;
    let mut prompts = vec![cx.params.required("Prompt1")?];
    for name in ["Prompt2", "Prompt3"] {
        prompts.extend(cx.params.text(name)?);
    }
    start_play(cx, target, json!({"kind": "play", "prompts": prompts}), format).await
}

pub(super) async fn seek_and_play(cx: &Cx) -> Result<Results, Fault> {
    let target = target(cx)?;
    let prompt = cx.params.required("Prompt")?;
    if Container::of_path(&prompt) == Some(Container::Vox) {
        return Err(Fault::value(format!("Prompt: {prompt} is a VOX file; only WAV files are sought in")));
    }
    let start_ms = cx.params.uint("SeekPosition")?.unwrap_or_default().min(DAY_MS);
    let params = json!({"kind": "play", "prompts": [prompt], "spoken": false, "start_ms": start_ms});
    start_play(cx, target, params, sought_format).await
}

async fn start_play(
    cx: &Cx,
    target: Asked,
    mut params: Value,
    format: impl FnOnce(&Cx, &mut Value) -> Result<(), Fault>,
) -> Result<Results, Fault> {
    let volume = cx.params.int("Volume", -10, 10)?;
    let speed = cx.params.int("Speed", -10, 10)?;
    if cx.params.has("Volume") && cx.params.has("Speed") {
        return Err(Fault::parameters("Volume and Speed exclude each other"));
    }
    if let Some(volume) = volume {
        params["volume"] = volume.into();
    }
    if let Some(speed) = speed {
        params["speed"] = speed.into();
    }
    format(cx, &mut params)?;
    conditions(cx, &mut params, true)?;
    params["timeout_ms"] = command_timeout(cx, PLAY_TIMEOUT_MS)?.into();
    params["locale"] = cx.locale.clone().into();
    if let Some(application) = &cx.application {
        params["application"] = application.clone().into();
    }
    start(cx, target, params, true).await
}

pub(super) async fn tone(cx: &Cx) -> Result<Results, Fault> {
    let target = target(cx)?;
    let frequency = |name: &str| {
        let given = cx.params.uint(name)?;
        match given.filter(|hz| !(200..=3000).contains(hz)) {
            Some(hz) => Err(Fault::value(format!("{name}: {hz} is not 200 to 3000"))),
            None => Ok(given),
        }
    };
    let (frequency1, frequency2) = (frequency("Frequency1")?, frequency("Frequency2")?);
    let (level1, level2) = (cx.params.int("Amplitude1", -40, 0)?, cx.params.int("Amplitude2", -40, 0)?);
    let duration = cx.params.int("Duration", i32::MIN, i32::MAX)?.unwrap_or(1_000);
    let duration = u32::try_from(duration).unwrap_or_default().min(DAY_MS);
    let mut params = json!({
        "kind": "tone",
        "frequency_hz": frequency1.unwrap_or(600),
        "level_db": level1.unwrap_or(-10),
        "duration_ms": duration,
        "timeout_ms": TONE_TIMEOUT_MS,
    });
    if let Some(frequency2) = frequency2 {
        params["frequency2_hz"] = frequency2.into();
        params["level2_db"] = level2.unwrap_or(-10).into();
    }
    let any = conditions(cx, &mut params, true)?;
    if duration == 0 && !any {
        return Err(Fault::parameters("an endless tone needs a termination condition"));
    }
    start(cx, target, params, true).await
}

pub(super) async fn record(cx: &Cx) -> Result<Results, Fault> {
    let target = target(cx)?;
    let path = cx.params.text("Filename")?;
    let format_given = cx.params.choice("AudioFileFormat", FORMATS)?;
    let by_name = path.as_deref().and_then(|path| {
        let (_, extension) = path.rsplit_once('.')?;
        FORMATS.iter().copied().find(|format| format.eq_ignore_ascii_case(extension))
    });
    let container = format_given.or(by_name).unwrap_or("vox");
    let expires = cx.params.uint("Expires")?.unwrap_or(1);
    if expires > EXPIRES_DAYS_MAX {
        return Err(Fault::value(format!("Expires: {expires} is not 0 to {EXPIRES_DAYS_MAX}")));
    }
    let mut params = json!({
        "kind": "record",
        "container": container,
        "encoding": "ulaw",
        "sample_rate_hz": 8_000,
        "expires_days": expires,
    });
    format(cx, &mut params)?;
    if params["bits"].is_null() {
        params["bits"] = if params["encoding"] == "adpcm" { 4.into() } else { 8.into() };
    }
    if let Some(path) = path {
        params["path"] = path.into();
    }
    conditions(cx, &mut params, false)?;
    params["timeout_ms"] = command_timeout(cx, RECORD_TIMEOUT_MS)?.into();
    start(cx, target, params, false).await
}

pub(super) async fn gather_digits(cx: &Cx) -> Result<Results, Fault> {
    if cx.params.id("ConferenceId")?.is_some() {
        return Err(Fault::parameters("digits are gathered from a connection, not from a conference"));
    }
    let target = Asked::Connection(cx.params.required_id("ConnectionId")?);
    let mut params = json!({"kind": "gather_digits"});
    conditions(cx, &mut params, true)?;
    if let Some(pattern) = cx.params.condition_digits("TermCondDigitPattern", PATTERN_DIGITS_MAX)? {
        params["digit_pattern"] = pattern.into();
    }
    if let Some(delay) = cx.params.condition("TermCondInterDigitDelay")? {
        params["inter_digit_ms"] = delay.min(DAY_MS).into();
    }
    if let Some(flush) = cx.params.boolean("FlushBuffer")? {
        params["flush"] = flush.into();
    }
    params["timeout_ms"] = command_timeout(cx, DIGITS_TIMEOUT_MS)?.into();
    start(cx, target, params, false).await
}

pub(super) async fn detect_silence(cx: &Cx) -> Result<Results, Fault> {
    detect(cx, "detect_silence", "SilenceTime", "silence_ms").await
}

pub(super) async fn detect_nonsilence(cx: &Cx) -> Result<Results, Fault> {
    detect(cx, "detect_nonsilence", "NonSilenceTime", "nonsilence_ms").await
}

async fn detect(cx: &Cx, kind: &str, name: &str, native: &str) -> Result<Results, Fault> {
    let target = Asked::Connection(cx.params.required_id("ConnectionId")?);
    let time = cx.params.condition(name)?.ok_or_else(|| Fault::parameters(format!("{name} has to be above 0")))?;
    let mut params = json!({"kind": kind, "timeout_ms": command_timeout(cx, DETECT_TIMEOUT_MS)?});
    params[native] = time.min(DAY_MS).into();
    start(cx, target, params, false).await
}

/// Starts an operation and takes up its id.
async fn start(cx: &Cx, target: Asked, mut params: Value, isolate: bool) -> Result<Results, Fault> {
    let state = cx.params.text("State")?;
    let (connection, told, _turn);
    match target {
        Asked::Connection(id) => {
            let target: Rc<Connection> = cx.connection(&id)?;
            _turn = Some(target.lane.turn().await?);
            params["connection_id"] = target.native.clone().into();
            if isolate {
                // A member of a conference that is played to is out of the mix meanwhile.
                params["isolate"] = true.into();
            }
            told = cx.native("operation.start", params, Context::Operation).await?;
            connection = target;
        }
        Asked::Conference(id) => {
            let target: Rc<Conference> = cx.mc.ids.conference(&id)?;
            if target.deleting.get() {
                return Err(Fault::new(Code::ConnectionBusy, format!("conference {id} is being deleted")));
            }
            _turn = None;
            params["conference_id"] = target.native.clone().into();
            told = cx.native("operation.start", params, Context::Operation).await?;
            let utility = told["connection_id"].as_str().unwrap_or_default();
            connection = cx.mc.ids.add_connection(utility, &cx.routing_guid, true);
        }
    }
    let native = told["operation_id"].as_str().unwrap_or_default();
    let filename = told["path"].as_str().map(str::to_owned);
    let notes = Notes { state, filename: filename.clone(), silent: cx.abandoned.get() };
    let operation = cx.mc.ids.add_operation(native, Rc::clone(&connection), cx.action.name, &cx.routing_guid, notes);
    let mut results = with_connection(&connection);
    results.insert("OperationId".to_owned(), operation.id.to_string().into());
    if let Some(filename) = filename {
        results.insert("Filename".to_owned(), filename.into());
    }
    Ok(results)
}

pub(super) async fn stop(cx: &Cx) -> Result<Results, Fault> {
    let id = cx.params.required_id("ConnectionId")?;
    let operation = cx.params.id("OperationId")?;
    let block = cx.params.boolean("Block")?.unwrap_or(true);
    let connection = cx.mc.ids.connection(&id)?;
    let mut params = json!({"connection_id": connection.native, "block": block});
    if let Some(operation) = operation {
        let operation = cx.mc.ids.operation(&operation)?;
        if operation.connection.id != connection.id {
            let message = format!("operation {} does not run on connection {id}", operation.id);
            return Err(Fault::new(Code::NoOperation, message));
        }
        params["operation_id"] = operation.native.clone().into();
    }
    connection.lane.open()?;
    let told = cx.native("operation.stop", params, Context::Operation).await?;
    Ok(effect(cx, &told, &[]))
}

pub(super) async fn adjust(cx: &Cx) -> Result<Results, Fault> {
    let id = cx.params.required_id("ConnectionId")?;
    // A word that is not known is absolute, as the absence of one.
    let kind = cx.params.choice("AdjustmentType", ADJUSTMENTS).ok().flatten().unwrap_or("absolute");
    let limit = if kind == "relative" { 20 } else { 10 };
    if cx.params.has("Volume") && cx.params.has("Speed") {
        return Err(Fault::parameters("Volume and Speed exclude each other"));
    }
    let volume = cx.params.int("Volume", -limit, limit)?;
    let speed = cx.params.int("Speed", -limit, limit)?;
    let toggle = cx.params.uint("ToggleType")?.unwrap_or_default();
    if toggle > TOGGLE_MAX {
        return Err(Fault::value(format!("ToggleType: {toggle} is not 0 to {TOGGLE_MAX}")));
    }
    let mut params = json!({"adjustment": kind});
    if kind == "toggle" {
        params["toggle"] = toggle.max(1).into();
    }
    let steps = volume.map(|steps| ("volume", steps)).or_else(|| speed.map(|steps| ("speed", steps)));
    let steps = steps.filter(|_| kind != "toggle");
    if steps.is_none() && kind != "toggle" {
        return Err(Fault::parameters("Volume or Speed has to be given"));
    }
    let connection = cx.mc.ids.connection(&id)?;
    connection.lane.open()?;
    params["connection_id"] = connection.native.clone().into();
    if let Some((name, steps)) = steps {
        // The native method takes 10 steps at a time; two changes in one direction end where one would.
        let first = steps.clamp(-10, 10);
        if steps != first {
            params[name] = (steps - first).into();
            cx.native("operation.adjust", params.clone(), Context::Operation).await?;
        }
        params[name] = first.into();
    }
    let told = cx.native("operation.adjust", params, Context::Operation).await?;
    let mut results = with_connection(&connection);
    results.extend(effect(cx, &told, &[]));
    Ok(results)
}

pub(super) async fn send_digits(cx: &Cx) -> Result<Results, Fault> {
    let id = cx.params.required_id("ConnectionId")?;
    let given = cx.params.required("Digits")?;
    let digits = digits(&given).ok_or_else(|| Fault::value(format!("Digits: `{given}` is not made of 0-9*#A-D")))?;
    let connection = cx.mc.ids.connection(&id)?;
    connection.lane.open()?;
    let params = json!({"connection_id": connection.native, "digits": digits});
    cx.native("connection.send_digits", params, Context::Digits).await?;
    Ok(with_connection(&connection))
}

fn with_connection(connection: &Connection) -> Results {
    Map::from_iter([("ConnectionId".to_owned(), connection.id.to_string().into())])
}

fn target(cx: &Cx) -> Result<Asked, Fault> {
    match (cx.params.id("ConnectionId")?, cx.params.id("ConferenceId")?) {
        (Some(connection), None) => Ok(Asked::Connection(connection)),
        (None, Some(conference)) => Ok(Asked::Conference(conference)),
        (Some(_), Some(_)) => Err(Fault::parameters("ConnectionId and ConferenceId exclude each other")),
        (None, None) => Err(Fault::parameters("ConnectionId or ConferenceId has to be given")),
    }
}

/// Termination conditions. Says whether there are any.
fn conditions(cx: &Cx, params: &mut Value, of_digits: bool) -> Result<bool, Fault> {
    let mut any = false;
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            params[name] = value;
            any = true;
        }
    };
    for (name, native) in
        [("TermCondMaxTime", "max_time_ms"), ("TermCondSilence", "silence_ms"), ("TermCondNonSilence", "nonsilence_ms")]
    {
        // These two say nothing about the gathering of digits.
        if cx.action.name == "GatherDigits" && native != "max_time_ms" {
            continue;
        }
        set(native, cx.params.condition(name)?.map(|ms| ms.min(DAY_MS).into()));
    }
    let digit = cx.params.condition_digits("TermCondDigit", usize::MAX)?;
    set("digit", digit.and_then(|digits| digits.get(..1).map(Value::from)));
    if of_digits {
        let count = cx.params.condition("TermCondMaxDigits")?;
        if let Some(count) = count.filter(|count| *count > DIGITS_MAX) {
            return Err(Fault::condition(format!("TermCondMaxDigits: {count} is not 1 to {DIGITS_MAX}")));
        }
        set("digits", count.map(Value::from));
        set("digit_list", cx.params.condition_digits("TermCondDigitList", PATTERN_DIGITS_MAX)?.map(Value::from));
    }
    Ok(any)
}

/// How a file without a header is to be read or written, as far as it is said.
fn format(cx: &Cx, params: &mut Value) -> Result<(), Fault> {
    sample_rate(cx, params)?;
    if let Some(bits) = sample_size(cx, &[4, 8, 16])? {
        params["bits"] = bits.into();
    }
    if let Some(encoding) = cx.params.choice("AudioFileEncoding", ENCODINGS)? {
        params["encoding"] = encoding.into();
    }
    Ok(())
}

/// The same for a file that is sought in. What only a file with a header can be is told by the header.
fn sought_format(cx: &Cx, params: &mut Value) -> Result<(), Fault> {
    sample_rate(cx, params)?;
    if let Some(bits) = sample_size(cx, &[2, 4, 8, 16])?.filter(|bits| *bits != 2) {
        params["bits"] = bits.into();
    }
    if let Some(encoding) = cx.params.choice("AudioFileEncoding", SOUGHT_ENCODINGS)?.filter(|given| *given != G726) {
        params["encoding"] = encoding.into();
    }
    Ok(())
}

fn sample_rate(cx: &Cx, params: &mut Value) -> Result<(), Fault> {
    if let Some(rate) = cx.params.positive("AudioFileSampleRate")? {
        let hz = match rate {
            6 => 6_000,
            8 => 8_000,
            11 => 11_025,
            other => return Err(Fault::value(format!("AudioFileSampleRate: {other} is none of 6, 8, 11"))),
        };
        params["sample_rate_hz"] = hz.into();
    }
    Ok(())
}

fn sample_size(cx: &Cx, sizes: &[u32]) -> Result<Option<u32>, Fault> {
    let given = cx.params.positive("AudioFileSampleSize")?;
    match given.filter(|bits| !sizes.contains(bits)) {
        Some(bits) => Err(Fault::value(format!("AudioFileSampleSize: {bits} is none of {sizes:?}"))),
        None => Ok(given),
    }
}

fn command_timeout(cx: &Cx, default_ms: u32) -> Result<u32, Fault> {
    Ok(cx.params.positive("CommandTimeout")?.unwrap_or(default_ms).min(DAY_MS))
}

/// Longer times are cut to this: the longest the native methods take.
const DAY_MS: u32 = 86_400_000;
const PLAY_TIMEOUT_MS: u32 = 600_000;
const RECORD_TIMEOUT_MS: u32 = 600_000;
const DIGITS_TIMEOUT_MS: u32 = 90_000;
const DETECT_TIMEOUT_MS: u32 = 30_000;
const TONE_TIMEOUT_MS: u32 = 10_000;
const PATTERN_DIGITS_MAX: usize = 15;
const DIGITS_MAX: u32 = 31;
const TOGGLE_MAX: u32 = 4;
const EXPIRES_DAYS_MAX: u32 = 9_999;
