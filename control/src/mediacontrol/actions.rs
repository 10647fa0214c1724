//! The table of actions: what each is called, takes, returns and announces. Dispatch, validation, the OpenAPI document
//! and the documentation's tables all come from it or are checked against it.

/// Of what type a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// System.String.
    Text,
    /// A text that is a decimal number: an id.
    Id,
    /// System.String or a list of them.
    Texts,
    /// System.Boolean.
    Boolean,
    /// System.UInt32.
    UInt,
    /// System.Int32.
    Int,
    /// System.Int64.
    Long,
    /// One of some words, in any case.
    Choice(&'static [&'static str]),
}

/// One parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Param {
    /// Its published name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Whether it has to be given.
    pub required: bool,
    /// Unit, range, default.
    pub note: &'static str,
}

/// One action.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// Its name without the namespace.
    pub name: &'static str,
    /// Its parameters, without `Timeout`.
    pub params: &'static [&'static [Param]],
    /// What it returns, without `ResultCode`.
    pub results: &'static [&'static [&'static str]],
    /// Whether it starts an operation, whose end is told by `<Action>_Complete` or `<Action>_Failed`.
    pub starts: bool,
    /// What it does, in one sentence.
    pub summary: &'static str,
}

impl Action {
    /// The action of that name, with or without a namespace, in any case.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        let plain = NAMESPACES.iter().find_map(|namespace| {
            let (head, tail) = name.split_at_checked(namespace.len())?;
            head.eq_ignore_ascii_case(namespace).then_some(tail)
        });
        let plain = plain.unwrap_or(name);
        ACTIONS.iter().find(|action| action.name.eq_ignore_ascii_case(plain))
    }

    /// Every parameter.
    pub fn all_params(&self) -> impl Iterator<Item = &'static Param> + use<> {
        self.params.iter().flat_map(|group| group.iter())
    }

    /// Every result.
    pub fn all_results(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.results.iter().flat_map(|group| group.iter().copied())
    }
}

const fn optional(name: &'static str, kind: Type, note: &'static str) -> Param {
    Param { name, kind, required: false, note }
}

const fn required(name: &'static str, kind: Type, note: &'static str) -> Param {
    Param { name, kind, required: true, note }
}

/// Names of codecs.
pub const CODECS: &[&str] = &["G711u", "G711a", "G723", "G729"];
/// Formats of audio files.
pub const FORMATS: &[&str] = &["wav", "vox"];
/// Encodings of audio files.
pub const ENCODINGS: &[&str] = &["ulaw", "alaw", "pcm", "adpcm"];
/// Encodings of files that are sought in.
pub const SOUGHT_ENCODINGS: &[&str] = &["ulaw", "alaw", "pcm", "adpcm", G726];
/// An encoding only WAV files have, whose header tells it.
pub const G726: &str = "g726";
/// How an adjustment is meant.
pub const ADJUSTMENTS: &[&str] = &["absolute", "relative", "toggle"];
/// What is done with a grammar.
pub const GRAMMAR_ACTIONS: &[&str] = &["Load", "Unload"];

