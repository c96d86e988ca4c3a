//! `tensorflow_model_server`: the same program under the name that start scripts call.

fn main() -> std::process::ExitCode {
    vesta::model_server("tensorflow_model_server", std::env::args().skip(1).collect())
}
