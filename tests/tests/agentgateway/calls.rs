//! Every call there is, with a body that is well formed and bodies that are not.

use crate::rig::path;

/// A call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// As the log names it.
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    pub(crate) group: &'static str,
    /// What stands behind the work number.
    pub(crate) operation: &'static str,
    /// What it needs.
    pub(crate) needs: Needs,
    /// A body that is well formed, empty if none is read.
    pub(crate) body: &'static str,
    /// Bodies with a parameter that is missing, of a wrong type or out of range.
    pub(crate) wrong: &'static [(&'static str, &'static str)],
}

/// Whom a call is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    /// Nobody is signed in yet.
    Nothing,
    /// An agent.
    Agent,
    /// An agent who takes part in a conference.
    Member,
    /// The chair of a conference.
    Chair,
}

impl Call {
    pub(crate) fn path(&self, agent: u32) -> String {
        path(self.group, agent, self.operation)
    }

    /// With whatever stands there for the work number.
    pub(crate) fn path_of(&self, agent: &str) -> String {
        let slash = if self.operation.is_empty() { "" } else { "/" };
        format!("/agentgateway/resource/{}/{agent}{slash}{}", self.group, self.operation)
    }

    pub(crate) fn has_body(&self) -> bool {
        !self.body.is_empty()
    }
}

const fn session(
    name: &'static str,
    method: &'static str,
    group: &'static str,
    operation: &'static str,
    needs: Needs,
) -> Call {
    Call { name, method, group, operation, needs, body: "", wrong: &[] }
}

const fn conf(
    name: &'static str,
    needs: Needs,
    body: &'static str,
    wrong: &'static [(&'static str, &'static str)],
) -> Call {
    Call { name, method: "POST", group: "agentconf", operation: name, needs, body, wrong }
}

