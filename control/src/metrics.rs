//! Prometheus metrics over plain HTTP: what `server.stats` tells, as counters and histograms.

use std::fmt;
use std::future::IntoFuture as _;
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use ringbridge_shard::snapshot::ShardSnapshot;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::methods::server::thread_cpu_ns;
use crate::quota::{Class, Usage};
use crate::server::Server;
use crate::stop::{Stop, Stopping, stop};

type Scrapes = mpsc::Sender<oneshot::Sender<String>>;

/// Serves `/metrics` on `listener` until it is told to stop.
pub(crate) fn serve(server: Rc<Server>, listener: TcpListener) -> Stop {
    let (stop, stopping) = stop();
    // HTTP handlers may run on any thread, the state stays on its own: they ask for the text.
    let (sender, mut scrapes) = mpsc::channel::<oneshot::Sender<String>>(SCRAPES_MAX);
    spawn_local(async move {
        while let Some(scrape) = scrapes.recv().await {
            // Whoever asked may have gone.
            drop(scrape.send(render(&server).await));
        }
    });
    let app = Router::new().route("/metrics", get(metrics)).with_state(sender);
    spawn_local(serve_until(app, listener, stopping));
    stop
}

/// Who is answered when it is told to stop has [`STOP_TIMEOUT`] left.
async fn serve_until(app: Router, listener: TcpListener, stopping: Stopping) {
    let mut told = stopping.clone();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move { told.told().await });
    let mut late = stopping;
    let served = tokio::select! {
        served = serving.into_future() => served,
        () = async { late.told().await; sleep(STOP_TIMEOUT).await } => return,
    };
    if let Err(error) = served {
        tracing::error!(%error, "metrics are not served any more");
    }
}

async fn metrics(State(scrapes): State<Scrapes>) -> Response {
    let (sender, text) = oneshot::channel();
    if scrapes.try_send(sender).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match text.await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn render(server: &Server) -> String {
    let snapshots = server.snapshots().await.into_iter().map(|(shard, snapshot)| (shard.0, snapshot)).collect();
    let (requests, errors) = server.counts();
    let figures = Figures {
        snapshots,
        requests,
        errors,
        events: server.hub.published(),
        events_dropped: server.hub.dropped(),
        clients: server.hub.clients(),
        clients_disconnected: server.hub.disconnected(),
        port_pairs_free: server.ports.pairs_free(),
        mediacontrol_events_refused: server.mediacontrol().logs().refused(),
        cpu_ns: thread_cpu_ns(),
        moves: server.moves.all(),
        resources: Class::ALL.map(|class| (class, server.quota.usage(class))),
    };
    let mut registry = Registry::with_prefix("ringbridge");
    registry.register_collector(Box::new(figures));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        Err(error) => {
            tracing::error!(%error, "metrics can't be written");
            String::new()
        }
    }
}

