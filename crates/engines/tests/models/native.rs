//! What the tests of native engines have in common: the library out of the store, the engine behind a
//! worker, models that are kept beside the tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vesta_engines::{EngineName, EngineStore, Installed};
use vesta_model::{Code, Engine, EngineIdentity, Session, Status, Tensor};
use vesta_testkit::{Given, SuiteModel, SuiteModels, engine_suite};
use vesta_worker::{ChildOptions, IsolatedEngine, WorkerCommand, WorkerOptions, serve_child};

use crate::shared_data::{call, floats, output, request};
use crate::suite::WORKER;

/// An engine out of the store, or `None` with a word about it on a person's machine.
pub(crate) fn installed(name: EngineName) -> Option<Installed> {
    match EngineStore::from_env().find(name, None) {
        Ok(installed) => Some(installed),
        Err(status) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{status}");
            eprintln!("skipped: {status}");
            None
        }
    }
}

/// The engine behind a worker, which is this program again, running `test` alone.
pub(crate) fn isolated(name: EngineName, test: &str) -> Option<IsolatedEngine> {
    let identity = EngineIdentity { name: name.to_string(), version: installed(name)?.version };
    let command = WorkerCommand::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .arg(test)
        .env(WORKER, "1");
    Some(IsolatedEngine::new(identity, command, WorkerOptions::default()))
}

/// The test that [`isolated`] runs: a worker when it is told to be one, else nobody's.
pub(crate) fn serve_as_worker(engine: &dyn Engine) {
    let served = serve_child(engine, &ChildOptions::default());
    if std::env::var_os(WORKER).is_some() {
        served.unwrap();
    } else {
        assert_eq!(served.unwrap_err().code(), Code::FailedPrecondition);
    }
}

/// Models of one format that are kept beside the tests.
pub(crate) struct Kept {
    /// Their folder.
    pub(crate) folder: &'static str,
    /// What one is called in a version.
    pub(crate) file: &'static str,
}

impl Kept {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let extension = Path::new(self.file).extension().unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(self.folder);
        folder.join(name).with_extension(extension)
    }

    /// A version's folder with one of them in it.
    pub(crate) fn version(&self, name: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(self.path(name), folder.path().join(self.file)).unwrap();
        // An IR has its weights beside it.
        let weights = self.path(name).with_extension("bin");
        if weights.exists() {
            std::fs::copy(weights, folder.path().join(self.file).with_extension("bin")).unwrap();
        }
        folder
    }

    pub(crate) fn load(&self, engine: &dyn Engine, name: &str) -> Arc<dyn Session> {
        let loaded = engine.load(&request(self.version(name).path()));
        loaded.unwrap_or_else(|status| panic!("{name}: {status}"))
    }

    /// The model that gives strings back; its folder lives as long as the first.
    pub(crate) fn strings(&self) -> (tempfile::TempDir, SuiteModel) {
        let folder = self.version("string_identity");
        let model = SuiteModel::new(request(folder.path()), &[]);
        (folder, model)
    }

    /// Holds an engine to the suite, on these models; `damaged` is the start of none.
    pub(crate) fn conform(
        &self,
        engine: &dyn Engine,
        strings: Given,
        counter: Given,
        damaged: &[u8],
    ) {
        let folder = self.version("slow_half_plus_two");
        let slow = Given::Model(SuiteModel::new(request(folder.path()), &[]));
        self.conform_with(engine, slow, strings, counter, damaged);
    }

    /// The same where the slow model is another, or refused.
    pub(crate) fn conform_with(
        &self,
        engine: &dyn Engine,
        slow: Given,
        strings: Given,
        counter: Given,
        damaged: &[u8],
    ) {
        let folders = ["half_plus_two", "sum_and_difference"].map(|name| self.version(name));
        let spoiled = self.version("half_plus_two");
        std::fs::write(spoiled.path().join(self.file), damaged).unwrap();
        let model = |folder: &Path| Given::Model(SuiteModel::new(request(folder), &[]));
        let [half, sum] = folders.each_ref().map(|folder| model(folder.path()));
        let report = engine_suite(
            engine,
            &SuiteModels {
                half_plus_two: half,
                slow_half_plus_two: slow,
                string_identity: strings,
                sum_and_difference: sum,
                counter,
                damaged: model(spoiled.path()),
            },
        );
        eprintln!("{}", report.text());
        report.verdict().unwrap();
    }
}

pub(crate) fn serve(session: &dyn Session, inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
    call(session, "serving_default", inputs)
}

/// What the kept model `the_same` answers: two names of one tensor, an input as it is, and a constant.
pub(crate) fn gives_twice_and_itself(session: &dyn Session) {
    for x in [&[1.0, 2.0][..], &[3.0, 4.0, 5.0]] {
        let given = serve(session, &[floats(&[x.len()], x)]).unwrap();
        let of = |alias| output(session, "serving_default", &given, alias).clone();
        let doubled: Vec<f32> = x.iter().map(|x| x * 2.0).collect();
        assert_eq!(of("a"), floats(&[x.len()], &doubled));
        assert_eq!(of("b"), floats(&[x.len()], &doubled));
        assert_eq!(of("given"), floats(&[x.len()], x));
        assert_eq!(of("seven"), floats(&[1], &[7.0]));
    }
}
