//! `vesta demo`: serves the image classifier that the repository carries, and prints a request to
//! try.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::commands::{complain, print, serve};
use crate::config::Resolved;
use crate::flags::{self, Parsed};

/// The model's name and folder.
const MODEL: &str = "resnet8";

/// Runs the demo; `arguments` are flags of the server that go before the demo's own choices.
pub(crate) fn run(arguments: Vec<String>) -> ExitCode {
    let started = Instant::now();
    let Some(folder) = find_folder() else {
        complain(
            "vesta demo: the folder demo/ of the repository was not found here or above; run the \
             command inside a checkout\n",
        );
        return ExitCode::FAILURE;
    };
    let base = folder.join("models").join(MODEL);
    let defaults = [
        format!("--port={}", free_port(8500)),
        format!("--rest_api_port={}", free_port(8501)),
        format!("--model_name={MODEL}"),
        format!("--model_base_path={}", base.display()),
        // Whoever tries it waits for its first answer.
        "--engine_choice_budget_ms=0".to_owned(),
        // Nobody stands between the demo and its only client.
        "--drain_delay=0".to_owned(),
    ];
    match flags::parse(defaults.into_iter().chain(arguments)) {
        Ok(Parsed::Serve { flags, unknown }) if unknown.is_empty() => {
            serve(&flags, |resolved| print(&greeting(resolved, &folder, started)))
        }
        Ok(Parsed::Serve { unknown, .. }) => {
            complain(&format!("vesta demo: unknown arguments: {}\n", unknown.join(" ")));
            ExitCode::from(2)
        }
        Ok(Parsed::Help | Parsed::Version) => {
            print(&flags::usage("vesta demo"));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(&format!("vesta demo: {problem}\n"));
            ExitCode::from(2)
        }
    }
}

/// The demo's folder: in the current folder or above it, else above the program.
fn find_folder() -> Option<PathBuf> {
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let places = here.iter().flat_map(|p| p.ancestors());
    let places = places.chain(program.iter().flat_map(|p| p.ancestors()));
    places.map(|place| place.join("demo")).find(|demo| demo.join("models").join(MODEL).is_dir())
}

/// `wanted`, or another free port when somebody holds it.
fn free_port(wanted: u16) -> u16 {
    let bind = |port| TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    bind(wanted)
        .or_else(|_| bind(0))
        .and_then(|listener| listener.local_addr())
        .map_or(wanted, |address| address.port())
}

fn greeting(resolved: &Resolved, folder: &Path, started: Instant) -> String {
    let grpc = resolved.grpc_address.map_or(0, |address| address.port());
    let rest = resolved.rest_address.map_or(0, |address| address.port());
    let request = std::env::current_dir()
        .ok()
        .and_then(|here| folder.strip_prefix(here).ok().map(Path::to_path_buf))
        .unwrap_or_else(|| folder.to_path_buf());
    let request = request.join("cat.json");
    format!(
        "\n\
         model   {MODEL}, version 1: AVAILABLE {} ms after start\n\
         gRPC    localhost:{grpc}\n\
         REST    http://localhost:{rest}/v1/models/{MODEL}\n\
         \n\
         What is in the picture {}? Ask in another terminal:\n\
         \n    curl -d @{} http://localhost:{rest}/v1/models/{MODEL}:predict\n\
         \n\
         Ctrl-C ends the server.\n",
        started.elapsed().as_millis(),
        request.with_file_name("cat.jpg").display(),
        request.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_port_is_not_chosen() {
        let held = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        let port = held.local_addr().unwrap().port();
        assert_ne!(free_port(port), port);
    }

    #[test]
    fn the_repositorys_own_demo_is_found() {
        let folder = find_folder().unwrap();
        assert!(folder.join("cat.json").is_file());
    }
}
