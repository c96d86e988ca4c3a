//! TLS on the gRPC sockets.
//!
//! Owns: keys and certificates out of PEM text, who must show a certificate, handshakes. May not know:
//! where the text comes from, what is said once a connection is private.
//! Invariant: what could not be used for a handshake is refused before a port opens, and a client that
//! is slow in its handshake, or never ends it, keeps no other client waiting.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use vesta_model::Status;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// Handshakes at once; more connections wait to be accepted.
const HANDSHAKES_MAX: usize = 256;
/// The protocol that both sides must agree on.
const HTTP2: &[u8] = b"h2";

/// Keys and certificates, ready to be used. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the PEM texts of `SSLConfig`: the server's key, its certificate with those that vouch for
    /// it, and, when clients have to show one of theirs, the certificates of who may sign those.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that names the field and says what to do.
    pub fn from_pem(
        server_key: &str,
        server_cert: &str,
        custom_ca: &str,
        client_verify: bool,
    ) -> Result<Tls, Status> {
        let chain = certificates("server_cert", server_cert)?;
        let key = PrivateKeyDer::from_pem_slice(server_key.as_bytes())
            .map_err(|problem| no_pem("server_key", "a private key", &problem))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|problem| Status::internal(format!("TLS cannot be set up: {problem}")))?;
        let builder = if client_verify {
            let mut roots = RootCertStore::empty();
            for root in certificates("custom_ca", custom_ca)? {
                roots.add(root).map_err(|problem| unusable("custom_ca", &problem))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|problem| unusable("custom_ca", &problem))?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|problem| match problem {
            rustls::Error::InconsistentKeys(_) => Status::invalid_argument(
                "server_key does not belong to the first certificate of server_cert; put the key and \
                 the certificate that were made together into the file",
            ),
            other => unusable("server_key or server_cert", &other),
        })?;
        config.alpn_protocols.push(HTTP2.to_vec());
        Ok(Tls { config: Arc::new(config) })
    }

    /// The connections of `incoming` once their handshakes are done. Those whose handshake fails are
    /// closed, and nobody is told but the log.
    pub(super) fn connections<S, I>(
        &self,
        incoming: I,
    ) -> impl Stream<Item = io::Result<TlsStream<S>>> + use<S, I>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        I: Stream<Item = io::Result<S>> + Send + 'static,
    {
        let (done, connections) = mpsc::channel(1);
        tokio::spawn(accept(TlsAcceptor::from(Arc::clone(&self.config)), incoming, done));
        stream::unfold(connections, |mut connections| async move {
            connections.recv().await.map(|connection| (Ok(connection), connections))
        })
    }
}

/// Takes connections until nobody wants them any more.
async fn accept<S>(
    acceptor: TlsAcceptor,
    incoming: impl Stream<Item = io::Result<S>>,
    done: mpsc::Sender<TlsStream<S>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut incoming = pin!(incoming);
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, incoming.next().await)
        };
        let (place, next) = tokio::select! {
            () = done.closed() => return,
            next = next => next,
        };
        let Some(next) = next else { return };
        // The listener itself waits after an error.
        let Ok(connection) = next else { continue };
        let (handshake, done) = (acceptor.accept(connection), done.clone());
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                // A server that has stopped takes no more.
                Ok(Ok(connection)) => drop(done.send(connection).await),
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }
}

/// The certificates in the PEM text of `field`, one at least.
fn certificates(field: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Status> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(no_pem(field, "a certificate", &"there is none in it")),
        Err(problem) => Err(no_pem(field, "a certificate", &problem)),
    }
}

fn no_pem(field: &str, what: &str, problem: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!(
        "{field} must hold {what} in PEM form, the text itself (-----BEGIN ...) and not a path: \
         {problem}"
    ))
}

fn unusable(field: &str, problem: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field} cannot be used: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, generate_simple_self_signed};

    fn pair() -> (String, String) {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.signing_key.serialize_pem(), made.cert.pem())
    }

    fn refused(key: &str, cert: &str, ca: &str, verify: bool) -> String {
        Tls::from_pem(key, cert, ca, verify).unwrap_err().message().to_owned()
    }

    #[test]
    fn what_is_wrong_with_keys_and_certificates_is_said() {
        let ((key, cert), (other_key, _)) = (pair(), pair());
        assert!(Tls::from_pem(&key, &cert, "", false).is_ok());
        assert!(refused("/etc/key.pem", &cert, "", false).starts_with("server_key must hold"));
        assert!(refused(&key, "/etc/cert.pem", "", false).starts_with("server_cert must hold"));
        assert!(refused(&key, &cert[..cert.len() / 2], "", false).starts_with("server_cert must"));
        assert!(refused(&other_key, &cert, "", false).contains("does not belong"));
        assert!(refused(&key, &cert, "", true).starts_with("custom_ca must hold"));
        let broken = cert.replacen("M", "A", 1);
        assert!(refused(&key, &broken, "", false).contains("cannot be used"), "{broken}");
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        assert!(Tls::from_pem(&key, &cert, &ca.pem(), true).is_ok());
    }
}
