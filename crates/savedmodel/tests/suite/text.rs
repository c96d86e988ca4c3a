//! Models whose file is text.

use tempfile::TempDir;
use vesta_model::{Code, Status};
use vesta_savedmodel::SavedModel;

use crate::support::lines;

const NAME: &str = "saved_model.pbtxt";
const TEXT: &str = r#"
saved_model_schema_version: 1
meta_graphs {
  meta_info_def { tags: "serve" }
  graph_def {
    node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }
    node {
      name: "two" op: "Const"
      attr { key: "dtype" value { type: DT_FLOAT } }
      attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape {} float_val: 2 } } }
    }
    node { name: "y" op: "Mul" input: "x" input: "two" attr { key: "T" value { type: DT_FLOAT } } }
  }
  signature_def {
    key: "serving_default"
    value {
      inputs { key: "x" value { name: "x:0" dtype: DT_FLOAT tensor_shape { unknown_rank: true } } }
      outputs { key: "y" value { name: "y:0" dtype: DT_FLOAT tensor_shape { unknown_rank: true } } }
    }
  }
}
"#;

fn open(folder: &TempDir) -> Result<SavedModel, Status> {
    SavedModel::open(folder.path(), &["serve".to_owned()])
}

#[test]
fn a_text_is_a_model_where_there_is_no_binary_file() {
    let folder = TempDir::new().unwrap();
    assert_eq!(SavedModel::file_in(folder.path()), None);
    std::fs::write(folder.path().join(NAME), TEXT).unwrap();
    assert_eq!(SavedModel::file_in(folder.path()), Some(folder.path().join(NAME)));
    let frozen = open(&folder).unwrap().freeze("serving_default").unwrap();
    assert_eq!(lines(&frozen.nodes), ["two Const", "y Mul x:0 two:0"]);

    let binary = folder.path().join("saved_model.pb");
    std::fs::write(&binary, b"\xff").unwrap();
    assert_eq!(SavedModel::file_in(folder.path()), Some(binary));
    assert_eq!(open(&folder).unwrap_err().code(), Code::DataLoss);
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(NAME);
    let told = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        open(&folder).unwrap_err().to_string()
    };
    let place = path.display();
    let problem = told(TEXT.replace("input:", "inpt:").as_bytes());
    assert!(
        problem.starts_with(&format!("DATA_LOSS: {place}: cannot be parsed: 12:")),
        "{problem}"
    );
    assert_eq!(told(b"\xff\xfe"), format!("DATA_LOSS: {place}: is no text"));
    std::fs::File::create(&path).unwrap().set_len((64 << 20) + 1).unwrap();
    assert_eq!(
        open(&folder).unwrap_err().to_string(),
        format!(
            "RESOURCE_EXHAUSTED: {place}: larger than the 67108864 bytes that such a file may have"
        )
    );
}