/// Everything one scrape tells.
#[derive(Debug)]
struct Figures {
    snapshots: Vec<(u8, Option<Box<ShardSnapshot>>)>,
    requests: u64,
    errors: u64,
    events: u64,
    events_dropped: u64,
    clients: usize,
    clients_disconnected: u64,
    port_pairs_free: usize,
    mediacontrol_events_refused: u64,
    cpu_ns: u64,
    moves: [(&'static str, u64); 4],
    resources: [(Class, Usage); Class::ALL.len()],
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.gauge(encoder, "connections", "Connections that live on a shard.", |shard| shard.connections)?;
        self.gauge(encoder, "conferences", "Conferences that live on a shard.", |shard| shard.conferences)?;
        self.gauge(encoder, "operations", "Media operations that run on a shard.", |shard| shard.operations)?;
        self.counter(encoder, "packets_in", "RTP and RTCP packets received.", |shard| shard.packets_in)?;
        self.counter(encoder, "packets_out", "RTP and RTCP packets sent.", |shard| shard.packets_out)?;
        self.counter(encoder, "ticks_late", "Media steps mixed too late.", |shard| shard.ticks_late)?;
        let help = "Frames of conferences in parts that were mixed without one of the parts.";
        self.counter(encoder, "partials_late", help, |shard| shard.partials_late)?;
        let help = "Sums of parts of conferences that were dropped on their way.";
        self.counter(encoder, "partials_dropped", help, |shard| shard.partials_dropped)?;
        self.counter(encoder, "encodes", "Payloads encoded.", |shard| shard.encodes)?;
        let help = "Packets passed from one of two parties of a conference to the other past the mix.";
        self.counter(encoder, "packets_direct", help, |shard| shard.packets_direct)?;
        self.counter(encoder, "shard_events_dropped", "Events a shard dropped.", |shard| shard.events_dropped)?;
        self.counter(encoder, "io_syscalls", "System calls of the packet I/O.", |shard| shard.io.syscalls)?;
        self.counter(encoder, "io_rearms", "Receives armed again.", |shard| shard.io.rearms)?;
        self.counter(encoder, "io_buffers_exhausted", "Times the buffers ran dry.", |shard| {
            shard.io.buffers_exhausted
        })?;
        self.counter(encoder, "io_resends", "Sends tried a second time.", |shard| shard.io.resends)?;
        self.counter(encoder, "shard_cpu_nanoseconds", "CPU time of a shard's thread.", |shard| shard.cpu_ns)?;
        self.busy(encoder)?;
        self.moves(encoder)?;
        self.drops(encoder)?;
        self.up(encoder)?;
        self.resources(encoder)?;
        self.histogram(encoder, "residence_seconds", "From receipt of a packet to its sending.", |shard| {
            &shard.residence_us
        })?;
        self.histogram(encoder, "command_seconds", "From receipt of a command to its being applied.", |shard| {
            &shard.command_us
        })?;
        let plain = [
            ("control_requests", "Requests on the control socket.", self.requests),
            ("control_errors", "Requests that failed.", self.errors),
            ("control_events", "Events that happened.", self.events),
            ("control_events_dropped", "Events dropped because a client was behind.", self.events_dropped),
            (
                "control_clients_disconnected",
                "Clients disconnected because they did not read.",
                self.clients_disconnected,
            ),
            (
                "mediacontrol_events_refused",
                "MediaControl events nobody can read: there were too many scripts.",
                self.mediacontrol_events_refused,
            ),
            ("control_cpu_nanoseconds", "CPU time of the control thread.", self.cpu_ns),
        ];
        for (name, help, value) in plain {
            ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let gauges = [
            ("control_clients", "Clients of the control socket.", self.clients),
            ("port_pairs_free", "Pairs of media ports that are free.", self.port_pairs_free),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

impl Figures {
    fn gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&ShardSnapshot) -> u64,
    ) -> fmt::Result {
        self.each(encoder, name, help, MetricType::Gauge, |snapshot, metric| {
            ConstGauge::new(i64::try_from(value(snapshot)).unwrap_or(i64::MAX)).encode(metric)
        })
    }

    fn counter(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&ShardSnapshot) -> u64,
    ) -> fmt::Result {
        self.each(encoder, name, help, MetricType::Counter, |snapshot, metric| {
            ConstCounter::new(value(snapshot)).encode(metric)
        })
    }

    fn histogram(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        histogram: impl Fn(&ShardSnapshot) -> &Histogram<u64>,
    ) -> fmt::Result {
        self.each(encoder, name, help, MetricType::Histogram, |snapshot, mut metric| {
            let histogram = histogram(snapshot);
            let mut before = 0;
            let mut buckets: Vec<(f64, u64)> = BUCKETS_US
                .iter()
                .map(|bound| {
                    let upto = histogram.count_between(0, *bound);
                    let count = upto - before;
                    before = upto;
                    (*bound as f64 / 1e6, count)
                })
                .collect();
            buckets.push((f64::MAX, histogram.len() - before));
            let sum = histogram.mean() * histogram.len() as f64 / 1e6;
            metric.encode_histogram::<NoLabelSet>(sum, histogram.len(), &buckets, None)
        })
    }

    fn drops(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Packets dropped, by reason.";
        let mut metric = encoder.encode_descriptor("drops", help, None, MetricType::Counter)?;
        for (shard, snapshot) in &self.snapshots {
            let drops = snapshot.iter().flat_map(|snapshot| snapshot.drops.iter());
            for (reason, count) in drops {
                // A family can't be nested in another: both labels are given at once.
                let labels = [("shard", shard.to_string()), ("reason", reason.name().to_owned())];
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn busy(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Share of the last second that a shard's thread was on a core.";
        self.each(encoder, "shard_busy_ratio", help, MetricType::Gauge, |snapshot, metric| {
            ConstGauge::new(snapshot.busy).encode(metric)
        })
    }

    fn moves(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Moves from one shard to another, by why, and those that came to nothing.";
        let mut metric = encoder.encode_descriptor("moves", help, None, MetricType::Counter)?;
        for (reason, count) in self.moves {
            ConstCounter::new(count).encode(metric.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }

    fn resources(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Value = fn(&Usage) -> Option<u32>;
        let gauges: [(&str, &str, Value); 2] = [
            ("resources_in_use", "Resources in use, by class.", |usage| Some(usage.in_use)),
            ("resources_limit", "Resources there are, by class; none told if unlimited.", |usage| usage.limit),
        ];
        for (name, help, value) in gauges {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (class, usage) in &self.resources {
                if let Some(value) = value(usage) {
                    ConstGauge::new(i64::from(value)).encode(metric.encode_family(&[("class", class.name())])?)?;
                }
            }
        }
        let help = "Requests refused for want of a resource, by class.";
        let mut metric = encoder.encode_descriptor("resources_denied", help, None, MetricType::Counter)?;
        for (class, usage) in &self.resources {
            ConstCounter::new(usage.denied).encode(metric.encode_family(&[("class", class.name())])?)?;
        }
        Ok(())
    }

    fn up(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor("shard_up", "Whether a shard runs.", None, MetricType::Gauge)?;
        for (shard, snapshot) in &self.snapshots {
            let labels = [("shard", u32::from(*shard))];
            ConstGauge::new(i64::from(snapshot.is_some())).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// One metric, once for each shard that is up.
    fn each(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        kind: MetricType,
        mut encode: impl FnMut(&ShardSnapshot, MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for (shard, snapshot) in &self.snapshots {
            if let Some(snapshot) = snapshot {
                let labels = [("shard", u32::from(*shard))];
                encode(snapshot, metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// How long scrapes that are being answered may go on after the listener was told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Scrapes that wait at once.
const SCRAPES_MAX: usize = 4;
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper bounds of the histograms' buckets in microseconds.
const BUCKETS_US: [u64; 14] =
    [50, 100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_listener_ends_when_it_is_told() {
        let told = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stop, stopping) = stop();
            spawn_local(serve_until(Router::new(), listener, stopping));
            let mut resting = TcpStream::connect(address).await.unwrap();
            resting.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut status = [0; 12];
            resting.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 404");
            stop.stop().await;
            resting.read_to_end(&mut Vec::new()).await.unwrap();
            TcpStream::connect(address).await.unwrap_err();
        };
        timeout(Duration::from_secs(60), LocalSet::new().run_until(told)).await.unwrap();
    }
}
