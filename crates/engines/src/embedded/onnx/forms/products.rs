//! Products of matrices.

use std::collections::BTreeMap;

use vesta_protos::onnx::NodeProto;

use super::{Outcome, expect_attributes, expect_inputs, float, int, joined, output, text};
use crate::embedded::onnx::extent::Extent;
use crate::embedded::onnx::facts::Dims;
use crate::embedded::onnx::graph::{Graph, input};

pub(super) const ALL: &[&str] = &["Einsum", "Gemm", "MatMul"];

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    match node.op_type.as_str() {
        "Einsum" => einsum(g, node),
        "Gemm" => gemm(g, node),
        _ => matmul(g, node),
    }
}

fn expect_equal(a: &Extent, b: &Extent) -> Outcome {
    match a.known().zip(b.known()) {
        Some((a, b)) if a != b => Err("the sizes of its matrices do not fit".to_owned()),
        _ => Ok(()),
    }
}

/// A vector is a row on the left and a column on the right, and its axis is gone from the product.
fn matmul(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &[])?;
    let (mut a, mut b) = (g.float_dims(node, 0)?, g.float_dims(node, 1)?);
    let (mut x, mut y) = (node.input[0].clone(), node.input[1].clone());
    let (is_row, is_column) = (a.len() == 1, b.len() == 1);
    if is_row {
        a.insert(0, Extent::from(1));
        x = g.reshaped(&x, a.clone())?;
    }
    if is_column {
        b.push(Extent::from(1));
        y = g.reshaped(&y, b.clone())?;
    }
    let (Some(inner), Some(columns)) = (a.pop(), b.pop()) else {
        return Err("it multiplies numbers".to_owned());
    };
    let (Some(rows), Some(other)) = (a.pop(), b.pop()) else {
        return Err("it multiplies numbers".to_owned());
    };
    expect_equal(&inner, &other)?;
    let mut left = joined(&mut g.extents, &a, &b)?;
    let mut dims = left.clone();
    dims.extend([rows.clone(), columns.clone()]);
    if !is_row && !is_column {
        return g.emit("MatMul", &[&x, &y], output(node), vec![], dims);
    }
    let whole = g.step("MatMul", &[&x, &y], &dims)?;
    left.extend((!is_row).then_some(rows));
    left.extend((!is_column).then_some(columns));
    g.reshape(&whole, output(node), left)
}

/// A product, and a sum.
fn gemm(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=3)?;
    expect_attributes(node, &["alpha", "beta", "transA", "transB"])?;
    let mut matrices = Vec::new();
    for (at, attribute) in ["transA", "transB"].into_iter().enumerate() {
        if g.float_dims(node, at)?.len() != 2 {
            return Err("it multiplies no matrices".to_owned());
        }
        let own = node.input[at].clone();
        let own = if int(node, attribute, 0) == 0 { own } else { g.transposed(&own, &[1, 0])? };
        matrices.push((g.fact_of(&own)?.dims.clone(), own));
    }
    let [(a, x), (b, y)] = &matrices[..] else { return Err("it has no matrices".to_owned()) };
    expect_equal(&a[1], &b[0])?;
    let dims = vec![a[0].clone(), b[1].clone()];
    let one = |value: f32| value.to_bits() == 1f32.to_bits();
    let (alpha, beta) = (float(node, "alpha", 1.0), float(node, "beta", 1.0));
    if alpha == 0.0 || !alpha.is_finite() || !beta.is_finite() {
        return Err("its factors are odd".to_owned());
    }
    // Times nothing, a bias is not read.
    let bias = input(node, 2).filter(|_| beta != 0.0);
    if bias.is_none() && one(alpha) {
        return g.emit("MatMul", &[x, y], output(node), vec![], dims);
    }
    let mut product = g.step("MatMul", &[x, y], &dims)?;
    if !one(alpha) {
        let alpha = g.number(alpha);
        if bias.is_none() {
            return g.emit("Mul", &[&product, &alpha], output(node), vec![], dims);
        }
        product = g.step("Mul", &[&product, &alpha], &dims)?;
    }
    let own = g.float_dims(node, 2)?;
    if joined(&mut g.extents, &dims, &own)? != dims {
        return Err("what it adds is larger than the product".to_owned());
    }
    let mut bias = node.input[2].clone();
    if !one(beta) {
        let beta = g.number(beta);
        bias = g.step("Mul", &[&bias, &beta], &own)?;
    }
    g.emit("Add", &[&product, &bias], output(node), vec![], dims)
}

