//! The memory of contests: a small file for each version that was measured.
//!
//! Owns: what makes two contests the same (files, processor, engines, threads, options), and the
//! form of the files. May not know: how a contest goes.
//! Invariant: a verdict is used for the very bytes that it was found for; a place that cannot be
//! written costs a warning and the next trial, never a load.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::{info, warn};
use vesta_engines::EngineName;
use vesta_frontends::Weighed;

use super::contest::{Finding, millis};

/// Raised when files or trials change in a way that makes old verdicts worthless.
const FORM: u64 = 1;

/// Verdicts that are kept; the oldest go.
const FILES_MAX: usize = 1_000;

/// Files of a version; one with more is measured at each load.
const MODEL_FILES_MAX: usize = 10_000;

/// Folders in folders that are looked into.
const DEPTH_MAX: usize = 16;

/// Where a verdict names the engines that are out, whoever won.
const REFUTED: &str = "refuted";

/// More of a file is no verdict.
const VERDICT_BYTES_MAX: u64 = 1 << 20;

/// All that a verdict depends on, besides the contents of the files.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The version's folder.
    pub(crate) artifact: PathBuf,
    /// The engines that could serve, each as `NAME==VERSION`.
    pub(crate) engines: Vec<String>,
    /// Tags that select the graph.
    pub(crate) tags: Vec<String>,
    /// Threads of one run.
    pub(crate) threads: usize,
    /// What the operator says of engines, in any form that differs when it does.
    pub(crate) options: String,
}

/// The engine that won.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Winner {
    pub(crate) name: EngineName,
    pub(crate) release: String,
    /// All that were weighed.
    pub(crate) weighed: Vec<Weighed>,
}

/// What is known of a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Recalled {
    /// Who won, if that still holds.
    pub(crate) winner: Option<Winner>,
    /// Engines whose answers differed while they served, and how.
    pub(crate) refuted: Vec<Weighed>,
}

/// The folder of verdicts.
#[derive(Debug)]
pub(crate) struct Verdicts {
    folder: Option<PathBuf>,
    processor: String,
    has_warned: AtomicBool,
}

impl Verdicts {
    /// The verdicts in `folder`; none are kept where there is no folder.
    pub(crate) fn new(folder: Option<PathBuf>) -> Verdicts {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Verdicts { folder, processor: processor(&text), has_warned: AtomicBool::new(false) }
    }

    /// What is known from when this was asked before. The files of the version are read only where there
    /// is a verdict on files of the same names and sizes.
    pub(crate) fn find(&self, question: &Question) -> Recalled {
        self.recall(question).unwrap_or_default()
    }

    fn recall(&self, question: &Question) -> Option<Recalled> {
        let said = read(&self.file(question)?)?;
        if said.get("files")?.as_str()? != digest_of(&question.artifact)? {
            return None;
        }
        Some(Recalled { winner: winner_of(&said), refuted: refuted_of(&said)? })
    }

    /// Keeps what was found, beside what was `refuted` before.
    pub(crate) fn keep(
        &self,
        question: &Question,
        model: &str,
        finding: &Finding,
        refuted: &[Weighed],
    ) {
        let Some(file) = self.file(question) else { return };
        let Some(mut said) = self.head(question, model) else { return };
        said["engine"] = finding.name.as_str().into();
        said["release"] = finding.release.as_str().into();
        said["trial_ms"] = millis(finding.trial).into();
        said["engines"] = finding.entries.iter().map(|entry| json_of(&entry.weighed())).collect();
        said[REFUTED] = refuted.iter().map(json_of).collect();
        self.write(&file, &said);
    }

    /// Keeps that the answers of an engine differed while it served: it is out for this question, and
    /// what it won is void.
    pub(crate) fn refute(&self, question: &Question, model: &str, refuted: &Weighed) {
        let Some(file) = self.file(question) else { return };
        // A verdict that is there was found for the files that were loaded, whatever lies there now.
        let Some(mut said) = read(&file).or_else(|| self.head(question, model)) else { return };
        let mut all = refuted_of(&said).unwrap_or_default();
        all.retain(|other| !other.is_same_engine(refuted));
        all.push(refuted.clone());
        said[REFUTED] = all.iter().map(json_of).collect();
        without_winner(&mut said);
        self.write(&file, &said);
    }

