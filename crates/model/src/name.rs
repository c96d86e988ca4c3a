//! Names that requests use to say which model they mean.

use std::fmt;
use std::sync::Arc;

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text of the name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $name(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                $name(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        // Lets maps keyed by the name be searched by plain text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_newtype! {
    /// The name of a model, as clients send it. Any text that the configuration chose.
    ModelName
}
text_newtype! {
    /// A name for one version of a model, such as `stable`; moved by configuration.
    Label
}

/// The number of one version of a model. Larger is newer. Negative numbers are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub i64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which version of a model a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionChoice {
    /// The highest version that is available.
    Latest,
    /// Exactly this one.
    Version(Version),
    /// The one that this label stands for.
    Label(Label),
}

/// Which servable a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// The model's name; an empty name is an error that the catalog reports.
    pub name: ModelName,
    /// Which of its versions.
    pub choice: VersionChoice,
}

impl ModelSpec {
    /// The newest available version of `name`.
    pub fn latest(name: impl Into<ModelName>) -> ModelSpec {
        ModelSpec { name: name.into(), choice: VersionChoice::Latest }
    }
}
