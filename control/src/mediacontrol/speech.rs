//! Recognition of speech, of which there is none: parameters are checked, then the resource is missing.

use super::actions::GRAMMAR_ACTIONS;
use super::codes::{Code, Fault};
use super::{Cx, Results};

pub(super) fn recognise(cx: &Cx) -> Result<Results, Fault> {
    let id = cx.params.required_id("ConnectionId")?;
    grammars(cx)?;
    if cx.params.has("Volume") && cx.params.has("Speed") {
        return Err(Fault::parameters("Volume and Speed exclude each other"));
    }
    for name in ["VoiceBargeIn", "CancelOnDigit"] {
        cx.params.boolean(name)?;
    }
    cx.connection(&id)?;
    Err(no_recogniser())
}

pub(super) fn manage_grammar(cx: &Cx) -> Result<Results, Fault> {
    cx.params.required("Action")?;
    let id = cx.params.required_id("ConnectionId")?;
    grammars(cx)?;
    cx.params.choice("Action", GRAMMAR_ACTIONS)?;
    cx.connection(&id)?;
    Err(no_recogniser())
}

pub(super) fn save_grammar(cx: &Cx) -> Result<Results, Fault> {
    cx.params.required("DynGrammar")?;
    cx.params.required("IsScriptBound")?;
    cx.params.boolean("IsScriptBound")?;
    Err(no_recogniser())
}

fn grammars(cx: &Cx) -> Result<(), Fault> {
    for name in ["Grammar", "Grammars", "Grammar1", "Grammar2", "Grammar3"] {
        if !cx.params.texts(name)?.is_empty() {
            return Ok(());
        }
    }
    Err(Fault::parameters("a grammar has to be given"))
}

fn no_recogniser() -> Fault {
    Fault::new(Code::ResourceUnavailable, "this server recognises no speech")
}
