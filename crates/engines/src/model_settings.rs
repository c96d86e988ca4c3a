//! `vesta.toml`: what a model's own folder says of it.
//!
//! Owns: the file's form, where it is looked for, and how mistakes in it are told. May not know: what
//! becomes of the engine that it names.
//! Invariant: a file with a mistake stops the load of its versions; nothing in it is passed over.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use vesta_model::Status;
use vesta_savedmodel::{GraphNames, SavedModel};

use crate::EngineChoice;

/// The file, in a version's folder or in that of its model.
pub const MODEL_SETTINGS: &str = "vesta.toml";

/// More is no file of settings.
const BYTES_MAX: u64 = 64 << 10;

/// Its keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    engine: Option<toml::Spanned<String>>,
    shadow_check_rate: Option<toml::Spanned<f64>>,
    graph: Option<GraphKeys>,
}

/// The table `[graph]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphKeys {
    file: Option<String>,
    #[serde(default)]
    inputs: Vec<String>,
    #[serde(default)]
    outputs: Vec<String>,
}

/// What the files of a version and of its model say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSettings {
    /// The engine that runs it.
    pub engine: Option<EngineChoice>,
    /// The part of its runs that is made again on the reference.
    pub shadow_check_rate: Option<f64>,
    /// `[graph]`: the tensors of a frozen graph.
    pub graph: Option<GraphNames>,
}

/// What a version's own folder says, and for what it leaves out its model's.
///
/// # Errors
/// `INVALID_ARGUMENT` for a mistake, with file, line, column and what is allowed; why a file that is
/// there cannot be read.
pub fn model_settings(artifact: &Path) -> Result<ModelSettings, Status> {
    let mut own = ModelSettings::default();
    for folder in [Some(artifact), artifact.parent()].into_iter().flatten() {
        let path = folder.join(MODEL_SETTINGS);
        let Some(text) = text_of(&path)? else { continue };
        let here = read(&path, &text)?;
        own.engine = own.engine.or(here.engine);
        own.shadow_check_rate = own.shadow_check_rate.or(here.shadow_check_rate);
        own.graph = own.graph.or(here.graph);
    }
    Ok(own)
}

/// Opens the SavedModel or frozen graph of a version's folder, with what its settings say of it.
///
/// # Errors
/// Those of the settings, and of [`SavedModel::open_named`].
pub(crate) fn open_model(artifact: &Path, tags: &[String]) -> Result<SavedModel, Status> {
    let names = model_settings(artifact)?.graph.unwrap_or_default();
    SavedModel::open_named(artifact, tags, &names)
}

/// Why an engine that a model names is not to be had.
pub fn unavailable_engine(choice: &EngineChoice, status: &Status) -> Status {
    let flag = format!("--engine={choice}: ");
    let said = status.message().strip_prefix(&flag).unwrap_or(status.message());
    Status::new(status.code(), format!("{MODEL_SETTINGS} says engine = \"{choice}\", but {said}"))
}

fn text_of(path: &Path) -> Result<Option<String>, Status> {
    let shown = path.display();
    match path.metadata() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Ok(metadata) if metadata.len() > BYTES_MAX => {
            return Err(Status::invalid_argument(format!(
                "{shown} has {} bytes, more than the {BYTES_MAX} that it may have",
                metadata.len()
            )));
        }
        _ => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(|error| {
        Status::failed_precondition(format!("{shown} cannot be read: {error}")).with_cause(error)
    })
}

fn read(path: &Path, text: &str) -> Result<ModelSettings, Status> {
    let keys: Keys =
        toml::from_str(text).map_err(|error| mistake(path, text, error.span(), error.message()))?;
    let engine = keys.engine.map(|engine| {
        engine.get_ref().parse::<EngineChoice>().map_err(|status| {
            // The texts are those of the flag, whose place the file takes.
            let said = status.message().strip_prefix("--engine=").unwrap_or(status.message());
            mistake(path, text, Some(engine.span()), &format!("engine = {said}"))
        })
    });
    let rate = keys.shadow_check_rate.map(|rate| {
        part_of_runs(*rate.get_ref()).map_err(|problem| {
            let said = format!("shadow_check_rate = {problem}");
            mistake(path, text, Some(rate.span()), &said)
        })
    });
    let graph = |GraphKeys { file, inputs, outputs }| GraphNames { file, inputs, outputs };
    Ok(ModelSettings {
        engine: engine.transpose()?,
        shadow_check_rate: rate.transpose()?,
        graph: keys.graph.map(graph),
    })
}

/// A rate as it is given.
///
/// # Errors
/// What is wrong with it, in words.
pub fn part_of_runs(rate: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&rate) {
        return Ok(rate);
    }
    Err(format!("{rate} is no part of the runs; give a number from 0 (none) to 1 (all)"))
}