    /// Forgets who won, which did not hold.
    pub(crate) fn forget(&self, question: &Question) {
        let Some(file) = self.file(question) else { return };
        match read(&file) {
            Some(mut said) if refuted_of(&said).is_some_and(|refuted| !refuted.is_empty()) => {
                without_winner(&mut said);
                self.write(&file, &said);
            }
            // What cannot be removed is overwritten by the next verdict, or not; it was only passed over.
            _ => drop(fs::remove_file(file)),
        }
    }

    /// What every verdict says; `None` where the version cannot be read.
    fn head(&self, question: &Question, model: &str) -> Option<Value> {
        Some(json!({
            "model": model,
            "artifact": question.artifact.display().to_string(),
            "files": digest_of(&question.artifact)?,
            "processor": self.processor,
            "threads": question.threads,
        }))
    }

    fn write(&self, file: &Path, said: &Value) {
        if let Err(problem) = write(file, &format!("{said:#}\n"))
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            warn!(
                "which engine serves best cannot be remembered in {}: {problem}; it is measured again \
                 at each load",
                file.parent().unwrap_or(file).display()
            );
        }
    }

    /// Where the verdict on a question lies.
    fn file(&self, question: &Question) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        let mut sum = Sha256::new();
        for (path, bytes) in files_of(&question.artifact)? {
            let name = path.strip_prefix(&question.artifact).unwrap_or(&path);
            add(&mut sum, &format!("{} {bytes}", name.display()));
        }
        let Question { engines, tags, threads, options, .. } = question;
        add(&mut sum, &format!("{FORM} {engines:?} {tags:?} {threads} {}", self.processor));
        add(&mut sum, options);
        Some(folder.join(format!("{}.json", hex(&sum.finalize()))))
    }
}

fn add(sum: &mut Sha256, text: &str) {
    sum.update((text.len() as u64).to_le_bytes());
    sum.update(text);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A verdict; `None` for what is none.
fn read(file: &Path) -> Option<Value> {
    let said: Value =
        serde_json::from_reader(File::open(file).ok()?.take(VERDICT_BYTES_MAX)).ok()?;
    said.is_object().then_some(said)
}

fn winner_of(said: &Value) -> Option<Winner> {
    let word = |name: &str| said.get(name)?.as_str().map(str::to_owned);
    let name = word("engine")?;
    let name = EngineName::ALL.iter().copied().find(|known| known.as_str() == name)?;
    let weighed = said.get("engines").and_then(Value::as_array).into_iter().flatten();
    let weighed = weighed.map(weighed_of).collect::<Option<_>>()?;
    Some(Winner { name, release: word("release")?, weighed })
}

/// The engines that are out; `None` where that cannot be understood.
fn refuted_of(said: &Value) -> Option<Vec<Weighed>> {
    let all = said.get(REFUTED).and_then(Value::as_array).into_iter().flatten();
    all.map(weighed_of).collect()
}

fn without_winner(said: &mut Value) {
    for key in ["engine", "release", "trial_ms", "engines"] {
        said.as_object_mut().and_then(|said| said.remove(key));
    }
}

fn json_of(weighed: &Weighed) -> Value {
    let engine = weighed.title();
    match &weighed.outcome {
        Ok((cpu_ms, error)) => json!({
            "engine": engine, "cpu_ms": cpu_ms, "error": error, "reference": weighed.is_reference
        }),
        Err(why) => json!({ "engine": engine, "out": why }),
    }
}

/// What [`json_of`] wrote.
fn weighed_of(entry: &Value) -> Option<Weighed> {
    let (engine, release) = entry.get("engine")?.as_str()?.split_once("==")?;
    let number = |name: &str| entry.get(name)?.as_f64();
    let outcome = match entry.get("out") {
        Some(why) => Err(why.as_str()?.to_owned()),
        None => Ok((number("cpu_ms")?, number("error")?)),
    };
    Some(Weighed {
        engine: engine.to_owned(),
        release: release.to_owned(),
        is_reference: entry.get("reference").and_then(Value::as_bool).unwrap_or(false),
        outcome,
    })
}

/// Which processor this is, with all that engines choose their kernels by.
fn processor(text: &str) -> String {
    let of = |wanted: &str| {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| *name == wanted)
    };
    // The words of x86-64, then of aarch64.
    let words =
        ["model name", "flags", "CPU implementer", "CPU architecture", "CPU part", "Features"];
    let mut said: Vec<&str> = words.iter().filter_map(|word| Some(of(word)?.1)).collect();
    said.push(std::env::consts::ARCH);
    let model = of("model name").or_else(|| of("CPU part")).map_or("", |(_, value)| value);
    let mut sum = Sha256::new();
    said.iter().for_each(|word| add(&mut sum, word));
    format!("{model} {}", &hex(&sum.finalize())[..16])
}