const ENGINE: &[Param] = &[optional("MmsId", Type::UInt, "the engine, 1 to 255; 0: any")];
const CONNECTION: &[Param] = &[required("ConnectionId", Type::Id, "")];
const CONFERENCE: &[Param] = &[required("ConferenceId", Type::Id, "")];
const CODEC: &[Param] = &[
    optional("MediaRxCodec", Type::Choice(CODECS), "of what the endpoint sends; default: the Tx codec, else G711u"),
    optional("MediaTxCodec", Type::Choice(CODECS), "of what it is sent; default G711u"),
];
const FRAMES: &[Param] = &[
    optional("MediaRxFramesize", Type::UInt, "ms; G.711 10, 20, 30; G723 30, 60; G729 20, 30, 40"),
    optional("MediaTxFramesize", Type::UInt, "ms; default 20, for G723 30"),
];
const TX_REQUIRED: &[Param] = &[
    required("MediaTxIP", Type::Text, "IPv4 address media is sent to"),
    required("MediaTxPort", Type::UInt, "1 to 65535"),
];
const TX: &[Param] = &[
    optional("MediaTxIP", Type::Text, "IPv4 address media is sent to; needed if the connection is only reserved"),
    optional("MediaTxPort", Type::UInt, "1 to 65535"),
];
const TX_CONTROL: &[Param] = &[
    optional("MediaTxControlIP", Type::Text, "for RTCP; default MediaTxIP"),
    optional("MediaTxControlPort", Type::UInt, "for RTCP; default MediaTxPort + 1"),
];
const CALL: &[Param] = &[optional("CallId", Type::Long, "returned as it is")];
const ROLES: &[Param] = &[
    optional("Monitor", Type::Boolean, "listens only, outside the mix; default false"),
    optional("ReceiveOnly", Type::Boolean, "hears, is not heard; default false"),
    optional("TariffTone", Type::Boolean, "hears the tariff tone; default false"),
    optional("Coach", Type::Boolean, "heard by the pupil only; default false"),
    optional("Pupil", Type::Boolean, "hears the coach; default false"),
];
const TARGET: &[Param] =
    &[optional("ConnectionId", Type::Id, "either this"), optional("ConferenceId", Type::Id, "or this")];
const VOLUME: &[Param] = &[
    optional("Volume", Type::Int, "-10 to 10, steps of 2 dB; excludes Speed"),
    optional("Speed", Type::Int, "-10 to 10, steps of 10 %; excludes Volume"),
];
const TIMEOUT: &[Param] = &[optional("CommandTimeout", Type::UInt, "ms until the operation ends with timeout")];
const COMMON_CONDITIONS: &[Param] = &[
    optional("TermCondMaxTime", Type::UInt, "ms, ends with maxtime"),
    optional("TermCondDigit", Type::Text, "one digit, ends with digit"),
    optional("TermCondSilence", Type::UInt, "ms, ends with silence"),
    optional("TermCondNonSilence", Type::UInt, "ms, ends with nonsilence"),
];
const DIGIT_CONDITIONS: &[Param] = &[
    optional("TermCondMaxDigits", Type::UInt, "1 to 31, ends with maxdigits"),
    optional("TermCondDigitList", Type::Text, "1 to 15 digits, any of them ends with digitlist"),
];
const FILE: &[Param] = &[
    optional("AudioFileSampleRate", Type::UInt, "kHz: 6, 8, 11"),
    optional("AudioFileSampleSize", Type::UInt, "bits: 4, 8, 16"),
    optional("AudioFileEncoding", Type::Choice(ENCODINGS), ""),
];
const SOUGHT_FILE: &[Param] = &[
    optional("AudioFileSampleRate", Type::UInt, "kHz: 6, 8, 11"),
    optional("AudioFileSampleSize", Type::UInt, "bits: 2, 4, 8, 16"),
    optional("AudioFileEncoding", Type::Choice(SOUGHT_ENCODINGS), ""),
];
const STATE: &[Param] = &[optional("State", Type::Text, "returned with the event")];
const GRAMMARS: &[Param] = &[
    optional("Grammar", Type::Texts, "a grammar has to be given, here or in one of the next"),
    optional("Grammars", Type::Texts, ""),
    optional("Grammar1", Type::Text, ""),
    optional("Grammar2", Type::Text, ""),
    optional("Grammar3", Type::Text, ""),
];

const ADDRESSES: &[&str] = &["MmsId", "MediaRxIP", "MediaRxPort", "MediaRxControlIP", "MediaRxControlPort"];
const CONNECTION_RESULT: &[&str] = &["ConnectionId"];
const CONFERENCE_RESULT: &[&str] = &["ConferenceId"];
const CALL_RESULT: &[&str] = &["CallId"];
/// From where on it can be heard; an addition of this server.
const EFFECT: &[&str] = &["Effect"];
const STARTED: &[&str] = &["ConnectionId", "OperationId"];