fn mistake(path: &Path, text: &str, span: Option<Range<usize>>, problem: &str) -> Status {
    let at = span.map_or(0, |span| span.start).min(text.len());
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    let problem = problem.trim_end().replace('\n', "; ");
    Status::invalid_argument(format!("{}:{line}:{column}: {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World(tempfile::TempDir);

    impl World {
        fn new() -> World {
            let base = tempfile::tempdir().unwrap();
            std::fs::create_dir(base.path().join("1")).unwrap();
            World(base)
        }

        fn put(&self, folder: &str, text: &str) {
            std::fs::write(self.0.path().join(folder).join(MODEL_SETTINGS), text).unwrap();
        }

        fn engine(&self) -> Result<Option<String>, String> {
            Ok(self.own()?.engine.map(|choice| choice.to_string()))
        }

        fn own(&self) -> Result<ModelSettings, String> {
            let told = |status: Status| {
                let base = self.0.path().display().to_string();
                status.message().replace(&base, "BASE")
            };
            model_settings(&self.0.path().join("1")).map_err(told)
        }
    }

    #[test]
    fn the_versions_own_file_comes_before_the_models() {
        let world = World::new();
        assert_eq!(world.engine(), Ok(None));
        world.put(".", "engine = \"tensorflow==2.15\"\n");
        assert_eq!(world.engine(), Ok(Some("tensorflow==2.15".to_owned())));
        world.put("1", "engine = 'embedded'");
        assert_eq!(world.engine(), Ok(Some("embedded".to_owned())));
        // A file that names none leaves it to the next.
        world.put("1", "# nothing\n");
        assert_eq!(world.engine(), Ok(Some("tensorflow==2.15".to_owned())));
    }

    #[test]
    fn each_key_is_looked_for_by_itself() {
        let world = World::new();
        world.put(".", "engine = \"auto\"\nshadow_check_rate = 1\n");
        world.put("1", "shadow_check_rate = 0.25\n");
        let own = world.own().unwrap();
        assert_eq!(own.shadow_check_rate, Some(0.25));
        assert_eq!(own.engine, Some(EngineChoice::Auto));
        world.put("1", "");
        assert_eq!(world.own().unwrap().shadow_check_rate, Some(1.0));
    }

    #[test]
    fn a_graphs_tensors_are_those_of_the_first_file_that_names_any() {
        let world = World::new();
        let names = || world.own().unwrap().graph;
        assert_eq!(names(), None);
        world.put(".", "[graph]\ninputs = ['a']\noutputs = ['b:0']\nfile = 'g.pb'\n");
        world.put("1", "engine = 'embedded'");
        let names = names().unwrap();
        assert_eq!(
            (names.file.as_deref(), &names.inputs[..]),
            (Some("g.pb"), &["a".to_owned()][..])
        );
        assert_eq!(names.outputs, ["b:0"]);
        world.put("1", "[graph]\ninput = ['c']");
        let told = world.own().unwrap_err();
        assert!(told.starts_with("BASE/1/vesta.toml:2:1: unknown field `input`"), "{told}");
    }

    #[test]
    fn engines_that_are_not_to_be_had_are_told_without_the_flag() {
        let choice = "embedded==9".parse().unwrap();
        let status = Status::not_found("--engine=embedded==9: there is one alone");
        let told = unavailable_engine(&choice, &status);
        assert_eq!(
            told.message(),
            "vesta.toml says engine = \"embedded==9\", but there is one alone"
        );
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let world = World::new();
        for (text, want) in [
            (
                "\n engin = \"auto\"\n",
                "BASE/1/vesta.toml:2:2: unknown field `engin`, expected one of `engine`, `shadow_check_rate`, ",
            ),
            (
                "# of ours\nengine = \"torch\"\n",
                "BASE/1/vesta.toml:2:10: engine = torch: expected auto, embedded, tensorflow, ",
            ),
            (
                "engine = \"tensorflow==\"",
                "BASE/1/vesta.toml:1:10: engine = tensorflow==: a version",
            ),
            (
                "engine = 3\n",
                "BASE/1/vesta.toml:1:10: invalid type: integer `3`, expected a string",
            ),
            ("engine = \"auto\"\nengine = \"auto\"\n", "BASE/1/vesta.toml:2:1: duplicate key"),
            (
                "shadow_check_rate = 1.5",
                "BASE/1/vesta.toml:1:21: shadow_check_rate = 1.5 is no part of the runs; give a number",
            ),
            (
                "shadow_check_rate = nan",
                "BASE/1/vesta.toml:1:21: shadow_check_rate = NaN is no part",
            ),
            ("engine tensorflow", "BASE/1/vesta.toml:1:"),
        ] {
            world.put("1", text);
            let told = world.engine().unwrap_err();
            assert!(told.starts_with(want) && !told.contains('\n'), "{text:?}: {told}");
        }
        world.put("1", &"#".repeat(BYTES_MAX as usize + 1));
        assert!(world.engine().unwrap_err().contains("more than the 65536"));
    }
}
