//! What calls and runs took, one by one, while somebody asks for it.
//!
//! Owns: whether a recording is on, and its spans. May not know: who asked, what becomes of them.
//! Invariant: without a recording nothing is kept and nothing is locked; one keeps [`SPANS_MAX`] spans
//! at most.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Spans of one recording; later ones are counted and dropped.
const SPANS_MAX: usize = 200_000;

/// What a span is of. Those of one kind are shown together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SpanKind {
    /// A call over gRPC, from its headers to its answer.
    GrpcCall,
    /// A call over REST, from its body to its answer.
    RestCall,
    /// The run of a signature, with its wait for a thread.
    Run,
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) kind: SpanKind,
    pub(crate) model: Box<str>,
    /// The call's or the signature's name.
    pub(crate) name: Box<str>,
    /// Since the recording began.
    pub(crate) start: Duration,
    pub(crate) length: Duration,
}

/// What was recorded.
#[derive(Debug)]
pub(crate) struct Recording {
    /// When it began.
    pub(crate) begun_at: SystemTime,
    /// How long it lasted.
    pub(crate) length: Duration,
    pub(crate) spans: Vec<Span>,
    /// Spans for which there was no room.
    pub(crate) dropped: u64,
    begun: Instant,
}

/// Takes spans while a recording is on. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    is_on: AtomicBool,
    recording: Mutex<Option<Recording>>,
}

impl Recorder {
    /// Begins a recording, which ends with what is given; `None` while another is on.
    pub(crate) fn begin(&self) -> Option<On> {
        let mut recording = self.lock();
        if recording.is_some() {
            return None;
        }
        *recording = Some(Recording::begin());
        self.inner.is_on.store(true, Ordering::Relaxed);
        drop(recording);
        Some(On { recorder: self.clone(), is_over: false })
    }

    /// Whether spans are kept now. One on the edge of a recording may be missed; nothing else depends
    /// on the order.
    pub(crate) fn is_on(&self) -> bool {
        self.inner.is_on.load(Ordering::Relaxed)
    }

    /// Notes something that ended just now and took `length`.
    pub(crate) fn note(&self, kind: SpanKind, model: &str, name: &str, length: Duration) {
        if !self.is_on() {
            return;
        }
        let mut guard = self.lock();
        let Some(recording) = guard.as_mut() else { return };
        if recording.spans.len() >= SPANS_MAX {
            recording.dropped += 1;
            return;
        }
        let end = recording.begun.elapsed();
        // What began before the recording is shown from its begin on.
        let length = length.min(end);
        recording.spans.push(Span {
            kind,
            model: model.into(),
            name: name.into(),
            start: end - length,
            length,
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Recording>> {
        self.inner.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A recording that is on until this is dropped.
#[derive(Debug)]
pub(crate) struct On {
    recorder: Recorder,
    is_over: bool,
}

impl On {
    /// Ends it and gives what was recorded.
    pub(crate) fn finish(mut self) -> Recording {
        // Only this value ends it, and does so once.
        let mut recording = self.end().unwrap_or_else(Recording::begin);
        recording.length = recording.begun.elapsed();
        recording
    }

    /// Ends the recording, unless that has been done; after that another may begin.
    fn end(&mut self) -> Option<Recording> {
        if std::mem::replace(&mut self.is_over, true) {
            return None;
        }
        let mut recording = self.recorder.lock();
        self.recorder.inner.is_on.store(false, Ordering::Relaxed);
        recording.take()
    }
}

impl Drop for On {
    fn drop(&mut self) {
        self.end();
    }
}

impl Recording {
    fn begin() -> Recording {
        Recording {
            begun_at: SystemTime::now(),
            length: Duration::ZERO,
            spans: Vec::new(),
            dropped: 0,
            begun: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happens_meanwhile_is_kept() {
        let recorder = Recorder::default();
        let note = |name| recorder.note(SpanKind::Run, "m", name, Duration::from_secs(5));
        note("before");
        let on = recorder.begin().unwrap();
        assert!(recorder.begin().is_none(), "one at a time");
        note("meanwhile");
        let recording = on.finish();
        note("after");
        let names: Vec<&str> = recording.spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["meanwhile"]);
        let span = &recording.spans[0];
        assert_eq!(span.start, Duration::ZERO, "it is cut at the begin");
        assert!(span.length <= recording.length);
        assert!(recorder.begin().is_some());
    }

    #[test]
    fn one_that_nobody_finishes_ends_and_is_forgotten() {
        let recorder = Recorder::default();
        drop(recorder.begin().unwrap());
        recorder.note(SpanKind::GrpcCall, "m", "x", Duration::ZERO);
        assert!(recorder.lock().is_none());
        assert_eq!(recorder.begin().unwrap().finish().spans, []);
    }

    #[test]
    fn there_is_room_for_a_bounded_number() {
        let recorder = Recorder::default();
        let on = recorder.begin().unwrap();
        for _ in 0..SPANS_MAX + 3 {
            recorder.note(SpanKind::Run, "", "", Duration::ZERO);
        }
        let recording = on.finish();
        assert_eq!((recording.spans.len(), recording.dropped), (SPANS_MAX, 3));
    }
}
