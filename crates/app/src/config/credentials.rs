//! How the gRPC sockets are encrypted, out of `--ssl_config_file` and `--use_alts_credentials`.
//!
//! Owns: that nobody who asks for encryption gets an open port. May not know: handshakes.

use std::path::Path;

use vesta_frontends::Tls;
use vesta_model::Status;
use vesta_protos::tensorflow::serving::SslConfig;

use super::text;
use crate::flags::Flags;

/// Refuses ways of encryption that exclude each other or do not exist here.
///
/// # Errors
/// `INVALID_ARGUMENT` in the original's words for both ways at once, `UNIMPLEMENTED` for ALTS.
pub(super) fn check(flags: &Flags) -> Result<(), Status> {
    if flags.use_alts_credentials && !flags.ssl_config_file.is_empty() {
        return Err(Status::invalid_argument(
            "Either use_alts_credentials must be false or ssl_config_file must be empty.",
        ));
    }
    if flags.use_alts_credentials {
        return Err(Status::unimplemented(
            "--use_alts_credentials: ALTS works between machines of Google's own cloud alone, by a \
             library that is not part of this program; use --ssl_config_file for TLS",
        ));
    }
    Ok(())
}

/// Keys and certificates of the file; `None` when no file is given.
///
/// # Errors
/// Those of a file that cannot be read or understood, and of what is in it.
pub(super) fn tls(flags: &Flags) -> Result<Option<Tls>, Status> {
    if flags.ssl_config_file.is_empty() {
        return Ok(None);
    }
    let file = Path::new(&flags.ssl_config_file);
    let config: SslConfig = text::read(file, "tensorflow.serving.SSLConfig")?;
    if !config.custom_ca.is_empty() && !config.client_verify {
        tracing::warn!(
            "custom_ca of {} is not used, since client_verify is not set: clients need no \
             certificate",
            file.display()
        );
    }
    let SslConfig { server_key, server_cert, custom_ca, client_verify } = &config;
    Tls::from_pem(server_key, server_cert, custom_ca, *client_verify).map(Some).map_err(|status| {
        Status::invalid_argument(format!("{}: {}", file.display(), status.message()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_that_exclude_each_other_or_do_not_exist_are_refused() {
        let flags = |use_alts_credentials, ssl_config_file: &str| Flags {
            use_alts_credentials,
            ssl_config_file: ssl_config_file.to_owned(),
            ..Flags::default()
        };
        assert_eq!(check(&flags(false, "/f")), Ok(()));
        assert_eq!(
            check(&flags(true, "/f")).unwrap_err().to_string(),
            "INVALID_ARGUMENT: Either use_alts_credentials must be false or ssl_config_file must be \
             empty."
        );
        assert!(check(&flags(true, "")).unwrap_err().message().contains("--ssl_config_file"));
    }

    #[test]
    fn a_file_without_keys_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ssl.config");
        let flags = Flags { ssl_config_file: file.display().to_string(), ..Flags::default() };
        std::fs::write(&file, "client_verify: true").unwrap();
        let refused = tls(&flags).unwrap_err();
        assert!(refused.message().contains("ssl.config: server_cert must hold"), "{refused}");
        assert!(tls(&Flags::default()).unwrap().is_none());
    }
}
