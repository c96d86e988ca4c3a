//! A recording as the trace that TensorFlow's profiler and TensorBoard read.
//!
//! Owns: planes, lines and metadata. May not know: how it was recorded.
//! Invariant: events of one line never overlap, for viewers take what overlaps for nested.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use vesta_protos::tensorflow::profiler::{
    XEvent, XEventMetadata, XLine, XPlane, XSpace, XStat, XStatMetadata, x_event, x_stat,
};

use crate::recorder::{Recording, Span, SpanKind};

/// The plane that viewers show as the host's threads.
const PLANE: &str = "/host:CPU";
/// Lines of one kind of span; what finds no room is left out, and the trace says how much that is.
const LINES_MAX: usize = 256;
/// Ids of the two stats that an event has.
const MODEL: i64 = 1;
const NAME: i64 = 2;

/// The trace of `recording`, with the `events_max` earliest events; 0 for all.
pub(super) fn trace(recording: &Recording, host: &str, events_max: u64) -> XSpace {
    let mut spans: Vec<&Span> = recording.spans.iter().collect();
    spans.sort_by_key(|span| (span.start, span.kind));
    let kept = match usize::try_from(events_max) {
        Ok(0) | Err(_) => spans.len(),
        Ok(max) => max.min(spans.len()),
    };
    let mut left_out = recording.dropped + (spans.len() - kept) as u64;
    let mut plane = XPlane { id: 1, name: PLANE.to_owned(), ..XPlane::default() };
    for (id, name) in [(MODEL, "model"), (NAME, "name")] {
        let stat = XStatMetadata { id, name: name.to_owned(), ..XStatMetadata::default() };
        plane.stat_metadata.insert(id, stat);
    }
    let mut titles = Titles::default();
    let mut lanes: BTreeMap<SpanKind, Vec<Lane>> = BTreeMap::new();
    for span in &spans[..kept] {
        let lanes = lanes.entry(span.kind).or_default();
        match lane_for(lanes, span) {
            Some(lane) => lane.push(span, titles.id(span)),
            None => left_out += 1,
        }
    }
    let begun = recording.begun_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let timestamp_ns = i64::try_from(begun.as_nanos()).unwrap_or(i64::MAX);
    for (kind, lanes) in lanes {
        for (at, lane) in (1..).zip(lanes) {
            plane.lines.push(XLine {
                id: plane.lines.len() as i64 + 1,
                name: format!("{} {at}", word(kind)),
                timestamp_ns,
                duration_ps: picos(recording.length),
                events: lane.events,
                ..XLine::default()
            });
        }
    }
    plane.event_metadata = titles.metadata;
    let warnings = match left_out {
        0 => Vec::new(),
        count => vec![format!("{count} events were left out, for there was no room")],
    };
    let planes = if plane.lines.is_empty() { Vec::new() } else { vec![plane] };
    XSpace { planes, warnings, hostnames: vec![host.to_owned()], ..XSpace::default() }
}

fn word(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::GrpcCall => "gRPC calls",
        SpanKind::RestCall => "REST calls",
        SpanKind::Run => "runs",
    }
}

/// Events one after the other.
#[derive(Default)]
struct Lane {
    end: Duration,
    events: Vec<XEvent>,
}

impl Lane {
    fn push(&mut self, span: &Span, metadata_id: i64) {
        self.end = span.start + span.length;
        let stat = |metadata_id, text: &str| XStat {
            metadata_id,
            value: Some(x_stat::Value::StrValue(text.to_owned())),
        };
        self.events.push(XEvent {
            metadata_id,
            data: Some(x_event::Data::OffsetPs(picos(span.start))),
            duration_ps: picos(span.length),
            stats: vec![stat(MODEL, &span.model), stat(NAME, &span.name)],
        });
    }
}

/// The first lane that is free when `span` begins.
fn lane_for<'l>(lanes: &'l mut Vec<Lane>, span: &Span) -> Option<&'l mut Lane> {
    match lanes.iter().position(|lane| lane.end <= span.start) {
        Some(free) => lanes.get_mut(free),
        None if lanes.len() < LINES_MAX => {
            lanes.push(Lane::default());
            lanes.last_mut()
        }
        None => None,
    }
}

/// The titles of events, each once.
#[derive(Default)]
struct Titles {
    ids: BTreeMap<String, i64>,
    metadata: std::collections::BTreeMap<i64, XEventMetadata>,
}

impl Titles {
    fn id(&mut self, span: &Span) -> i64 {
        let title = match span.kind {
            SpanKind::Run => format!("run {}:{}", span.model, span.name),
            SpanKind::GrpcCall | SpanKind::RestCall => format!("{} {}", span.name, span.model),
        };
        let next = self.ids.len() as i64 + 1;
        let id = *self.ids.entry(title.clone()).or_insert(next);
        self.metadata.entry(id).or_insert_with(|| XEventMetadata {
            id,
            name: title,
            ..XEventMetadata::default()
        });
        id
    }
}

fn picos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().saturating_mul(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;

    /// A recording of runs, each given by its begin and its length in milliseconds.
    fn recording(spans: &[(u64, u64)]) -> Recording {
        let mut recording = Recorder::default().begin().unwrap().finish();
        let ms = Duration::from_millis;
        recording.spans = spans
            .iter()
            .map(|&(start, length)| Span {
                kind: SpanKind::Run,
                model: "m".into(),
                name: "serving_default".into(),
                start: ms(start),
                length: ms(length),
            })
            .collect();
        recording
    }

    #[test]
    fn what_overlaps_lies_on_lines_of_its_own() {
        let space = trace(&recording(&[(5, 10), (0, 10), (10, 5), (20, 1)]), "h", 0);
        let [plane] = &space.planes[..] else { panic!("{space:?}") };
        assert_eq!(plane.name, "/host:CPU");
        let offsets = |line: &XLine| -> Vec<i64> {
            let offset = |event: &XEvent| match event.data {
                Some(x_event::Data::OffsetPs(offset)) => offset / 1_000_000_000,
                _ => panic!("{event:?}"),
            };
            line.events.iter().map(offset).collect()
        };
        let lines: Vec<_> = plane.lines.iter().map(|l| (l.name.as_str(), offsets(l))).collect();
        assert_eq!(lines, [("runs 1", vec![0, 10, 20]), ("runs 2", vec![5])]);
        assert_eq!(plane.event_metadata.len(), 1);
        assert_eq!(plane.event_metadata[&1].name, "run m:serving_default");
    }

    #[test]
    fn what_is_left_out_is_told() {
        let space = trace(&recording(&[(0, 1), (1, 1), (2, 1)]), "h", 2);
        assert_eq!(space.warnings, ["1 events were left out, for there was no room"]);
        let many: Vec<(u64, u64)> = (0..LINES_MAX as u64 + 5).map(|at| (at, 1_000_000)).collect();
        let space = trace(&recording(&many), "h", 0);
        assert_eq!(space.planes[0].lines.len(), LINES_MAX);
        assert_eq!(space.warnings, ["5 events were left out, for there was no room"]);
        assert_eq!(trace(&recording(&[]), "h", 0).planes, []);
    }
}
