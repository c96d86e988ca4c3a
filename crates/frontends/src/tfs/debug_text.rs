//! A signature as protobuf's debug text, which some error messages quote.
//!
//! Owns: the layout of C++'s `DebugString`. Knows no error.

use std::fmt::Write as _;

use vesta_model::{DType, Encoding, PartialShape, Signature, TensorSpec};

use super::metadata::dtype_name;

/// The first line, which warns that the text is for people; its two spaces are part of it.
const HEADER: &str = "goo.gle/debugproto  \n";

/// `signature` as debug text.
pub(crate) fn debug_text(signature: &Signature) -> String {
    let mut text = Text { out: HEADER.to_owned(), depth: 0 };
    for (field, specs) in [("inputs", &signature.inputs), ("outputs", &signature.outputs)] {
        for spec in specs {
            text.block(field, |text| {
                text.string("key", &spec.alias);
                text.block("value", |text| tensor_info(text, spec));
            });
        }
    }
    if !signature.method.is_empty() {
        text.string("method_name", &signature.method);
    }
    text.out
}

fn tensor_info(text: &mut Text, spec: &TensorSpec) {
    if let Encoding::Dense(name) = &spec.encoding {
        text.string("name", name);
    }
    if spec.dtype != DType::Invalid {
        text.line(&format!("dtype: {}", dtype_name(spec)));
    }
    text.block("tensor_shape", |text| match &spec.shape {
        PartialShape::Unknown => text.line("unknown_rank: true"),
        PartialShape::Ranked(dims) => {
            for dim in dims {
                text.block("dim", |text| match dim {
                    None => text.line("size: -1"),
                    // Proto3 leaves zeros out.
                    Some(0) => {}
                    Some(size) => text.line(&format!("size: {size}")),
                });
            }
        }
    });
    if let Encoding::CooSparse { values, indices, dense_shape } = &spec.encoding {
        text.block("coo_sparse", |text| {
            text.string("values_tensor_name", values);
            text.string("indices_tensor_name", indices);
            text.string("dense_shape_tensor_name", dense_shape);
        });
    }
}

struct Text {
    out: String,
    depth: usize,
}

impl Text {
    fn line(&mut self, line: &str) {
        // Writing to memory does not fail.
        let _ = writeln!(self.out, "{:width$}{line}", "", width = self.depth * 2);
    }

    fn block(&mut self, field: &str, inner: impl FnOnce(&mut Text)) {
        self.line(&format!("{field} {{"));
        self.depth += 1;
        inner(self);
        self.depth -= 1;
        self.line("}");
    }

    fn string(&mut self, field: &str, value: &str) {
        let mut line = format!("{field}: \"");
        for byte in value.bytes() {
            match byte {
                b'\n' => line.push_str("\\n"),
                b'\r' => line.push_str("\\r"),
                b'\t' => line.push_str("\\t"),
                b'"' | b'\'' | b'\\' => {
                    line.push('\\');
                    line.push(char::from(byte));
                }
                b' '..=b'~' => line.push(char::from(byte)),
                _ => {
                    let _ = write!(line, "\\{byte:03o}");
                }
            }
        }
        line.push('"');
        self.line(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_reads_as_cpp_prints_it() {
        let mut x = TensorSpec::dense("x", DType::F32)
            .with_shape(PartialShape::Ranked(vec![None, Some(3)]));
        x.encoding = Encoding::Dense("a\"b:0".into());
        let y = TensorSpec::dense("y", DType::I64);
        let signature = Signature::new("s", "tensorflow/serving/predict", vec![x], vec![y]);
        let want = r#"goo.gle/debugproto  
inputs {
  key: "x"
  value {
    name: "a\"b:0"
    dtype: DT_FLOAT
    tensor_shape {
      dim {
        size: -1
      }
      dim {
        size: 3
      }
    }
  }
}
outputs {
  key: "y"
  value {
    name: "y:0"
    dtype: DT_INT64
    tensor_shape {
      unknown_rank: true
    }
  }
}
method_name: "tensorflow/serving/predict"
"#;
        assert_eq!(debug_text(&signature), want);
    }
}
