//! The figures as a table for people, and as JSON for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::measure::{Figures, Plan, Row};
use crate::choice::millis;
use crate::columns::{aligned, three_digits};

/// What stands where there is no figure.
const NONE: &str = "-";

/// A table, with what went wrong below it.
pub(super) fn as_text(plan: &Plan, rows: &[Row]) -> String {
    let mut head: Vec<String> =
        ["engine", "version", "threads", "load s", "memory MiB"].map(str::to_owned).to_vec();
    head.extend(plan.batches.iter().map(|rows| format!("ms at {rows}")));
    head.push("max error".to_owned());
    let mut lines = vec![head];
    let mut notes = Vec::new();
    for row in rows {
        let title = format!("{} {}, {} thread(s)", row.name, row.release, row.threads);
        let mut line = vec![row.name.to_string(), row.release.clone(), row.threads.to_string()];
        match &row.outcome {
            Ok(figures) => {
                line.extend(cells(figures));
                let failed = plan.batches.iter().zip(&figures.times);
                notes.extend(failed.filter_map(|(rows, time)| {
                    let status = time.as_ref()?.as_ref().err()?;
                    Some(format!("{title}, {rows} rows: {}", status.message()))
                }));
                if let Some(Err(reason)) = &figures.error {
                    notes.push(format!("{title}: it disagrees: {reason}"));
                }
            }
            Err(status) => {
                line.resize(lines[0].len(), NONE.to_owned());
                notes.push(format!("{title}: {}", status.message()));
            }
        }
        lines.push(line);
    }
    let mut text = aligned(&lines, 2);
    if !notes.is_empty() {
        text.push('\n');
        notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
    }
    text
}

fn cells(figures: &Figures) -> Vec<String> {
    let memory = figures.memory_bytes.map(|bytes| (bytes >> 20).to_string());
    let mut cells = vec![
        format!("{:.3}", figures.load.as_secs_f64()),
        memory.unwrap_or_else(|| NONE.to_owned()),
    ];
    cells.extend(figures.times.iter().map(|time| match time {
        Some(Ok(time)) => three_digits(millis(*time)),
        Some(Err(_)) => "failed".to_owned(),
        None => NONE.to_owned(),
    }));
    cells.push(match &figures.error {
        None => "reference".to_owned(),
        Some(Ok(error)) => format!("{error:.1e}"),
        Some(Err(_)) => "differs".to_owned(),
    });
    cells
}

/// Everything, with times in milliseconds and sizes in bytes.
pub(super) fn as_json(plan: &Plan, rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let mut told = json!({
            "engine": row.name.as_str(), "version": row.release, "threads": row.threads,
        });
        let figures = match &row.outcome {
            Ok(figures) => figures_json(plan, figures),
            Err(status) => json!({ "refused": status.message() }),
        };
        if let (Some(told), Some(figures)) = (told.as_object_mut(), figures.as_object()) {
            told.extend(figures.clone());
        }
        told
    };
    json!({
        "directory": plan.artifact.display().to_string(),
        "batches": plan.batches,
        "engines": rows.iter().map(row).collect::<Value>(),
    })
}

fn figures_json(plan: &Plan, figures: &Figures) -> Value {
    let run = |(rows, time): (&usize, &Option<Result<Duration, vesta_model::Status>>)| match time {
        Some(Ok(time)) => json!({
            "rows": rows, "ms": millis(*time), "rows_per_second": *rows as f64 / time.as_secs_f64(),
        }),
        Some(Err(status)) => json!({ "rows": rows, "failed": status.message() }),
        None => json!({ "rows": rows, "ms": null }),
    };
    let mut told = json!({
        "load_ms": millis(figures.load),
        "memory_bytes": figures.memory_bytes,
        "runs": plan.batches.iter().zip(&figures.times).map(run).collect::<Value>(),
        "reference": figures.error.is_none(),
    });
    match &figures.error {
        Some(Ok(error)) => told["max_error"] = json!(error),
        Some(Err(reason)) => told["disagrees"] = json!(reason),
        None => {}
    }
    told
}

#[cfg(test)]
pub(super) mod tests {
    use vesta_engines::EngineName;
    use vesta_model::Status;

    use super::*;

    /// TensorFlow as the reference, an engine that refuses, one that fails at 8 rows.
    pub(in crate::tune) fn measured() -> (Plan, Vec<Row>) {
        let plan = Plan {
            artifact: "/models/m/1".into(),
            tags: vec!["serve".to_owned()],
            signature: None,
            batches: vec![1, 8, 32],
            threads: vec![1],
            time: Duration::from_secs(1),
        };
        let ms = |ms: f64| Some(Ok(Duration::from_secs_f64(ms / 1e3)));
        let figures = |times, error| Figures {
            load: Duration::from_millis(2500),
            memory_bytes: Some(300 << 20),
            times,
            error,
        };
        let row = |name, release: &str, outcome| Row {
            name,
            release: release.to_owned(),
            threads: 1,
            outcome,
        };
        let failed = Some(Err(Status::unavailable("its process ended")));
        let rows = vec![
            row(
                EngineName::TensorFlow,
                "2.21.0",
                Ok(figures(vec![ms(20.0), ms(123.4), None], None)),
            ),
            row(
                EngineName::Embedded,
                "0.1.0",
                Ok(figures(vec![ms(5.0), failed, None], Some(Ok(3e-7)))),
            ),
            row(EngineName::OnnxRuntime, "1.31.1", Err(Status::unimplemented("no Loop"))),
        ];
        (plan, rows)
    }

    #[test]
    fn the_table_says_what_there_is() {
        let (plan, rows) = measured();
        let text = as_text(&plan, &rows);
        let want = "\
engine       version  threads  load s  memory MiB  ms at 1  ms at 8  ms at 32  max error
tensorflow   2.21.0         1   2.500         300     20.0      123         -  reference
embedded     0.1.0          1   2.500         300     5.00   failed         -     3.0e-7
onnxruntime  1.31.1         1       -           -        -        -         -          -

embedded 0.1.0, 1 thread(s), 8 rows: its process ended
onnxruntime 1.31.1, 1 thread(s): no Loop
";
        assert_eq!(text, want);
    }

    #[test]
    fn programs_get_all_of_it() {
        let (plan, rows) = measured();
        let told = as_json(&plan, &rows);
        assert_eq!(told["engines"][0]["reference"], json!(true));
        assert_eq!(told["engines"][0]["runs"][0]["rows_per_second"], json!(50.0));
        assert_eq!(told["engines"][0]["runs"][2], json!({ "rows": 32, "ms": null }));
        assert_eq!(told["engines"][1]["max_error"], json!(3e-7));
        assert_eq!(told["engines"][2]["refused"], json!("no Loop"));
    }
}