/// Two operands and a result, whose axes have one letter each.
struct Equation {
    terms: [String; 3],
    /// Of both operands and of the result.
    stack: Vec<char>,
    /// Of both operands alone.
    inner: Vec<char>,
    /// Of one operand and of the result.
    rows: Vec<char>,
    columns: Vec<char>,
}

impl Equation {
    fn read(text: &str) -> Option<Equation> {
        let text: String = text.chars().filter(|own| !own.is_whitespace()).collect();
        let (inputs, result) = text.split_once("->")?;
        let (a, b) = inputs.split_once(',')?;
        let is_plain = |term: &&str| {
            term.bytes().all(|own| own.is_ascii_alphabetic())
                && (1..term.len()).all(|at| !term[..at].contains(&term[at..=at]))
        };
        if ![a, b, result].iter().all(is_plain) {
            return None;
        }
        let chosen = |from: &str, in_other: bool, in_result: bool, other: &str| -> Vec<char> {
            let fits =
                |own: &char| other.contains(*own) == in_other && result.contains(*own) == in_result;
            from.chars().filter(fits).collect()
        };
        let (stack, inner) = (chosen(a, true, true, b), chosen(a, true, false, b));
        let (rows, columns) = (chosen(a, false, true, b), chosen(b, false, true, a));
        // What is summed over one operand alone has no place in a product.
        let is_whole = result.len() == stack.len() + rows.len() + columns.len()
            && a.len() == stack.len() + inner.len() + rows.len()
            && b.len() == stack.len() + inner.len() + columns.len();
        let terms = [a, b, result].map(str::to_owned);
        is_whole.then_some(Equation { terms, stack, inner, rows, columns })
    }

    /// The size of each letter; one that both operands have is the same in both, or the run ends.
    fn sizes(&self, g: &mut Graph, dims: &[Dims; 2]) -> Result<BTreeMap<char, Extent>, String> {
        let mut sizes: BTreeMap<char, Extent> = BTreeMap::new();
        for (term, dims) in self.terms.iter().zip(dims) {
            for (letter, dim) in term.chars().zip(dims) {
                if let Some(known) = sizes.get(&letter) {
                    g.extents.expect_same(known, dim)?;
                }
                if dim.known().is_some() || !sizes.contains_key(&letter) {
                    sizes.insert(letter, dim.clone());
                }
            }
        }
        Ok(sizes)
    }
}

/// As a product of stacks of matrices.
fn einsum(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &["equation"])?;
    let equation = String::from_utf8_lossy(text(node, "equation").unwrap_or_default()).into_owned();
    let odd = || format!("its equation is {equation}");
    let own = Equation::read(&equation).ok_or_else(odd)?;
    let dims = [g.float_dims(node, 0)?, g.float_dims(node, 1)?];
    if (0..2).any(|at| own.terms[at].len() != dims[at].len()) {
        return Err(odd());
    }
    let sizes = own.sizes(g, &dims)?;
    let sizes = |letters: &[char]| -> Dims {
        letters.iter().filter_map(|own| sizes.get(own)).cloned().collect()
    };
    let part = |letters: &[char]| super::product(&sizes(letters));
    let Equation { terms, stack, inner, rows, columns } = &own;
    let mut sides = Vec::new();
    for (at, parts) in [[stack, rows, inner], [stack, inner, columns]].into_iter().enumerate() {
        let order = parts.into_iter().flatten();
        let axes: Vec<usize> = order.filter_map(|&own| terms[at].find(own)).collect();
        let turned = g.transposed(&node.input[at], &axes)?;
        let dims = parts.iter().map(|letters| part(letters)).collect::<Result<Dims, _>>()?;
        sides.push(g.reshaped(&turned, dims)?);
    }
    let dims = [part(stack)?, part(rows)?, part(columns)?];
    let whole = g.step("MatMul", &[&sides[0], &sides[1]], &dims)?;
    let letters: Vec<char> = [stack, rows, columns].into_iter().flatten().copied().collect();
    let whole = g.reshaped(&whole, sizes(&letters))?;
    let place = |own: char| letters.iter().position(|&letter| letter == own);
    let order: Option<Vec<usize>> = terms[2].chars().map(place).collect();
    g.transpose(&whole, output(node), &order.ok_or_else(odd)?)
}