/// Every action of `Metreos.MediaControl`.
pub const ACTIONS: &[Action] = &[
    Action {
        name: "ReserveConnection",
        params: &[ENGINE, CODEC],
        results: &[CONNECTION_RESULT, ADDRESSES, &["LocalMediaCaps"]],
        starts: false,
        summary: "Allocates where an endpoint may send to; CreateConnection has to follow within 300 s.",
    },
    Action {
        name: "CreateConnection",
        params: &[
            TX_REQUIRED,
            &[optional("ConnectionId", Type::Id, "a reserved connection that is completed; 0: a new one")],
            ENGINE,
            TX_CONTROL,
            CODEC,
            FRAMES,
            CALL,
        ],
        results: &[CONNECTION_RESULT, ADDRESSES, CALL_RESULT],
        starts: false,
        summary: "Makes a connection, or completes a reserved one.",
    },
    Action {
        name: "ModifyConnection",
        params: &[CONNECTION, TX_REQUIRED, TX_CONTROL, CODEC, FRAMES, CALL],
        results: &[CONNECTION_RESULT, ADDRESSES, CALL_RESULT],
        starts: false,
        summary: "Changes a complete connection; ReasonCode 17 if nothing is different.",
    },
    Action {
        name: "DeleteConnection",
        params: &[&[
            optional("ConnectionId", Type::Id, "alone: releases the connection"),
            optional("ConferenceId", Type::Id, "alone: releases all of it; with both the connection only leaves"),
        ]],
        results: &[EFFECT],
        starts: false,
        summary: "Releases a connection or a whole conference, or takes a connection out of a conference.",
    },
    Action {
        name: "CreateConference",
        params: &[
            &[optional("ConnectionId", Type::Id, "the first participant; absent: made from MediaTxIP and MediaTxPort")],
            ENGINE,
            &[
                optional("Hairpin", Type::Boolean, "two parties are joined without a mix; default true"),
                optional("SoundToneOnJoin", Type::Boolean, "a tone when somebody joins or leaves; default true"),
            ],
            ROLES,
            TX,
            TX_CONTROL,
            CODEC,
            FRAMES,
            CALL,
        ],
        results: &[CONFERENCE_RESULT, CONNECTION_RESULT, ADDRESSES, CALL_RESULT],
        starts: false,
        summary: "Opens a conference with its first participant.",
    },
    Action {
        name: "JoinConference",
        params: &[
            CONFERENCE,
            &[optional("ConnectionId", Type::Id, "absent: made from MediaTxIP and MediaTxPort")],
            &[optional("Hairpin", Type::Boolean, "for a conference that is made by ConferenceId 0")],
            ROLES,
            TX,
            TX_CONTROL,
            CODEC,
            FRAMES,
            CALL,
        ],
        results: &[CONFERENCE_RESULT, CONNECTION_RESULT, ADDRESSES, CALL_RESULT],
        starts: false,
        summary: "Puts a connection into a conference; ConferenceId 0 makes a new one.",
    },
    Action {
        name: "LeaveConference",
        params: &[CONNECTION, CONFERENCE],
        results: &[EFFECT],
        starts: false,
        summary: "Takes a connection out of a conference; the last one out ends the conference.",
    },
    Action {
        name: "SetConfereeAttribute",
        params: &[
            CONNECTION,
            CONFERENCE,
            &[
                optional("Mute", Type::Boolean, "at least one of the four has to be given"),
                optional("TariffTone", Type::Boolean, ""),
                optional("Coach", Type::Boolean, "true moves the role here"),
                optional("Pupil", Type::Boolean, "true moves the role here"),
            ],
        ],
        results: &[EFFECT],
        starts: false,
        summary: "Changes how a connection takes part; all given attributes or none.",
    },
    Action {
        name: "Mute",
        params: &[CONNECTION, CONFERENCE],
        results: &[EFFECT],
        starts: false,
        summary: "Obsolete: SetConfereeAttribute with Mute true.",
    },
    Action {
        name: "Unmute",
        params: &[CONNECTION, CONFERENCE],
        results: &[EFFECT],
        starts: false,
        summary: "Obsolete: SetConfereeAttribute with Mute false.",
    },
    Action {
        name: "Play",
        params: &[
            TARGET,
            &[
                required("Prompt1", Type::Text, "a file's name, or a text to speak"),
                optional("Prompt2", Type::Text, "played next"),
                optional("Prompt3", Type::Text, "played last"),
            ],
            VOLUME,
            TIMEOUT,
            COMMON_CONDITIONS,
            DIGIT_CONDITIONS,
            FILE,
            STATE,
        ],
        results: &[STARTED],
        starts: true,
        summary: "Plays prompts.",
    },
    Action {
        name: "SeekAndPlay",
        params: &[
            TARGET,
            &[
                required("Prompt", Type::Text, "a file's name"),
                optional("SeekPosition", Type::UInt, "ms from the beginning; default 0"),
            ],
            VOLUME,
            TIMEOUT,
            COMMON_CONDITIONS,
            DIGIT_CONDITIONS,
            SOUGHT_FILE,
            STATE,
        ],
        results: &[STARTED],
        starts: true,
        summary: "Plays one file from a position in it.",
    },
    Action {
        name: "AdjustPlay",
        params: &[
            CONNECTION,
            &[
                optional("Volume", Type::Int, "-10 to 10; relative: -20 to 20; excludes Speed"),
                optional("Speed", Type::Int, "-10 to 10; relative: -20 to 20; excludes Volume"),
                optional("AdjustmentType", Type::Choice(ADJUSTMENTS), "default absolute"),
                optional("ToggleType", Type::UInt, "0 to 4"),
            ],
        ],
        results: &[CONNECTION_RESULT, EFFECT],
        starts: false,
        summary: "Changes volume or speed of what is being played.",
    },
    Action {
        name: "PlayTone",
        params: &[
            TARGET,
            &[
                optional("Frequency1", Type::UInt, "Hz, 200 to 3000; default 600"),
                optional("Amplitude1", Type::Int, "dB, -40 to 0; default -10"),
                optional("Frequency2", Type::UInt, "Hz, 200 to 3000; absent: one tone"),
                optional("Amplitude2", Type::Int, "dB, -40 to 0; default -10"),
                optional("Duration", Type::Int, "ms; default 1000; below 1: endless, with a condition"),
            ],
            COMMON_CONDITIONS,
            DIGIT_CONDITIONS,
            STATE,
        ],
        results: &[STARTED],
        starts: true,
        summary: "Plays a tone, for 10 s at most.",
    },
    Action {
        name: "Record",
        params: &[
            TARGET,
            &[
                optional("Filename", Type::Text, "below the recording directory; absent: made up"),
                optional("AudioFileFormat", Type::Choice(FORMATS), "default: by the file's name, else vox"),
                optional("Expires", Type::UInt, "days, 0: never, 9999 at most; default 1"),
            ],
            FILE,
            TIMEOUT,
            COMMON_CONDITIONS,
            STATE,
        ],
        results: &[STARTED, &["Filename"]],
        starts: true,
        summary: "Records into a file.",
    },
    Action {
        name: "GatherDigits",
        params: &[CONNECTION, COMMON_DIGITS, DIGIT_CONDITIONS, TIMEOUT, STATE],
        results: &[STARTED],
        starts: true,
        summary: "Collects digits.",
    },
    Action {
        name: "SendDigits",
        params: &[CONNECTION, &[required("Digits", Type::Text, "0-9, *, #, A-D; 31 wait at most")]],
        results: &[CONNECTION_RESULT],
        starts: false,
        summary: "Puts digits into the connection's buffer as if they had been pressed.",
    },
    Action {
        name: "DetectSilence",
        params: &[CONNECTION, &[required("SilenceTime", Type::UInt, "ms, above 0")], TIMEOUT, STATE],
        results: &[STARTED],
        starts: true,
        summary: "Waits for silence.",
    },
    Action {
        name: "DetectNonSilence",
        params: &[CONNECTION, &[required("NonSilenceTime", Type::UInt, "ms, above 0")], TIMEOUT, STATE],
        results: &[STARTED],
        starts: true,
        summary: "Waits for sound.",
    },
    Action {
        name: "StopMediaOperation",
        params: &[
            CONNECTION,
            &[
                optional("OperationId", Type::Id, "absent: all operations of the connection"),
                optional("Block", Type::Boolean, "true: answered after their events; default true"),
            ],
        ],
        results: &[EFFECT],
        starts: false,
        summary: "Ends one operation or all of a connection; they end with userstop.",
    },
    Action {
        name: "VoiceRecognition",
        params: &[
            CONNECTION,
            GRAMMARS,
            &[
                optional("Prompt1", Type::Text, ""),
                optional("Prompt2", Type::Text, ""),
                optional("Prompt3", Type::Text, ""),
                optional("VoiceBargeIn", Type::Boolean, ""),
                optional("CancelOnDigit", Type::Boolean, ""),
                optional("TermCondMaxTime", Type::UInt, ""),
                optional("TermCondSilence", Type::UInt, ""),
                optional("TermCondNonSilence", Type::UInt, ""),
            ],
            VOLUME,
            FILE,
            TIMEOUT,
            STATE,
        ],
        results: &[STARTED],
        starts: true,
        summary: "Answers 8: there is no recogniser.",
    },
    Action {
        name: "ManageGrammar",
        params: &[&[required("Action", Type::Choice(GRAMMAR_ACTIONS), "")], CONNECTION, GRAMMARS, TIMEOUT],
        results: &[STARTED],
        starts: true,
        summary: "Answers 8: there is no recogniser.",
    },
    Action {
        name: "SaveDynamicGrammar",
        params: &[&[
            required("DynGrammar", Type::Text, "the grammar"),
            required("IsScriptBound", Type::Boolean, ""),
            optional("DynGrammarName", Type::Text, ""),
        ]],
        results: &[&["DynamicGrammarUri"]],
        starts: false,
        summary: "Answers 8: there is no recogniser.",
    },
];

