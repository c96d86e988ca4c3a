//! `vesta engine`: install, list and remove native engines.
//!
//! Knows how it is asked and how it answers; the store does the work.
//! Exit codes: 0 done, 1 failed, 2 not understood.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use indicatif::HumanBytes;
use vesta_engines::{
    EngineChoice, EngineName, EngineStore, InstallRequest, Installed, Outcome, Survey, Voucher,
    engine_of_wheel,
};
use vesta_model::Status;

use crate::commands::{complain, parse, print};
use crate::progress::Shown;

/// Install, list and remove native engines.
///
/// The libraries come out of the wheels that TensorFlow, LiteRT, OpenVINO and ONNX Runtime publish for
/// Python. They lie in $VESTA_HOME, else $XDG_DATA_HOME/vesta, else ~/.local/share/vesta, else
/// /var/lib/vesta; several releases of an engine can be there side by side.
#[derive(Debug, Parser)]
#[command(name = "vesta engine", bin_name = "vesta engine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch engines with `python3 -m pip`, check their wheels, and unpack the libraries.
    Install(Install),
    /// Show what is installed.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take engines out of the store.
    Remove {
        /// NAME==VERSION, or NAME when only one release is there.
        #[arg(required = true, value_parser = target)]
        engines: Vec<Target>,
    },
}

#[derive(Debug, clap::Args)]
struct Install {
    /// NAME or NAME==VERSION: tensorflow, litert, openvino, onnxruntime. Without a version, the newest
    /// with a pinned sum; 2.15 means the newest 2.15.x.
    #[arg(required_unless_present = "from_wheel", value_parser = target)]
    engines: Vec<Target>,
    /// Take this wheel instead of fetching one; nothing is downloaded. It keeps the file name that
    /// the index gave it.
    #[arg(long, value_name = "FILE")]
    from_wheel: Option<PathBuf>,
    /// The sha256 that the wheel must have, where it is not pinned, or instead of the pinned one.
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
}

/// An engine as the command line names it.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    name: EngineName,
    version: Option<String>,
}

fn target(text: &str) -> Result<Target, String> {
    let wanted = "expected tensorflow, litert, openvino or onnxruntime, or NAME==VERSION";
    match text.parse::<EngineChoice>() {
        Ok(EngineChoice::Named { name: EngineName::Embedded, .. }) => {
            Err("the embedded engine is part of the program".to_owned())
        }
        Ok(EngineChoice::Named { name, version }) => Ok(Target { name, version }),
        _ => Err(wanted.to_owned()),
    }
}

/// Runs `vesta engine`; `arguments` leave both words out.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let command = match parse::<Arguments>("vesta engine", arguments) {
        Ok(arguments) => arguments.command,
        Err(code) => return code,
    };
    let store = EngineStore::from_env();
    let done = match command {
        Command::Install(install) => match requests(install) {
            Ok(requests) => install_all(&store, &requests),
            Err(problem) => {
                complain(&format!("vesta engine install: {problem}\n"));
                return ExitCode::from(2);
            }
        },
        Command::List { json } => {
            list(&store, json);
            Ok(())
        }
        Command::Remove { engines } => remove_all(&store, &engines),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(status) => {
            complain(&format!("vesta engine: {}\n", status.message()));
            ExitCode::FAILURE
        }
    }
}

/// What `install` asks for, or why it cannot be understood.
fn requests(install: Install) -> Result<Vec<InstallRequest>, String> {
    let Install { engines, from_wheel, sha256 } = install;
    if engines.len() > 1 && (from_wheel.is_some() || sha256.is_some()) {
        return Err("--from-wheel and --sha256 are about one engine; name no more".to_owned());
    }
    if engines.is_empty() {
        let name = from_wheel.as_deref().map(engine_of_wheel).transpose();
        let name = name.map_err(|status| status.message().to_owned())?;
        let request =
            name.map(|name| InstallRequest { name, version: None, sha256, wheel: from_wheel });
        return Ok(request.into_iter().collect());
    }
    let request = |Target { name, version }| InstallRequest {
        name,
        version,
        sha256: sha256.clone(),
        wheel: from_wheel.clone(),
    };
    Ok(engines.into_iter().map(request).collect())
}

fn install_all(store: &EngineStore, requests: &[InstallRequest]) -> Result<(), Status> {
    let shown = Shown::new();
    for request in requests {
        print(&describe(&store.install(request, &shown)?));
    }
    Ok(())
}

