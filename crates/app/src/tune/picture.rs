//! Throughput against latency, drawn as SVG, alone or on a page with the table.
//!
//! Owns: scales, colours, the form of the file. May not know: how figures came about.
//! Invariant: the file needs nothing besides itself, and what it shows of names is escaped.

use std::fmt::Write as _;
use std::time::Duration;

use super::measure::{Plan, Row};
use super::table;
use crate::choice::millis;

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 480.0;
/// Left, right, top, bottom of the field.
const FIELD: [f64; 4] = [80.0, 560.0, 50.0, 420.0];
/// Told apart by most eyes, on white.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31"];

/// The points of one engine with one number of threads.
struct Line {
    title: String,
    /// Rows of a run, its milliseconds, rows per second.
    points: Vec<(usize, f64, f64)>,
}

/// The picture.
pub(super) fn svg(plan: &Plan, rows: &[Row]) -> String {
    let lines: Vec<Line> = rows.iter().filter_map(|row| line(plan, row)).collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    let x = Scale::over(points().map(|(_, ms, _)| *ms), FIELD[0], FIELD[1]);
    let y = Scale::over(points().map(|(_, _, rate)| *rate), FIELD[3], FIELD[2]);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let title = format!("Throughput against latency: {}", plan.artifact.display());
    text(&mut svg, FIELD[0], 28.0, "start", "font-size=\"15\"", &title);
    axes(&mut svg, &x, &y);
    for (index, line) in lines.iter().enumerate() {
        draw(&mut svg, line, COLOURS[index % COLOURS.len()], index, &x, &y);
    }
    if lines.is_empty() {
        let middle = (FIELD[0] + FIELD[1]) / 2.0;
        text(&mut svg, middle, 240.0, "middle", "", "no engine runs the model");
    }
    svg.push_str("</svg>\n");
    svg
}

/// A page with the picture and the table.
pub(super) fn html(plan: &Plan, rows: &[Row]) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>vesta tune</title>\
         </head>\n<body style=\"font-family: sans-serif\">\n{}<pre>\n{}</pre>\n</body>\n</html>\n",
        svg(plan, rows),
        escaped(&table::as_text(plan, rows))
    )
}

fn line(plan: &Plan, row: &Row) -> Option<Line> {
    let figures = row.outcome.as_ref().ok()?;
    let point = |(rows, time): (&usize, &Option<Result<Duration, _>>)| {
        let time = (*time.as_ref()?.as_ref().ok()?).max(Duration::from_nanos(1));
        Some((*rows, millis(time), *rows as f64 / time.as_secs_f64()))
    };
    let points: Vec<_> = plan.batches.iter().zip(&figures.times).filter_map(point).collect();
    let noun = if row.threads == 1 { "thread" } else { "threads" };
    let differs = if matches!(figures.error, Some(Err(_))) { ", differs" } else { "" };
    let title = format!("{} {}, {} {noun}{differs}", row.name, row.release, row.threads);
    (!points.is_empty()).then_some(Line { title, points })
}

/// A logarithmic scale from decade to decade.
struct Scale {
    from: i32,
    to: i32,
    start: f64,
    end: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Scale {
        let (least, most) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
                (least.min(value), most.max(value))
            });
        if !least.is_finite() {
            return Scale { from: 0, to: 1, start, end };
        }
        let from = least.log10().floor() as i32;
        let to = (most.log10().ceil() as i32).max(from + 1);
        Scale { from, to, start, end }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.log10() - f64::from(self.from)) / f64::from(self.to - self.from);
        self.start + part * (self.end - self.start)
    }

    fn decades(&self) -> impl Iterator<Item = f64> + '_ {
        (self.from..=self.to).map(|power| 10f64.powi(power))
    }
}

fn axes(svg: &mut String, x: &Scale, y: &Scale) {
    let [left, right, top, bottom] = FIELD;
    let mut rule = |x1: f64, y1: f64, x2: f64, y2: f64| {
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>"
        );
    };
    x.decades().for_each(|value| rule(x.place(value), top, x.place(value), bottom));
    y.decades().for_each(|value| rule(left, y.place(value), right, y.place(value)));
    for value in x.decades() {
        text(svg, x.place(value), bottom + 18.0, "middle", "", &value.to_string());
    }
    for value in y.decades() {
        text(svg, left - 8.0, y.place(value) + 4.0, "end", "", &value.to_string());
    }
    let middle = (left + right) / 2.0;
    text(svg, middle, bottom + 42.0, "middle", "", "milliseconds of a run");
    let turned = format!("transform=\"rotate(-90 22 {0})\"", (top + bottom) / 2.0);
    text(svg, 22.0, (top + bottom) / 2.0, "middle", &turned, "rows in a second");
}

fn draw(svg: &mut String, line: &Line, colour: &str, index: usize, x: &Scale, y: &Scale) {
    let at = |&(_, ms, rate): &(usize, f64, f64)| (x.place(ms), y.place(rate));
    let path: Vec<String> =
        line.points.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.join(" ")
    );
    for point in &line.points {
        let (x, y) = at(point);
        let (rows, ms, rate) = point;
        let told = format!("{}: {rows} rows, {ms:.3} ms, {rate:.1} rows/s", line.title);
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"><title>{}</title></circle>",
            escaped(&told)
        );
        let fill = format!("fill=\"{colour}\" font-size=\"10\"");
        text(svg, x + 6.0, y - 6.0, "start", &fill, &rows.to_string());
    }
    let height = FIELD[2] + 12.0 + 20.0 * index as f64;
    let left = FIELD[1] + 18.0;
    let _ = writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{:.1}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>",
        height - 6.0
    );
    text(svg, left + 18.0, height, "start", "", &line.title);
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, more: &str, said: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{}</text>",
        escaped(said)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::table::tests::measured;

    #[test]
    fn every_engine_that_ran_has_a_line() {
        let (plan, rows) = measured();
        let picture = svg(&plan, &rows);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.matches("<polyline").count(), 2);
        assert_eq!(picture.matches("<circle").count(), 3);
        assert!(picture.contains("tensorflow 2.21.0, 1 thread: 1 rows, 20.000 ms, 50.0 rows/s"));
        assert!(!picture.contains("onnxruntime"));
    }

    #[test]
    fn names_are_escaped_and_nothing_measured_is_said() {
        let (mut plan, mut rows) = measured();
        plan.artifact = "/models/<script>\"&/1".into();
        rows.truncate(0);
        let page = html(&plan, &rows);
        assert!(page.contains("&lt;script&gt;&quot;&amp;") && !page.contains("<script"));
        assert!(page.contains("no engine runs the model"));
    }

    #[test]
    fn scales_go_from_decade_to_decade() {
        let scale = Scale::over([3.0, 250.0].into_iter(), 0.0, 100.0);
        assert_eq!(scale.decades().collect::<Vec<f64>>(), [1.0, 10.0, 100.0, 1000.0]);
        assert!(
            (scale.place(1.0) - 0.0).abs() < 1e-9 && (scale.place(1000.0) - 100.0).abs() < 1e-9
        );
        // One value alone.
        assert_eq!(Scale::over([10.0].into_iter(), 0.0, 1.0).decades().count(), 2);
    }
}
