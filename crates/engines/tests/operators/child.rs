//! Cases are judged in processes of their own, so that one that ends its process costs itself alone and is
//! named.
//!
//! A child reads names of cases from its input, one a line, and writes a line when it begins one and a line
//! when it is done. May not know: what a verdict means.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use vesta_engines::{EngineChoice, EngineName, EngineOptions, build};

use crate::case::Case;
use crate::judge::judge;

/// The engine that a child judges cases on; whoever has no such variable is no child.
pub(crate) const ENGINE: &str = "VESTA_TEST_JUDGED_ENGINE";

/// Children at a time.
const CHILDREN: usize = 2;

/// What came of a case.
pub(crate) struct Judged {
    pub(crate) case: String,
    pub(crate) verdict: String,
    pub(crate) reason: String,
}

/// Judges cases on an engine. Those without a translation are left out.
pub(crate) fn judge_all(engine: EngineName, cases: &[String]) -> Vec<Judged> {
    // Neighbours are alike: in turn, all children have as much to do.
    let shares = (0..CHILDREN).map(|own| {
        let share: Vec<&str> =
            cases.iter().skip(own).step_by(CHILDREN).map(String::as_str).collect();
        share
    });
    let mut judged: Vec<Judged> = std::thread::scope(|scope| {
        let children: Vec<_> =
            shares.map(|share| scope.spawn(move || judge_share(engine, &share))).collect();
        children.into_iter().flat_map(|child| child.join().unwrap()).collect()
    });
    judged.sort_by(|a, b| a.case.cmp(&b.case));
    judged
}

/// Judges cases one after another, with a new child behind each that died.
fn judge_share(engine: EngineName, cases: &[&str]) -> Vec<Judged> {
    let (mut judged, mut left) = (Vec::new(), cases);
    while !left.is_empty() {
        let (told, died) = one_child(engine, left);
        judged.extend(told);
        let Some((case, how)) = died else { break };
        left = match left.iter().position(|name| **name == case) {
            Some(place) => &left[place + 1..],
            None => panic!("a child ended before its first case: {how}"),
        };
        judged.push(Judged { case, verdict: "died".to_owned(), reason: how });
    }
    judged
}

/// What a child told, and the case at which it died, if it did, with how.
fn one_child(engine: EngineName, cases: &[&str]) -> (Vec<Judged>, Option<(String, String)>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_is_told_to_judges_cases", "--nocapture"])
        .env(ENGINE, engine.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let names = cases.join("\n");
    // A child that died reads no more.
    let feeding = std::thread::spawn(move || input.write_all(names.as_bytes()).is_ok());
    let (mut judged, mut begun) = (Vec::new(), String::new());
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        let words: Vec<&str> = line.splitn(4, '\t').collect();
        match words[..] {
            ["begun", case] => begun = case.to_owned(),
            ["judged", case, verdict, reason] => {
                begun.clear();
                let (case, verdict, reason) = (case.into(), verdict.into(), reason.into());
                judged.push(Judged { case, verdict, reason });
            }
            // A case without a translation.
            ["passed over"] => begun.clear(),
            // The words of the test's own harness.
            _ => {}
        }
    }
    let ended = child.wait().unwrap();
    feeding.join().unwrap();
    let died = !ended.success() || !begun.is_empty();
    (judged, died.then(|| (begun, format!("the process ended: {ended}"))))
}

/// Judges the cases that the input names, on the engine that the environment names; `None` without one.
pub(crate) fn judge_what_is_told() -> Option<usize> {
    let name: EngineChoice = std::env::var(ENGINE).ok()?.parse().unwrap();
    let folder = crate::fixtures().unwrap();
    let engine = build(&name, &EngineOptions::default()).unwrap();
    let mut count = 0;
    for case in std::io::stdin().lines() {
        let case = Case::read(&folder.join(case.unwrap()));
        // Behind what the harness wrote of this test.
        tell(&format!("\nbegun\t{}", case.name));
        match judge(&*engine, &case) {
            Some((verdict, reason)) => {
                let reason = reason.replace(['\n', '\t'], " ");
                tell(&format!("judged\t{}\t{verdict}\t{reason}", case.name));
            }
            None => tell("passed over"),
        }
        count += 1;
    }
    Some(count)
}

/// Past the harness, which would keep it from a parent.
fn tell(line: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).unwrap();
}