/// The files of a version with their sizes, in order; `None` when there are too many, or they cannot
/// be read.
fn files_of(artifact: &Path) -> Option<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let mut folders = vec![(artifact.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder).ok()? {
            let path = entry.ok()?.path();
            let metadata = fs::metadata(&path).ok()?;
            if metadata.is_dir() {
                (depth < DEPTH_MAX).then(|| folders.push((path, depth + 1)))?;
            } else {
                files.push((path, metadata.len()));
            }
            (files.len() + folders.len() <= MODEL_FILES_MAX).then_some(())?;
        }
    }
    files.sort();
    Some(files)
}

/// Bytes of a version's files together; `None` where [`files_of`] gives none.
pub(crate) fn bytes_of(artifact: &Path) -> Option<u64> {
    Some(files_of(artifact)?.iter().map(|(_, bytes)| bytes).sum())
}

/// The sum of the contents of a version's files, with their names.
fn digest_of(artifact: &Path) -> Option<String> {
    let mut sum = Sha256::new();
    let mut room = vec![0u8; 1 << 20];
    for (path, _) in files_of(artifact)? {
        add(&mut sum, &path.strip_prefix(artifact).unwrap_or(&path).display().to_string());
        let mut file = File::open(&path).ok()?;
        let mut total = 0u64;
        loop {
            match file.read(&mut room).ok()? {
                0 => break,
                count => {
                    sum.update(&room[..count]);
                    total += count as u64;
                }
            }
        }
        sum.update(total.to_le_bytes());
    }
    Some(hex(&sum.finalize()))
}

