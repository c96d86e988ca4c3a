//! The list of models as a table, with what is wrong below it.
//!
//! Owns: the columns. May not know: where the list comes from.
//! Invariant: what a server says reaches the terminal without its control characters.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::columns::{aligned, three_digits};

/// What stands where there is nothing to say.
const NONE: &str = "-";

/// Columns of words; figures stand behind them.
const WORDS: usize = 7;

/// The answer of `GET /v1/models`. Numbers of 64 bits are text in protobuf's JSON.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
struct Model {
    name: String,
    #[serde(default)]
    model_version_status: Vec<Version>,
    ready: bool,
    #[serde(default)]
    not_ready_reason: String,
    #[serde(default)]
    version_labels: BTreeMap<String, String>,
    #[serde(default)]
    loaded_versions: Vec<Loaded>,
}

#[derive(Debug, Deserialize)]
struct Version {
    version: String,
    state: String,
    #[serde(default)]
    status: Said,
}

#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(default)]
    error_message: String,
}

#[derive(Debug, Deserialize)]
struct Loaded {
    version: String,
    engine: String,
    engine_version: String,
    reason: String,
    #[serde(default)]
    because: String,
    threads: u32,
    isolation: String,
    worker: Option<Worker>,
    #[serde(default)]
    contenders: Vec<Contender>,
}

#[derive(Debug, Deserialize)]
struct Worker {
    memory_bytes: Option<String>,
    restarts: String,
}

#[derive(Debug, Deserialize)]
struct Contender {
    engine: String,
    engine_version: String,
    cpu_ms: Option<f64>,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.models.is_empty() {
            return f.write_str("no model is configured\n");
        }
        let head = [
            "model",
            "version",
            "labels",
            "state",
            "engine",
            "chosen",
            "runs in",
            "threads",
            "ms",
            "memory MiB",
            "restarts",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        let mut notes = Vec::new();
        for model in &self.models {
            model.tell(&mut lines, &mut notes);
        }
        f.write_str(&aligned(&lines, WORDS))?;
        if !notes.is_empty() {
            f.write_str("\n")?;
        }
        notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

impl Model {
    fn tell(&self, lines: &mut Vec<Vec<String>>, notes: &mut Vec<String>) {
        let name = printable(&self.name);
        // What ended as it should is of no more interest.
        let is_told =
            |version: &&Version| version.state != "END" || !version.status.error_message.is_empty();
        let told: Vec<&Version> = self.model_version_status.iter().filter(is_told).collect();
        if told.is_empty() {
            let mut line = vec![NONE.to_owned(); lines.first().map_or(0, Vec::len)];
            line[0].clone_from(&name);
            lines.push(line);
        }
        for version in told {
            let loaded = self.loaded_versions.iter().find(|l| l.version == version.version);
            let mut line = vec![
                name.clone(),
                printable(&version.version),
                self.labels_of(&version.version),
                printable(&version.state),
            ];
            line.extend(loaded.map_or_else(|| vec![NONE.to_owned(); 7], Loaded::cells));
            lines.push(line);
            let title = format!("{name} version {}", printable(&version.version));
            let error = &version.status.error_message;
            if !error.is_empty() {
                notes.push(format!("{title}: {}", printable(error)));
            }
            // The other reasons say it all in a word.
            if let Some(loaded) = loaded
                && matches!(&*loaded.reason, "named" | "unmeasured" | "refuted")
            {
                let because = printable(&loaded.because);
                notes.push(format!(
                    "{title} runs on {}, since {because}",
                    printable(&loaded.engine)
                ));
            }
        }
        if !self.ready {
            notes.push(format!("{name} is not ready: {}", printable(&self.not_ready_reason)));
        }
    }

    fn labels_of(&self, version: &str) -> String {
        let labels: Vec<String> = self
            .version_labels
            .iter()
            .filter(|(_, named)| *named == version)
            .map(|(label, _)| printable(label))
            .collect();
        if labels.is_empty() { NONE.to_owned() } else { labels.join(",") }
    }
}

impl Loaded {
    fn cells(&self) -> Vec<String> {
        let is_own =
            |c: &&Contender| c.engine == self.engine && c.engine_version == self.engine_version;
        let ms = self.contenders.iter().find(is_own).and_then(|contender| contender.cpu_ms);
        let worker = self.worker.as_ref();
        let memory = worker.and_then(|worker| worker.memory_bytes.as_ref()?.parse::<u64>().ok());
        let none = || NONE.to_owned();
        vec![
            printable(&format!("{} {}", self.engine, self.engine_version)),
            printable(&self.reason),
            printable(&self.isolation),
            self.threads.to_string(),
            ms.map_or_else(none, three_digits),
            memory.map_or_else(none, |bytes| (bytes >> 20).to_string()),
            worker.map_or_else(none, |worker| printable(&worker.restarts)),
        ]
    }
}

/// Without what moves a terminal's cursor, or colours it.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(list: serde_json::Value) -> String {
        serde_json::from_value::<List>(list).unwrap().to_string()
    }

    #[test]
    fn versions_are_lines_and_what_is_wrong_stands_below() {
        let text = shown(serde_json::json!({ "models": [
            {
                "name": "m", "ready": true, "not_ready_reason": "",
                "version_labels": { "stable": "3", "canary": "4", "old": "3" },
                "model_version_status": [
                    { "version": "4", "state": "LOADING", "status": { "error_message": "it ended" } },
                    { "version": "3", "state": "AVAILABLE", "status": { "error_message": "" } },
                    { "version": "2", "state": "END", "status": { "error_message": "" } },
                ],
                "loaded_versions": [{
                    "version": "3", "engine": "onnxruntime", "engine_version": "1.31.1",
                    "reason": "measured", "because": "it is the fastest", "threads": 2,
                    "isolation": "worker", "worker": { "memory_bytes": "104857600", "restarts": "1" },
                    "contenders": [
                        { "engine": "tensorflow", "engine_version": "2.21.0", "reference": true,
                          "cpu_ms": 20.0, "max_error": 0.0 },
                        { "engine": "onnxruntime", "engine_version": "1.31.1", "reference": false,
                          "cpu_ms": 9.876, "max_error": 1e-6 },
                        { "engine": "embedded", "engine_version": "1", "reference": false, "out": "no" },
                    ],
                }],
            },
            {
                "name": "n", "ready": false, "not_ready_reason": "no version\nwas found yet",
                "version_labels": {}, "model_version_status": [], "loaded_versions": [],
            },
            {
                "name": "p", "ready": true, "not_ready_reason": "", "version_labels": {},
                "model_version_status": [{ "version": "1", "state": "AVAILABLE" }],
                "loaded_versions": [{
                    "version": "1", "engine": "embedded", "engine_version": "0.1.0", "reason": "named",
                    "because": "vesta.toml names it", "threads": 1, "isolation": "inline",
                }],
            },
        ]}));
        let want = "\
model  version  labels      state      engine              chosen    runs in  threads    ms  memory MiB  restarts
m      4        canary      LOADING    -                   -         -              -     -           -         -
m      3        old,stable  AVAILABLE  onnxruntime 1.31.1  measured  worker         2  9.88         100         1
n      -        -           -          -                   -         -              -     -           -         -
p      1        -           AVAILABLE  embedded 0.1.0      named     inline         1     -           -         -

m version 4: it ended
n is not ready: no version was found yet
p version 1 runs on embedded, since vesta.toml names it
";
        assert_eq!(text, want);
    }

    #[test]
    fn no_models_is_an_answer_too() {
        assert_eq!(shown(serde_json::json!({ "models": [] })), "no model is configured\n");
    }
}
