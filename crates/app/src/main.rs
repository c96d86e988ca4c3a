//! `vesta`: the model server and its subcommands.

fn main() -> std::process::ExitCode {
    vesta::vesta(std::env::args().skip(1).collect())
}