/// Every call.
pub(crate) const CALLS: &[Call] = &[
    Call { body: r#"{"password": "", "phonenum": "1"}"#, ..session("login", "PUT", "onlineagent", "", Needs::Nothing) },
    Call {
        body: r#"{"password": "", "phonenum": "1"}"#,
        ..session("forcelogin", "PUT", "onlineagent", "forcelogin", Needs::Nothing)
    },
    session("logout", "DELETE", "onlineagent", "logout", Needs::Agent),
    session("forcelogout", "DELETE", "onlineagent", "forcelogout", Needs::Agent),
    session("handshake", "POST", "onlineagent", "handshake", Needs::Agent),
    session("agentevent", "GET", "agentevent", "", Needs::Agent),
    conf(
        "requestagentconf",
        Needs::Agent,
        r#"{"memberNum": 6}"#,
        &[
            ("no memberNum", r#"{}"#),
            ("memberNum null", r#"{"memberNum": null}"#),
            ("memberNum a word", r#"{"memberNum": "six"}"#),
            ("memberNum a list", r#"{"memberNum": [6]}"#),
            ("memberNum true", r#"{"memberNum": true}"#),
            ("memberNum 0", r#"{"memberNum": 0}"#),
            ("memberNum 121", r#"{"memberNum": 121}"#),
            ("memberNum -1", r#"{"memberNum": -1}"#),
            ("memberNum 6.5", r#"{"memberNum": 6.5}"#),
            ("memberNum huge", r#"{"memberNum": 4294967302}"#),
            ("confCallerNo 25 bytes", r#"{"memberNum": 6, "confCallerNo": "1111111111111111111111111"}"#),
            ("confCallerNo a number", r#"{"memberNum": 6, "confCallerNo": 1}"#),
            ("time 3", r#"{"memberNum": 6, "time": 3}"#),
            ("time 1441", r#"{"memberNum": 6, "time": 1441}"#),
            ("time text 3", r#"{"memberNum": 6, "time": "3"}"#),
            ("promptTime 2", r#"{"memberNum": 6, "promptTime": 2}"#),
            ("promptTime 1441", r#"{"memberNum": 6, "promptTime": 1441}"#),
            ("beepTone 1", r#"{"memberNum": 6, "beepTone": 1}"#),
            ("beepTone yes", r#"{"memberNum": 6, "beepTone": "yes"}"#),
            ("beepTone without voicePath", r#"{"memberNum": 6, "beepTone": true}"#),
            ("playMode 1", r#"{"memberNum": 6, "beepTone": true, "playMode": 1, "voicePath": "D:/conf/1/beep.wav"}"#),
            (
                "voicePath 128",
                r#"{"memberNum": 6, "beepTone": true, "voicePath": "D:/conf/1/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.wav"}"#,
            ),
        ],
    ),
    conf("answeragentconf", Needs::Agent, "", &[]),
    conf("rejectagentconf", Needs::Agent, "", &[]),
    conf("requestleaveagentconf", Needs::Member, "", &[]),
    conf("releaseagentconf", Needs::Chair, "", &[]),
    conf(
        "batchaddparticipant",
        Needs::Chair,
        r#"{"addresses": [{"addressType": "6", "address": "4711"}]}"#,
        &[
            ("no addresses", r#"{}"#),
            ("addresses null", r#"{"addresses": null}"#),
            ("addresses an object", r#"{"addresses": {"addressType": "6", "address": "1"}}"#),
            ("addresses a text", r#"{"addresses": "6"}"#),
            ("addresses empty", r#"{"addresses": []}"#),
            ("an entry a number", r#"{"addresses": [1]}"#),
            ("an entry a list", r#"{"addresses": [[]]}"#),
            ("an entry empty", r#"{"addresses": [{}]}"#),
            ("the second entry empty", r#"{"addresses": [{"addressType": "6", "address": "1"}, {}]}"#),
            ("no addressType", r#"{"addresses": [{"address": "1"}]}"#),
            ("no address", r#"{"addresses": [{"addressType": "6"}]}"#),
            ("addressType 5", r#"{"addresses": [{"addressType": "5", "address": "1"}]}"#),
            ("addressType phone", r#"{"addresses": [{"addressType": "phone", "address": "1"}]}"#),
            ("address empty", r#"{"addresses": [{"addressType": "6", "address": ""}]}"#),
            ("address 25 bytes", r#"{"addresses": [{"addressType": "6", "address": "1111111111111111111111111"}]}"#),
            ("an agent by name", r#"{"addresses": [{"addressType": "9", "address": "anna"}]}"#),
            ("an agent out of range", r#"{"addresses": [{"addressType": "9", "address": "100"}]}"#),
            ("deviceCallType 256", r#"{"addresses": [{"addressType": "6", "address": "1", "deviceCallType": 256}]}"#),
            ("deviceType -1", r#"{"addresses": [{"addressType": "6", "address": "1", "deviceType": -1}]}"#),
            ("beepTone 1", r#"{"addresses": [{"addressType": "6", "address": "1"}], "beepTone": 1}"#),
            (
                "beepTone without voicePath",
                r#"{"addresses": [{"addressType": "6", "address": "1"}], "beepTone": true}"#,
            ),
            (
                "caller 25",
                r#"{"addresses": [{"addressType": "6", "address": "1"}], "caller": "1111111111111111111111111"}"#,
            ),
            ("caller a number", r#"{"addresses": [{"addressType": "6", "address": "1"}], "caller": 5}"#),
        ],
    ),
    conf(
        "batchremoveparticipant",
        Needs::Chair,
        r#"{"addresses": [{"addressType": "6", "address": "4711"}]}"#,
        &[
            ("no addresses", r#"{}"#),
            ("addresses a text", r#"{"addresses": "6"}"#),
            ("addresses empty", r#"{"addresses": []}"#),
            ("an entry a number", r#"{"addresses": [1]}"#),
            ("no addressType", r#"{"addresses": [{"address": "1"}]}"#),
            ("no address", r#"{"addresses": [{"addressType": "6"}]}"#),
            ("addressType 7", r#"{"addresses": [{"addressType": 7, "address": "1"}]}"#),
            ("address 25 bytes", r#"{"addresses": [{"addressType": "6", "address": "1111111111111111111111111"}]}"#),
        ],
    ),
    conf(
        "changeparticipantmode",
        Needs::Chair,
        r#"{"addressType": "6", "address": "4711", "attribute": 1}"#,
        &[
            ("nothing", r#"{}"#),
            ("no attribute", r#"{"addressType": "6", "address": "4711"}"#),
            ("no addressType", r#"{"address": "4711", "attribute": 1}"#),
            ("no address", r#"{"addressType": "6", "attribute": 1}"#),
            ("attribute 0", r#"{"addressType": "6", "address": "4711", "attribute": 0}"#),
            ("attribute 5", r#"{"addressType": "6", "address": "4711", "attribute": 5}"#),
            ("attribute a word", r#"{"addressType": "6", "address": "4711", "attribute": "mute"}"#),
            ("addressType 8", r#"{"addressType": "8", "address": "4711", "attribute": 1}"#),
            ("address a list", r#"{"addressType": "6", "address": ["4711"], "attribute": 1}"#),
        ],
    ),
    conf(
        "holdparticipant",
        Needs::Chair,
        r#"{"addressType": "6", "address": "4711", "voicePath": "D:/conf/1/long.wav"}"#,
        &[
            ("nothing", r#"{}"#),
            ("no voicePath", r#"{"addressType": "6", "address": "4711"}"#),
            ("voicePath empty", r#"{"addressType": "6", "address": "4711", "voicePath": ""}"#),
            ("voicePath a number", r#"{"addressType": "6", "address": "4711", "voicePath": 5}"#),
            ("no address", r#"{"addressType": "6", "voicePath": "D:/conf/1/long.wav"}"#),
            ("no addressType", r#"{"address": "4711", "voicePath": "D:/conf/1/long.wav"}"#),
            (
                "playMode 3",
                r#"{"addressType": "6", "address": "4711", "playMode": 3, "voicePath": "D:/conf/1/long.wav"}"#,
            ),
        ],
    ),
    conf(
        "unholdparticipant",
        Needs::Chair,
        r#"{"addressType": "6", "address": "4711"}"#,
        &[
            ("nothing", r#"{}"#),
            ("no address", r#"{"addressType": "6"}"#),
            ("no addressType", r#"{"address": "4711"}"#),
            ("addressType empty", r#"{"addressType": "", "address": "4711"}"#),
        ],
    ),
    conf(
        "playvoicetoconf",
        Needs::Chair,
        r#"{"voicePath": "D:/conf/1/long.wav"}"#,
        &[
            ("no voicePath", r#"{}"#),
            ("voicePath null", r#"{"voicePath": null}"#),
            ("voicePath a number", r#"{"voicePath": 5}"#),
            ("voicePath a list", r#"{"voicePath": ["D:/conf/1/long.wav"]}"#),
            (
                "voicePath 128",
                r#"{"voicePath": "D:/conf/1/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.wav"}"#,
            ),
            ("playType 2", r#"{"voicePath": "D:/conf/1/long.wav", "playType": 2}"#),
            ("playType -1", r#"{"voicePath": "D:/conf/1/long.wav", "playType": -1}"#),
            ("playType a word", r#"{"voicePath": "D:/conf/1/long.wav", "playType": "loop"}"#),
            ("playMode 1", r#"{"voicePath": "D:/conf/1/long.wav", "playMode": 1}"#),
            ("playMode 3", r#"{"voicePath": "D:/conf/1/long.wav", "playMode": "3"}"#),
        ],
    ),
    conf("stopvoicetoconf", Needs::Chair, "", &[]),
    conf(
        "playvoicetoparticipant",
        Needs::Chair,
        r#"{"addressType": "6", "address": "4711", "voicePath": "D:/conf/1/long.wav"}"#,
        &[
            ("nothing", r#"{}"#),
            ("no voicePath", r#"{"addressType": "6", "address": "4711"}"#),
            ("no address", r#"{"addressType": "6", "voicePath": "D:/conf/1/long.wav"}"#),
            ("no addressType", r#"{"address": "4711", "voicePath": "D:/conf/1/long.wav"}"#),
            ("addressType 1", r#"{"addressType": 1, "address": "4711", "voicePath": "D:/conf/1/long.wav"}"#),
            (
                "playMode 0",
                r#"{"addressType": "6", "address": "4711", "playMode": 0, "voicePath": "D:/conf/1/long.wav"}"#,
            ),
        ],
    ),
    conf(
        "stopvoicetoparticipant",
        Needs::Chair,
        r#"{"addressType": "6", "address": "4711"}"#,
        &[
            ("nothing", r#"{}"#),
            ("no address", r#"{"addressType": "6"}"#),
            ("no addressType", r#"{"address": "4711"}"#),
            ("address an object", r#"{"addressType": "6", "address": {}}"#),
        ],
    ),
    conf(
        "prolongtime",
        Needs::Chair,
        r#"{"prolongTime": 5}"#,
        &[
            ("nothing", r#"{}"#),
            ("prolongTime 0", r#"{"prolongTime": 0}"#),
            ("prolongTime 1441", r#"{"prolongTime": 1441}"#),
            ("prolongTime -5", r#"{"prolongTime": -5}"#),
            ("prolongTime a word", r#"{"prolongTime": "five"}"#),
        ],
    ),
    conf(
        "applytoshiftpresident",
        Needs::Chair,
        r#"{"destAgentNo": 102}"#,
        &[
            ("nothing", r#"{}"#),
            ("destAgentNo 100", r#"{"destAgentNo": 100}"#),
            ("destAgentNo 1000000", r#"{"destAgentNo": 1000000}"#),
            ("destAgentNo a word", r#"{"destAgentNo": "anna"}"#),
        ],
    ),
    conf(
        "modifyconfresource",
        Needs::Chair,
        r#"{"modifyType": 0, "modifyNum": 2}"#,
        &[
            ("nothing", r#"{}"#),
            ("no modifyType", r#"{"modifyNum": 2}"#),
            ("no modifyNum", r#"{"modifyType": 0}"#),
            ("modifyType 2", r#"{"modifyType": 2, "modifyNum": 2}"#),
            ("modifyNum 1", r#"{"modifyType": 0, "modifyNum": 1}"#),
            ("modifyNum 119", r#"{"modifyType": 0, "modifyNum": 119}"#),
        ],
    ),
    conf(
        "queryconfinfos",
        Needs::Member,
        r#"{"confIds": [1000000]}"#,
        &[
            ("nothing", r#"{}"#),
            ("confIds a number", r#"{"confIds": 1000000}"#),
            ("confIds of words", r#"{"confIds": ["x"]}"#),
            ("confIds of null", r#"{"confIds": [null]}"#),
            ("confIds of -1", r#"{"confIds": [-1]}"#),
            ("21 confIds", r#"{"confIds": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21]}"#),
        ],
    ),
    Call { method: "GET", ..conf("queryvdnconfid", Needs::Agent, "", &[]) },
];
