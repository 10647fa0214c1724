//! The HTTP listeners of a server: opened, served and stopped together. Those that let people in share one account of
//! who tried.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpListener;

use crate::agentgateway;
use crate::auth::{Logins, ThrottleConfig};
use crate::icws;
use crate::mediacontrol;
use crate::metrics;
use crate::server::{ServeError, Server};
use crate::stop::Stop;
use crate::verba;
use crate::web::{Listener, Serving};

/// What is served over HTTP. All of it ends when this is dropped.
pub(crate) struct Apis {
    metrics: Option<Stop>,
    mediacontrol: Option<Stop>,
    agentgateway: Option<Serving>,
    icws: Option<icws::Running>,
    verba: Option<(Serving, Rc<verba::Verba>)>,
}

impl Apis {
    /// Serves what the configuration says where to. Everything is opened before anything is served.
    ///
    /// # Errors
    /// An address can't be listened at, or passwords can't be checked here.
    pub(crate) async fn start(server: &Rc<Server>) -> Result<Self, ServeError> {
        let config = &server.config;
        let metrics = plain("metrics", config.metrics).await?;
        let mediacontrol = plain("MediaControl", config.mediacontrol.listen).await?;
        let agentgateway = open(server, "AgentGateway", config.agentgateway.listen).await?;
        let icws = open(server, "ICWS", config.icws.listen).await?;
        let verba = open(server, "Verba", config.verba.listen).await?;
        let metrics = metrics.map(|listener| metrics::serve(Rc::clone(server), listener));
        let mediacontrol =
            mediacontrol.map(|listener| mediacontrol::http::serve(Rc::clone(server.mediacontrol()), listener));
        let mut apis = Self { metrics, mediacontrol, agentgateway: None, icws: None, verba: None };
        if agentgateway.is_none() && icws.is_none() && verba.is_none() {
            return Ok(apis);
        }
        let logins = Rc::new(Logins::new(server.store.clone(), ThrottleConfig::default())?);
        if let Some(listener) = agentgateway {
            let gateway = agentgateway::start(server, Rc::clone(&logins))?;
            apis.agentgateway = Some(agentgateway::http::serve(gateway, listener));
        }
        if let Some(listener) = icws {
            apis.icws = Some(icws::start(server, Rc::clone(&logins), listener).await?);
        }
        apis.verba = verba.map(|listener| verba::serve(server, logins, listener));
        Ok(apis)
    }

    /// Takes no more requests, and returns when those that were taken are answered. What follows the server's events
    /// does so until this is dropped.
    pub(crate) async fn stop(&self) {
        if let Some(serving) = &self.mediacontrol {
            serving.stop().await;
        }
        if let Some(serving) = &self.agentgateway {
            serving.stop().await;
        }
        if let Some(running) = &self.icws {
            running.stop().await;
        }
        if let Some((serving, _)) = &self.verba {
            serving.stop().await;
        }
        if let Some(serving) = &self.metrics {
            serving.stop().await;
        }
    }
}

async fn open(
    server: &Server,
    name: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<Listener>, ServeError> {
    match address {
        Some(address) => Ok(Some(Listener::bind(name, address, server.tls.clone()).await?)),
        None => Ok(None),
    }
}

async fn plain(name: &'static str, address: Option<SocketAddr>) -> Result<Option<TcpListener>, ServeError> {
    match address {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            listener.map(Some).map_err(|source| ServeError::Listen { name, address, source })
        }
        None => Ok(None),
    }
}
