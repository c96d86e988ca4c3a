//! What is wanted: the list that was configured, and what was said of single models since.
//!
//! Pure. Owns the rule by which the two meet: of each model the last word counts, and a new list is a
//! word about a model only where it says something else about it than the list before it did. So a
//! list that changes one model leaves alone what an operator said of another, and an operator's word
//! never hides what a later list says anew.

use std::collections::BTreeMap;

use vesta_model::{ModelConfig, ModelName, Status};

/// The whole of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Desired {
    listed: BTreeMap<ModelName, ModelConfig>,
    /// The last words about single models; `None` is one that shall not serve.
    said: BTreeMap<ModelName, Option<ModelConfig>>,
}

impl Desired {
    /// Another list in the place of the former one.
    pub(super) fn relisted(&self, models: Vec<ModelConfig>) -> Desired {
        let listed: BTreeMap<ModelName, ModelConfig> =
            models.into_iter().map(|model| (model.name.clone(), model)).collect();
        let mut said = self.said.clone();
        said.retain(|name, _| listed.get(name) == self.listed.get(name));
        Desired { listed, said }
    }

    /// One model shall serve: as described, or as it was configured.
    ///
    /// # Errors
    /// `NOT_FOUND` when nothing says how.
    pub(super) fn with(
        &self,
        name: &ModelName,
        model: Option<ModelConfig>,
    ) -> Result<Desired, Status> {
        let mut next = self.clone();
        match model {
            Some(model) if self.listed.get(name) == Some(&model) => {
                next.said.remove(name);
            }
            Some(model) => {
                next.said.insert(name.clone(), Some(model));
            }
            None if matches!(self.said.get(name), Some(None)) => {
                next.said.remove(name);
            }
            None if self.model(name).is_some() => {}
            None => return Err(not_configured(name)),
        }
        Ok(next)
    }

    /// One model shall serve no longer.
    ///
    /// # Errors
    /// `NOT_FOUND` when it is not known.
    pub(super) fn without(&self, name: &ModelName) -> Result<Desired, Status> {
        let mut next = self.clone();
        if self.listed.contains_key(name) {
            next.said.insert(name.clone(), None);
        } else if next.said.remove(name).is_none() {
            return Err(not_configured(name));
        }
        Ok(next)
    }

    /// How one model shall serve, if it shall.
    pub(super) fn model(&self, name: &ModelName) -> Option<&ModelConfig> {
        match self.said.get(name) {
            Some(said) => said.as_ref(),
            None => self.listed.get(name),
        }
    }

    /// Every model that shall serve, by name.
    pub(super) fn models(&self) -> Vec<ModelConfig> {
        let mut models = self.listed.clone();
        for (name, said) in &self.said {
            match said {
                Some(model) => models.insert(name.clone(), model.clone()),
                None => models.remove(name),
            };
        }
        models.into_values().collect()
    }
}

fn not_configured(name: &ModelName) -> Status {
    Status::not_found(format!(
        "model {name} is not configured; to load it, send its configuration, such as \
         {{\"base_path\": \"/models/{name}\"}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use vesta_model::{BasePath, Code, VersionPolicy};

    fn model(name: &str, path: &str) -> ModelConfig {
        ModelConfig {
            name: name.into(),
            base_path: BasePath::Directory(PathBuf::from(path)),
            policy: VersionPolicy::default(),
            labels: BTreeMap::new(),
            request_logging: None,
        }
    }

    fn shown(desired: &Desired) -> Vec<String> {
        let models = desired.models().into_iter();
        models
            .map(|model| match model.base_path {
                BasePath::Directory(path) => format!("{}={}", model.name, path.display()),
                BasePath::Store(_) => unreachable!(),
            })
            .collect()
    }

    #[test]
    fn a_list_leaves_alone_what_it_does_not_change() {
        let first = Desired::default().relisted(vec![model("a", "/a"), model("b", "/b")]);
        let said = first.without(&"a".into()).unwrap();
        let said = said.with(&"c".into(), Some(model("c", "/c"))).unwrap();
        assert_eq!(shown(&said), ["b=/b", "c=/c"]);
        let next = said.relisted(vec![model("a", "/a"), model("b", "/b2"), model("d", "/d")]);
        assert_eq!(shown(&next), ["b=/b2", "c=/c", "d=/d"]);
    }

    #[test]
    fn a_list_that_says_something_new_of_a_model_counts() {
        let first = Desired::default().relisted(vec![model("a", "/a"), model("b", "/b")]);
        let said = first.without(&"a".into()).unwrap();
        let said = said.with(&"b".into(), Some(model("b", "/mine"))).unwrap();
        let said = said.with(&"c".into(), Some(model("c", "/mine"))).unwrap();
        let next = said.relisted(vec![model("a", "/a2"), model("c", "/c")]);
        assert_eq!(shown(&next), ["a=/a2", "c=/c"]);
        // What the list took away is a new word about it, too.
        let back = next.relisted(vec![model("b", "/b")]);
        assert_eq!(shown(&back), ["b=/b"]);
    }

    #[test]
    fn what_was_unloaded_can_be_loaded_as_it_was() {
        let first = Desired::default().relisted(vec![model("a", "/a")]);
        let off = first.without(&"a".into()).unwrap();
        assert_eq!(off.without(&"a".into()).unwrap(), off, "twice is once");
        assert_eq!(off.with(&"a".into(), None).unwrap(), first);
        assert_eq!(off.with(&"a".into(), Some(model("a", "/a"))).unwrap(), first);
        assert_eq!(first.with(&"a".into(), None).unwrap(), first);
        let own = first.with(&"n".into(), Some(model("n", "/n"))).unwrap();
        assert_eq!(own.without(&"n".into()).unwrap(), first);
        for refused in [first.without(&"n".into()), first.with(&"n".into(), None)] {
            assert_eq!(refused.unwrap_err().code(), Code::NotFound);
        }
    }
}
