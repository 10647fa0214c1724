//! `ringbridge ctl`: one call on the control socket, or its events.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::config::default_control_sockets;

/// What to call.
#[derive(Debug, clap::Args)]
pub(super) struct CtlArgs {
    /// Where the server's control socket is.
    #[arg(long, value_name = "PATH")]
    control_socket: Option<PathBuf>,
    /// Print the answer on one line.
    #[arg(long)]
    json: bool,
    /// A method such as `server.info`, or `events`.
    method: String,
    /// Parameters `key=value`; a value that is JSON is taken as such, anything else is a text. Or one JSON object
    /// with all of them. For `events`: `kinds=["digit"]`.
    #[arg(value_name = "key=value")]
    params: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error("no server is reached at {0}")]
    Unreachable(String),
    #[error("the server has gone: {0}")]
    Gone(io::Error),
    #[error("the server said something else than JSON-RPC")]
    Strange,
    #[error("`{0}` is not of the form key=value")]
    Param(String),
    #[error("{message} ({code}) {data}")]
    Refused { code: i64, message: String, data: Value },
}

pub(super) fn main(args: &CtlArgs) -> ExitCode {
    let done = params(&args.params).and_then(|params| match args.method.as_str() {
        "events" => follow(args, params),
        method => {
            let mut server = connect(args)?;
            let result = call(&mut server, method, params)?;
            print(&result, args.json).map_err(CtlError::Gone)
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringbridge: {error}");
            ExitCode::FAILURE
        }
    }
}

fn follow(args: &CtlArgs, params: Value) -> Result<(), CtlError> {
    let mut server = connect(args)?;
    call(&mut server, "events.subscribe", params)?;
    loop {
        let Value::Object(mut message) = read(&mut server)? else { return Err(CtlError::Strange) };
        let params = message.remove("params").ok_or(CtlError::Strange)?;
        if print(&params, true).is_err() {
            // Nobody reads any more.
            return Ok(());
        }
    }
}

fn connect(args: &CtlArgs) -> Result<BufReader<UnixStream>, CtlError> {
    let paths = args.control_socket.clone().map_or_else(default_control_sockets, |path| vec![path]);
    let mut tried = Vec::new();
    for path in paths {
        match UnixStream::connect(&path) {
            Ok(stream) => return Ok(BufReader::new(stream)),
            Err(error) => tried.push(format!("{} ({error})", path.display())),
        }
    }
    Err(CtlError::Unreachable(tried.join(", ")))
}

fn call(server: &mut BufReader<UnixStream>, method: &str, params: Value) -> Result<Value, CtlError> {
    let mut line = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    line.push('\n');
    server.get_mut().write_all(line.as_bytes()).map_err(CtlError::Gone)?;
    loop {
        let Value::Object(mut answer) = read(server)? else { return Err(CtlError::Strange) };
        if let Some(result) = answer.remove("result") {
            return Ok(result);
        }
        if let Some(error) = answer.get_mut("error") {
            let code = error["code"].as_i64().ok_or(CtlError::Strange)?;
            let message = error["message"].as_str().unwrap_or_default().to_owned();
            return Err(CtlError::Refused { code, message, data: error["data"].take() });
        }
        // An event that came before the answer.
    }
}

fn read(server: &mut BufReader<UnixStream>) -> Result<Value, CtlError> {
    let mut line = String::new();
    match server.read_line(&mut line) {
        Ok(0) => Err(CtlError::Gone(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => serde_json::from_str(&line).map_err(|_| CtlError::Strange),
        Err(error) => Err(CtlError::Gone(error)),
    }
}

fn print(value: &Value, compact: bool) -> io::Result<()> {
    let text = if compact { value.to_string() } else { format!("{value:#}") };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

fn params(given: &[String]) -> Result<Value, CtlError> {
    let mut params = Map::new();
    for part in given {
        if part.trim_start().starts_with('{') {
            let object: Map<String, Value> = serde_json::from_str(part).map_err(|_| CtlError::Param(part.clone()))?;
            params.extend(object);
            continue;
        }
        let (key, value) = part.split_once('=').ok_or_else(|| CtlError::Param(part.clone()))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        params.insert(key.to_owned(), value);
    }
    Ok(params.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_if_they_can_be() {
        let given = ["label=two words", "ptime_ms=20", "remote=127.0.0.1:9", "files=[\"a.wav\"]", "{\"block\": false}"];
        let given: Vec<String> = given.iter().map(|part| (*part).to_owned()).collect();
        let expected = json!({
            "label": "two words", "ptime_ms": 20, "remote": "127.0.0.1:9", "files": ["a.wav"], "block": false,
        });
        assert_eq!(params(&given).expect("valid"), expected);
        assert!(matches!(params(&["plain".to_owned()]), Err(CtlError::Param(_))));
        assert!(matches!(params(&["{broken".to_owned()]), Err(CtlError::Param(_))));
    }
}
