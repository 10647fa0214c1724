//! A session with the server: what is created in it is deleted at its end, also after an error or Ctrl-C.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::rpc::{Client, RpcError};
use crate::target::{ForwardTarget, IoCount};

/// A session on one control connection.
pub struct Session {
    client: Client,
    info: ServerInfo,
    connections: Vec<String>,
    conferences: Vec<String>,
}

/// What the server says about itself.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ServerInfo {
    /// Where its control socket is.
    pub control: PathBuf,
    /// Process id.
    pub pid: u32,
    /// Version.
    pub version: String,
    /// Number of shards.
    pub shards: u64,
}

/// A connection the server made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Its id.
    pub id: String,
    /// Where it receives RTP.
    pub local: SocketAddr,
}

impl Session {
    /// Connects to the control socket and asks who is there.
    ///
    /// # Errors
    /// Nobody listens, or the answer is not as the contract says.
    pub fn open(control: &Path) -> Result<Self> {
        let mut client = Client::connect(control)?;
        let info = client.call("server.info", &json!({}))?;
        let pid = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let info = ServerInfo {
            control: control.to_owned(),
            pid: pid.ok_or_else(|| Error::Protocol(format!("server.info without a pid: {info}")))?,
            version: info["version"].as_str().unwrap_or("unknown").to_owned(),
            shards: info["shards"].as_u64().unwrap_or(0),
        };
        Ok(Self { client, info, connections: Vec::new(), conferences: Vec::new() })
    }

    /// What the server said about itself.
    #[must_use]
    pub fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// `server.stats`, whole.
    ///
    /// # Errors
    /// The server refused.
    pub fn stats(&mut self) -> Result<Value> {
        self.client.call("server.stats", &json!({}))
    }

