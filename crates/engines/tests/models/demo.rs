//! The demo model: a convolutional network in rten, its label looked up on the host.

use std::path::{Path, PathBuf};

use crate::shared_data::{call, load, output};
use vesta_engines::EmbeddedSession;
use vesta_model::{Shape, Tensor};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo")
}

fn cat() -> Vec<f32> {
    let text = std::fs::read_to_string(demo().join("cat.json")).unwrap();
    let numbers = text.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'));
    numbers.filter_map(|word| word.parse().ok()).collect()
}

fn expected_scores() -> Vec<f32> {
    let text = std::fs::read_to_string(demo().join("expected.json")).unwrap();
    let list = &text[text.find('[').unwrap() + 1..text.find(']').unwrap()];
    list.split(',').map(|word| word.trim().parse().unwrap()).collect()
}

fn classify(session: &EmbeddedSession, rows: usize) -> (Vec<f32>, Vec<Vec<u8>>) {
    let pixels = cat().repeat(rows);
    let shape = Shape::new(vec![rows, 32, 32, 3]).unwrap();
    let image = Tensor::of(shape, &pixels).unwrap();
    let out = call(session, "serving_default", &[image]).unwrap();
    let scores = output(session, "serving_default", &out, "scores");
    let label = output(session, "serving_default", &out, "label");
    assert_eq!(scores.shape().dims(), [rows, 10]);
    assert_eq!(label.shape().dims(), [rows]);
    let labels = label.strings().unwrap().iter().map(<[u8]>::to_vec).collect();
    (scores.to_vec().unwrap(), labels)
}

#[test]
fn the_cat_is_a_cat_in_every_row() {
    let session = load(&demo().join("models/resnet8/1")).unwrap();
    assert_eq!(cat().len(), 32 * 32 * 3);
    let want = expected_scores();
    for rows in [1, 3] {
        let (scores, labels) = classify(&session, rows);
        assert_eq!(labels, vec![b"cat".to_vec(); rows]);
        for row in scores.chunks(10) {
            for (got, want) in row.iter().zip(&want) {
                assert!((got - want).abs() < 1e-5, "{row:?} for {want:?}");
            }
        }
    }
}

#[test]
fn a_batch_of_no_rows_gives_no_rows() {
    let session = load(&demo().join("models/resnet8/1")).unwrap();
    let (scores, labels) = classify(&session, 0);
    assert!(scores.is_empty() && labels.is_empty());
}

#[test]
fn the_demo_may_run_inline() {
    let session = load(&demo().join("models/resnet8/1")).unwrap();
    assert_eq!(session.inline_verdict(), Ok(()));
}

#[test]
fn images_of_another_size_are_an_error() {
    let session = load(&demo().join("models/resnet8/1")).unwrap();
    for dims in [vec![1, 16, 16, 3], vec![1, 32, 32, 4], vec![32, 32, 3], vec![]] {
        let shape = Shape::new(dims).unwrap();
        let image = Tensor::of(shape.clone(), &vec![0f32; shape.elements()]).unwrap();
        assert!(call(&*session, "serving_default", &[image]).is_err(), "{shape}");
    }
}