fn describe(outcome: &Outcome) -> String {
    let Outcome { installed: Installed { name, version, folder, installed_bytes, .. }, voucher } =
        outcome;
    let Some(voucher) = voucher else {
        return format!("{name}=={version} is already installed in {}\n", folder.display());
    };
    let checked = match voucher {
        Voucher::Pin => "its wheel has the sha256 that this vesta expects",
        Voucher::Caller => "its wheel has the sha256 of --sha256",
        Voucher::Index => "its wheel has the sha256 that the package index gives",
        Voucher::WheelItself => {
            "only the sums inside the wheel were checked, which a forged wheel would pass; give \
             --sha256 to check more"
        }
    };
    format!(
        "installed {name}=={version} in {} ({})\n{checked}\n",
        folder.display(),
        HumanBytes(*installed_bytes)
    )
}

fn remove_all(store: &EngineStore, engines: &[Target]) -> Result<(), Status> {
    let shown = Shown::new();
    for Target { name, version } in engines {
        let removed = store.remove(*name, version.as_deref(), &shown)?;
        print(&format!("removed {name}=={removed}\n"));
    }
    Ok(())
}

fn list(store: &EngineStore, json: bool) {
    let survey = store.survey();
    if json {
        print(&format!("{:#}\n", as_json(&survey)));
        return;
    }
    print(&as_table(&survey, store));
    for damaged in &survey.damaged {
        let engine = format!("{}=={}", damaged.name, damaged.version);
        complain(&format!(
            "{engine} in {} is damaged: {}; run `vesta engine install {engine}` to mend it, or \
             `vesta engine remove {engine}`\n",
            damaged.folder.display(),
            damaged.problem
        ));
    }
}

fn as_table(survey: &Survey, store: &EngineStore) -> String {
    if survey.installed.is_empty() {
        return format!("no engines are installed in {}\n", store.home().display());
    }
    let mut rows = vec![["ENGINE", "VERSION", "SIZE", "PACKAGE", "PATH"].map(str::to_owned)];
    rows.extend(survey.installed.iter().map(|engine| {
        [
            engine.name.to_string(),
            engine.version.clone(),
            HumanBytes(engine.installed_bytes).to_string(),
            engine.package.clone(),
            engine.folder.display().to_string(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let line = |[name, version, size, package, path]: &[String; 5]| {
        let [a, b, c, d] = widths;
        format!("{name:a$}  {version:b$}  {size:>c$}  {package:d$}  {path}\n")
    };
    rows.iter().map(line).collect()
}

fn as_json(survey: &Survey) -> serde_json::Value {
    let installed = survey.installed.iter().map(|engine| {
        serde_json::json!({
            "name": engine.name.as_str(),
            "version": engine.version,
            "path": engine.folder,
            "installed_bytes": engine.installed_bytes,
            "package": engine.package,
            "wheel": engine.wheel,
            "sha256": engine.sha256,
            "arch": engine.arch,
        })
    });
    let damaged = survey.damaged.iter().map(|entry| {
        serde_json::json!({
            "name": entry.name.as_str(),
            "version": entry.version,
            "path": entry.folder,
            "problem": entry.problem,
        })
    });
    serde_json::json!({
        "installed": installed.collect::<Vec<_>>(),
        "damaged": damaged.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_understood() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
        assert_eq!(
            target("tensorflow==2.15.1"),
            Ok(Target { name: EngineName::TensorFlow, version: Some("2.15.1".to_owned()) })
        );
        for wrong in ["embedded", "auto", "torch", "tensorflow==", "tensorflow=2"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wheel_is_about_one_engine() {
        let install = |engines: &[&str], wheel: Option<&str>| {
            let engines = engines.iter().map(|text| target(text).unwrap()).collect();
            requests(Install { engines, from_wheel: wheel.map(PathBuf::from), sha256: None })
        };
        let wheel = "/w/tensorflow_cpu-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl";
        assert_eq!(install(&[], Some(wheel)).unwrap()[0].name, EngineName::TensorFlow);
        assert_eq!(install(&["tensorflow", "openvino"], None).unwrap().len(), 2);
        assert!(install(&["tensorflow", "openvino"], Some(wheel)).is_err());
        assert!(install(&[], Some("/w/numpy-2.0-cp312-cp312-linux_x86_64.whl")).is_err());
    }
}