    /// Creates one connection for each element of `params`.
    ///
    /// # Errors
    /// The server refused one of them; those made are deleted at the end.
    pub fn create_connections(&mut self, params: Vec<Value>) -> Result<Vec<Connection>> {
        let results = self.call_all("connection.create", params)?;
        let mut created = Vec::with_capacity(results.len());
        let mut failure = None;
        // All answers are looked at before the first error is reported, so that nothing made is forgotten.
        for result in results {
            match result.map_err(|error| refused("connection.create", error)).and_then(|result| parse_created(&result))
            {
                Ok(connection) => {
                    self.connections.push(connection.id.clone());
                    created.push(connection);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(created), Err)
    }

    /// Wires connections together in pairs.
    ///
    /// # Errors
    /// The server refused one of them.
    pub fn start_relays(&mut self, pairs: impl Iterator<Item = (String, String)>) -> Result<()> {
        let params = pairs.map(|(a, b)| json!({"a": a, "b": b})).collect();
        self.call_each("relay.start", params).map(drop)
    }

    /// Creates `count` conferences and returns their ids.
    ///
    /// # Errors
    /// The server refused one of them; those made are deleted at the end.
    pub fn create_conferences(&mut self, count: usize) -> Result<Vec<String>> {
        let results = self.call_all("conference.create", vec![json!({}); count])?;
        let mut ids = Vec::with_capacity(count);
        let mut failure = None;
        for result in results {
            match result {
                Ok(result) => match result["conference_id"].as_str() {
                    Some(id) => ids.push(id.to_owned()),
                    None => failure = Some(Error::Protocol(format!("conference.create answered {result}"))),
                },
                Err(error) => failure = Some(refused("conference.create", error)),
            }
        }
        self.conferences.extend(ids.iter().cloned());
        failure.map_or(Ok(ids), Err)
    }

    /// Joins connections to conferences: pairs of conference id and connection id.
    ///
    /// # Errors
    /// The server refused one of them.
    pub fn join(&mut self, members: impl Iterator<Item = (String, String)>) -> Result<()> {
        let params = members
            .map(|(conference, connection)| json!({"conference_id": conference, "connection_id": connection}))
            .collect();
        self.call_each("conference.join", params).map(drop)
    }

    /// Deletes everything created in this session.
    ///
    /// # Errors
    /// The server is gone. What it had already deleted by itself is no error.
    pub fn clean_up(&mut self) -> Result<()> {
        let connections = std::mem::take(&mut self.connections);
        let conferences = std::mem::take(&mut self.conferences);
        let params = connections.into_iter().map(|id| json!({"connection_id": id})).collect();
        self.call_all("connection.delete", params)?;
        let params = conferences.into_iter().map(|id| json!({"conference_id": id})).collect();
        self.call_all("conference.delete", params)?;
        Ok(())
    }

    fn call_all(&mut self, method: &str, params: Vec<Value>) -> Result<Vec<std::result::Result<Value, RpcError>>> {
        let requests: Vec<_> = params.into_iter().map(|params| (method, params)).collect();
        self.client.call_all(&requests)
    }

    fn call_each(&mut self, method: &str, params: Vec<Value>) -> Result<Vec<Value>> {
        self.call_all(method, params)?
            .into_iter()
            .map(|result| result.map_err(|error| refused(method, error)))
            .collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // After an error there is nobody to tell; the server's own timeouts are the last resort.
        let _ = self.clean_up();
    }
}

impl ForwardTarget for Session {
    fn name(&self) -> &'static str {
        "server"
    }

    fn pid(&self) -> u32 {
        self.info.pid
    }

    fn open(&mut self, endpoints: &[SocketAddr], ptime_ms: u64) -> Result<Vec<SocketAddr>> {
        let params = endpoints
            .iter()
            .map(|remote| json!({"remote": remote.to_string(), "codec": "PCMU", "ptime_ms": ptime_ms}))
            .collect();
        let connections = self.create_connections(params)?;
        let pairs = connections.as_chunks::<2>().0;
        self.start_relays(pairs.iter().map(|[a, b]| (a.id.clone(), b.id.clone())))?;
        Ok(connections.into_iter().map(|connection| connection.local).collect())
    }

    fn io_count(&mut self) -> Result<Option<IoCount>> {
        Ok(io_count_of(&self.stats()?))
    }

    fn close(&mut self) -> Result<()> {
        self.clean_up()
    }
}

fn refused(method: &str, error: RpcError) -> Error {
    Error::Refused { method: method.to_owned(), error }
}

/// Reads the answer to `connection.create`.
///
/// # Errors
/// A field is missing or no address.
pub fn parse_created(result: &Value) -> Result<Connection> {
    let bad = || Error::Protocol(format!("connection.create answered {result}"));
    Ok(Connection {
        id: result["connection_id"].as_str().ok_or_else(bad)?.to_owned(),
        local: result["local"].as_str().and_then(|local| local.parse().ok()).ok_or_else(bad)?,
    })
}

/// System calls and packets the server itself counted, summed over its shards, if it counts them.
fn io_count_of(stats: &Value) -> Option<IoCount> {
    let mut sum = IoCount::default();
    for shard in stats["shards"].as_array()? {
        let syscalls = ["io", "packet_io"].iter().find_map(|group| shard[group]["syscalls"].as_u64());
        let syscalls = syscalls.or_else(|| shard["syscalls"].as_u64()).or_else(|| shard["io_syscalls"].as_u64())?;
        let packets = shard["io"]["received"].as_u64().or_else(|| shard["packets_in"].as_u64())?;
        sum.syscalls += syscalls;
        sum.packets += packets;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeServer;

    #[test]
    fn what_is_created_is_deleted_at_the_end() {
        let server = FakeServer::start();
        {
            let mut session = Session::open(server.control()).unwrap();
            assert_eq!(session.info().pid, std::process::id());
            let connections = session.create_connections(vec![json!({}); 10]).unwrap();
            assert_eq!(connections.len(), 10);
            assert_eq!(session.create_conferences(3).unwrap().len(), 3);
            assert_eq!(server.alive(), 13);
        }
        assert_eq!(server.alive(), 0);
    }

    #[test]
    fn a_refused_creation_still_cleans_up_the_others() {
        let server = FakeServer::start();
        {
            let mut session = Session::open(server.control()).unwrap();
            let params = vec![json!({}), json!({"codec": "none"}), json!({})];
            let error = session.create_connections(params).unwrap_err();
            assert!(error.to_string().contains("unsupported_codec"), "{error}");
            assert_eq!(server.alive(), 2);
        }
        assert_eq!(server.alive(), 0);
    }

    #[test]
    fn syscalls_are_read_where_a_server_may_put_them() {
        let stats = json!({"shards": [{"io": {"syscalls": 3, "received": 9}}, {"io": {"syscalls": 4, "received": 1}}]});
        assert_eq!(io_count_of(&stats), Some(IoCount { syscalls: 7, packets: 10 }));
        let stats = json!({"shards": [{"syscalls": 3, "packets_in": 9}]});
        assert_eq!(io_count_of(&stats), Some(IoCount { syscalls: 3, packets: 9 }));
        assert_eq!(io_count_of(&json!({"shards": [{"packets_in": 9}]})), None);
    }
}