const COMMON_DIGITS: &[Param] = &[
    optional("TermCondMaxTime", Type::UInt, "ms, ends with maxtime"),
    optional("TermCondDigit", Type::Text, "one digit, ends with digit"),
    optional("TermCondDigitPattern", Type::Text, "1 to 15 digits in this order, ends with digitpattern"),
    optional("TermCondInterDigitDelay", Type::UInt, "ms since the last digit, ends with interdigdelay"),
    optional("FlushBuffer", Type::Boolean, "forgets what was pressed before; default false"),
];

/// The namespace in the full names of actions and events.
pub const NAMESPACE: &str = "Metreos.MediaControl.";
const NAMESPACES: &[&str] = &[NAMESPACE, "MediaControl."];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found_in_any_case() {
        let names: BTreeSet<String> = ACTIONS.iter().map(|action| action.name.to_ascii_lowercase()).collect();
        assert_eq!(names.len(), ACTIONS.len());
        assert_eq!(ACTIONS.len(), 18 + 3 + 2);
        for action in ACTIONS {
            for name in [action.name.to_owned(), format!("Metreos.MediaControl.{}", action.name)] {
                assert_eq!(Action::by_name(&name.to_uppercase()).expect("known").name, action.name);
            }
            let params: BTreeSet<&str> = action.all_params().map(|param| param.name).collect();
            assert_eq!(params.len(), action.all_params().count(), "{}: each parameter once", action.name);
        }
    }

    #[test]
    fn what_does_not_exist_in_this_namespace_is_not_known() {
        for name in ["MuteConnection", "UnmuteConnection", "SetConferenceAttribute", "CreateConnectionConference", ""] {
            assert!(Action::by_name(name).is_none(), "{name}");
        }
    }
}
