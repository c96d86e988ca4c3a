//! What `--grpc_channel_arguments` says.
//!
//! Owns: the names of arguments that mean something here, and what is no argument at all. Invariant:
//! nothing in the list ends the start; what cannot be used is told and passed over.

use std::fmt;
use std::time::Duration;

use tracing::{debug, warn};
use vesta_frontends::{AnswerCompression, GrpcOptions};

use crate::listen::Sharing;

/// What an operator says of connections, beyond the defaults.
#[derive(Clone)]
pub(crate) struct Channel {
    /// The options of the server, with those of the list.
    pub(crate) options: GrpcOptions,
    /// Whether other servers may listen on the same port.
    pub(crate) sharing: Sharing,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("sharing", &self.sharing).finish_non_exhaustive()
    }
}

/// An argument that is passed over, and why.
#[derive(Debug, PartialEq)]
enum Passed {
    /// It means nothing to this server, or to no server.
    Unknown,
    /// It is no `name=value`, or its value cannot be used.
    Useless,
}

/// Reads the list.
pub(super) fn read(list: &str) -> Channel {
    let mut channel = Channel { options: GrpcOptions::default(), sharing: Sharing::Shared };
    for argument in list.split(',').map(str::trim).filter(|argument| !argument.is_empty()) {
        match set(&mut channel, argument) {
            Ok(()) => {}
            Err(Passed::Unknown) => {
                debug!("--grpc_channel_arguments: {argument} means nothing here");
            }
            Err(Passed::Useless) => {
                warn!("--grpc_channel_arguments: {argument} cannot be used and is passed over");
            }
        }
    }
    channel
}

fn set(channel: &mut Channel, argument: &str) -> Result<(), Passed> {
    let (name, value) = argument.split_once('=').ok_or(Passed::Useless)?;
    // As in the original, a second sign begins something that is not looked at.
    let value = value.split('=').next().unwrap_or_default().trim();
    let number = || value.parse::<i32>().map_err(|_| Passed::Useless);
    let count = || number().and_then(|number| u32::try_from(number).map_err(|_| Passed::Useless));
    let time = || count().map(|ms| Duration::from_millis(u64::from(ms)));
    let some_time = || time().and_then(|t| if t.is_zero() { Err(Passed::Useless) } else { Ok(t) });
    // The largest integer means for ever.
    let bounded = |time: Duration| (time.as_millis() < i32::MAX as u128).then_some(time);
    let options = &mut channel.options;
    match name.trim() {
        "grpc.max_concurrent_streams" => options.streams_max = count()?,
        "grpc.max_connection_age_ms" => options.connection_age_max = bounded(some_time()?),
        "grpc.max_connection_age_grace_ms" => options.connection_age_grace = bounded(time()?),
        "grpc.max_connection_idle_ms" => options.connection_idle_max = bounded(some_time()?),
        "grpc.keepalive_time_ms" => options.keepalive_interval = some_time()?,
        "grpc.keepalive_timeout_ms" => options.keepalive_timeout = some_time()?,
        "grpc.max_receive_message_length" => {
            // -1 is no limit but the original's own.
            let default = GrpcOptions::default().message_bytes_max;
            options.message_bytes_max = length(number()?, default)?;
        }
        "grpc.max_send_message_length" => {
            options.answer_bytes_max = length(number()?, usize::MAX)?;
        }
        "grpc.max_metadata_size" | "grpc.absolute_max_metadata_size" => {
            options.header_bytes_max = count()?;
        }
        "grpc.default_compression_algorithm" => {
            options.compression = match number()? {
                0 => AnswerCompression::None,
                1 => AnswerCompression::Deflate,
                2 => AnswerCompression::Gzip,
                _ => return Err(Passed::Useless),
            };
        }
        "grpc.so_reuseport" => {
            channel.sharing = if number()? == 0 { Sharing::Exclusive } else { Sharing::Shared };
        }
        _ => return Err(Passed::Unknown),
    }
    Ok(())
}

/// A length in bytes; -1 for `unlimited`.
fn length(number: i32, unlimited: usize) -> Result<usize, Passed> {
    match number {
        -1 => Ok(unlimited),
        _ => usize::try_from(number).map_err(|_| Passed::Useless),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_mean_something_are_read() {
        let channel = read(
            "grpc.max_concurrent_streams=7,grpc.max_connection_age_ms=1500, \
             grpc.max_connection_age_grace_ms=500,grpc.max_connection_idle_ms=2147483647,\
             grpc.keepalive_time_ms=1000,grpc.keepalive_timeout_ms=2000,\
             grpc.max_receive_message_length=1000,grpc.max_send_message_length=-1,\
             grpc.max_metadata_size=9000,grpc.default_compression_algorithm=2,grpc.so_reuseport=0",
        );
        let ms = Duration::from_millis;
        let options = channel.options;
        assert_eq!(options.streams_max, 7);
        assert_eq!(options.connection_age_max, Some(ms(1500)));
        assert_eq!(options.connection_age_grace, Some(ms(500)));
        assert_eq!(options.connection_idle_max, None);
        assert_eq!((options.keepalive_interval, options.keepalive_timeout), (ms(1000), ms(2000)));
        assert_eq!((options.message_bytes_max, options.answer_bytes_max), (1000, usize::MAX));
        assert_eq!(options.header_bytes_max, 9000);
        assert_eq!(options.compression, AnswerCompression::Gzip);
        assert_eq!(channel.sharing, Sharing::Exclusive);
    }

    #[test]
    fn junk_is_passed_over() {
        let mut channel = read("");
        assert_eq!(channel.sharing, Sharing::Shared);
        for (argument, want) in [
            ("junk", Err(Passed::Useless)),
            ("a=b=c", Err(Passed::Unknown)),
            ("=", Err(Passed::Unknown)),
            ("grpc.max_concurrent_streams=many", Err(Passed::Useless)),
            ("grpc.max_concurrent_streams=-3", Err(Passed::Useless)),
            ("grpc.max_connection_age_ms=0", Err(Passed::Useless)),
            ("grpc.default_compression_algorithm=9", Err(Passed::Useless)),
            ("grpc.max_receive_message_length=99999999999", Err(Passed::Useless)),
            ("grpc.max_concurrent_streams=5=6", Ok(())),
        ] {
            assert_eq!(set(&mut channel, argument), want, "{argument}");
        }
        assert_eq!(channel.options.streams_max, 5);
    }
}