/// Writes a file whole or not at all, and removes the oldest beyond [`FILES_MAX`].
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let unfinished = file.with_extension(format!("{}.unfinished", std::process::id()));
    let outcome = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, file));
    if outcome.is_err() {
        let _ = fs::remove_file(&unfinished);
        return outcome;
    }
    let mut kept: Vec<_> = fs::read_dir(folder)?
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    kept.sort();
    for (_, oldest) in kept.iter().take(kept.len().saturating_sub(FILES_MAX)) {
        info!("the verdict {} makes room for newer ones", oldest.display());
        let _ = fs::remove_file(oldest);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vesta_model::Status;

    use super::*;
    use crate::choice::contest::{Entry, Reason};

    struct World {
        home: tempfile::TempDir,
        question: Question,
    }

    impl World {
        fn new() -> World {
            let home = tempfile::tempdir().unwrap();
            let artifact = home.path().join("m").join("1");
            fs::create_dir_all(artifact.join("variables")).unwrap();
            fs::write(artifact.join("saved_model.pb"), "graph").unwrap();
            fs::write(artifact.join("variables").join("data"), "weights").unwrap();
            let question = Question {
                artifact,
                engines: vec!["embedded==1".to_owned(), "tensorflow==2.21.0".to_owned()],
                tags: vec!["serve".to_owned()],
                threads: 1,
                options: String::new(),
            };
            World { home, question }
        }

        fn verdicts(&self) -> Verdicts {
            Verdicts::new(Some(self.home.path().join("choices")))
        }
    }

    fn finding() -> Finding {
        let entry = |name, outcome| Entry {
            name,
            release: "2.21.0".to_owned(),
            is_reference: name == EngineName::TensorFlow,
            outcome,
        };
        Finding {
            name: EngineName::TensorFlow,
            release: "2.21.0".to_owned(),
            serve: Box::new(|| Err(Status::internal("nobody serves here"))),
            reason: Reason::Measured,
            entries: vec![
                entry(EngineName::TensorFlow, Ok((Duration::from_millis(20), 0.0))),
                entry(EngineName::OnnxRuntime, Err(Status::data_loss("it disagrees"))),
            ],
            trial: Duration::from_millis(300),
        }
    }

    #[test]
    fn what_was_found_is_found_again() {
        let world = World::new();
        let verdicts = world.verdicts();
        assert_eq!(verdicts.find(&world.question), Recalled::default());
        verdicts.keep(&world.question, "m", &finding(), &[]);
        let weighed = finding().entries.iter().map(Entry::weighed).collect();
        let release = "2.21.0".to_owned();
        let winner = Some(Winner { name: EngineName::TensorFlow, release, weighed });
        assert_eq!(
            world.verdicts().find(&world.question),
            Recalled { winner, refuted: Vec::new() }
        );
        verdicts.forget(&world.question);
        assert_eq!(verdicts.find(&world.question), Recalled::default());
    }

    fn out(engine: &str) -> Weighed {
        Weighed {
            engine: engine.to_owned(),
            release: "1.0".to_owned(),
            is_reference: false,
            outcome: Err("it disagreed".to_owned()),
        }
    }

    #[test]
    fn what_was_refuted_stays_out_whoever_wins_next() {
        let world = World::new();
        let verdicts = world.verdicts();
        // Of an engine that served without a contest, there is no verdict before.
        verdicts.refute(&world.question, "m", &out("embedded"));
        let refuted = vec![out("embedded")];
        assert_eq!(verdicts.find(&world.question), Recalled { winner: None, refuted });
        let refuted = verdicts.find(&world.question).refuted;
        verdicts.keep(&world.question, "m", &finding(), &refuted);
        assert!(verdicts.find(&world.question).winner.is_some());
        verdicts.refute(&world.question, "m", &out("onnxruntime"));
        verdicts.refute(&world.question, "m", &out("onnxruntime"));
        let both = vec![out("embedded"), out("onnxruntime")];
        assert_eq!(
            verdicts.find(&world.question),
            Recalled { winner: None, refuted: both.clone() }
        );
        verdicts.keep(&world.question, "m", &finding(), &both);
        verdicts.forget(&world.question);
        assert_eq!(verdicts.find(&world.question), Recalled { winner: None, refuted: both });
        // Of other files nothing is known.
        fs::write(world.question.artifact.join("variables").join("data"), "WEIGHTS").unwrap();
        assert_eq!(verdicts.find(&world.question), Recalled::default());
    }

    #[test]
    fn another_question_has_no_answer_yet() {
        let world = World::new();
        let verdicts = world.verdicts();
        verdicts.keep(&world.question, "m", &finding(), &[]);
        let changed = |change: fn(&mut Question)| {
            let mut question = world.question.clone();
            change(&mut question);
            verdicts.find(&question).winner
        };
        assert!(changed(|_| {}).is_some());
        assert_eq!(changed(|question| question.engines.push("onnxruntime==1".to_owned())), None);
        assert_eq!(changed(|question| question.threads = 2), None);
        assert_eq!(changed(|question| question.tags.clear()), None);
        assert_eq!(changed(|question| question.options = "x".to_owned()), None);
        // Other contents of the same size.
        fs::write(world.question.artifact.join("variables").join("data"), "WEIGHTS").unwrap();
        assert_eq!(verdicts.find(&world.question).winner, None);
        // A copy elsewhere is the same model.
        fs::write(world.question.artifact.join("variables").join("data"), "weights").unwrap();
        let elsewhere = world.home.path().join("m").join("2");
        fs::rename(&world.question.artifact, &elsewhere).unwrap();
        let question = Question { artifact: elsewhere, ..world.question.clone() };
        assert!(verdicts.find(&question).winner.is_some());
    }

    #[test]
    fn damaged_files_and_places_that_cannot_be_written_are_passed_over() {
        let world = World::new();
        let verdicts = world.verdicts();
        verdicts.keep(&world.question, "m", &finding(), &[]);
        let file = verdicts.file(&world.question).unwrap();
        for text in ["", "{", "[]", "{\"engine\": \"torch\"}"] {
            fs::write(&file, text).unwrap();
            assert_eq!(verdicts.find(&world.question), Recalled::default(), "{text}");
        }
        // A file in the folder's place, so that not even root can write there.
        let blocked = world.home.path().join("blocked");
        fs::write(&blocked, "").unwrap();
        let blocked = Verdicts::new(Some(blocked));
        blocked.keep(&world.question, "m", &finding(), &[]);
        assert!(blocked.has_warned.load(Ordering::Relaxed));
        assert_eq!(blocked.find(&world.question), Recalled::default());
        let none = Verdicts::new(None);
        none.keep(&world.question, "m", &finding(), &[]);
        assert_eq!(none.find(&world.question), Recalled::default());
    }

    #[test]
    fn processors_differ_by_name_and_by_what_they_can_do() {
        let x86 = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: avx2\n";
        assert!(processor(x86).starts_with("Xeon "));
        assert_ne!(processor(x86), processor(&x86.replace("avx2", "avx512f")));
        assert_ne!(processor("CPU part\t: 0xd0c\n"), processor("CPU part\t: 0xd40\n"));
    }
}
